package scratch

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// Lock locks a file until it is closed. It does not wait.
func Lock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{OffsetHigh: 1}) // a byte far behind the text, which others may still read
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	return err
}

// Owned reports whether a file belongs to this user. On Windows each user has a temporary folder and a home of their own.
func Owned(os.FileInfo) bool { return true }

// sweep removes a folder if no process uses it: Windows renames no folder in which a file is open.
func sweep(folder string) {
	if _, err := os.Stat(filepath.Join(folder, lockName)); err != nil {
		return
	}
	if gone := folder + "-gone"; os.Rename(folder, gone) == nil {
		os.RemoveAll(gone)
	}
}
