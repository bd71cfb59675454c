// Package pitfall shows the pitfalls of the lecture on a real server, each next to what prevents it.
package pitfall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny/database3/pool"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/retry"
)

// A Pitfall is a mistake, and what prevents it.
type Pitfall struct {
	Name, About   string
	Without, With string // what the two columns of figures are about
	run           func(ctx context.Context, s *localpg.Server) (columns [2][]figure, err error)
}

// A figure is a row of the table.
type figure struct{ name, value string }

// All are the pitfalls, as the lecture comes to them.
var All = []Pitfall{
	{"injection", "what a visitor types becomes SQL", "text in SQL", "placeholder", each(injection)},
	{"full-server", "40 callers at once on a server that lets in 20", "no bound", "10 at most", each(fullServer)},
	{"leak", "a pool of 4, and calls that do not release after an error", "no Release", "defer Release", each(leak)},
	{"dead-connections", "the server ends 8 idle connections, then 40 calls come", "a queue", "Penny's pool", each(deadConnections)},
	{"failed-transaction", "one transaction fails, then 40 calls come", "a queue", "Penny's pool", each(failedTransaction)},
	{"restart", "the server restarts, with 4 callers on each pool", "a queue", "Penny's pool", restart},
	{"failover", "the server dies, a standby takes over, with 4 callers on each pool", "a queue", "Penny's pool", failover},
	{"no-index", "a search among 50,000 books", "no index", "trigram index", each(noIndex)},
	{"transaction-pooler", "100 calls through PgBouncer in transaction mode", "as it is", "exec mode", each(transactionPooler)},
}

// each runs a pitfall with and without what prevents it, in this order: a pitfall can leave the server full for a moment.
func each(run func(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error)) func(context.Context, *localpg.Server) ([2][]figure, error) {
	return func(ctx context.Context, s *localpg.Server) (columns [2][]figure, err error) {
		if columns[1], err = run(ctx, s, true); err == nil {
			columns[0], err = run(ctx, s, false)
		}
		return columns, err
	}
}

// Places is the max_connections of a pitfall's server.
const Places = "20"

// Show runs the pitfall without and with what prevents it, and prints both columns. The server has the three books and no
// other clients. Show may break it.
func (p Pitfall) Show(ctx context.Context, w io.Writer, s *localpg.Server) error {
	columns, err := p.run(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	fmt.Fprintf(w, "%s: %s\n\n%-28s %18s %18s\n", p.Name, p.About, "", p.Without, p.With)
	for i, f := range columns[0] {
		fmt.Fprintf(w, "%-28s %18s %18s\n", f.name, f.value, columns[1][i].value)
	}
	return nil
}

// do runs SQL over a connection of its own.
func do(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// An asker runs SQL over a connection from a pool.
type asker func(ctx context.Context, sql ...string) error

func (a asker) books(ctx context.Context) error { return a(ctx, "SELECT * FROM books") }

// queue is the simplest pool: a connection comes out of a queue, and goes back as it is.
func queue(url string) asker {
	idle := make(chan *pgx.Conn, 100)
	return func(ctx context.Context, sql ...string) (err error) {
		var conn *pgx.Conn
		select {
		case conn = <-idle:
		default:
			if conn, err = pgx.Connect(ctx, url); err != nil {
				return err
			}
		}
		defer func() { idle <- conn }()
		return execute(ctx, conn, sql)
	}
}

// pooled asks over Penny's pool, and once more if the connection dies.
func pooled(url string) asker {
	p := pool.New(8, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
	return func(ctx context.Context, sql ...string) error {
		return retry.Read(ctx, func() error {
			conn, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			return execute(ctx, conn.Conn, sql)
		})
	}
}

func execute(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func choose(url string, fixed bool) asker {
	if fixed {
		return pooled(url)
	}
	return queue(url)
}

// patience is how long a call may take: a slow computer takes a while to start a server.
const patience = 15 * time.Second

// A tally counts calls.
type tally struct {
	mu            sync.Mutex // protects the following
	calls, failed int
	first         string // the kind of the first error
}

func (t *tally) call(ctx context.Context, ask func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := ask(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls++; err != nil {
		t.failed++
		t.first = cmp.Or(t.first, kind(err))
	}
}

func (t *tally) figures() []figure {
	return []figure{{"calls failed", fmt.Sprintf("%d of %d", t.failed, t.calls)}, {"the first error", cmp.Or(t.first, "-")}}
}

// calls calls ask n times from each of the goroutines, one call after the other.
func calls(ctx context.Context, goroutines, n int, ask func(context.Context) error) *tally {
	t := &tally{}
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range n {
				t.call(ctx, ask)
			}
		})
	}
	all.Wait()
	return t
}

// during calls a queue and Penny's pool from four goroutines each, 20 times a second. The fault begins once each of them has
// had an answer, so that its connection is there to break; they make 20 calls more when the fault is over.
func during(ctx context.Context, url string, fault func() error) (columns [2][]figure, err error) {
	over := make(chan struct{})
	var connected, done sync.WaitGroup
	var tallies [2]tally
	for i, fixed := range []bool{false, true} {
		ask := choose(url, fixed)
		for range 4 {
			connected.Add(1)
			done.Go(func() {
				tallies[i].call(ctx, ask.books)
				connected.Done()
				tick := time.Tick(50 * time.Millisecond)
				for left := 20; left > 0; {
					<-tick
					select {
					case <-over:
						left--
					default:
					}
					tallies[i].call(ctx, ask.books)
				}
			})
		}
	}
	connected.Wait()
	err = fault()
	close(over)
	done.Wait()
	return [2][]figure{tallies[0].figures(), tallies[1].figures()}, err
}

// kind returns what kind of error it is, in words that fit into a column.
func kind(err error) string {
	name := explain.Name(err)
	if server, ok := errors.AsType[*pgconn.PgError](err); ok && name == "other" {
		return "SQLSTATE " + server.Code
	}
	return name
}
