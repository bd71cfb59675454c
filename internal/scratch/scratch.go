// Package scratch makes temporary folders. If a program is killed, the next one that makes such a folder removes its folder.
//
// A folder belongs to the processes that hold the lock on its lock file. The system drops the lock when the last of them ends.
// This works between containers that share a folder, where process IDs mean nothing.
package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	prefix   = "penny-"        // begins the names of all folders
	lockName = "penny-scratch" // says that the folder is ours
)

// ErrLocked is the error of Lock if another process holds the lock.
var ErrLocked = errors.New("another process holds the lock")

// A Folder is a temporary folder.
type Folder struct {
	Path string
	Lock *os.File // a child process that inherits it keeps the folder too
}

// New makes a folder penny-NAME-… in parent, or in the system's temporary folder if parent is empty. Other users, such as
// PostgreSQL's, may enter it; only its owner can list or write it.
func New(parent, name string) (*Folder, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent) // a child process has another current folder
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	old, _ := filepath.Glob(filepath.Join(parent, prefix+"*-*")) // it fails only for a malformed pattern
	for _, folder := range old {
		sweep(folder)
	}
	for {
		path, err := os.MkdirTemp(parent, prefix+name+"-")
		if err != nil {
			return nil, fmt.Errorf("make a temporary folder: %w", err)
		}
		file, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err == nil {
			if err = Lock(file); err == nil {
				// A sweep that came between the two steps above has taken the folder.
				if _, err = os.Stat(file.Name()); err == nil {
					err = os.Chmod(path, 0o711)
				}
			}
			if err == nil {
				return &Folder{path, file}, nil
			}
			file.Close()
		}
		os.RemoveAll(path)
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("make a temporary folder: %w", err)
		}
	}
}

// Remove removes the folder.
func (f *Folder) Remove() error {
	f.Lock.Close()
	return os.RemoveAll(f.Path)
}

// Wait locks a file. It waits for other processes that hold the lock.
func Wait(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := Lock(f)
		if !errors.Is(err, ErrLocked) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
