package localpg

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A process is a running postgres.
type process struct {
	pid   int
	done  chan struct{} // closed when it has ended
	pgCtl func(args ...string) *exec.Cmd
}

// spawn starts postgres by pg_ctl, which drops an administrator's rights: postgres refuses to run with them.
func (s *Server) spawn(args []string) (*process, error) {
	quoted := make([]string, 0, len(args))
	for _, arg := range args[2:] { // pg_ctl gives it the -D itself
		quoted = append(quoted, `"`+arg+`"`)
	}
	pgCtl := func(args ...string) *exec.Cmd {
		return s.command(context.Background(), "pg_ctl", append([]string{"-D", s.path(data)}, args...)...)
	}
	if err := pgCtl("start", "-W", "-s", "-l", s.path(logFile), "-o", strings.Join(quoted, " ")).Run(); err != nil {
		return nil, err
	}
	p := &process{done: make(chan struct{}), pgCtl: pgCtl}
	// The first line of postmaster.pid is the server's process.
	for range 100 {
		if text, err := os.ReadFile(filepath.Join(s.path(data), "postmaster.pid")); err == nil {
			first, _, _ := strings.Cut(string(text), "\n")
			if p.pid, err = strconv.Atoi(strings.TrimSpace(first)); err == nil {
				break
			}
		}
		if pgCtl("status").Run() != nil {
			break
		}
	}
	go func() {
		defer close(p.done)
		if running, err := os.FindProcess(p.pid); err == nil && p.pid != 0 {
			_, _ = running.Wait() // the log says how it ended
		}
	}()
	return p, nil
}

// stop ends the process and waits until it has gone.
func (p *process) stop(mode Mode) {
	name := "fast"
	if mode == Immediate {
		name = "immediate"
	}
	_ = p.pgCtl("stop", "-s", "-w", "-m", name).Run() // it may have ended by itself
	<-p.done
}

func asOwner(cmd *exec.Cmd, _ *os.File) { cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true} }

// giveAway does nothing: the server runs as the user of this process.
func giveAway(*os.Root, string) error { return nil }
