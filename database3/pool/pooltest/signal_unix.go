//go:build unix

package pooltest

import "syscall"

const stopSignal, continueSignal = syscall.SIGSTOP, syscall.SIGCONT

func signal(pid int, s syscall.Signal) error { return syscall.Kill(pid, s) }
