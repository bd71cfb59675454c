// Package skip skips tests that cannot run on this computer or take long.
package skip

import (
	"flag"
	"os"
	"testing"
)

// Test skips the test, and gives the reason. Under continuous integration, with CI set, the test fails instead.
func Test(tb testing.TB, reason any) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatal(reason)
	}
	// go test's cache does not see files outside the module, so it would repeat this skip after the missing thing is installed.
	// It does not cache a result whose list of files does not end in a newline: add zeros to the list.
	if list := flag.Lookup("test.testlogfile"); list != nil && list.Value.String() != "" {
		_ = os.Truncate(list.Value.String(), 1<<20)
	}
	tb.Skip(reason)
}

// Short skips the test if go test was called with -short, which starts no server, builds no program and waits for nothing long.
func Short(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: it starts a server, builds a program, or waits for seconds")
	}
}

// Long skips a test that takes a long time, unless CI is set. .ci/run sets it, and so does CI=1 go test ./internal/exercise.
func Long(tb testing.TB) {
	tb.Helper()
	if os.Getenv("CI") == "" || testing.Short() {
		tb.Skip("it takes a long time: it runs with CI set, as in CI=1 go test")
	}
}
