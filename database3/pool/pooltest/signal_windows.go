package pooltest

import (
	"errors"
	"syscall"
)

const stopSignal, continueSignal = syscall.Signal(19), syscall.Signal(18)

func signal(int, syscall.Signal) error {
	return errors.New("Windows has no signal that suspends a process")
}
