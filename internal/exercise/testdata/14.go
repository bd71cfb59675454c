package transaction

import (
	"context"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	given.Exec(t, address, Table+`; INSERT INTO shelves VALUES ('window', 3), ('cellar', 10)`)
	db, look := given.Open(t, address), given.Open(t, address)
	db.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, c := range []struct {
		copies, window, cellar int
		fails                  bool
	}{{5, 3, 10, true}, {2, 1, 12, false}, {1, 0, 13, false}, {1, 0, 13, true}} {
		err := Move(ctx, db, "window", "cellar", c.copies)
		if ctx.Err() != nil {
			t.Fatal("after a move that failed, the next one waits for ever: does every way out of Move end the transaction?")
		}
		switch {
		case c.fails && err == nil:
			t.Fatalf("the window does not have %d copies, and Move returns no error", c.copies)
		case !c.fails && err != nil:
			t.Fatalf("the window has %d copies, and Move fails: %v", c.copies, err)
		}
		var window, cellar int
		if err := look.QueryRow(`SELECT copies FROM shelves WHERE name = 'window'`).Scan(&window); err != nil {
			t.Fatal(err)
		}
		if err := look.QueryRow(`SELECT copies FROM shelves WHERE name = 'cellar'`).Scan(&cellar); err != nil {
			t.Fatal(err)
		}
		if window != c.window || cellar != c.cellar {
			t.Fatalf("after a move of %d copies, window and cellar have %d and %d, want %d and %d", c.copies, window, cellar, c.window, c.cellar)
		}
	}
}
