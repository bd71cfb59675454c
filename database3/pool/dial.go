package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialTimeout is how long one try to connect may take.
const dialTimeout = 10 * time.Second

// poolerFull matches what PgBouncer and Supavisor say when they are full.
var poolerFull = regexp.MustCompile(`(?i)no more connections allowed|max client`)

// connect opens a connection.
func (p *Pool) connect() (*session, error) {
	ctx, cancel := context.WithTimeout(p.open, dialTimeout)
	defer cancel()
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, errors.New("dial returned neither a connection nor an error")
	}
	p.dials.Add(1)
	return &session{pool: p, conn: conn}, nil
}

// passing reports whether a failure to connect is temporary. One dial can fail for several hosts, and with TLS and without:
// then the failure is temporary if any of them is, unless a server refused the user or the database.
func passing(err error) (can bool) {
	failures := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		failures = joined.Unwrap()
	}
	for _, failure := range failures {
		server, answered := errors.AsType[*pgconn.PgError](failure)
		switch {
		case !answered:
			can = can || outOfReach(failure)
		case slices.Contains([]string{"28P01", "3D000", "42501"}, server.Code):
			return false // the password is wrong, the database unknown, or the user not allowed
		case slices.Contains([]string{"53300", "57P01", "57P02", "57P03"}, server.Code):
			can = true // the server is full, is ending its sessions, or is not ready
		case poolerFull.MatchString(server.Message):
			can = true // the code does not say it
		}
	}
	return can
}

// outOfReach reports whether err says that the network failed, that connecting took too long, or that no host is what
// target_session_attrs asks for, which a failover can change.
func outOfReach(err error) bool {
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		return name.IsTemporary || name.IsTimeout
	}
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return slices.Contains([]string{"dial", "read", "write"}, network.Op) // and not "remote error", which is a TLS alert
	}
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded,
		pgconn.ErrReadOnlyConnection, pgconn.ErrStandbyConnection, pgconn.ErrPrimaryConnection},
		func(target error) bool { return errors.Is(err, target) })
}
