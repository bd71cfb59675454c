package pgtest

import (
	"os/exec"
	"syscall"
)

// detach lets the keeper outlive the test process and the console that it was started in.
func detach(keeper *exec.Cmd) {
	const createNewProcessGroup, detachedProcess = 0x00000200, 0x00000008
	keeper.SysProcAttr = &syscall.SysProcAttr{CreationFlags: createNewProcessGroup | detachedProcess}
}
