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

// An entry is what the pool knows of a connection.
type entry struct {
	conn  *pgx.Conn
	born  moment // when it was opened
	since moment // when it was last released
}

// A moment is a time since the program started, which costs half of what the time of day does.
type moment = time.Duration

var start = time.Now()

func now() moment { return time.Since(start) }

// reusable tells whether a connection comes back as it was lent: open, not in the middle of a query, not in a transaction.
func reusable(conn *pgx.Conn) bool {
	return !conn.IsClosed() && !conn.PgConn().IsBusy() && conn.PgConn().TxStatus() == 'I'
}

// alive tells whether a connection still reaches its server: one round trip. Where it does not, pgx has closed it.
func alive(ctx context.Context, conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return conn.Ping(ctx) == nil
}

// endedByServer tells whether the server itself said that it ends the connection, as it does when it stops. pgx is done
// with such a connection at once; one that broke, or whose query a context ended, it goes on closing in the background.
func endedByServer(conn *pgx.Conn) bool {
	select {
	case <-conn.PgConn().CleanupDone():
		return true
	default:
		return false
	}
}

// hangUp closes connections and waits, for limit in all, until the server has confirmed that they are gone.
func hangUp(conns ...entry) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	deadline, _ := ctx.Deadline()
	// A failure below means that the connection is gone already, which is what it is all about.
	for _, e := range conns {
		if conn := e.conn; !conn.IsClosed() {
			_ = conn.PgConn().Conn().SetDeadline(deadline)
			conn.PgConn().Frontend().Send(&pgproto3.Terminate{})
			_ = conn.PgConn().Frontend().Flush()
		}
	}
	for _, e := range conns {
		conn := e.conn
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
