// Package pooltest tests whether a connection pool keeps the promises that programs rely on, each on a real PostgreSQL server
// and with a real fault. If the pool does not keep one, pooltest says what is probably wrong.
package pooltest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
)

// A Pool is a connection pool under test.
type Pool struct {
	Read    func(ctx context.Context, sql string) error // runs a query that changes nothing, and again if the connection died
	Acquire func(ctx context.Context) (Loan, error)     // takes a connection out of the pool
	Close   func()                                      // closes the pool; it may be called twice
}

// A Loan is a connection that was taken out of a pool.
type Loan struct {
	Exec    func(ctx context.Context, sql string) error // runs SQL and reads its answer to the end
	Rows    func(ctx context.Context, sql string) error // starts a query and leaves its rows unread
	Release func()                                      // returns the connection
}

// Pgx returns a Pool for a pool of pgx connections. The function acquire returns a connection and its release.
func Pgx(acquire func(context.Context) (conn *pgx.Conn, release func(), err error), close func()) Pool {
	p := Pool{Close: close}
	p.Acquire = func(ctx context.Context) (Loan, error) {
		conn, release, err := acquire(ctx)
		exec := func(ctx context.Context, sql string) error {
			_, err := conn.Exec(ctx, sql)
			return err
		}
		rows := func(ctx context.Context, sql string) error {
			rows, err := conn.Query(ctx, sql)
			rows.Next()
			return err
		}
		return Loan{exec, rows, release}, err
	}
	p.Read = func(ctx context.Context, sql string) error {
		return retry.Read(ctx, func() error {
			loan, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer loan.Release()
			return loan.Exec(ctx, sql)
		})
	}
	return p
}

// An Exam tests whether a kind of pool keeps the promises.
type Exam struct {
	New   func(url string, max int) (Pool, error) // makes a pool of at most max connections to the server at url
	Admin string                                  // the address of a server on which the exam may create databases and roles
	Limit time.Duration                           // how long a promise may take; if it is 0, 25 seconds
	Own   localpg.Options                         // how to start the server that the promises break

	mu     sync.Mutex      // held by the promise that uses the server below
	server *localpg.Server // the exam's own
}

// A Result says whether a pool keeps a promise.
type Result struct {
	Promise string
	Err     error // what is wrong; nil if the promise is kept; ErrSkipped if it cannot be tested on this system
}

// ErrSkipped is the error of a promise that cannot be tested on this system.
var ErrSkipped = errors.New("cannot be tested on this system")

// Run tests the promises, the easiest first, and calls report with each result in that order. Several run at once, because
// they mostly wait. It returns how many were kept, and how many promises there are. A panic in a goroutine that the pool
// itself started ends the program.
func (e *Exam) Run(ctx context.Context, report func(Result)) (kept, of int) {
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

// hold tests whether the pool keeps one promise.
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
	if p.breaks {
		if err := e.serve(ctx); err != nil {
			return Result{p.name, err}
		}
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
		select { // a pool that respects its context is back in a moment
		case err = <-done:
		case <-time.After(2 * time.Second):
			err = fmt.Errorf("after %v %s", limit, t.hangs())
			t.clean()
			if p.breaks {
				e.server.Stop() // it may be in the middle of something
				e.server = nil
			}
		}
	}
	if err != nil && !errors.Is(err, ErrSkipped) {
		err = fmt.Errorf("%s: %w", p.wrong, err)
	}
	return Result{p.name, err}
}

// serve makes sure that the exam's own server runs. The test of a promise that failed may have left it stopped.
func (e *Exam) serve(ctx context.Context) (err error) {
	if e.server == nil {
		o := e.Own
		o.Config = map[string]string{"max_connections": "20"}
		e.server, err = localpg.Start(ctx, o)
		return err
	}
	select {
	case <-e.server.Done():
		return e.server.Resume(ctx)
	default:
		return nil
	}
}

// Run tests the promises as subtests of t, in parallel. The map differs has the promises that this kind of pool does not
// always keep, with the reason.
func Run(t *testing.T, newPool func(url string, max int) (Pool, error), differs map[string]string) {
	t.Helper()
	exam := &Exam{New: newPool, Admin: pgtest.Admin(t), Own: pgtest.Own(t, localpg.Options{}), Limit: time.Minute} // a machine may be busy
	var kept atomic.Int64
	known := 0
	t.Cleanup(func() {
		t.Logf("%s: %d of %d kept", t.Name(), kept.Load(), len(promises))
		if err := exam.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range promises {
		_, differs := differs[p.name]
		if differs {
			known++
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			err := exam.hold(context.Background(), p).Err
			switch {
			case errors.Is(err, ErrSkipped):
				t.Skip(err)
			case err == nil:
				kept.Add(1)
			case differs:
				t.Logf("%s: not kept: %v", t.Name(), err)
			default:
				t.Error(err)
			}
		})
	}
	if known != len(differs) {
		t.Errorf("differs has %d promises that do not exist", len(differs)-known)
	}
}
