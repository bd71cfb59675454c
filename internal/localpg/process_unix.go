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

// spawn starts postgres, which writes to the log file.
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
		// Linux ends the server when the thread that started it ends, not the process: keep this thread.
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
	select {
	case <-p.done:
		return // another process may have its ID now
	default:
	}
	signal := syscall.SIGINT
	if mode == Immediate {
		signal = syscall.SIGQUIT
	}
	_ = syscall.Kill(p.pid, signal)
	_ = syscall.Kill(p.pid, syscall.SIGCONT) // a test may have suspended it
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// owner returns the user that runs the server, because PostgreSQL refuses to run as root. It is nil for our own user.
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

// asOwner makes a program run as the server's owner, in its own process group: Ctrl-C in the terminal reaches only us, and we
// stop the server. The program inherits the lock: if we are killed and it lives on, no other server uses the folder.
func asOwner(cmd *exec.Cmd, lock *os.File) {
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner(), Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	endWithParent(cmd.SysProcAttr)
}

// giveAway gives the owner a file below root, or a folder with its contents. The folder itself comes last: until then only we
// can enter it, and nobody can plant a link in it.
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
