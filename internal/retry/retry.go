// Package retry asks a database within a time, and once more if the connection died under the question.
package retry

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"time"
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

// grace is the time that a driver has to heed the end of its context.
const grace = 200 * time.Millisecond

// Within calls ask with a context that ends after patience, and returns ask's answer. If ask does not heed its context, Within
// returns the context's error without it: lib/pq may wait for a silent server for ever.
func Within[T any](ctx context.Context, patience time.Duration, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := ask(ctx)
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
	}
	select { // The driver's own reason is worth a little more time.
	case a := <-answers:
		return a.value, a.err
	case <-time.After(grace):
		return *new(T), ctx.Err()
	}
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
	var unsent interface{ SafeToRetry() bool } // pgx's, when it finds that the connection is closed
	if errors.As(err, &unsent) && unsent.SafeToRetry() {
		return true
	}
	for _, end := range []error{driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
