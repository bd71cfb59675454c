package full

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	db, err := Open(given.Small(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const callers = 40
	most := db.Stats().MaxOpenConnections
	atOnce := int32(callers)
	if most > 0 {
		atOnce = int32(min(most, callers))
	}
	// A caller keeps its connection until all that can be there at once have one or an error.
	var there atomic.Int32
	together := make(chan struct{})
	failures := make(chan error, callers)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			conn, err := db.Conn(ctx)
			if there.Add(1) == atOnce {
				close(together)
			}
			if err != nil {
				failures <- err
				return
			}
			defer conn.Close()
			select {
			case <-together:
			case <-ctx.Done():
			}
			if _, err := conn.ExecContext(ctx, "SELECT * FROM books"); err != nil {
				failures <- err
			}
		})
	}
	all.Wait()
	if n := len(failures); n > 0 {
		t.Fatalf("%d of %d callers fail: %v", n, callers, <-failures)
	}
	if most > 0 && most < 5 {
		t.Fatalf("no caller fails, but with a bound of %d most wait for a long time: the server allows more", most)
	}
}
