package shops

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

// full returns how many of 100 visitors of two apps find the server full.
func full(t *testing.T, address string, size int) int64 {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var failed atomic.Int64
	var visitors sync.WaitGroup
	for range 2 {
		shop := given.Open(t, address)
		shop.SetMaxOpenConns(size)
		shop.SetMaxIdleConns(size)
		defer shop.Close()
		for range 50 {
			visitors.Go(func() {
				if _, err := shop.ExecContext(ctx, "SELECT pg_sleep(0.1) FROM books"); err != nil {
					failed.Add(1)
				}
			})
		}
	}
	visitors.Wait()
	return failed.Load()
}

func TestExercise(t *testing.T) {
	size, err := strconv.Atoi(given.Answers(t, "exercises/08-two-shops/answer.txt")["size"])
	if err != nil || size < 1 {
		t.Fatal("answer.txt has no size, such as size = 5")
	}
	if size > 100 {
		t.Fatalf("two pools of %d are more than any small server takes", size)
	}
	address := given.Small(t)
	if n := full(t, address, size); n > 0 {
		t.Fatalf("with pools of %d, %d of 100 visitors find the server full", size, n)
	}
	if 2*(size+1) <= 17 {
		t.Fatalf("pools of %d work, and larger ones would, too", size)
	}
}
