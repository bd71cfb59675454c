package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrClosed is what Acquire returns once the pool is closed.
var ErrClosed = errors.New("the connection pool is closed")

// A Pool lends out connections. Many goroutines may use it at once. New makes one.
type Pool struct {
	dial   func(context.Context) (*pgx.Conn, error)
	places chan struct{}      // a token for each connection that may yet be lent; a channel serves who waits in turn
	open   context.Context    // ends with Close, to wake who waits and stop who dials
	close  context.CancelFunc // ends open

	mu    sync.Mutex // protects the following for a few instructions: nobody waits, dials or hangs up under it
	idle  []entry    // the last one returned is the first one lent; never more of them than of tokens in places
	lent  []entry    // borrowed and not yet released
	doubt moment     // a connection broke at this time: what was idle then is checked before it is lent
	ended moment     // the server ended a connection at this time: what was open then is not lent again
	end   bool       // Close was called
	dials int64
	waits int64
}

// New makes a pool of at most max connections, which dial opens when they are needed. It panics if max is less than one.
func New(max int, dial func(context.Context) (*pgx.Conn, error)) *Pool {
	if max < 1 {
		panic("pool: a pool needs room for at least one connection")
	}
	p := &Pool{dial: dial, places: make(chan struct{}, max)}
	p.open, p.close = context.WithCancel(context.Background())
	for range max {
		p.places <- struct{}{}
	}
	return p
}

// Acquire borrows a connection, to be given back with Release. Callers are served in the order in which they come. While
// the server is starting, full, or out of reach, Acquire tries to connect until ctx's deadline; without one, and where
// waiting mends nothing (a wrong password), once. It ends at once when ctx does, and with ErrClosed after Close.
func (p *Pool) Acquire(ctx context.Context) (conn *pgx.Conn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("acquire a connection: %w", err)
	}
	select {
	case <-p.places:
	default:
		p.mu.Lock()
		p.waits++
		p.mu.Unlock()
		select {
		case <-p.places:
		case <-ctx.Done():
			return nil, fmt.Errorf("all %d connections are in use: %w", cap(p.places), ctx.Err())
		case <-p.open.Done():
			return nil, ErrClosed
		}
	}
	defer func() {
		if conn == nil { // also when dial panics
			p.places <- struct{}{}
		}
	}()
	if conn = p.reuse(ctx); conn != nil {
		return conn, nil
	}
	return p.connect(ctx)
}

// reuse lends an idle connection that is alive, or nil where there is none. Its caller holds a place.
func (p *Pool) reuse(ctx context.Context) *pgx.Conn {
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return nil
	}
	last := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	p.lent = append(p.lent, last)
	good, check := last.born > p.ended, now()-last.since > trusted || last.since <= p.doubt
	p.mu.Unlock()
	if good && (!check || alive(ctx, last.conn)) {
		return last.conn
	}
	// The one used last is dead, and so, in all likelihood, are those below it: no other caller shall lose a second to find
	// out. A check that the caller itself cut short says nothing of them.
	p.mu.Lock()
	p.forget(last.conn)
	dead := []entry{last}
	if ctx.Err() == nil {
		dead, p.idle = append(dead, p.idle...), nil
	}
	p.mu.Unlock()
	hangUp(dead...)
	return nil
}

// connect lends a new connection. Its caller holds a place.
func (p *Pool) connect(ctx context.Context) (*pgx.Conn, error) {
	dialling, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.open, cancel)()
	_, patient := ctx.Deadline()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		if p.open.Err() != nil {
			return nil, ErrClosed
		}
		conn, err := p.dial(dialling)
		if err == nil {
			p.mu.Lock()
			p.dials++
			p.lent = append(p.lent, entry{conn: conn, born: now()})
			p.mu.Unlock()
			return conn, nil
		}
		if p.open.Err() == nil && (ctx.Err() != nil || !patient || !passing(err)) {
			return nil, fmt.Errorf("open a connection: %w", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("open a connection: %w: %w", ctx.Err(), err)
		case <-p.open.Done():
			return nil, ErrClosed
		}
		// A full server may grant no more, but another caller may have released a connection.
		if conn := p.reuse(ctx); conn != nil {
			return conn, nil
		}
	}
}

// Release gives a borrowed connection back, in whatever state. It is kept only if it is open, not in the middle of a
// query and outside a transaction; else it is closed, which takes a second at most. Release panics if conn is not lent.
func (p *Pool) Release(conn *pgx.Conn) {
	p.mu.Lock()
	e := p.forget(conn)
	e.since = now()
	keep := !p.end && e.born > p.ended && reusable(conn)
	switch {
	case keep:
		p.idle = append(p.idle, e)
	case endedByServer(conn):
		p.ended = e.since
	case conn.IsClosed():
		p.doubt = e.since
	}
	p.mu.Unlock()
	if !keep {
		hangUp(e)
	}
	p.places <- struct{}{} // not before the server, too, has let the connection go
}

// Close closes the idle connections, which takes a second at most, wakes who waits, and leaves the borrowed connections
// to be closed by their Release. It never fails, and closing twice does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.end = true
	p.close()
	last := p.idle
	p.idle = nil
	p.mu.Unlock()
	hangUp(last...)
	return nil
}

// forget takes conn off the borrowed ones, and panics where it is none of them. The caller must hold p.mu.
func (p *Pool) forget(conn *pgx.Conn) entry {
	i := slices.IndexFunc(p.lent, func(e entry) bool { return e.conn == conn })
	if i < 0 {
		p.mu.Unlock()
		panic("pool: Release of a connection that is not borrowed")
	}
	e := p.lent[i]
	p.lent = slices.Delete(p.lent, i, i+1)
	return e
}

// Stats is what a pool is doing, and has done so far.
type Stats struct {
	Max, InUse, Idle int   // connections that may be open at once, that are borrowed, that wait to be
	Dials, Waits     int64 // connections opened; calls of Acquire that found all connections in use
}

// Stats looks at the pool as it is now.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{cap(p.places), len(p.lent), len(p.idle), p.dials, p.waits}
}
