// Package pool lends connections to PostgreSQL, so that a program opens few of them and uses each many times.
//
// Read pool.go first, from Acquire to Close; then conn.go, which has Release and decides which connections to trust; then
// dial.go, which opens connections. The rules come from pgxpool, puddle and SQLAlchemy's pool; chapter 7 has the reasons.
//
// No pool prevents three mistakes. Callers that hold a connection and acquire another can wait for each other for ever.
// A connection that is not released is lost to the others, so defer the Release. And a session keeps what SET, PREPARE,
// LISTEN, CREATE TEMPORARY TABLE or pg_advisory_lock did to it: the next caller finds it there.
package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrClosed is the error of Acquire after Close.
var ErrClosed = errors.New("the connection pool is closed")

// A Pool lends connections. Many goroutines may use it at once.
type Pool struct {
	dial         func(context.Context) (*pgx.Conn, error)
	free         chan struct{}      // a token for each connection that may be lent; callers receive them in the order in which they come
	open         context.Context    // the context of dials and checks; Close ends it
	end          context.CancelFunc // ends open
	start        time.Time          // the pool's times count from here, which is cheaper than the time of day
	dials, waits atomic.Int64       // as in Stats

	mu      sync.Mutex // protects the fields below; nothing that blocks is done while it is held
	idle    []*session // the last one released is the first one lent; with those that are lent, never more than max
	lent    int
	doubted time.Duration // when a connection died
	closed  bool
}

// A session is an open connection and what the pool knows of it.
type session struct {
	pool *Pool
	conn *pgx.Conn
	used time.Duration // when it was last lent, or when its dial or its last check began
}

// New returns a pool of at most max connections, which dial opens when they are needed. New panics if max is less than 1.
func New(max int, dial func(context.Context) (*pgx.Conn, error)) *Pool {
	if max < 1 {
		panic("pool: max must be at least 1")
	}
	p := &Pool{dial: dial, start: time.Now(), doubted: -settle}
	p.open, p.end = context.WithCancel(context.Background())
	p.free = make(chan struct{}, max+1) // Close adds a token
	for range max {
		p.give()
	}
	return p
}

// Acquire lends a connection to the caller, which must release it. Callers are served in the order in which they come.
//
// If the server is starting, full or out of reach, Acquire tries again until ctx's deadline. It tries only once if ctx has
// no deadline, or if waiting does not help: a wrong password stays wrong. Acquire returns as soon as ctx ends, and returns
// ErrClosed after Close. Use ctx for the queries, too, and do not close the connection yourself: if it is closed before ctx
// ends, the pool assumes that the server failed, and checks all others.
func (p *Pool) Acquire(ctx context.Context) (*Conn, error) {
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	for {
		if conn := p.lend(ctx); conn != nil {
			return conn, nil
		}
		if err := p.prepare(ctx); err != nil {
			return nil, err
		}
	}
}

// take waits for a token.
func (p *Pool) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("acquire a connection: %w", err)
	}
	select {
	case <-p.free:
		return nil
	default:
		p.waits.Add(1)
	}
	select {
	case <-p.free:
		return nil
	case <-ctx.Done():
		if s := p.Stats(); s.InUse == s.Max {
			return fmt.Errorf("all %d connections are in use: %w", s.Max, ctx.Err())
		}
		return fmt.Errorf("wait for a connection that is being opened or closed: %w", ctx.Err())
	}
}

// give returns a token. It does not wait: the channel has room for all.
func (p *Pool) give() { p.free <- struct{}{} }

// lend lends the idle connection that was released last. It returns nil if there is none, or if it must be checked first.
func (p *Pool) lend(ctx context.Context) *Conn {
	now := time.Since(p.start)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 || p.idle[last].used <= p.doubted || now-p.idle[last].used >= checkAfter {
		return nil
	}
	s := p.idle[last]
	p.idle = p.idle[:last]
	p.lent++
	s.used = now
	return &Conn{s.conn, s, ctx}
}

// prepare adds a connection that can be lent to the idle ones, and tries again as long as that can help. The work belongs to
// the pool: if ctx ends first, the work goes on and the next caller gets the connection. If prepare fails, the pool gets the
// caller's token back.
func (p *Pool) prepare(ctx context.Context) error {
	_, patient := ctx.Deadline()
	var reason error // why the last try failed
	for wait := 10 * time.Millisecond; p.open.Err() == nil; wait = min(2*wait, 200*time.Millisecond) {
		done := make(chan error) // without a buffer: the caller gets the result and keeps its token, or the pool returns it
		go func() {
			err := p.try()
			select {
			case done <- err:
			case <-ctx.Done():
				p.give()
			}
		}()
		select {
		case reason = <-done:
			if reason == nil {
				return nil
			}
			if p.open.Err() != nil || patient && passing(reason) && pause(ctx, wait) {
				continue
			}
			p.give()
		case <-ctx.Done():
		}
		if ctx.Err() != nil && reason != nil {
			reason = fmt.Errorf("%w: %w", ctx.Err(), reason)
		}
		return fmt.Errorf("open a connection: %w", cmp.Or(reason, ctx.Err()))
	}
	p.give() // to the next caller that waits
	return ErrClosed
}

// pause waits for a while. It reports whether ctx has not ended.
func pause(ctx context.Context, while time.Duration) bool {
	select {
	case <-time.After(while):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// try puts a session that can be lent into p.idle: one from there that is alive, or a new one.
func (p *Pool) try() (err error) {
	now := time.Since(p.start)
	p.mu.Lock()
	if left := p.doubted + settle - now; left > 0 {
		p.mu.Unlock()
		time.Sleep(left)
		return p.try()
	}
	var s *session
	if last := len(p.idle) - 1; last >= 0 {
		s, p.idle = p.idle[last], p.idle[:last]
	}
	p.mu.Unlock()
	if s == nil {
		s, err = p.connect()
	} else if !p.check(s) {
		return p.try()
	}
	if err != nil {
		return err
	}
	s.used = now // if another died meanwhile, this one is in doubt
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go hangUp(s.conn)
		return ErrClosed
	}
	p.idle = append(p.idle, s)
	return nil
}

// Close closes the idle connections, which takes a second at most, and ends the calls to Acquire that wait. A connection
// that is in use is closed by its Release. Close always returns nil, and may be called twice.
func (p *Pool) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.give() // the first caller that waits takes this token and passes it on
	}
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	p.end()
	var all sync.WaitGroup
	for _, s := range idle {
		all.Go(func() { hangUp(s.conn) })
	}
	all.Wait()
	return nil
}

// Stats says what a pool is doing, and what it has done so far.
type Stats struct {
	Max, InUse, Idle int   // connections: at most, lent to callers, and waiting for a caller
	Dials, Waits     int64 // connections opened; calls to Acquire that had to wait for a place
}

// Stats returns the pool's statistics.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{cap(p.free) - 1, p.lent, len(p.idle), p.dials.Load(), p.waits.Load()}
}
