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

// Each pool's reads get one second try if the connection died, as in Penny's programs.

func TestPennysPoolKeepsEveryPromise(t *testing.T) {
	pooltest.Run(t, newPenny, nil)
}

func TestPgxpoolKeepsThePromisesThatItMakes(t *testing.T) {
	pooltest.Run(t, newPgxpool, map[string]string{})
}

func TestDatabaseSQLKeepsThePromisesThatItMakes(t *testing.T) {
	pooltest.Run(t, newSQL, map[string]string{})
}

// A first pool, as many write it: a queue without a bound, into which every connection goes back.
func TestAQueueOfConnectionsBreaksMostPromises(t *testing.T) {
	pooltest.Run(t, newQueue, map[string]string{})
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
