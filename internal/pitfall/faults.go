package pitfall

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq" // the driver "postgres"

	"example.com/penny/database3/pool"
	"example.com/penny/internal/load"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/scratch"
)

func injection(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	const typed = "' OR 1=1 --"
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	query, args := "SELECT count(*) FROM books WHERE author = '"+typed+"'", []any(nil)
	if fixed {
		query, args = "SELECT count(*) FROM books WHERE author = $1", []any{typed}
	}
	var found int
	if err := db.QueryRowContext(ctx, query, args...).Scan(&found); err != nil {
		return nil, err
	}
	return []figure{{"the visitor types", typed}, {"books found", fmt.Sprintf("%d of 3", found)}}, nil
}

func fullServer(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if fixed {
		db.SetMaxOpenConns(10)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := tally{calls: 40}
	for _, err := range load.Meet(ctx, db, t.calls) {
		t.failed++
		t.first = cmp.Or(t.first, kind(err))
	}
	return t.figures(), nil
}

func leak(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	p := pool.New(4, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, s.URL("postgres")) })
	defer p.Close()
	wait := 2 * time.Second
	if fixed {
		wait = patience
	}
	ask := func(ctx context.Context, query string) error {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		if fixed {
			defer conn.Release()
		}
		if _, err := conn.Exec(ctx, query); err != nil {
			return err
		}
		conn.Release()
		return nil
	}
	for range 4 {
		_ = ask(ctx, "SELECT price FROM books") // there is no such column
	}
	t := calls(ctx, 8, 1, func(ctx context.Context) error { return ask(ctx, "SELECT * FROM books") })
	return append(t.figures(), figure{"in use when all are done", fmt.Sprintf("%d of 4", p.Stats().InUse)}), nil
}

func deadConnections(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	ask := choose(s.URL("postgres"), fixed)
	// Eight calls at once open eight connections, which are idle afterwards.
	calls(ctx, 8, 1, func(ctx context.Context) error { return ask(ctx, "SELECT pg_sleep(0.2)") })
	const kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
	if err := do(ctx, s.URL("postgres"), kill); err != nil {
		return nil, err
	}
	return calls(ctx, 1, 40, ask.books).figures(), nil
}

func failedTransaction(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	ask := choose(s.URL("postgres"), fixed)
	_ = ask(ctx, "BEGIN", "SELECT price FROM books") // there is no such column
	return calls(ctx, 1, 40, ask.books).figures(), nil
}

func restart(ctx context.Context, s *localpg.Server) ([2][]figure, error) {
	return during(ctx, s.URL("postgres"), func() error { return s.Restart(ctx, localpg.Fast) })
}

func failover(ctx context.Context, s *localpg.Server) (columns [2][]figure, err error) {
	standby, err := s.Standby(ctx)
	if err != nil {
		return columns, err
	}
	defer standby.Stop()
	u, err := url.Parse(s.URL("postgres"))
	if err != nil {
		return columns, err
	}
	u.Host += "," + net.JoinHostPort("127.0.0.1", strconv.Itoa(standby.Port()))
	return during(ctx, u.String()+"&target_session_attrs=read-write", func() error {
		s.Halt(localpg.Immediate)
		return standby.Promote(ctx)
	})
}

func noIndex(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	statements := []string{"DROP INDEX by_author"}
	if fixed { // it runs first
		statements = []string{"INSERT INTO books SELECT 'x' || n, md5(n::text), 'Book ' || n FROM generate_series(1, 50000) n",
			"CREATE EXTENSION pg_trgm", "CREATE INDEX by_author ON books USING gin (author gin_trgm_ops)"}
	}
	for _, statement := range append(statements, "VACUUM ANALYZE books", "SET max_parallel_workers_per_gather = 0") {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return nil, err
		}
	}
	rows, err := conn.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM books WHERE author ILIKE 'kern%'")
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	plan := strings.Join(lines, "\n")
	var figures []figure
	for _, f := range []struct{ name, pattern string }{{"the server's plan", `(\w[\w ]* Scan) on books`},
		{"pages read", `shared hit=(\d+)`}, {"ms in the server", `Execution Time: ([\d.]+)`}} {
		found := regexp.MustCompile(f.pattern).FindStringSubmatch(plan)
		if found == nil {
			return nil, fmt.Errorf("the plan lacks %s: %s", f.name, plan)
		}
		figures = append(figures, figure{f.name, found[1]})
	}
	return figures, nil
}

func transactionPooler(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	address, stop, err := Bouncer(ctx, s.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer stop()
	if fixed {
		address += "&default_query_exec_mode=exec"
	}
	p := pool.New(8, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) })
	defer p.Close()
	return calls(ctx, 10, 10, func(ctx context.Context) error {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		_, err = conn.Exec(ctx, "SELECT * FROM books WHERE author ILIKE $1", "ker%")
		return err
	}).figures(), nil
}

// ErrNoBouncer is the error if PgBouncer is not installed.
var ErrNoBouncer = errors.New("there is no PgBouncer on this computer")

// BouncerSize is how many connections Bouncer opens to the server at most.
const BouncerSize = 5

// Bouncer starts a PgBouncer in transaction mode in front of the server at address, and returns its own address.
func Bouncer(ctx context.Context, address string) (through string, stop func(), err error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return "", nil, ErrNoBouncer
		}
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", nil, err
	}
	port, err := localpg.FreePort()
	if err != nil {
		return "", nil, err
	}
	folder, err := scratch.New("", "pgbouncer")
	if err != nil {
		return "", nil, err
	}
	users, ini := filepath.Join(folder.Path, "users.txt"), filepath.Join(folder.Path, "pgbouncer.ini")
	// The shell ends PgBouncer when its standard input ends, as it does if this program is killed.
	running := exec.Command("sh", "-c", `trap '' INT HUP; "$@" & read -r end; kill -9 $!; wait`, "sh", program, ini)
	input, err := running.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stop = func() {
		input.Close()
		if running.Process != nil {
			_ = running.Wait()
		}
		_ = folder.Remove()
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	settings := fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = scram-sha-256\nauth_file = %s\npool_mode = transaction\ndefault_pool_size = %d\nserver_login_retry = 1\n"+
		"ignore_startup_parameters = extra_float_digits\n", u.Hostname(), u.Port(), port, users, BouncerSize)
	// From 1.21 on, PgBouncer can follow prepared statements, and from 1.24 on it does by default.
	version, _ := exec.CommandContext(ctx, program, "--version").Output()
	minor := 0
	if fmt.Sscanf(string(version), "PgBouncer 1.%d", &minor); minor >= 21 {
		settings += "max_prepared_statements = 0\n"
	}
	password, _ := u.User.Password()
	err = errors.Join(os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", u.User.Username(), password), 0o600), os.WriteFile(ini, []byte(settings), 0o600))
	if err != nil {
		return "", nil, err
	}
	if os.Geteuid() == 0 { // PgBouncer does not run as root
		running.Args = append(running.Args, "-u", "nobody")
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return "", nil, err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		if err := errors.Join(os.Chown(users, uid, -1), os.Chown(ini, uid, -1)); err != nil {
			return "", nil, err
		}
	}
	if err := running.Start(); err != nil {
		return "", nil, err
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 200 {
		if err = do(ctx, u.String(), "SELECT 1"); err == nil {
			return u.String(), stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", nil, fmt.Errorf("PgBouncer does not answer: %w", err)
}
