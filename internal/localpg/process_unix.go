//go:build unix

package localpg

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
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
	log, err := s.root.OpenFile(logFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := s.command(context.Background(), "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
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
			_ = cmd.Wait() // the log says how it ended
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

// owner is the user who runs the server, as PostgreSQL refuses to run as root. It is nil if that is our own user.
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

// asOwner makes a program run as the server's owner, in a process group of its own: Ctrl-C in the terminal is ours to
// hear, and ours to pass on. The program inherits the lock: if we are killed and it lives on, nobody else uses the folder.
func asOwner(cmd *exec.Cmd, lock *os.File) {
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner(), Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	endWithParent(cmd.SysProcAttr)
}

// giveAway makes a file below root, or a folder and all that is in it, the owner's. The folder itself comes last: until
// then only we can enter it, and nobody can put a link in our way.
func giveAway(root *os.Root, name string) error {
	o := owner()
	if o == nil {
		return nil
	}
	err := fs.WalkDir(root.FS(), name, func(inner string, _ fs.DirEntry, err error) error {
		if err != nil || inner == name {
			return err
		}
		return root.Lchown(inner, int(o.Uid), int(o.Gid))
	})
	return errors.Join(err, root.Lchown(name, int(o.Uid), int(o.Gid)))
}
