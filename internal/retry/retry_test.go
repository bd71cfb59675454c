package retry

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
)

type serverError string

func (e serverError) Error() string    { return "server error " + string(e) }
func (e serverError) SQLState() string { return string(e) }

func TestReadTriesAgainOnceIfTheConnectionDied(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want int // calls
	}{
		{"success", t.Context(), nil, 1},
		{"the connection died", t.Context(), fmt.Errorf("find books: %w", driver.ErrBadConn), 2},
		{"an administrator ended the session", t.Context(), serverError("57P01"), 2},
		{"the table is missing", t.Context(), serverError("42P01"), 1},
		{"an unknown error", t.Context(), errors.New("odd"), 1},
		{"the caller has gone", ended, driver.ErrBadConn, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			err := Read(c.ctx, func() error {
				calls++
				return c.err
			})
			if calls != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %d calls and %v, want %d and %v", calls, err, c.want, c.err)
			}
		})
	}
}
