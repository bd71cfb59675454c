// Package retry asks a database once more if the connection died under the question.
package retry

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
)

// Read calls ask, and calls it once more if the connection died and ctx has not ended. Use it only for a question that
// changes nothing: when a connection dies, nobody knows whether the server did what it was asked.
func Read(ctx context.Context, ask func() error) error {
	err := ask()
	if err != nil && ctx.Err() == nil && died(err) {
		err = ask()
	}
	return err
}

// died reports whether err says that a connection ended before its answer came.
func died(err error) bool {
	var server interface{ SQLState() string } // lib/pq's and pgx's errors both have it
	if errors.As(err, &server) {
		return slices.Contains([]string{
			"57P01", // admin_shutdown
			"57P02", // crash_shutdown
			"08006", // connection_failure
		}, server.SQLState())
	}
	for _, end := range []error{driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
