package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
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
	born  moment // when it was dialled
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

// hangUp closes connections side by side and waits, for limit at most, until the server has let them go.
func hangUp(entries ...entry) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	deadline, _ := ctx.Deadline()
	var all sync.WaitGroup
	for _, e := range entries {
		all.Go(func() {
			conn := e.conn.PgConn()
			// A failure below means that the connection is gone already, which is what it is all about.
			if !conn.IsClosed() {
				_ = conn.Conn().SetDeadline(deadline)
				conn.Frontend().Send(&pgproto3.Terminate{})
				_ = conn.Frontend().Flush()
				_, _ = io.Copy(io.Discard, conn.Conn()) // the server closes its end when it counts the connection no more
				_ = conn.Close(ctx)
			}
			select {
			case <-conn.CleanupDone(): // where a context ended a query, pgx closes in the background
			case <-ctx.Done():
				_ = conn.Conn().Close()
			}
		})
	}
	all.Wait()
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
