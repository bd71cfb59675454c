//go:build unix

package localpg

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// A process is a running postgres.
type process struct {
	pid  int
	done chan struct{} // closed when it has ended
}

// spawn starts postgres, which appends what it says to the log file.
func (s *Server) spawn(args []string) (*process, error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := s.Command(context.Background(), "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A process group of its own: Ctrl-C in the terminal is ours to hear, and ours to pass on.
	cmd.SysProcAttr.Setpgid = true
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// On Linux the signal that ends the server with its parent is sent when the thread ends that started it. This
		// thread is therefore kept for as long as the server runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in the log
			close(p.done)
		}
	}()
	return p, <-started
}

// stop ends the process and waits until it has gone.
func (p *process) stop(mode Mode) {
	signal := syscall.SIGINT
	if mode == Immediate {
		signal = syscall.SIGQUIT
	}
	_ = syscall.Kill(p.pid, signal)          // it may have ended by itself
	_ = syscall.Kill(p.pid, syscall.SIGCONT) // and may have been suspended
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// owner is the user who runs the server: nobody is root to PostgreSQL. It is nil where that is the user of this process.
func owner() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			if err1 == nil && err2 == nil {
				return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
			}
		}
	}
	return nil
}

func asOwner(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner()}
	endWithParent(cmd.SysProcAttr)
}

// giveAway makes a file or a folder and all that is in it the owner's.
func giveAway(path string) error {
	o := owner()
	if o == nil {
		return nil
	}
	return filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(o.Uid), int(o.Gid))
	})
}

func alive(pid int) bool {
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
