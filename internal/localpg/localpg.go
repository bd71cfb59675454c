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

// Options say what server to start. The zero value is one for a test.
type Options struct {
	BinDir  string            // the folder with initdb and postgres; empty: what Find finds
	DataDir string            // where the server keeps its data between runs; empty: a temporary folder that Stop removes
	TempDir string            // where the temporary folder goes; empty: the system's
	CopyOf  string            // the folder of a server that is not running; a new server gets a copy of its data and its password
	TLS     bool              // require encryption, with a self-signed certificate
	Durable bool              // wait for the disk; without it a crash of the computer may lose data
	Config  map[string]string // settings such as max_connections
}

// A Server is a running PostgreSQL. It listens on 127.0.0.1 only.
type Server struct {
	options  Options
	folder   string       // absolute; holds the data folder, which belongs to the server's owner
	root     *os.Root     // the folder: no link leads out of it
	lock     *os.File     // held by us and by the server, so that no other server uses the folder
	remove   func() error // removes a temporary folder
	port     int
	password string

	mu      sync.Mutex // protects the following
	process *process
}

// A Mode says how a server is stopped.
type Mode int

// Fast ends the sessions and shuts down in order. Immediate is a crash, from which the server recovers at its next start.
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
	mark     = "penny-postgres" // says that the folder is ours; the process that uses the folder holds a lock on it
	half     = "half-made"      // exists while initdb works
	data     = "data"
	password = "password"
	port     = "port" // of the last run
	logFile  = "log"
	access   = "pg_hba.conf"
	crt, key = "server.crt", "server.key"
)

// Start starts a server and waits until it accepts connections. On Linux, the server ends when this process ends, even if it is
// killed. On other systems, it ends only if it is stopped.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := Make(ctx, o)
	if err != nil {
		return nil, err
	}
	if err = s.launch(ctx); err == nil {
		err = s.write(port, strconv.Itoa(s.port))
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Make makes a server's folder and does not start the server. Resume does.
func Make(ctx context.Context, o Options) (_ *Server, err error) {
	if o.BinDir == "" {
		if o.BinDir, err = Find(ctx, Search{}); err != nil {
			return nil, err
		}
	}
	s := &Server{options: o}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if o.DataDir == "" {
		err = s.makeTemporary()
	} else if err = s.claim(ctx); err != nil {
		err = fmt.Errorf("keep PostgreSQL's data in %s: %w", o.DataDir, err)
	}
	if err != nil {
		return nil, err
	}
	return s, s.initialise(ctx)
}

// makeTemporary makes a folder that is removed with the server.
func (s *Server) makeTemporary() error {
	folder, err := scratch.New(s.options.TempDir, "postgres")
	if err != nil {
		return err
	}
	s.folder, s.lock, s.remove = folder.Path, folder.Lock, folder.Remove
	s.root, err = os.OpenRoot(s.folder)
	return err
}

// claim takes the folder DataDir for the server if it is missing, if it is empty, or if a server of ours used it before. It
// leaves any other folder as it is.
func (s *Server) claim(ctx context.Context) (err error) {
	if s.folder, err = filepath.Abs(s.options.DataDir); err != nil {
		return err
	}
	_, missing := os.Lstat(s.folder)
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return err
	}
	if missing != nil { // root's server runs as another user, which has to enter the folder, whatever the umask
		if err := os.Chmod(s.folder, 0o755); err != nil {
			return err
		}
	}
	if s.root, err = os.OpenRoot(s.folder); err != nil {
		return err
	}
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
	err = scratch.Wait(brief, s.lock)
	if errors.Is(err, scratch.ErrLocked) {
		return ErrRunning
	}
	return err
}

func (s *Server) path(name string) string { return filepath.Join(s.folder, name) }

// initialise makes the data folder and a password if they are missing.
func (s *Server) initialise(ctx context.Context) error {
	if _, err := s.root.Lstat(half); err == nil {
		if err := s.root.RemoveAll(data); err != nil {
			return err
		}
	}
	if _, err := s.root.Lstat(data); errors.Is(err, fs.ErrNotExist) {
		if err := s.makeData(ctx); err != nil {
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

// allow lets in clients that have the password, with TLS only if the options say so.
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

// makeData makes the data folder and the password.
func (s *Server) makeData(ctx context.Context) error {
	if err := s.write(half, ""); err != nil {
		return err
	}
	if err := s.root.Mkdir(data, 0o700); err != nil {
		return err
	}
	var err error
	if s.options.CopyOf == "" {
		err = s.initdb(ctx)
	} else if err = s.copyData(); err != nil {
		err = fmt.Errorf("copy the data in %s: %w", s.options.CopyOf, err)
	}
	if err != nil {
		return err
	}
	return s.root.Remove(half)
}

// initdb fills the data folder with a new database.
func (s *Server) initdb(ctx context.Context) error {
	if err := errors.Join(s.write(password, rand.Text()), giveAway(s.root, data)); err != nil {
		return err
	}
	out, err := s.command(ctx, "initdb", "-D", s.path(data), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", s.path(password),
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions").CombinedOutput()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, cause(string(out)))
	}
	return nil
}

// copyData fills the data folder with a copy of another server's, which takes a fifth of initdb's time. pg_basebackup would need
// a running server, and a downloaded PostgreSQL lacks it.
func (s *Server) copyData() error {
	original, err := os.OpenRoot(s.options.CopyOf)
	if err != nil {
		return err
	}
	defer original.Close()
	text, err := original.ReadFile(password)
	if err != nil {
		return err
	}
	files, err := fs.Sub(original.FS(), data)
	if err != nil {
		return err
	}
	return errors.Join(s.write(password, string(text)), os.CopyFS(s.path(data), files), giveAway(s.root, data))
}

// write writes a file into the server's folder, for the server's owner to read.
func (s *Server) write(name, text string) error {
	return errors.Join(s.root.WriteFile(name, []byte(text), 0o600), giveAway(s.root, name))
}

// inherited are the variables that a program of PostgreSQL's inherits: enough to run, and none of the user's secrets.
var inherited = []string{"PATH", "LD_LIBRARY_PATH", "TZ", "SystemRoot", "SystemDrive", "ComSpec", "PATHEXT", "TEMP", "TMP"}

// command returns one of PostgreSQL's programs, to be run as the server's owner.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.options.BinDir, executable(program)), args...)
	cmd.Dir = s.options.BinDir
	cmd.Env = []string{"LC_ALL=C"}
	for _, name := range inherited {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.WaitDelay = time.Second
	asOwner(cmd, s.lock)
	return cmd
}

// launch starts postgres. After a Halt it uses the same port; otherwise the last run's if that is free, else another one.
func (s *Server) launch(ctx context.Context) (err error) {
	if s.port != 0 {
		return s.tryLaunch(ctx)
	}
	last, _ := s.root.ReadFile(port)
	lastPort, _ := strconv.Atoi(string(last))
	for _, wanted := range []int{lastPort, 0, 0, 0} {
		if s.port, err = free(wanted); err != nil {
			continue
		}
		// Another program can take the port before postgres does.
		if err = s.tryLaunch(ctx); err == nil || !strings.Contains(s.Log(), "could not bind") {
			return err
		}
	}
	return err
}

// FreePort returns a port of 127.0.0.1 at which nothing listens now.
func FreePort() (int, error) { return free(0) }

// free returns port if nothing listens there now. For 0, it returns any such port.
func free(port int) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
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

// failure matches a failure in what a program of PostgreSQL's says, with the detail that may follow.
var failure = regexp.MustCompile(`(?m)(?:FATAL|PANIC|error): +(.+)(?:\n.*DETAIL: +(.+))?$`)

// cause returns the first failure in what a program said, else its last line.
func cause(said string) string {
	for _, match := range failure.FindAllStringSubmatch(said, -1) {
		// The server also logs this when answers connects too early.
		if !strings.HasPrefix(match[1], "the database system is") {
			return strings.TrimRight(match[1]+"; "+match[2], "; \r")
		}
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return lines[len(lines)-1]
}

// answers returns an error if the server accepts no connections yet.
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

// URL returns the address of a database on the server, with its administrator's name and password.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable"}
	if s.options.TLS {
		u.RawQuery = "sslmode=require"
	}
	return u.String()
}

// Port returns the port at which the server listens.
func (s *Server) Port() int { return s.port }

// Folder returns the folder with the server's data and its log.
func (s *Server) Folder() string { return s.folder }

// Log returns what the server has logged since it last started.
func (s *Server) Log() string {
	log, err := s.root.ReadFile(logFile)
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// PID returns the ID of the server's process, which a test may send signals to.
func (s *Server) PID() int { return s.running().pid }

// Done returns a channel that is closed when the server has ended.
func (s *Server) Done() <-chan struct{} { return s.running().done }

// running returns the process of the server. It may have ended; it is nil if it was never started.
func (s *Server) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// Halt stops the server and keeps its data, so that Resume can start it again. Halting a stopped server does nothing.
func (s *Server) Halt(mode Mode) {
	if p := s.running(); p != nil {
		p.stop(mode)
	}
}

// Resume starts a halted server again, at the same port, and waits until it accepts connections.
func (s *Server) Resume(ctx context.Context) error { return s.launch(ctx) }

// Restart is Halt and Resume.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	s.Halt(mode)
	return s.launch(ctx)
}

// Stop stops the server, and removes its folder if that is temporary.
func (s *Server) Stop() (err error) {
	s.Halt(Fast)
	if s.root != nil {
		err = s.root.Close()
	}
	if s.remove != nil {
		return errors.Join(err, s.remove())
	}
	return errors.Join(err, s.lock.Close())
}

// Standby starts a second server that follows this one, which restarts for it. Promote makes the second server the primary.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	s.Halt(Fast)
	o := s.options
	o.DataDir, o.CopyOf = "", s.folder
	standby, err := Make(ctx, o)
	if err != nil {
		return nil, err
	}
	follow := "primary_conninfo = '" + s.URL("postgres") + "'\n"
	err = errors.Join(standby.write(filepath.Join(data, "standby.signal"), ""),
		standby.write(filepath.Join(data, "postgresql.auto.conf"), follow), s.launch(ctx))
	if err == nil {
		err = standby.launch(ctx)
	}
	if err != nil {
		standby.Stop()
		return nil, err
	}
	return standby, nil
}

// Promote makes a standby a primary, and waits until it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	if out, err := s.command(ctx, "pg_ctl", "promote", "-w", "-D", s.path(data)).CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w: %s", err, cause(string(out)))
	}
	return nil
}
