package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrClosed is what Acquire returns once the pool is closed.
var ErrClosed = errors.New("the connection pool is closed")

// A Pool lends out connections. Many goroutines may use it at once. New makes one.
type Pool struct {
	dial         func(context.Context) (*pgx.Conn, error)
	places       chan struct{}      // a token in it for each place that is taken; a channel serves who waits in turn
	open         context.Context    // ends with Close, to wake who waits and stop who dials
	close        context.CancelFunc // ends open
	dials, waits atomic.Int64       // as in Stats

	mu    sync.Mutex // protects the following for a few instructions: nobody waits, dials or hangs up under it
	idle  []entry    // the last one returned is the first one lent; never more of them than places are free
	lent  []entry    // borrowed and not yet released
	doubt moment     // a connection broke at this time: what was idle then is checked before it is lent
	stale moment     // the server ended one, or one was found dead: what was dialled before this time is not lent again
}

// New makes a pool of at most max connections, which dial opens when they are needed. It panics if max is less than one.
func New(max int, dial func(context.Context) (*pgx.Conn, error)) *Pool {
	if max < 1 {
		panic("pool: a pool needs room for at least one connection")
	}
	open, cancel := context.WithCancel(context.Background())
	return &Pool{dial: dial, places: make(chan struct{}, max), open: open, close: cancel}
}

// Acquire borrows a connection, to be given back with Release. Callers are served in the order in which they come. While
// the server is starting, full, or out of reach, Acquire tries to connect until ctx's deadline; without one, and where
// waiting mends nothing (a wrong password), once. It ends at once when ctx does, and with ErrClosed after Close.
func (p *Pool) Acquire(ctx context.Context) (*Conn, error) {
	conn, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{conn, p}, nil
}

// A Conn is a connection on loan.
type Conn struct {
	*pgx.Conn
	pool *Pool
}

// Release gives the connection back.
func (c *Conn) Release() { c.pool.Release(c.Conn) }

func (p *Pool) acquire(ctx context.Context) (conn *pgx.Conn, err error) {
	if err := p.stopped(ctx); err != nil {
		return nil, fmt.Errorf("acquire a connection: %w", err)
	}
	select {
	case p.places <- struct{}{}:
	default:
		p.waits.Add(1)
		select {
		case p.places <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("all %d connections are in use: %w", cap(p.places), ctx.Err())
		case <-p.open.Done():
			return nil, ErrClosed
		}
	}
	defer func() {
		if conn == nil { // also when dial panics
			<-p.places
		}
	}()
	if conn = p.reuse(ctx); conn == nil {
		conn, err = p.connect(ctx)
	}
	return conn, err
}

// stopped is why nothing more is to be done for a caller, or nil.
func (p *Pool) stopped(ctx context.Context) error {
	if p.open.Err() != nil {
		return ErrClosed
	}
	return ctx.Err()
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
	fresh, check := last.born > p.stale, now()-last.since > trusted || last.since <= p.doubt
	p.mu.Unlock()
	if fresh && (!check || alive(ctx, last.conn)) {
		return last.conn
	}
	p.mu.Lock()
	p.forget(last.conn)
	if fresh && ctx.Err() == nil { // a check that the caller itself cut short says nothing
		p.stale = now() // and so, in all likelihood, are the others dead: nobody else shall lose a second to find out
	}
	p.mu.Unlock()
	hangUp(last)
	return nil
}

// connect lends a new connection. Its caller holds a place.
func (p *Pool) connect(ctx context.Context) (*pgx.Conn, error) {
	dialling, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.open, cancel)()
	deadline, patient := ctx.Deadline()
	var reason error
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		born := now()
		conn, err := p.dial(dialling)
		if err == nil {
			p.dials.Add(1)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.lent = append(p.lent, entry{conn: conn, born: born})
			return conn, nil
		}
		// A dial that was cut short tells less than the one before it. It may end an instant before its context does.
		if cut := dialling.Err() != nil || patient && !time.Now().Before(deadline); reason == nil || !cut {
			reason = err
		}
		again := patient && passing(reason)
		if again {
			select {
			case <-time.After(pause):
			case <-dialling.Done():
			}
		}
		if why := p.stopped(ctx); why != nil {
			return nil, fmt.Errorf("open a connection: %w: %w", why, reason)
		}
		if !again {
			return nil, fmt.Errorf("open a connection: %w", reason)
		}
		if conn := p.reuse(ctx); conn != nil { // a full server may grant no more, but another caller may have released one
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
	keep := p.open.Err() == nil && e.born > p.stale && reusable(conn)
	switch {
	case keep:
		p.idle = append(p.idle, e)
	case endedByServer(conn):
		p.stale = e.since
	case conn.IsClosed():
		p.doubt = e.since
	}
	p.mu.Unlock()
	if !keep {
		hangUp(e)
	}
	<-p.places // not before the server, too, has let the connection go
}

// Close closes what is idle, within a second, and wakes who waits. What is borrowed its Release closes. Twice is fine.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.close()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	hangUp(idle...)
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
	return Stats{cap(p.places), len(p.lent), len(p.idle), p.dials.Load(), p.waits.Load()}
}
