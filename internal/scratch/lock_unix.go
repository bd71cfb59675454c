//go:build unix

package scratch

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Lock locks a file until it is closed, here and in every process that inherits it. It does not wait.
func Lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// Owned reports whether a file belongs to this user.
func Owned(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// sweep removes a folder of this user if no process holds its lock.
func sweep(folder string) {
	if info, err := os.Lstat(folder); err != nil || !info.IsDir() || !Owned(info) {
		return
	}
	file, err := os.OpenFile(filepath.Join(folder, lockName), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer file.Close()
	if Lock(file) == nil {
		os.RemoveAll(folder)
	}
}
