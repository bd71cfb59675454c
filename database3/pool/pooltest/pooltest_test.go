package pooltest_test

import (
	"context"
	"database/sql"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"example.com/penny/database3/pool"
	"example.com/penny/database3/pool/pooltest"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
	"example.com/penny/internal/skip"
)

// TestMain lets eight promises run at once on any number of processors: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// raceDetector is true if the tests run with the race detector. It finds the faults of bad pools, and fails their tests.
var raceDetector bool

// Each pool's reads get one second try if the connection died, as in Penny's programs.

func TestPennysPoolKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	pooltest.Run(t, newPenny, nil)
}

func TestPgxpoolKeepsThePromisesThatItMakes(t *testing.T) {
	other(t)
	const connects = "pgxpool connects once and reports the failure"
	const checks = "pgxpool checks only what was idle for a second"
	const counts = "pgxpool does not wait until the server has closed a connection"
	pooltest.Run(t, newPgxpool, map[string]string{
		"idle connections that were killed cost no read at once":                  checks,
		"idle connections that the network cut cost no read at once":              checks,
		"a connection that is killed in the middle of a query costs no read":      checks,
		"a network that is cut in the middle of a query costs no read":            checks,
		"a network that forgets idle connections costs no read that has time":     "its check of an idle connection has no limit but the caller's",
		"a server that restarts costs no read":                                    connects,
		"a server that crashes and starts again costs no read":                    connects,
		"a server that is gone for a while costs no read that has time":           connects,
		"a server that others have filled costs no read that has time":            connects,
		"a failover to the standby costs no read that has time":                   connects,
		"callers that are cancelled never make the server count more than max":    counts,
		"a herd on a cold pool opens no more than max connections":                counts,
		"an idle connection that died never makes the server count more than max": counts,
		"Close wakes the callers that wait":                                       "its Close waits for the connections in use first",
	})
}

func TestDatabaseSQLKeepsThePromisesThatItMakes(t *testing.T) {
	other(t)
	const connects = "database/sql connects once and reports the failure"
	const counts = "database/sql does not wait until the server has closed a connection"
	const checks = "the driver checks only what was idle for a second"
	pooltest.Run(t, newSQL, map[string]string{
		"callers are served in the order in which they come":                      "database/sql serves one of the callers that wait, at random",
		"unread rows do not break the next query":                                 "the Close of a connection waits until its rows are closed",
		"a network that forgets idle connections costs no read that has time":     "the driver's check of an idle connection has no limit but the caller's",
		"a server that restarts costs no read":                                    connects,
		"a server that crashes and starts again costs no read":                    connects,
		"a server that is gone for a while costs no read that has time":           connects,
		"a server that others have filled costs no read that has time":            connects,
		"a failover to the standby costs no read that has time":                   connects,
		"callers that are cancelled never make the server count more than max":    counts,
		"a herd on a cold pool opens no more than max connections":                counts,
		"an idle connection that died never makes the server count more than max": counts,
		"idle connections that were killed cost no read at once":                  checks,
		"idle connections that the network cut cost no read at once":              checks,
		"a connection that is killed in the middle of a query costs no read":      checks,
		"a network that is cut in the middle of a query costs no read":            checks,
	})
}

// Many programmers write this pool first: a queue that has no bound and takes back every connection.
func TestAQueueOfConnectionsBreaksMostPromises(t *testing.T) {
	other(t)
	const dead = "a dead connection goes back into the queue"
	const unbounded = "nothing bounds the connections"
	const dirty = "a connection goes back as it is"
	pooltest.Run(t, newQueue, map[string]string{
		"a failed transaction does not break the next query":                                     dirty,
		"an open transaction does not break the next query":                                      dirty,
		"unread rows do not break the next query":                                                dirty,
		"a second Release does nothing":                                                          "the same connection goes back twice",
		"a herd on a cold pool opens no more than max connections":                               unbounded,
		"two hundred callers on a server with twenty places lose no read":                        unbounded,
		"callers are served in the order in which they come":                                     unbounded,
		"callers that are cancelled never make the server count more than max":                   dead,
		"a caller that stops waiting gets its error at once and leaves no gap":                   "it does not wait",
		"Close wakes the callers that wait":                                                      unbounded,
		"after Close nothing is lent, the server counts no connection, and no goroutine is left": "nobody closes the connections",
		"a query that is cancelled costs the others nothing":                                     dead,
		"idle connections that were killed cost no read two seconds later":                       dead,
		"idle connections that were killed cost no read at once":                                 dead,
		"an idle connection that died never makes the server count more than max":                unbounded,
		"a connection that is killed in the middle of a query costs no read":                     dead,
		"a network that is cut in the middle of a query costs no read":                           dead,
		"idle connections that the network cut cost no read at once":                             dead,
		"a network that forgets idle connections costs no read that has time":                    dead,
		"a server that others have filled costs no read that has time":                           "it connects once and reports the failure",
		"a server that restarts costs no read":                                                   dead,
		"a server that crashes and starts again costs no read":                                   dead,
		"a server that is gone for a while costs no read that has time":                          dead,
		"a failover to the standby costs no read that has time":                                  dead,
	})
}

// other lets the test of another pool run in parallel with that of our own. It skips the test unless CI is set; chapter 7 has
// a recorded run.
func other(t *testing.T) {
	t.Helper()
	skip.Long(t)
	if raceDetector {
		t.Skip("the race detector is for our own pool")
	}
	t.Parallel()
}

// brokenPool returns a pool that hangs if it has one connection, and panics if it has more.
func brokenPool(_ string, max int) (pooltest.Pool, error) {
	broken := func() error {
		if max == 1 {
			select {}
		}
		panic("index out of range")
	}
	return pooltest.Pool{
		Read:    func(context.Context, string) error { return broken() },
		Acquire: func(context.Context) (pooltest.Loan, error) { return pooltest.Loan{}, broken() },
		Close:   func() {},
	}, nil
}

func TestAPoolThatHangsOrPanicsKeepsNoPromise(t *testing.T) {
	if raceDetector {
		t.Skip("the cleanup of a promise that hangs is a race with it")
	}
	exam := &pooltest.Exam{New: brokenPool, Admin: pgtest.Admin(t), Own: pgtest.Own(t, localpg.Options{}), Limit: 200 * time.Millisecond}
	said := make(map[string]bool)
	kept, of := exam.Run(t.Context(), func(r pooltest.Result) {
		for _, words := range []string{"Acquire has not returned", "Acquire panicked: index out of range", "Read panicked: index out of range"} {
			if r.Err != nil && strings.Contains(r.Err.Error(), words) {
				said[words] = true
			}
		}
	})
	if kept != 0 || of < 27 || len(said) != 3 {
		t.Errorf("got %d of %d promises kept and the reasons %v, want 0 of 27 or more and 3 reasons", kept, of, said)
	}
}

func newPenny(url string, max int) (pooltest.Pool, error) {
	p := pool.New(max, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
	return pooltest.Pgx(func(ctx context.Context) (*pgx.Conn, func(), error) {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		return conn.Conn, conn.Release, nil
	}, func() { p.Close() }), nil
}

func newPgxpool(url string, max int) (pooltest.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return pooltest.Pool{}, err
	}
	config.MaxConns = int32(max)
	p, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return pooltest.Pool{}, err
	}
	return pooltest.Pgx(func(ctx context.Context) (*pgx.Conn, func(), error) {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		return conn.Conn(), conn.Release, nil
	}, p.Close), nil
}

// queue is the pool of many first projects.
type queue struct {
	url   string
	conns chan *pgx.Conn
}

func (q *queue) take(ctx context.Context) (*pgx.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	default:
		return pgx.Connect(ctx, q.url)
	}
}

func newQueue(url string, _ int) (pooltest.Pool, error) {
	q := &queue{url, make(chan *pgx.Conn, 10_000)}
	return pooltest.Pgx(func(ctx context.Context) (*pgx.Conn, func(), error) {
		conn, err := q.take(ctx)
		return conn, func() { q.conns <- conn }, err
	}, func() {}), nil // many forget to close them
}

func newSQL(url string, max int) (pooltest.Pool, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return pooltest.Pool{}, err
	}
	db.SetMaxOpenConns(max)
	db.SetMaxIdleConns(max)
	return pooltest.Pool{
		Read: func(ctx context.Context, sql string) error {
			return retry.Read(ctx, func() error {
				_, err := db.ExecContext(ctx, sql)
				return err
			})
		},
		Acquire: func(ctx context.Context) (pooltest.Loan, error) {
			conn, err := db.Conn(ctx)
			exec := func(ctx context.Context, sql string) error {
				_, err := conn.ExecContext(ctx, sql)
				return err
			}
			rows := func(ctx context.Context, sql string) error {
				rows, err := conn.QueryContext(ctx, sql)
				if err == nil {
					rows.Next()
				}
				return err
			}
			return pooltest.Loan{Exec: exec, Rows: rows, Release: func() { conn.Close() }}, err
		},
		Close: func() { db.Close() },
	}, nil
}
