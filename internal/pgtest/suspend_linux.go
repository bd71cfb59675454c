package pgtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Suspend stops a process and its children until the test ends, so that a server hangs.
func Suspend(tb testing.TB, pid int) {
	tb.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, child := range append(strings.Fields(string(children)), strconv.Itoa(pid)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			tb.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGSTOP) // it may have ended
		tb.Cleanup(func() { _ = syscall.Kill(n, syscall.SIGCONT) })
	}
}
