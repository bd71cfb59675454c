package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	dialTimeout  = 10 * time.Second // how long one try to connect may take
	closeTimeout = time.Second      // how long the pool waits for the server to close a connection
)

// find returns s or another idle session that passes its check, or a new one. It starts with nil if s is nil.
func (p *Pool) find(ctx context.Context, s *session) (*session, error) {
	for s == nil || !p.check(s) {
		p.mu.Lock()
		s = p.pop()
		p.mu.Unlock()
		if s != nil {
			continue
		}
		var err error
		if s, err = p.connect(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// connect opens a connection. It goes on if ctx ends, but not if the pool is closed.
func (p *Pool) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	defer context.AfterFunc(p.open, cancel)()
	generation := p.settled() // if a connection dies while dial works, the new one is in doubt, too
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, errors.New("dial returned neither a connection nor an error")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials++
	return &session{p, conn, generation, now()}, nil
}

// passing reports whether a failure to connect can pass by itself. One dial can fail for several hosts, and with TLS and
// without: then it can pass if one of the failures can, unless a server refused the user or the database.
func passing(err error) bool {
	failures := []error{err}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if joined, ok := e.(interface{ Unwrap() []error }); ok {
			failures = joined.Unwrap()
		}
	}
	return slices.ContainsFunc(failures, temporary) && !slices.ContainsFunc(failures, refused)
}

// refused reports whether err is 28P01 (invalid_password), 3D000 (invalid_catalog_name) or 42501 (insufficient_privilege).
func refused(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && slices.Contains([]string{"28P01", "3D000", "42501"}, server.Code)
}

// temporary reports whether a server is full (53300), ending its sessions (57P01, 57P02) or not ready (57P03), or the
// network failed, or connecting took too long, or all hosts are standbys, of which one may become the primary, or none is.
func temporary(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return slices.Contains([]string{"53300", "57P01", "57P02", "57P03"}, server.Code) ||
			strings.HasPrefix(server.Message, "no more connections allowed") // PgBouncer is full; its code says nothing
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.IsTemporary || name.IsTimeout
	}
	var network *net.OpError
	if errors.As(err, &network) {
		return slices.Contains([]string{"dial", "read", "write"}, network.Op)
	}
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded,
		pgconn.ErrReadOnlyConnection, pgconn.ErrStandbyConnection, pgconn.ErrPrimaryConnection},
		func(target error) bool { return errors.Is(err, target) })
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
		_ = pg.Conn().SetDeadline(deadline) // again, if the end of a query's context has changed it
		pg.Frontend().Send(&pgproto3.Terminate{})
		_ = pg.Frontend().Flush()
		_, err = io.Copy(io.Discard, pg.Conn()) // until the server closes its end
	}
	_ = conn.Close(ctx)
}
