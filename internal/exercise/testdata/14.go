package transaction

import (
	"context"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	given.Exec(t, address, Table+`; INSERT INTO shelves VALUES ('window', 3), ('cellar', 10), ('desk', 9);
		ALTER TABLE shelves ADD CONSTRAINT "the cellar has room for 15" CHECK (name <> 'cellar' OR copies <= 15)`)
	db, look := given.Open(t, address), given.Open(t, address)
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(0) // calls without a transaction each have a connection of their own
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, c := range []struct {
		copies               int
		from                 string
		window, cellar, desk int
		fails                string
	}{
		{5, "window", 3, 10, 9, "the window does not have 5 copies"},
		{2, "window", 1, 12, 9, ""},
		{1, "window", 0, 13, 9, ""},
		{1, "window", 0, 13, 9, "the window is empty"},
		{3, "desk", 0, 13, 9, "the cellar has no room for 3 more copies"},
		{2, "desk", 0, 15, 7, ""},
	} {
		err := Move(ctx, db, c.from, "cellar", c.copies)
		if ctx.Err() != nil {
			t.Fatal("after a move that failed, the next one waits for ever: does every way out of Move end the transaction?")
		}
		switch {
		case c.fails != "" && err == nil:
			t.Fatalf("%s, and Move returns no error", c.fails)
		case c.fails == "" && err != nil:
			t.Fatalf("the %s has %d copies for the cellar, and Move fails: %v", c.from, c.copies, err)
		}
		var window, cellar, desk int
		const now = `SELECT (SELECT copies FROM shelves WHERE name = 'window'), (SELECT copies FROM shelves WHERE name = 'cellar'), (SELECT copies FROM shelves WHERE name = 'desk')`
		if err := look.QueryRow(now).Scan(&window, &cellar, &desk); err != nil {
			t.Fatal(err)
		}
		if window != c.window || cellar != c.cellar || desk != c.desk {
			t.Fatalf("after a move of %d copies from the %s to the cellar, window, cellar and desk have %d, %d and %d, want %d, %d and %d",
				c.copies, c.from, window, cellar, desk, c.window, c.cellar, c.desk)
		}
	}
}
