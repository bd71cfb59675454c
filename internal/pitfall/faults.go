package pitfall

import (
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
	db.SetMaxIdleConns(0)
	if fixed {
		db.SetMaxOpenConns(10)
	}
	t := &tally{}
	t.side(ctx, 40, 1, func(ctx context.Context) error {
		_, err := db.ExecContext(ctx, "SELECT pg_sleep(0.3)")
		return err
	})
	return t.figures(), nil
}

func leak(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	p := pool.New(4, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, s.URL("postgres")) })
	defer p.Close()
	ask := func(ctx context.Context, query string) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
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
	t := &tally{}
	t.side(ctx, 4, 2, func(ctx context.Context) error { return ask(ctx, "SELECT * FROM books") })
	return append(t.figures(), figure{"in use when all are done", fmt.Sprintf("%d of 4", p.Stats().InUse)}), nil
}

// warm opens eight connections, which are idle afterwards.
func warm(ctx context.Context, ask asker) {
	(&tally{}).side(ctx, 8, 1, func(ctx context.Context) error { return ask(ctx, "SELECT pg_sleep(0.2)") })
}

func deadConnections(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	ask := choose(s.URL("postgres"), fixed)
	warm(ctx, ask)
	const kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
	if err := do(ctx, s.URL("postgres"), kill); err != nil {
		return nil, err
	}
	return forty(ctx, ask), nil
}

func failedTransaction(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	ask := choose(s.URL("postgres"), fixed)
	_ = ask(ctx, "BEGIN", "SELECT price FROM books") // there is no such column
	return forty(ctx, ask), nil
}

func forty(ctx context.Context, ask asker) []figure {
	t := &tally{}
	t.side(ctx, 1, 40, func(ctx context.Context) error { return ask(ctx, "SELECT * FROM books") })
	return t.figures()
}

func restart(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	return during(ctx, choose(s.URL("postgres"), fixed), func() error { return s.Restart(ctx, localpg.Fast) })
}

func failover(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	standby, err := s.Standby(ctx)
	if err != nil {
		return nil, err
	}
	defer standby.Stop()
	u, err := url.Parse(s.URL("postgres"))
	if err != nil {
		return nil, err
	}
	u.Host += "," + net.JoinHostPort("127.0.0.1", strconv.Itoa(standby.Port()))
	address := u.String() + "&target_session_attrs=read-write"
	return during(ctx, choose(address, fixed), func() error {
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
	statements := []string{"INSERT INTO books SELECT 'x' || n, md5(n::text), 'Book ' || n FROM generate_series(1, 50000) n",
		"SET max_parallel_workers_per_gather = 0"}
	if fixed {
		statements = append(statements, "CREATE EXTENSION pg_trgm", "CREATE INDEX ON books USING gin (author gin_trgm_ops)")
	}
	for _, statement := range append(statements, "VACUUM ANALYZE books") {
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
	first := func(pattern string) string {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(plan); found != nil {
			return found[1]
		}
		return "?"
	}
	return []figure{{"the server's plan", first(`(\w[\w ]* Scan) on books`)}, {"pages read", first(`shared hit=(\d+)`)},
		{"ms in the server", first(`Execution Time: ([\d.]+)`)}}, nil
}

func transactionPooler(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error) {
	address, stop, err := bouncer(ctx, s)
	if err != nil {
		return nil, err
	}
	defer stop()
	if fixed {
		address += "&default_query_exec_mode=exec"
	}
	p := pool.New(8, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) })
	defer p.Close()
	t := &tally{}
	t.side(ctx, 10, 10, func(ctx context.Context) error {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		_, err = conn.Exec(ctx, "SELECT * FROM books WHERE author ILIKE $1", "ker%")
		return err
	})
	return t.figures(), nil
}

// ErrNoBouncer is the error if PgBouncer is not installed.
var ErrNoBouncer = errors.New("there is no PgBouncer on this computer")

// bouncer starts a PgBouncer in transaction mode in front of s, and returns its address.
func bouncer(ctx context.Context, s *localpg.Server) (address string, stop func(), err error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return "", nil, ErrNoBouncer
		}
	}
	u, err := url.Parse(s.URL("postgres"))
	if err != nil {
		return "", nil, err
	}
	port, err := localpg.FreePort()
	if err != nil {
		return "", nil, err
	}
	temporary, err := scratch.New("", "pgbouncer")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			_ = temporary.Remove()
		}
	}()
	folder := temporary.Path
	users, ini := filepath.Join(folder, "users.txt"), filepath.Join(folder, "pgbouncer.ini")
	password, _ := u.User.Password()
	settings := fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = scram-sha-256\nauth_file = %s\npool_mode = transaction\ndefault_pool_size = 5\n", u.Hostname(), u.Port(), port, users)
	// From 1.21 on, PgBouncer can follow prepared statements; hosted ones mostly do not.
	version, _ := exec.CommandContext(ctx, program, "--version").Output()
	if found := regexp.MustCompile(`PgBouncer 1\.(\d+)`).FindSubmatch(version); found != nil {
		if minor, _ := strconv.Atoi(string(found[1])); minor >= 21 {
			settings += "max_prepared_statements = 0\n"
		}
	}
	if err := os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", u.User.Username(), password), 0o600); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(ini, []byte(settings), 0o600); err != nil {
		return "", nil, err
	}
	args := []string{ini}
	if os.Geteuid() == 0 { // PgBouncer does not run as root
		args = append([]string{"-u", "nobody"}, args...)
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return "", nil, err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		for _, path := range []string{users, ini} {
			if err := os.Chown(path, uid, -1); err != nil {
				return "", nil, err
			}
		}
	}
	running := exec.CommandContext(ctx, program, args...)
	if err := running.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = running.Process.Kill()
		_ = running.Wait()
		_ = temporary.Remove()
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 100 {
		if err = do(ctx, u.String(), "SELECT 1"); err == nil {
			return u.String(), stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = running.Process.Kill()
	_ = running.Wait()
	return "", nil, fmt.Errorf("PgBouncer does not answer: %w", err)
}
