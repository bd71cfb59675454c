//go:build unix && !linux

package localpg

import "syscall"

// endWithParent can do nothing: only Linux ends a process with its parent.
func endWithParent(*syscall.SysProcAttr) {}
