package pooltest_test

import (
	"context"
	"database/sql"
	"flag"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"example.com/penny/database3/pool"
	"example.com/penny/database3/pool/pooltest"
)

// TestMain lets the four pools be tested side by side however few processors there are: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestPennysPoolKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	pooltest.Run(t, pooltest.Subject{New: newPenny})
}

// What the other two do not promise is no fault of theirs: they lend connections for reads and writes alike, and leave
// it to the caller to try again.

func TestPgxpoolKeepsThePromisesThatItMakes(t *testing.T) {
	t.Parallel()
	const once = "pgxpool runs a query once, on whatever connection it lent"
	const connects = "pgxpool connects once and reports the failure"
	pooltest.Run(t, pooltest.Subject{New: newPgxpool, Differs: map[string]string{
		"idle connections that were killed cost no read at once":               "sometimes: pgxpool checks what has been idle for over a second only",
		"idle connections that the network cut cost no read at once":           "sometimes: pgxpool checks what has been idle for over a second only",
		"a connection that is killed in the middle of a query costs no read":   once,
		"a network that is cut in the middle of a query costs no read":         once,
		"a network that forgets idle connections costs no read that has time":  "its check of an idle connection has no limit but the caller's",
		"a server that restarts in order costs no read":                        connects,
		"a server that crashes and starts again costs no read":                 connects,
		"a server that is gone for a while costs no read that has time":        connects,
		"a server that others have filled costs no read that has time":         connects,
		"a failover to the standby costs no read that has time":                connects,
		"callers that are cancelled never make the server count more than max": "sometimes: it does not wait until the server has let go of a connection",
		"Close wakes who waits": "its Close waits for the borrowed connections first",
	}})
}

func TestDatabaseSQLKeepsThePromisesThatItMakes(t *testing.T) {
	t.Parallel()
	const once = "database/sql tries again only if the driver swears that nothing was sent"
	const connects = "database/sql connects once and reports the failure"
	pooltest.Run(t, pooltest.Subject{New: newSQL, Differs: map[string]string{
		"callers are served in the order in which they come":                               "database/sql serves one of those who wait, at random",
		"idle connections that the network cut cost no read at once":                       "sometimes: it tries again if the driver swears that nothing was sent",
		"a connection that is killed in the middle of a query costs no read":               once,
		"a network that is cut in the middle of a query costs no read":                     once,
		"a network that forgets idle connections costs no read that has time":              "it checks idle connections as the driver does, which has no limit but the caller's",
		"a server that restarts in order costs no read":                                    connects,
		"a server that crashes and starts again costs no read":                             connects,
		"a server that is gone for a while costs no read that has time":                    connects,
		"a server that others have filled costs no read that has time":                     connects,
		"a failover to the standby costs no read that has time":                            connects,
		"unread rows that are given back spoil nobody's query":                             "giving a connection back waits until its rows are closed",
		"a herd on a cold pool opens no more than max connections":                         "sometimes: it does not wait until the server has let go of a connection",
		"a connection that died among the idle never makes the server count more than max": "sometimes: it does not wait until the server has let go of a connection",
		"callers that are cancelled never make the server count more than max":             "sometimes: it does not wait until the server has let go of a connection",
		"a failed transaction that is given back spoils nobody's query":                    "sometimes: the driver's reset decides",
		"an open transaction that is given back spoils nobody's query":                     "sometimes: the driver's reset decides",
	}})
}

// A first pool, as many write it: a queue without a bound, into which every connection goes back.
func TestAQueueOfConnectionsBreaksMostPromises(t *testing.T) {
	t.Parallel()
	const dead = "a dead connection goes back into the queue"
	const unbounded = "nothing bounds the connections"
	const dirty = "a connection goes back as it is"
	const connects = "it connects once and reports the failure"
	pooltest.Run(t, pooltest.Subject{New: newQueue, Differs: map[string]string{
		"a herd on a cold pool opens no more than max connections":                         unbounded,
		"callers that are cancelled never make the server count more than max":             "sometimes: " + unbounded,
		"a connection that died among the idle never makes the server count more than max": dead,
		"callers are served in the order in which they come":                               unbounded,
		"a caller that stops waiting gets its error at once and leaves no gap":             "sometimes: " + unbounded,
		"a query that is cancelled costs the others nothing":                               dead,
		"idle connections that were killed cost no read at once":                           dead,
		"idle connections that were killed cost no read two seconds later":                 dead,
		"a connection that is killed in the middle of a query costs no read":               dead,
		"a network that is cut in the middle of a query costs no read":                     dead,
		"idle connections that the network cut cost no read at once":                       dead,
		"a network that forgets idle connections costs no read that has time":              dead,
		"a server that restarts in order costs no read":                                    dead,
		"a server that crashes and starts again costs no read":                             dead,
		"a server that is gone for a while costs no read that has time":                    dead,
		"two hundred callers on a server with twenty places lose no read":                  unbounded,
		"a server that others have filled costs no read that has time":                     connects,
		"a failover to the standby costs no read that has time":                            dead,
		"a failed transaction that is given back spoils nobody's query":                    dirty,
		"an open transaction that is given back spoils nobody's query":                     dirty,
		"unread rows that are given back spoil nobody's query":                             dirty,
		"Close wakes who waits": unbounded,
		"after Close nothing is lent, the server counts no connection, and no goroutine is left": "nobody closes the connections",
	}})
}

// penny is the adapter of Penny's own pool.
type penny struct{ pool *pool.Pool }

func newPenny(url string, max int) (pooltest.Pool, error) {
	return penny{pool.New(max, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })}, nil
}

// Read asks once more when the connection died in the middle, as database3's ByAuthor does.
func (p penny) Read(ctx context.Context, sql string) error {
	died, err := p.once(ctx, sql)
	if died && ctx.Err() == nil {
		_, err = p.once(ctx, sql)
	}
	return err
}

func (p penny) once(ctx context.Context, sql string) (died bool, err error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	_, err = conn.Exec(ctx, sql)
	return err != nil && conn.IsClosed(), err
}

func (p penny) Borrow(ctx context.Context) (pooltest.Loan, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return pgxLoan{conn.Conn, conn.Release}, nil
}

func (p penny) Close() { p.pool.Close() }

type pgxLoan struct {
	conn    *pgx.Conn
	release func()
}

func (l pgxLoan) Exec(ctx context.Context, sql string) error {
	_, err := l.conn.Exec(ctx, sql)
	return err
}

func (l pgxLoan) Rows(ctx context.Context, sql string) error {
	rows, err := l.conn.Query(ctx, sql)
	if err == nil {
		rows.Next()
	}
	return err
}

func (l pgxLoan) Return() { l.release() }

type pgxPool struct{ pool *pgxpool.Pool }

func newPgxpool(url string, max int) (pooltest.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(max)
	p, err := pgxpool.NewWithConfig(context.Background(), config)
	return pgxPool{p}, err
}

func (p pgxPool) Read(ctx context.Context, sql string) error {
	_, err := p.pool.Exec(ctx, sql)
	return err
}

func (p pgxPool) Borrow(ctx context.Context) (pooltest.Loan, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return pgxLoan{conn.Conn(), conn.Release}, nil
}

func (p pgxPool) Close() { p.pool.Close() }

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
	rows, err := p.db.QueryContext(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func (p sqlPool) Borrow(ctx context.Context) (pooltest.Loan, error) {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return sqlLoan{conn}, nil
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

func (l sqlLoan) Return() { l.conn.Close() }

// queue is the pool of many a first project.
type queue struct {
	url   string
	conns chan *pgx.Conn
}

func newQueue(url string, _ int) (pooltest.Pool, error) {
	return &queue{url, make(chan *pgx.Conn, 10_000)}, nil
}

func (q *queue) take(ctx context.Context) (*pgx.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	default:
		return pgx.Connect(ctx, q.url)
	}
}

func (q *queue) Read(ctx context.Context, sql string) error {
	conn, err := q.take(ctx)
	if err != nil {
		return err
	}
	defer func() { q.conns <- conn }()
	_, err = conn.Exec(ctx, sql)
	return err
}

func (q *queue) Borrow(ctx context.Context) (pooltest.Loan, error) {
	conn, err := q.take(ctx)
	if err != nil {
		return nil, err
	}
	return pgxLoan{conn, func() { q.conns <- conn }}, nil
}

func (q *queue) Close() {} // nobody thinks of it
