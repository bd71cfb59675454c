// Package pitfall shows the pitfalls of the lecture on a real server, each beside what prevents it.
package pitfall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny"
	"example.com/penny/database3/pool"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/retry"
)

// A Pitfall is a way to fail, and a way not to.
type Pitfall struct {
	Name, About    string
	Without, With  string // what the two columns of figures are about
	MaxConnections string // of its server
	run            func(ctx context.Context, s *localpg.Server, fixed bool) ([]figure, error)
}

// A figure is a row of the table.
type figure struct{ name, value string }

// All are the pitfalls, as the lecture comes to them.
var All = []Pitfall{
	{"injection", "what a visitor types becomes SQL", "text in SQL", "placeholder", "100", injection},
	{"full-server", "40 callers at once on a server that lets in 20", "no bound", "10 at most", "20", fullServer},
	{"leak", "a pool of 4, and calls that do not release after an error", "no Release", "defer Release", "100", leak},
	{"dead-connections", "the server ends 8 idle connections, then 40 calls come", "a queue", "Penny's pool", "100", deadConnections},
	{"failed-transaction", "one transaction fails, then 40 calls come", "a queue", "Penny's pool", "100", failedTransaction},
	{"restart", "the server restarts under 4 callers", "a queue", "Penny's pool", "100", restart},
	{"failover", "the server dies and its standby takes over, under 4 callers", "a queue", "Penny's pool", "100", failover},
	{"no-index", "a search among 50,000 books", "no index", "trigram index", "100", noIndex},
	{"transaction-pooler", "100 calls through PgBouncer in transaction mode", "as it is", "exec mode", "100", transactionPooler},
}

// Show starts a server with the three books, runs the pitfall without and with what prevents it, and prints both columns.
// The folder bin has PostgreSQL's programs.
func (p Pitfall) Show(ctx context.Context, w io.Writer, bin string) error {
	var columns [2][]figure
	for i, fixed := range []bool{false, true} {
		err := func() error {
			s, err := localpg.Start(ctx, localpg.Options{BinDir: bin, Config: map[string]string{"max_connections": p.MaxConnections}})
			if err != nil {
				return err
			}
			defer s.Stop()
			if err := do(ctx, s.URL("postgres"), penny.SQL); err != nil {
				return err
			}
			columns[i], err = p.run(ctx, s, fixed)
			return err
		}()
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	fmt.Fprintf(w, "%s: %s\n\n%-28s %16s %16s\n", p.Name, p.About, "", p.Without, p.With)
	for i, f := range columns[0] {
		fmt.Fprintf(w, "%-28s %16s %16s\n", f.name, f.value, columns[1][i].value)
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

// queue is the pool of many a first project: a connection comes out of a queue, and goes back as it is.
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
		for _, s := range sql {
			if _, err := conn.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}
}

// pooled asks over Penny's pool, and once more if the connection died.
func pooled(url string) asker {
	p := pool.New(8, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
	return func(ctx context.Context, sql ...string) error {
		return retry.Read(ctx, func() error {
			conn, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			for _, s := range sql {
				if _, err := conn.Exec(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func choose(url string, fixed bool) asker {
	if fixed {
		return pooled(url)
	}
	return queue(url)
}

// patience is how long a call may take.
const patience = 5 * time.Second

// A tally counts calls.
type tally struct {
	patience      time.Duration // how long a call may take; if it is 0, the constant
	calls, failed atomic.Int64
	mu            sync.Mutex // protects says
	says          string     // the first error of the server
}

func (t *tally) call(ctx context.Context, ask func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(t.patience, patience))
	defer cancel()
	t.calls.Add(1)
	err := ask(ctx)
	if err == nil {
		return
	}
	t.failed.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.says == "" {
		t.says = short(err)
	}
}

func (t *tally) figures() []figure {
	says := t.says
	if says == "" {
		says = "-"
	}
	return []figure{{"calls failed", fmt.Sprintf("%d of %d", t.failed.Load(), t.calls.Load())}, {"the first error", says}}
}

// side calls ask n times from so many goroutines, one call after the other in each.
func (t *tally) side(ctx context.Context, goroutines, n int, ask func(context.Context) error) {
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range n {
				t.call(ctx, ask)
			}
		})
	}
	all.Wait()
}

// during calls ask from four goroutines, 20 times a second each, until fault is over and a second more.
func during(ctx context.Context, ask asker, fault func() error) ([]figure, error) {
	t := &tally{patience: 15 * time.Second} // a slow computer takes a while to start a server
	over := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-over:
					return
				case <-tick.C:
					t.call(ctx, func(ctx context.Context) error { return ask(ctx, "SELECT * FROM books") })
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	err := fault()
	time.Sleep(time.Second)
	close(over)
	all.Wait()
	return t.figures(), err
}

// short returns the SQLSTATE and what it is, which fits into a column.
func short(err error) string {
	var server interface{ SQLState() string }
	switch {
	case errors.As(err, &server):
		name := map[string]string{"53300": "full", "25P02": "aborted", "57P01": "ended", "57P03": "starting", "26000": "no statement", "42P05": "statement twice", "08P01": "protocol", "25006": "read-only"}[server.SQLState()]
		return fmt.Sprint(server.SQLState(), " ", name)
	case errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err):
		return "no time left"
	}
	return "no connection"
}
