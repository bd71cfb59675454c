// Package localpg starts and stops a real PostgreSQL server on this computer, from installed programs. The tests stand
// on it, and go tool lab postgres.
package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Options say what server to start. The zero value is a small one, for a test.
type Options struct {
	BinDir  string            // the folder with initdb and postgres; empty: what FindBinaries finds
	DataDir string            // where the server keeps its data between runs; empty: a temporary folder, gone after Stop
	Port    int               // 0: one that is free
	TLS     bool              // demand encryption, with a certificate that nobody has signed
	Durable bool              // wait for the disk; without it a crash of the computer may lose data
	Config  map[string]string // settings such as max_connections
}

// A Server is a running PostgreSQL. It listens at 127.0.0.1 only.
type Server struct {
	options  Options
	folder   string // holds the data and all else; ours to remove where it is temporary
	port     int
	password string

	mu      sync.Mutex // protects the following
	process *process
}

// Mode is how a server is stopped.
type Mode int

// Fast ends the sessions and shuts down in order; Immediate is a crash that the server recovers from at its next start.
const (
	Fast Mode = iota
	Immediate
)

// prefix begins the names of temporary folders.
const prefix = "penny-postgres-"

// Start starts a server and waits until it lets somebody in. The server ends with this process, also where the process
// is killed: on Linux at once, elsewhere as far as the system tells.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if o.BinDir == "" {
		if o.BinDir, err = FindBinaries(); err != nil {
			return nil, err
		}
	}
	sweep()
	s := &Server{options: o, folder: o.DataDir}
	if s.folder == "" {
		// Not a test's own folder: that stands below folders which the server's user may not enter.
		if s.folder, err = temporary(); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				os.RemoveAll(s.folder)
			}
		}()
	} else if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
	} else if err := os.Chmod(s.folder, 0o700); err != nil {
		return nil, fmt.Errorf("close %s to others: %w", s.folder, err)
	}
	if s.folder, err = filepath.Abs(s.folder); err != nil {
		return nil, err
	}
	if err := giveAway(s.folder); err != nil {
		return nil, fmt.Errorf("give %s to PostgreSQL's user: %w", s.folder, err)
	}
	if err := s.initialise(ctx); err != nil {
		return nil, err
	}
	return s, s.launch(ctx)
}

func (s *Server) data() string    { return filepath.Join(s.folder, "data") }
func (s *Server) logFile() string { return filepath.Join(s.folder, "log") }

// initialise makes the data folder where there is none, with a password of its own.
func (s *Server) initialise(ctx context.Context) error {
	passwordFile := filepath.Join(s.folder, "password")
	if _, err := os.Stat(filepath.Join(s.data(), "PG_VERSION")); err == nil {
		password, err := os.ReadFile(passwordFile)
		if err != nil {
			return fmt.Errorf("read the password of the server in %s: %w", s.folder, err)
		}
		s.password = string(password)
		return s.writeAccess()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look into %s: %w", s.data(), err)
	}
	// Half of a data folder is what an interrupted initdb leaves.
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	s.password = rand.Text()
	if err := os.WriteFile(passwordFile, []byte(s.password), 0o600); err != nil {
		return err
	}
	if err := giveAway(passwordFile); err != nil {
		return err
	}
	initdb := s.Command(ctx, "initdb", "-D", s.data(), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", passwordFile,
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		os.RemoveAll(s.data())
		return fmt.Errorf("initdb: %w: %s", err, lastLine(out))
	}
	return s.writeAccess()
}

// writeAccess says who may come in: over TLS alone, or any way.
func (s *Server) writeAccess() error {
	kind := "host"
	if s.options.TLS {
		kind = "hostssl"
		if err := writeCertificate(s.data()); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
	}
	var access strings.Builder
	fmt.Fprint(&access, "local all all scram-sha-256\n") // for a socket, if the options name a folder for it
	for _, database := range []string{"all", "replication"} {
		fmt.Fprintf(&access, "%s %s all 127.0.0.1/32 scram-sha-256\n", kind, database)
	}
	return s.write("pg_hba.conf", access.String())
}

func (s *Server) write(name, text string) error {
	file := filepath.Join(s.data(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	return giveAway(file)
}

// Command is one of PostgreSQL's programs, to be run as the user who owns the server.
func (s *Server) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.options.BinDir, executable(program)), args...)
	cmd.Dir = s.folder
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(setting string) bool {
		return strings.HasPrefix(setting, "PG") || strings.HasPrefix(setting, "LC_") || strings.HasPrefix(setting, "LANG")
	}), "LC_ALL=C")
	asOwner(cmd)
	return cmd
}

func (s *Server) launch(ctx context.Context) error {
	for tries := 5; ; tries-- {
		if s.port == 0 {
			if s.port = s.options.Port; s.port == 0 {
				port, err := FreePort()
				if err != nil {
					return err
				}
				s.port = port
			}
		}
		err := s.tryLaunch(ctx)
		// Between finding a port and taking it, another program can take it.
		if err != nil && s.options.Port == 0 && tries > 1 && strings.Contains(s.Log(), "could not bind") {
			s.port = 0
			continue
		}
		return err
	}
}

func (s *Server) tryLaunch(ctx context.Context) error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	if !s.options.Durable {
		args = append(args, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
	}
	if s.options.TLS {
		args = append(args, "-c", "ssl=on")
	}
	for name, value := range s.options.Config {
		args = append(args, "-c", name+"="+value)
	}
	p, err := s.spawn(args)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("postgres ended at once: %s", lastLine([]byte(s.Log())))
		case <-ctx.Done():
			s.Halt(Immediate)
			return fmt.Errorf("wait for postgres: %w: %w", ctx.Err(), err)
		}
	}
}

// answers is nil once the server lets somebody in.
func (s *Server) answers(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, s.URL("postgres"))
	if err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "53300" {
			return nil // full, and so up
		}
		return err
	}
	return conn.Close(ctx)
}

// URL is the address of a database on the server, with the name and the password of its administrator in it.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable"}
	if s.options.TLS {
		u.RawQuery = "sslmode=require"
	}
	return u.String()
}

// Port is where the server listens.
func (s *Server) Port() int { return s.port }

// Folder is where the server keeps its data and its log.
func (s *Server) Folder() string { return s.folder }

// Log is what the server has logged.
func (s *Server) Log() string {
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// PID is the process of the server, which a test may send signals to; 0 while it is stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.pid
}

// Done is closed when the server has ended, by whatever hand.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return s.process.done
}

// Halt stops the server and keeps its data, so that Resume can start it again. Halting what is stopped does nothing.
func (s *Server) Halt(mode Mode) {
	s.mu.Lock()
	p := s.process
	s.process = nil
	s.mu.Unlock()
	if p != nil {
		p.stop(mode)
	}
}

// Resume starts a halted server again, at the same port, and waits until it lets somebody in.
func (s *Server) Resume(ctx context.Context) error { return s.launch(ctx) }

// Restart is Halt and Resume.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	s.Halt(mode)
	return s.launch(ctx)
}

// Stop stops the server and removes its folder where that is temporary.
func (s *Server) Stop() error {
	s.Halt(Fast)
	if s.options.DataDir != "" {
		return nil
	}
	return os.RemoveAll(s.folder)
}

// Standby starts a second server that follows this one and can take its place; Promote makes it do so.
func (s *Server) Standby(ctx context.Context) (_ *Server, err error) {
	folder, err := temporary()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(folder)
		}
	}()
	if err := giveAway(folder); err != nil {
		return nil, err
	}
	standby := &Server{options: s.options, folder: folder, password: s.password}
	standby.options.DataDir, standby.options.Port = "", 0
	backup := s.Command(ctx, "pg_basebackup", "-D", standby.data(), "-R", "-c", "fast", "--no-sync", "-d", s.URL("postgres"))
	if out, err := backup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pg_basebackup: %w: %s", err, lastLine(out))
	}
	if err := standby.launch(ctx); err != nil {
		return nil, err
	}
	return standby, nil
}

// Promote makes a standby a server that takes writes, and waits until it does.
func (s *Server) Promote(ctx context.Context) error {
	if out, err := s.Command(ctx, "pg_ctl", "promote", "-w", "-D", s.data()).CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w: %s", err, lastLine(out))
	}
	return nil
}

// FreePort is a port of 127.0.0.1 at which nothing listens now.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// temporary makes a folder that says whose it is, for sweep.
func temporary() (string, error) {
	folder, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "owner"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		os.RemoveAll(folder)
		return "", err
	}
	return folder, nil
}

// sweep removes the temporary folders of processes that were killed before they could.
func sweep() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")) // the pattern is a good one
	for _, folder := range folders {
		owner, err := os.ReadFile(filepath.Join(folder, "owner"))
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(string(owner)); err == nil && !alive(pid) {
			os.RemoveAll(folder)
		}
	}
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
