package migration

import (
	"context"
	"sync"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	db := given.Open(t, given.Books(t, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var apps sync.WaitGroup
	for range 8 {
		apps.Go(func() {
			if err := Migrate(ctx, db); err != nil {
				t.Errorf("eight apps start at once, and Migrate fails: %v", err)
			}
		})
	}
	apps.Wait()
	if t.Failed() {
		return
	}
	if _, err := db.Exec(`INSERT INTO books (isbn, author, title) VALUES ('456', 'Pike', 'Go')`); err != nil {
		t.Fatalf("the old version of the app cannot add a book any more: %v", err)
	}
	var price, books int
	if err := db.QueryRow(`SELECT count(price) FROM books`).Scan(&books); err != nil {
		t.Fatalf("the books have no price: %v", err)
	}
	if books != 4 {
		t.Fatalf("after the migration the old version of the app adds a book, and %d of 4 books have a price", books)
	}
	kind := ""
	if err := db.QueryRow(`SELECT DISTINCT pg_typeof(price) FROM books`).Scan(&kind); err != nil {
		t.Fatal(err)
	}
	if kind == "text" || kind == "character varying" {
		t.Fatalf("the price is %s, want a number", kind)
	}
	if _, err := db.Exec(`UPDATE books SET price = 3000 WHERE isbn = '123'`); err != nil {
		t.Fatalf("after the migration the price of a book cannot be set: %v", err)
	}
	if err := Migrate(ctx, db); err != nil {
		t.Fatalf("the app starts again, and Migrate fails: %v", err)
	}
	err := db.QueryRow(`SELECT max(price), count(price) FROM books`).Scan(&price, &books)
	switch {
	case err != nil:
		t.Fatal(err)
	case price != 3000:
		t.Fatalf("a book had the price 3000; after another migration it has %d", price)
	case books != 4:
		t.Fatalf("after another migration %d books have a price, want 4", books)
	}
	other := given.Open(t, given.Books(t, ""))
	if err := Migrate(ctx, other); err != nil {
		t.Fatalf("the app starts with another database, and Migrate fails: %v", err)
	}
	if _, err := other.Exec(`SELECT price FROM books`); err != nil {
		t.Fatalf("the app starts with another database, and Migrate does not change it: %v", err)
	}
	if _, err := other.Exec(`ALTER TABLE books RENAME TO lost`); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(ctx, other); err == nil {
		t.Fatal("there is no table to migrate, and Migrate returns no error")
	}
}
