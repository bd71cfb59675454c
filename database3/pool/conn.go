package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	trusted = time.Second // how long a connection may lie idle and still be lent unchecked
	limit   = time.Second // how long a check, and a farewell, may take
)

// idle is a connection that nobody has borrowed.
type idle struct {
	conn  *pgx.Conn
	since time.Time
}

// alive tells whether a connection still reaches its server: one round trip. Where it does not, pgx has closed it.
func alive(ctx context.Context, conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return conn.Ping(ctx) == nil
}

// hangUp closes connections and waits, for limit in all, until the server has confirmed that they are gone.
func hangUp(conns ...idle) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	deadline, _ := ctx.Deadline()
	// A failure below means that the connection is gone already, which is what it is all about.
	for _, i := range conns {
		if conn := i.conn; !conn.IsClosed() {
			_ = conn.PgConn().Conn().SetDeadline(deadline)
			conn.PgConn().Frontend().Send(&pgproto3.Terminate{})
			_ = conn.PgConn().Frontend().Flush()
		}
	}
	for _, i := range conns {
		conn := i.conn
		if !conn.IsClosed() {
			// The server takes a connection out of its count and then closes its end. Close does not wait for that.
			_, _ = io.Copy(io.Discard, conn.PgConn().Conn())
			_ = conn.Close(ctx)
		}
		select {
		case <-conn.PgConn().CleanupDone(): // where a context ended a query, pgx closes in the background
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
