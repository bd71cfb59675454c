package pool

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// A Conn is a connection on loan. After its Release it has no connection any more, and a query on it panics.
type Conn struct {
	*pgx.Conn
	session *session
	ctx     context.Context // Acquire's, which tells a query that the caller cut short from a connection that died
}

// Release gives the connection back. The pool keeps it if it is open, not in the middle of a query and not in a
// transaction, and closes it otherwise; Release does not wait for that. A second Release does nothing.
func (c *Conn) Release() {
	p, conn := c.session.pool, c.session.conn
	p.mu.Lock()
	if c.Conn == nil {
		p.mu.Unlock()
		return
	}
	c.Conn = nil
	p.lent--
	keep := reusable(conn) && p.open.Err() == nil
	if keep {
		p.idle = append(p.idle, c.session)
	} else if conn.IsClosed() && c.ctx.Err() == nil {
		p.doubt(c.session)
	}
	p.mu.Unlock()
	if keep {
		p.give()
		return
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
