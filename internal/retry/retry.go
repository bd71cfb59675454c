// Package retry asks a database within a time limit, and asks once more if the connection dies.
package retry

import (
	"context"
	"time"

	"example.com/penny/internal/explain"
)

// Read calls ask, and calls it once more if the connection died and ctx has not ended. Use it only for a question that
// changes nothing: when a connection dies, nobody knows whether the server did what it was asked.
func Read(ctx context.Context, ask func() error) error {
	err := ask()
	if err != nil && ctx.Err() == nil && explain.Ended(err) {
		err = ask()
	}
	return err
}

// grace is the time that a driver has to notice that its context has ended.
const grace = 200 * time.Millisecond

// Within calls ask with a context that ends after patience, and returns ask's answer. If ask ignores its context, Within
// returns the context's error, and ask goes on in a goroutine: lib/pq may wait for a silent server for ever.
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
