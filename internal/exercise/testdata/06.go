package full

import (
	"context"
	"sync"
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
	failures := make(chan error, callers)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if _, err := db.ExecContext(ctx, "SELECT pg_sleep(0.3)"); err != nil {
				failures <- err
			}
		})
	}
	all.Wait()
	if n := len(failures); n > 0 {
		t.Fatalf("%d of %d callers fail: %v", n, callers, <-failures)
	}
	if most := db.Stats().MaxOpenConnections; most < 5 {
		t.Fatalf("no caller fails, but with %d connections most wait for a long time: the server allows more", most)
	}
}
