//go:build unix

package pgtest

import (
	"os/exec"
	"syscall"
)

// detach lets the keeper outlive the test process and what is sent to its group.
func detach(keeper *exec.Cmd) { keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
