// Package pool lends connections to PostgreSQL, so that a program opens few of them and uses each many times.
//
// The pool in many a first project is a queue: take a connection out or, if the queue is empty, open one; put it back
// when done. It works until a burst of callers opens more connections than the server allows, the server restarts and its
// dead connections go round for ever, or one comes back inside a failed transaction and the next caller's query fails.
//
// Read it in this order: pool.go has the pool, from Acquire to Close; conn.go has the loan and its Release; check.go
// decides whether a connection can be lent again; dial.go opens connections and closes them. Some rules come from other
// pools. One is kept only if it is open, idle and outside a transaction, and is checked if it was idle for a second:
// pgxpool. If one dies, the older ones are in doubt: SQLAlchemy. One that is being opened belongs to the pool: puddle.
//
// No pool prevents three mistakes. Callers that hold a connection and acquire another can wait for each other for ever.
// A connection that is not released is lost to the others, so defer the Release. And a session keeps what SET, PREPARE,
// LISTEN, CREATE TEMPORARY TABLE or pg_advisory_lock did to it: the next caller finds it there.
package pool

import (
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
	dial  func(context.Context) (*pgx.Conn, error)
	free  chan struct{}      // a token for each connection that may be lent: a channel serves first whoever came first
	open  context.Context    // ends when the pool is closed
	end   context.CancelFunc // ends it
	waits atomic.Int64       // as in Stats

	mu         sync.Mutex // protects the fields below; nobody waits for anything while holding it
	idle       []*session // the last one released is the first one lent; never more of them than free tokens
	lent       int
	dials      int64
	generation int       // of the connections that are opened now
	doubted    time.Time // when the generations before this one came into doubt
}

// A session is an open connection and what the pool knows of it.
type session struct {
	pool       *Pool
	conn       *pgx.Conn
	generation int       // the pool's when the connection last proved to be alive
	used       time.Time // when it was last lent or checked
}

// New returns a pool of at most max connections, which dial opens when they are needed. New panics if max is less than 1.
func New(max int, dial func(context.Context) (*pgx.Conn, error)) *Pool {
	if max < 1 {
		panic("pool: max must be at least 1")
	}
	free := make(chan struct{}, max+1) // Close adds a token
	for range max {
		free <- struct{}{}
	}
	open, end := context.WithCancel(context.Background())
	return &Pool{dial: dial, free: free, open: open, end: end}
}

// Acquire lends a connection to the caller, which must release it. Callers are served in the order in which they come.
//
// If the server is starting, full or out of reach, Acquire tries again until ctx's deadline. It tries only once if ctx has
// no deadline, or if waiting does not help: a wrong password stays wrong. Acquire returns as soon as ctx ends, and returns
// ErrClosed after Close. Use ctx for the queries, too: if one breaks off and ctx has not ended, the pool blames the server.
func (p *Pool) Acquire(ctx context.Context) (*Conn, error) {
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	now := now()
	p.mu.Lock()
	s := p.pop()
	if s != nil && p.trusts(s, now) {
		s.used = now
		p.lent++
		p.mu.Unlock()
		return &Conn{s.conn, s, ctx}, nil
	}
	p.mu.Unlock()
	return p.prepare(ctx, s)
}

// take waits for a token.
func (p *Pool) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("acquire a connection: %w", err)
	}
	select {
	case <-p.free:
	default:
		p.waits.Add(1)
		select {
		case <-p.free:
		case <-ctx.Done():
			if s := p.Stats(); s.InUse == s.Max {
				return fmt.Errorf("all %d connections are in use: %w", s.Max, ctx.Err())
			}
			return fmt.Errorf("wait for a connection that is being opened or closed: %w", ctx.Err())
		}
	}
	if p.open.Err() != nil {
		p.give() // to the next caller that waits
		return ErrClosed
	}
	return nil
}

// give returns a token.
func (p *Pool) give() { p.free <- struct{}{} }

// pop returns the idle session that was released last, or nil. The caller must hold p.mu and have a token.
func (p *Pool) pop() *session {
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	s := p.idle[last]
	p.idle = p.idle[:last]
	return s
}

// prepare lends s after a check, or a new session. The caller has a token.
func (p *Pool) prepare(caller context.Context, s *session) (*Conn, error) {
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	defer context.AfterFunc(p.open, cancel)()
	_, patient := caller.Deadline()
	var reason error
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		found, err := p.try(ctx, s)
		if err == nil {
			return p.lend(caller, found)
		}
		if err == errLeft {
			return nil, p.explain(caller, reason)
		}
		s, reason = nil, err
		if !patient || !passing(err) || !pause(ctx, wait) {
			p.give()
			return nil, p.explain(caller, reason)
		}
	}
}

// errLeft is try's error if ctx ends first.
var errLeft = errors.New("the caller left")

// try returns s or another idle session that is alive, or a new one. The work belongs to the pool: if ctx ends first, the
// work goes on with the caller's token, and the session becomes idle.
func (p *Pool) try(ctx context.Context, s *session) (*session, error) {
	type result struct {
		s   *session
		err error
	}
	done := make(chan result) // without a buffer: either the caller takes the result, or the pool keeps it
	go func() {
		s, err := p.find(ctx, s)
		select {
		case done <- result{s, err}:
		case <-ctx.Done():
			p.keep(s)
		}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-ctx.Done():
		return nil, errLeft
	}
}

// lend lends a session, unless the pool was closed meanwhile.
func (p *Pool) lend(caller context.Context, s *session) (*Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open.Err() != nil {
		go p.keep(s)
		return nil, ErrClosed
	}
	p.lent++
	return &Conn{s.conn, s, caller}, nil
}

// keep makes a session idle, or closes it if the pool is closed, and returns its token. The session may be nil.
func (p *Pool) keep(s *session) {
	p.mu.Lock()
	closed := p.open.Err() != nil
	if s != nil && !closed {
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if s != nil && closed {
		hangUp(s.conn)
	}
	p.give()
}

// explain returns the error of a caller that got no connection. The reason is why the last try failed, or nil.
func (p *Pool) explain(caller context.Context, reason error) error {
	if p.open.Err() != nil {
		return ErrClosed
	}
	if err := caller.Err(); err != nil && reason != nil {
		reason = fmt.Errorf("%w: %w", err, reason)
	} else if err != nil {
		reason = err
	}
	return fmt.Errorf("open a connection: %w", reason)
}

// Close closes the idle connections, which takes a second at most, and ends the calls of Acquire that wait. A connection
// that is in use is closed by its Release. Close always returns nil, and may be called twice.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.open.Err() == nil {
		p.end()
		p.give() // the first caller that waits takes this token and passes it on
	}
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range idle {
		all.Go(func() { hangUp(s.conn) })
	}
	all.Wait()
	return nil
}

// Stats says what a pool is doing, and did so far.
type Stats struct {
	Max, InUse, Idle int   // connections that there may be, that callers have, and that wait for a caller
	Dials, Waits     int64 // connections opened; calls of Acquire that had to wait for a place
}

// Stats returns the pool's statistics.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{cap(p.free) - 1, p.lent, len(p.idle), p.dials, p.waits.Load()}
}
