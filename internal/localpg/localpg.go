// Package localpg finds PostgreSQL on this computer, or downloads it, and starts and stops real servers. The tests use it,
// and so does go tool lab postgres.
package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny/internal/scratch"
)

// Options say what server to start. The zero value is a small one, for a test.
type Options struct {
	BinDir  string            // the folder with initdb and postgres; empty: what Find finds
	DataDir string            // where the server keeps its data between runs; empty: a temporary folder, removed by Stop
	Port    int               // taken if it is free, unless DataDir had another one before; otherwise one that is free
	TLS     bool              // demand encryption, with a certificate that nobody has signed
	Durable bool              // wait for the disk; without it a crash of the computer may lose data
	Config  map[string]string // settings such as max_connections
}

// A Server is a running PostgreSQL. It listens at 127.0.0.1 only.
type Server struct {
	options  Options
	folder   string       // absolute; holds the data folder, which alone belongs to the server's user
	root     *os.Root     // the folder: no link leads out of it
	lock     *os.File     // held by us and by the server, so that nobody else uses the folder
	remove   func() error // removes a temporary folder
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

var (
	// ErrForeign is the error of Start if DataDir is a folder that Penny may not use.
	ErrForeign = errors.New("this folder is not Penny's")
	// ErrRunning is the error of Start if a server runs on DataDir.
	ErrRunning = errors.New("a server is running on this folder")
)

// The files in a server's folder.
const (
	mark     = "penny-postgres" // tells that the folder is ours; whoever uses the folder holds a lock on it
	half     = "half-made"      // is there while initdb works
	data     = "data"
	password = "password"
	port     = "port" // of the last run
	logFile  = "log"
	access   = "pg_hba.conf"
	crt, key = "server.crt", "server.key"
)

// Start starts a server and waits until it lets somebody in. The server ends with this process, also if the process is
// killed: on Linux at once, elsewhere as far as the system tells.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if o.BinDir == "" {
		if o.BinDir, err = Find(ctx, Search{}); err != nil {
			return nil, err
		}
	}
	s := &Server{options: o}
	if o.DataDir == "" {
		err = s.makeTemporary()
	} else {
		err = s.claim(ctx, o.DataDir)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if err := s.initialise(ctx); err != nil {
		return nil, err
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	if o.DataDir != "" {
		return s, s.write(port, strconv.Itoa(s.port))
	}
	return s, nil
}

// makeTemporary makes a folder that goes with the server.
func (s *Server) makeTemporary() error {
	folder, err := scratch.New("", "postgres")
	if err != nil {
		return err
	}
	s.folder, s.lock, s.remove = folder.Path, folder.Lock, folder.Remove
	if s.root, err = os.OpenRoot(s.folder); err != nil {
		folder.Remove()
	}
	return err
}

// claim takes a folder for the server: one that is missing, that is empty, or that it took before. It leaves any other as
// it is.
func (s *Server) claim(ctx context.Context, folder string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep PostgreSQL's data in %s: %w", folder, err)
		}
	}()
	if s.folder, err = filepath.Abs(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(s.folder, 0o755); err != nil { // root's server runs as another user, who has to enter it
		return err
	}
	if s.root, err = os.OpenRoot(s.folder); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.root.Close()
		}
	}()
	info, err := s.root.Stat(".")
	if err != nil {
		return err
	}
	if !scratch.Owned(info) {
		return fmt.Errorf("%w: it belongs to another user", ErrForeign)
	}
	if _, err := s.root.Lstat(mark); err != nil {
		files, err := fs.ReadDir(s.root.FS(), ".")
		if err != nil {
			return err
		}
		if len(files) > 0 {
			return fmt.Errorf("%w: it holds other files, such as %s", ErrForeign, files[0].Name())
		}
	}
	if s.lock, err = s.root.OpenFile(mark, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	// A server whose owner was killed takes a moment to stop.
	brief, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err = scratch.Wait(brief, s.lock); err == nil {
		return nil
	}
	s.lock.Close()
	if errors.Is(err, scratch.ErrLocked) {
		return ErrRunning
	}
	return err
}

func (s *Server) path(name string) string { return filepath.Join(s.folder, name) }

// initialise makes the data folder if it is missing, with a password of its own.
func (s *Server) initialise(ctx context.Context) error {
	if _, err := s.root.Lstat(half); err == nil {
		if err := s.root.RemoveAll(data); err != nil {
			return err
		}
	}
	if _, err := s.root.Lstat(data); errors.Is(err, fs.ErrNotExist) {
		if err := s.initdb(ctx); err != nil {
			return err
		}
	}
	text, err := s.root.ReadFile(password)
	if err != nil {
		return fmt.Errorf("read the password of the server in %s: %w", s.folder, err)
	}
	s.password = string(text)
	return s.allow()
}

// allow says who may come in: everybody with a password, or over TLS alone.
func (s *Server) allow() error {
	kind := "host"
	if s.options.TLS {
		kind = "hostssl"
		if err := s.writeCertificate(); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
	}
	local := "local all all scram-sha-256" // for a socket, if the options name a folder for it
	return s.write(access, fmt.Sprintf("%s\n%s all all 127.0.0.1/32 scram-sha-256\n%[2]s replication all 127.0.0.1/32 scram-sha-256\n", local, kind))
}

// initdb makes a new data folder.
func (s *Server) initdb(ctx context.Context) error {
	if err := s.write(half, ""); err != nil {
		return err
	}
	if err := s.write(password, rand.Text()); err != nil {
		return err
	}
	if err := s.root.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := giveAway(s.root, data); err != nil {
		return err
	}
	out, err := s.command(ctx, "initdb", "-D", s.path(data), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", s.path(password),
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions").CombinedOutput()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, cause(string(out)))
	}
	return s.root.Remove(half)
}

// copyData copies the data folder of a server that is not running, and puts more text into some files of it.
func (s *Server) copyData(from *os.Root, more map[string]string) error {
	files, err := fs.Sub(from.FS(), data)
	if err != nil {
		return err
	}
	if err := s.root.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.CopyFS(s.path(data), files); err != nil {
		s.root.RemoveAll(data)
		return err
	}
	for name, text := range more {
		if err := s.root.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return giveAway(s.root, data)
}

// write writes a new file into the server's folder, for the server's user to read.
func (s *Server) write(name, text string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close(), giveAway(s.root, name))
}

// settings are what a child process keeps of our environment: enough to run, and none of the user's secrets.
var settings = []string{"PATH", "LD_LIBRARY_PATH", "TZ", "SystemRoot", "SystemDrive", "ComSpec", "PATHEXT", "TEMP", "TMP"}

// command is one of PostgreSQL's programs, to be run as the user who owns the server.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.options.BinDir, executable(program)), args...)
	cmd.Dir = s.options.BinDir
	cmd.Env = []string{"LC_ALL=C"}
	for _, name := range settings {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.WaitDelay = time.Second
	asOwner(cmd, s.lock)
	return cmd
}

// launch starts postgres, at the port of before if there was one.
func (s *Server) launch(ctx context.Context) (err error) {
	if s.port != 0 {
		return s.tryLaunch(ctx)
	}
	last, _ := s.root.ReadFile(port)
	lastPort, _ := strconv.Atoi(string(last))
	for _, s.port = range []int{lastPort, s.options.Port, 0, 0, 0} {
		var listener net.Listener
		if listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))); err != nil {
			continue
		}
		s.port = listener.Addr().(*net.TCPAddr).Port
		listener.Close()
		// Between finding a port and taking it, another program can take it.
		if err = s.tryLaunch(ctx); err == nil || !strings.Contains(s.Log(), "could not bind") {
			return err
		}
	}
	return err
}

func (s *Server) tryLaunch(ctx context.Context) error {
	settings := map[string]string{"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "hba_file": s.path(access)}
	if !s.options.Durable {
		settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"] = "off", "off", "off"
	}
	if s.options.TLS {
		settings["ssl"], settings["ssl_cert_file"], settings["ssl_key_file"] = "on", s.path(crt), s.path(key)
	}
	maps.Copy(settings, s.options.Config)
	args := []string{"-D", s.path(data), "-p", strconv.Itoa(s.port)}
	for name, value := range settings {
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
			return fmt.Errorf("postgres ended at once: %s", cause(s.Log()))
		case <-ctx.Done():
			s.Halt(Immediate)
			return fmt.Errorf("wait for postgres: %w: %w", ctx.Err(), err)
		}
	}
}

// failure matches what a program of PostgreSQL's says of its failure, with the detail that may follow.
var failure = regexp.MustCompile(`(?m)(?:FATAL|PANIC|error): +(.+)(?:\n.*DETAIL: +(.+))?$`)

// cause is the first failure in what a program said, else its last line.
func cause(said string) string {
	for _, match := range failure.FindAllStringSubmatch(said, -1) {
		// Our own question whether the server is up leaves such a line too.
		if !strings.HasPrefix(match[1], "the database system is") {
			return strings.TrimRight(match[1]+"; "+match[2], "; \r")
		}
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return lines[len(lines)-1]
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
	log, err := s.root.ReadFile(logFile)
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

// Stop stops the server and removes its folder if that is temporary.
func (s *Server) Stop() error {
	s.Halt(Fast)
	err := errors.Join(s.root.Close(), s.lock.Close())
	if s.remove != nil {
		err = s.remove()
	}
	return err
}

// Standby starts a second server that follows this one and can take its place; Promote makes it do so. This one restarts
// meanwhile.
func (s *Server) Standby(ctx context.Context) (_ *Server, err error) {
	standby := &Server{options: s.options, password: s.password}
	standby.options.DataDir, standby.options.Port = "", 0
	if err := standby.makeTemporary(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			standby.Stop()
		}
	}()
	s.Halt(Fast)
	// Not by pg_basebackup: a downloaded PostgreSQL has none.
	follow := map[string]string{"standby.signal": "", "postgresql.auto.conf": "primary_conninfo = '" + s.URL("postgres") + "'\n"}
	if err := standby.copyData(s.root, follow); err != nil {
		return nil, fmt.Errorf("copy the data: %w", err)
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	if err := standby.allow(); err != nil {
		return nil, err
	}
	return standby, standby.launch(ctx)
}

// Promote makes a standby a server that takes writes, and waits until it does.
func (s *Server) Promote(ctx context.Context) error {
	if out, err := s.command(ctx, "pg_ctl", "promote", "-w", "-D", s.path(data)).CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w: %s", err, cause(string(out)))
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
