package localpg_test

import (
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"testing"
)

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}

func asUser(t *testing.T, _ *exec.Cmd, _ *user.User) {
	t.Helper()
	t.Skip("not on Windows")
}

func ownerOf(fs.FileInfo) string { return "" }

func giveToNobody(t *testing.T, _ string) {
	t.Helper()
	t.Skip("not on Windows")
}
