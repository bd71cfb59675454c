package full

import (
	"context"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
	"example.com/penny/internal/load"
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
	if failures := load.Meet(ctx, db, callers); len(failures) > 0 {
		t.Fatalf("%d of %d callers fail: %v", len(failures), callers, failures[0])
	}
	if most := db.Stats().MaxOpenConnections; most > 0 && most < 5 {
		t.Fatalf("no caller fails, but with a bound of %d most wait for a long time: the server allows more", most)
	}
}
