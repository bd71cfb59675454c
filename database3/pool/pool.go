// Package pool lends out connections to PostgreSQL, so that a program opens few of them and uses each many times.
//
// The pool in many a first project is a queue: take a connection out or, when the queue is empty, open one; put it back
// when done. It works on the first day. Then a burst of callers opens more connections than the server allows; then the
// server restarts and its dead connections go round for ever; then one comes back inside a failed transaction and spoils
// the next caller's query; and nobody ever closes any. What each line here has over that queue is one of these: a bound,
// a wait in turn, a look at what comes back and at what has lain idle, another try at connecting, and an end.
//
// Larger pools (pgxpool, database/sql) also keep connections in reserve, retire them by age, and tend to both from a
// goroutine in the background. This one does all its work in its callers' calls: it is short enough to be read in one
// sitting, and a small shop needs no more. A caller that holds a connection and acquires a second can wait for ever once
// all callers do so, and so can the rest when rows or connections are never given back: release what you acquire.
package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// ErrClosed is what Acquire returns once the pool is closed.
var ErrClosed = errors.New("the connection pool is closed")

const (
	checkAfter = time.Second            // what has lain idle for longer is checked before it is lent
	checkLimit = time.Second            // how long that check may take
	closeLimit = time.Second            // how long the server has to confirm that a connection is closed
	firstPause = 10 * time.Millisecond  // between two tries to connect; it doubles up to
	lastPause  = 200 * time.Millisecond // this
)

// A Pool lends out connections. Many goroutines may use it at once. New makes one.
type Pool struct {
	dial   func(context.Context) (*pgx.Conn, error)
	places chan struct{}      // a token for each connection that may still be borrowed; callers queue here in their turn
	open   context.Context    // ends with Close, to wake who waits and to stop who dials
	close  context.CancelFunc // ends open

	mu     sync.Mutex  // protects the following, for a few instructions: nobody waits, dials or closes under it
	idle   []idle      // the last one returned is the next one lent; never more than there are tokens in places
	lent   []*pgx.Conn // borrowed and not yet released
	doubt  time.Time   // a connection died at this time; what was idle then is checked before it is lent
	closed bool
	dials  int64
	waits  int64
}

type idle struct {
	conn  *pgx.Conn
	since time.Time
}

// Stats is what a pool is doing, and has done so far.
type Stats struct {
	Max   int   // connections that may be open at once
	InUse int   // connections that are borrowed
	Idle  int   // connections that wait to be borrowed
	Dials int64 // connections opened
	Waits int64 // calls of Acquire that had to wait because all connections were in use
}

// New makes a pool of at most max connections, each made by dial. It opens none yet. It panics if max is less than one.
func New(max int, dial func(context.Context) (*pgx.Conn, error)) *Pool {
	if max < 1 {
		panic("pool: a pool needs room for a connection")
	}
	p := &Pool{dial: dial, places: make(chan struct{}, max), idle: make([]idle, 0, max), lent: make([]*pgx.Conn, 0, max)}
	p.open, p.close = context.WithCancel(context.Background())
	for range max {
		p.places <- struct{}{}
	}
	return p
}

// Acquire borrows a connection, to be given back with Release. Callers are served in the order in which they come. While
// the server cannot be reached, is starting or is full, Acquire keeps trying until ctx's deadline; without a deadline,
// and for what waiting cannot mend, such as a wrong password, it tries once. It ends at once when ctx ends, with ctx's
// error and the reason why there was no connection yet, or with ErrClosed when the pool is closed.
func (p *Pool) Acquire(ctx context.Context) (*pgx.Conn, error) {
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
	lent := false
	defer func() {
		if !lent { // also when dial panics
			p.places <- struct{}{}
		}
	}()
	conn, err := p.reuse(ctx)
	if conn == nil && err == nil {
		conn, err = p.connect(ctx)
	}
	lent = err == nil
	return conn, err
}

// reuse lends an idle connection that is alive, or none where there is none. Its caller holds a place.
func (p *Pool) reuse(ctx context.Context) (*pgx.Conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	last := len(p.idle) - 1
	if last < 0 {
		p.mu.Unlock()
		return nil, nil
	}
	found := p.idle[last]
	p.idle = p.idle[:last]
	p.lent = append(p.lent, found.conn)
	check := time.Since(found.since) > checkAfter || !found.since.After(p.doubt)
	p.mu.Unlock()
	if !check {
		return found.conn, nil
	}
	limited, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	if found.conn.Ping(limited) == nil {
		return found.conn, nil
	}
	dead := []*pgx.Conn{found.conn}
	p.mu.Lock()
	p.forget(found.conn)
	if ctx.Err() == nil {
		// This one was used last, so the others are no better: a server that restarted ended all of them, and to wait for
		// each in turn, when the network swallows what is sent, could take longer than the caller has.
		for _, other := range p.idle {
			dead = append(dead, other.conn)
		}
		p.idle = p.idle[:0]
	}
	p.mu.Unlock()
	hangUp(dead...)
	return nil, nil
}

// connect lends a new connection. Its caller holds a place.
func (p *Pool) connect(ctx context.Context) (*pgx.Conn, error) {
	dialling, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.open, cancel)()
	_, patient := ctx.Deadline()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := p.dial(dialling)
		if err == nil {
			p.mu.Lock()
			p.dials++
			closed := p.closed
			if !closed {
				p.lent = append(p.lent, conn)
			}
			p.mu.Unlock()
			if closed {
				hangUp(conn)
				return nil, ErrClosed
			}
			return conn, nil
		}
		if p.open.Err() != nil {
			return nil, ErrClosed
		}
		if ctx.Err() != nil || !patient || !passing(err) {
			return nil, fmt.Errorf("open a connection: %w", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("open a connection: %w, after %w", ctx.Err(), err)
		case <-p.open.Done():
			return nil, ErrClosed
		}
		// Another caller may have released a connection, while a full server grants no more.
		if conn, err := p.reuse(ctx); conn != nil || err != nil {
			return conn, err
		}
	}
}

// Release gives a borrowed connection back, from whatever state: it is kept only if it is open, not in the middle of a
// query, and outside a transaction. Otherwise Release closes it, which takes a second at most. It panics if conn is not
// borrowed from p, as it is not when it was released before.
func (p *Pool) Release(conn *pgx.Conn) {
	p.mu.Lock()
	if !p.forget(conn) {
		p.mu.Unlock()
		panic("pool: released a connection that is not borrowed")
	}
	keep := !p.closed && !conn.IsClosed() && !conn.PgConn().IsBusy() && conn.PgConn().TxStatus() == 'I'
	if keep {
		p.idle = append(p.idle, idle{conn, time.Now()})
	} else if conn.IsClosed() {
		p.doubt = time.Now()
	}
	p.mu.Unlock()
	if !keep {
		hangUp(conn)
	}
	p.places <- struct{}{} // only now: the server has let go of the connection too
}

// forget takes conn off the borrowed ones, and tells whether it was there. The caller must hold p.mu.
func (p *Pool) forget(conn *pgx.Conn) bool {
	i := slices.Index(p.lent, conn)
	if i < 0 {
		return false
	}
	last := len(p.lent) - 1
	p.lent[i], p.lent[last] = p.lent[last], nil
	p.lent = p.lent[:last]
	return true
}

// Close closes the idle connections, wakes who waits, and leaves those that are borrowed to close on their Release. It
// takes a second at most and never fails; closing twice does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	var conns []*pgx.Conn
	for _, i := range p.idle {
		conns = append(conns, i.conn)
	}
	p.idle = nil
	p.mu.Unlock()
	p.close()
	hangUp(conns...)
	return nil
}

// Stats is a look at the pool as it is now.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Max: cap(p.places), InUse: len(p.lent), Idle: len(p.idle), Dials: p.dials, Waits: p.waits}
}

// hangUp closes connections and waits, for closeLimit in all, until the server confirms that they are gone.
func hangUp(conns ...*pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	deadline, _ := ctx.Deadline()
	for _, conn := range conns {
		if !conn.IsClosed() {
			_ = conn.PgConn().Conn().SetDeadline(deadline) // none of these can fail in a way that is worth knowing
			conn.PgConn().Frontend().Send(&pgproto3.Terminate{})
			_ = conn.PgConn().Frontend().Flush()
		}
	}
	for _, conn := range conns {
		if !conn.IsClosed() {
			// A backend leaves the server's count before it closes its end. Close alone would not wait for that.
			_, _ = io.Copy(io.Discard, conn.PgConn().Conn())
			_ = conn.Close(ctx)
		}
		select {
		case <-conn.PgConn().CleanupDone(): // pgx closes what a context has cancelled in the background
		case <-ctx.Done():
			_ = conn.PgConn().Conn().Close()
		}
	}
}

// passing tells whether a failure to connect can pass by itself: the network fails, or the server is full (53300), ends
// its sessions (57P01, 57P02), or is starting up or shutting down (57P03).
func passing(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return slices.Contains([]string{"53300", "57P01", "57P02", "57P03"}, server.Code)
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.IsTemporary || name.IsTimeout
	}
	var network *net.OpError
	return errors.As(err, &network) && slices.Contains([]string{"dial", "read", "write"}, network.Op) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
