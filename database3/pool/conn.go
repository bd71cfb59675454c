package pool

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	checkAfter   = time.Second // if a connection was last lent this long ago, it is checked before it is lent again
	checkTimeout = time.Second // how long the answer to a check may take
	closeTimeout = time.Second // how long the pool waits for the server to close a connection

	// After a connection dies, the pool waits this long before it checks or opens another: a server that stops ends them one
	// after the other, and each works until then. On two processors with a load of 25, the last of 8 died within 85 ms of the first.
	settle = 100 * time.Millisecond
)

// A Conn is a connection on loan. After Release, a query on it panics.
type Conn struct {
	*pgx.Conn
	session *session
	ctx     context.Context // Acquire's; if it has ended, the caller ended the query, and the server did not end the connection
}

// Release gives the connection back. The pool keeps it if it is open, not in the middle of a query and not in a
// transaction, and closes it otherwise; Release does not wait for that. A second Release does nothing.
func (c *Conn) Release() {
	s := c.session
	p, conn := s.pool, s.conn
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Conn == nil {
		return
	}
	c.Conn = nil
	p.lent--
	if reusable(conn) && !p.closed {
		p.idle = append(p.idle, s)
		p.give()
		return
	}
	if conn.IsClosed() && c.ctx.Err() == nil {
		p.doubt(s)
	}
	go func() {
		hangUp(conn)
		p.give() // now the server has one connection less
	}()
}

// reusable reports whether the next caller can use conn: it is open, not in the middle of a query, not in a transaction.
func reusable(conn *pgx.Conn) bool {
	return !conn.IsClosed() && !conn.PgConn().IsBusy() && conn.PgConn().TxStatus() == 'I'
}

// doubt notes that s died. If the server stopped or the network failed, the others die too, so the pool checks each before it
// lends it. If s was last lent before the last noted death, both had the same cause. The caller must hold p.mu.
func (p *Pool) doubt(s *session) {
	if s.used > p.doubted {
		p.doubted = time.Since(p.start)
	}
}

// check asks s's server whether s is alive, which costs a round trip, and closes s if it is not.
func (p *Pool) check(s *session) bool {
	ctx, cancel := context.WithTimeout(p.open, checkTimeout)
	defer cancel()
	if s.conn.Ping(ctx) == nil {
		return true
	}
	go hangUp(s.conn) // pgx itself closes it after most failures, but not if p.open ended before the ping was sent
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() == context.DeadlineExceeded && s.used > p.doubted {
		for _, other := range p.idle { // the network is silent: close these, too, so that no caller waits for another check
			go hangUp(other.conn)
		}
		p.idle = nil
	}
	p.doubt(s)
	return false
}

// hangUp closes a connection and waits, for closeTimeout at most, until the server has closed it, too.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	pg := conn.PgConn()
	if pg.IsClosed() { // after a failure pgx closes a connection itself; after a Hijack it is somebody else's
		select {
		case <-pg.CleanupDone():
		case <-ctx.Done():
		}
		return
	}
	if pg.IsBusy() {
		_ = pg.CancelRequest(ctx) // else the server would finish the query first
	}
	deadline, _ := ctx.Deadline()
	for err := os.ErrDeadlineExceeded; ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded); {
		_ = pg.Conn().SetDeadline(deadline) // each time: the end of a query's context may have changed it
		pg.Frontend().Send(&pgproto3.Terminate{})
		_ = pg.Frontend().Flush()
		_, err = io.Copy(io.Discard, pg.Conn()) // until the server closes its end
	}
	_ = conn.Close(ctx)
}
