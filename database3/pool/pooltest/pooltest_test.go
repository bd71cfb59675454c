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
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
)

// TestMain lets the promises run side by side however few processors there are: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// raceDetector is true if the tests run with the race detector. It finds what bad pools do wrong, and fails the test for it.
var raceDetector bool

// Each pool's reads get one second try if the connection died, as in Penny's programs.

func TestPennysPoolKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	pooltest.Run(t, newPenny, nil)
}

func TestPgxpoolKeepsThePromisesThatItMakes(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector is for our own pool")
	}
	t.Parallel()
	const connects = "sometimes: pgxpool connects once and reports the failure"
	const checks = "sometimes: pgxpool checks only what was idle for a second"
	const counts = "sometimes: pgxpool does not wait until the server has closed a connection"
	pooltest.Run(t, newPgxpool, map[string]string{
		"idle connections that were killed cost no read at once":                           checks,
		"idle connections that the network cut cost no read at once":                       checks,
		"a connection that is killed in the middle of a query costs no read":               checks,
		"a network that is cut in the middle of a query costs no read":                     checks,
		"a network that forgets idle connections costs no read that has time":              "its check of an idle connection has no limit but the caller's",
		"a server that restarts costs no read":                                             connects,
		"a server that crashes and starts again costs no read":                             connects,
		"a server that is gone for a while costs no read that has time":                    connects,
		"a server that others have filled costs no read that has time":                     connects,
		"a failover to the standby costs no read that has time":                            connects,
		"callers that are cancelled never make the server count more than max":             counts,
		"a herd on a cold pool opens no more than max connections":                         counts,
		"a connection that died among the idle never makes the server count more than max": counts,
		"Close wakes the callers that wait":                                                "its Close waits for the connections in use first",
	})
}

func TestDatabaseSQLKeepsThePromisesThatItMakes(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector is for our own pool")
	}
	t.Parallel()
	const connects = "sometimes: database/sql connects once and reports the failure"
	const counts = "sometimes: database/sql does not wait until the server has closed a connection"
	const checks = "sometimes: the driver checks only what was idle for a second"
	pooltest.Run(t, newSQL, map[string]string{
		"callers are served in the order in which they come":                               "database/sql serves one of the callers that wait, at random",
		"unread rows spoil nobody's query":                                                 "the Close of a connection waits until its rows are closed",
		"a network that forgets idle connections costs no read that has time":              "the driver's check of an idle connection has no limit but the caller's",
		"a server that restarts costs no read":                                             connects,
		"a server that crashes and starts again costs no read":                             connects,
		"a server that is gone for a while costs no read that has time":                    connects,
		"a server that others have filled costs no read that has time":                     connects,
		"a failover to the standby costs no read that has time":                            connects,
		"callers that are cancelled never make the server count more than max":             counts,
		"a herd on a cold pool opens no more than max connections":                         counts,
		"a connection that died among the idle never makes the server count more than max": counts,
		"idle connections that were killed cost no read at once":                           checks,
		"idle connections that the network cut cost no read at once":                       checks,
		"a connection that is killed in the middle of a query costs no read":               checks,
		"a network that is cut in the middle of a query costs no read":                     checks,
	})
}

// A first pool, as many write it: a queue without a bound, into which every connection goes back.
func TestAQueueOfConnectionsBreaksMostPromises(t *testing.T) {
	if raceDetector {
		t.Skip("this pool lends a connection twice, which is a race")
	}
	t.Parallel()
	const dead = "a dead connection goes back into the queue"
	const unbounded = "nothing bounds the connections"
	const dirty = "a connection goes back as it is"
	pooltest.Run(t, newQueue, map[string]string{
		"a failed transaction spoils nobody's query":                                             dirty,
		"an open transaction spoils nobody's query":                                              dirty,
		"unread rows spoil nobody's query":                                                       dirty,
		"a second Release does nothing":                                                          "the same connection goes back twice",
		"a herd on a cold pool opens no more than max connections":                               unbounded,
		"two hundred callers on a server with twenty places lose no read":                        unbounded,
		"callers are served in the order in which they come":                                     unbounded,
		"callers that are cancelled never make the server count more than max":                   dead,
		"a caller that stops waiting gets its error at once and leaves no gap":                   "sometimes: it does not wait",
		"Close wakes the callers that wait":                                                      unbounded,
		"after Close nothing is lent, the server counts no connection, and no goroutine is left": "nobody closes the connections",
		"a query that is cancelled costs the others nothing":                                     dead,
		"idle connections that were killed cost no read two seconds later":                       dead,
		"idle connections that were killed cost no read at once":                                 dead,
		"a connection that died among the idle never makes the server count more than max":       unbounded,
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

// brokenPool hangs, or panics.
type brokenPool struct{ hangs bool }

func (p brokenPool) fail() error {
	if p.hangs {
		select {}
	}
	panic("index out of range")
}

func (p brokenPool) Read(context.Context, string) error             { return p.fail() }
func (p brokenPool) Acquire(context.Context) (pooltest.Loan, error) { return nil, p.fail() }
func (p brokenPool) Close()                                         {}

func TestAPoolThatHangsOrPanicsFailsOnePromiseAfterTheOther(t *testing.T) {
	if raceDetector {
		t.Skip("what a promise that hangs still holds is cleaned up beside it, which is a race")
	}
	exam := &pooltest.Exam{
		New:   func(_ string, max int) (pooltest.Pool, error) { return brokenPool{hangs: max == 1}, nil },
		Admin: pgtest.Admin(t),
		Limit: 200 * time.Millisecond,
	}
	said := make(map[string]bool)
	kept, of := exam.Run(t.Context(), false, func(r pooltest.Result) {
		for _, words := range []string{"Acquire has not returned", "Acquire panicked: index out of range", "Read panicked: index out of range"} {
			if r.Err != nil && strings.Contains(r.Err.Error(), words) {
				said[words] = true
			}
		}
	})
	if kept != 0 || of < 27 || len(said) != 3 {
		t.Errorf("%d of %d promises are kept, and of what is wrong it said %v", kept, of, said)
	}
	reported := 0
	exam.Run(t.Context(), true, func(pooltest.Result) { reported++ })
	if reported != 1 {
		t.Errorf("%d results, want the first failure alone", reported)
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
		return nil, err
	}
	config.MaxConns = int32(max)
	p, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	return pooltest.Pgx(func(ctx context.Context) (*pgx.Conn, func(), error) {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		return conn.Conn(), conn.Release, nil
	}, p.Close), nil
}

// queue is the pool of many a first project.
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
	}, func() {}), nil // nobody thinks of closing them
}

type sqlPool struct{ db *sql.DB }

func newSQL(url string, max int) (pooltest.Pool, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(max)
	db.SetMaxIdleConns(max)
	return sqlPool{db}, nil
}

func (p sqlPool) Read(ctx context.Context, sql string) error {
	return retry.Read(ctx, func() error {
		rows, err := p.db.QueryContext(ctx, sql)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
		}
		return rows.Err()
	})
}

func (p sqlPool) Acquire(ctx context.Context) (pooltest.Loan, error) {
	conn, err := p.db.Conn(ctx)
	return sqlLoan{conn}, err
}

func (p sqlPool) Close() { p.db.Close() }

type sqlLoan struct{ conn *sql.Conn }

func (l sqlLoan) Exec(ctx context.Context, sql string) error {
	_, err := l.conn.ExecContext(ctx, sql)
	return err
}

func (l sqlLoan) Rows(ctx context.Context, sql string) error {
	rows, err := l.conn.QueryContext(ctx, sql)
	if err == nil {
		rows.Next()
	}
	return err
}

func (l sqlLoan) Release() { l.conn.Close() }
