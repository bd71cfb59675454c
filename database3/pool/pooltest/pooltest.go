// Package pooltest holds connection pools to the promises that programs rely on, each on a real PostgreSQL server and under
// a real fault. It says what it thinks is wrong with a pool that does not keep one.
package pooltest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
)

// A Pool is what the promises are about.
type Pool interface {
	// Read runs a query that changes nothing, and once more if the connection died.
	Read(ctx context.Context, sql string) error
	// Acquire takes a connection out of the pool.
	Acquire(ctx context.Context) (Loan, error)
	// Close closes the pool. It may be called twice.
	Close()
}

// A Loan is a connection that was taken out of a pool.
type Loan interface {
	// Exec runs SQL and reads its answer to the end.
	Exec(ctx context.Context, sql string) error
	// Rows starts a query and leaves its rows unread.
	Rows(ctx context.Context, sql string) error
	// Release gives the connection back.
	Release()
}

// Pgx returns a Pool for a pool of pgx connections. The function acquire returns a connection and what gives it back.
func Pgx(acquire func(context.Context) (conn *pgx.Conn, release func(), err error), close func()) Pool {
	return pgxPool{acquire, close}
}

type pgxPool struct {
	acquire func(context.Context) (*pgx.Conn, func(), error)
	close   func()
}

func (p pgxPool) Read(ctx context.Context, sql string) error {
	return retry.Read(ctx, func() error {
		loan, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		defer loan.Release()
		return loan.Exec(ctx, sql)
	})
}

func (p pgxPool) Acquire(ctx context.Context) (Loan, error) {
	conn, release, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return pgxLoan{conn, release}, nil
}

func (p pgxPool) Close() { p.close() }

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

func (l pgxLoan) Release() { l.release() }

// An Exam holds a kind of pool to the promises.
type Exam struct {
	New   func(url string, max int) (Pool, error) // makes a pool of at most max connections to the server at url
	Admin string                                  // the address of a server on which the exam may create databases and roles
	Limit time.Duration                           // how long a promise may take; if it is 0, 25 seconds

	mu     sync.Mutex      // held by the promise that uses the server below
	server *localpg.Server // a small one of the exam's own, to be broken
}

// A Result says whether a pool keeps a promise.
type Result struct {
	Promise string
	Err     error // what is wrong; nil if the promise is kept; ErrSkipped if it cannot be tested on this system
}

// ErrSkipped is the error of a promise that cannot be tested on this system.
var ErrSkipped = errors.New("cannot be tested on this system")

// Run tests the promises, the easiest first, and calls report with each result in that order. Several run at once, because
// they mostly wait. If first is true, Run stops at the first promise that is not kept. It returns how many were kept, and
// how many promises there are. A panic in a goroutine that the pool itself started ends the program.
func (e *Exam) Run(ctx context.Context, first bool, report func(Result)) (kept, of int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer e.Close()
	results := make([]chan Result, len(promises))
	for i := range promises {
		results[i] = make(chan Result, 1)
	}
	places := make(chan struct{}, 8)
	go func() {
		for i, p := range promises {
			places <- struct{}{}
			go func() {
				results[i] <- e.hold(ctx, p)
				<-places
			}()
		}
	}()
	for _, result := range results {
		r := <-result
		report(r)
		if r.Err == nil {
			kept++
		} else if first && !errors.Is(r.Err, ErrSkipped) {
			break
		}
	}
	return kept, len(promises)
}

// Close stops the exam's server.
func (e *Exam) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return nil
	}
	server := e.server
	e.server = nil
	return server.Stop()
}

// hold holds the pool to one promise.
func (e *Exam) hold(ctx context.Context, p promise) Result {
	if p.breaks {
		e.mu.Lock()
		defer e.mu.Unlock()
	}
	if p.queues {
		queueing.Lock()
		defer queueing.Unlock()
	}
	if ctx.Err() != nil {
		return Result{p.name, ctx.Err()}
	}
	limit := cmp.Or(e.Limit, 25*time.Second)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := &trial{exam: e, mark: rand.Text(), calls: make(map[string]int)}
	done := make(chan error, 1)
	go pprof.Do(ctx, pprof.Labels("trial", t.mark), func(ctx context.Context) { done <- t.run(ctx, p) })
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select { // a pool that heeds its context is back in a moment
		case err = <-done:
		case <-time.After(2 * time.Second):
			err = fmt.Errorf("after %v %s", limit, t.hangs())
			t.clean()
			if p.breaks && e.server != nil {
				e.server.Stop() // in the middle of something
				e.server = nil
			}
		}
	}
	if err != nil && !errors.Is(err, ErrSkipped) {
		err = fmt.Errorf("%s: %w", p.wrong, err)
	}
	return Result{p.name, err}
}

// Run tests the promises as subtests of t, in parallel. The map differs has the promises that this kind of pool does not
// make, with the reason. Such a promise must be broken: Run reports a difference that is gone, unless its reason begins
// with "sometimes".
func Run(t *testing.T, newPool func(url string, max int) (Pool, error), differs map[string]string) {
	t.Helper()
	exam := &Exam{New: newPool, Admin: pgtest.Admin(t)}
	var mu sync.Mutex
	kept := 0
	t.Cleanup(func() {
		t.Logf("%s: %d of %d kept", t.Name(), kept, len(promises))
		if err := exam.Close(); err != nil {
			t.Error(err)
		}
	})
	known := make(map[string]bool)
	for _, p := range promises {
		known[p.name] = true
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			err := exam.hold(context.Background(), p).Err
			why, differs := differs[p.name]
			switch {
			case errors.Is(err, ErrSkipped):
				t.Skip(err)
			case err != nil && !differs:
				t.Error(err)
			case err == nil && differs && !strings.HasPrefix(why, "sometimes"):
				t.Errorf("the promise is kept, though it is written down as a difference: %s", why)
			case err != nil:
				t.Logf("%s: not kept: %v", t.Name(), err)
			default:
				mu.Lock()
				defer mu.Unlock()
				kept++
			}
		})
	}
	for name := range differs {
		if !known[name] {
			t.Errorf("no promise is called %q", name)
		}
	}
}
