package leak

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/database3/pool"
	"example.com/penny/internal/exercise/given"
)

// The title of Nameless is NULL. The server finds its error for Broken when it sends the rows. Prolific has many.
const view = `
	INSERT INTO books VALUES ('0', 'Nameless', NULL), ('1', 'Broken', 'x');
	INSERT INTO books SELECT 'x' || n, 'Prolific', repeat('x', 100) FROM generate_series(1, 20000) n;
	ALTER TABLE books RENAME TO stock;
	CREATE VIEW books AS SELECT isbn, author, CASE author WHEN 'Broken' THEN (1 / (length(title) - 1))::text ELSE title END AS title FROM stock`

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	given.Exec(t, address, view)
	open := func(settings string) *pool.Pool {
		p := pool.New(2, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address+settings) })
		t.Cleanup(func() { p.Close() })
		return p
	}
	p, lost := open(""), open("&search_path=pg_catalog") // without the table, the query itself fails
	released := func(after string, p *pool.Pool) {
		if n := p.Stats().InUse; n != 0 {
			t.Fatalf("after %s, %d of the pool's 2 connections are still in use", after, n)
		}
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for author, want := range map[string]int{"Kernighan": 2, "Prolific": 20000} {
			titles, err := Titles(ctx, p, author)
			if err != nil {
				t.Fatalf("the search for %s fails: %v; %d of the pool's 2 connections are in use", author, err, p.Stats().InUse)
			}
			if len(titles) != want {
				t.Fatalf("Titles finds %d books by %s, want %d", len(titles), author, want)
			}
		}
		_, _ = Titles(ctx, p, "Nameless") // fails at the title, or not: both are right
		released("a title that cannot be read", p)
		if _, err := Titles(ctx, p, "Broken"); err == nil {
			t.Fatal("the server reports an error in the middle of the rows, and Titles does not")
		}
		released("an error in the middle of the rows", p)
		if _, err := Titles(ctx, lost, "Kernighan"); err == nil {
			t.Fatal("there is no table, and Titles returns no error")
		}
		released("a query that fails", lost)
		cancel()
		_, _ = Titles(ctx, p, "Kernighan")
		released("a call whose time is up", p)
	}
}
