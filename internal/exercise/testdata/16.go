package nplusone

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"example.com/penny/internal/exercise/given"
)

// A counter counts the queries and the rows that they return.
type counter struct {
	logger.Interface
	queries int
	rows    int64
}

func (c *counter) Trace(_ context.Context, _ time.Time, query func() (string, int64), _ error) {
	_, rows := query()
	c.queries++
	c.rows += rows
}

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	given.Exec(t, address, `
		CREATE TABLE authors (id integer PRIMARY KEY, name text);
		CREATE TABLE works (id integer PRIMARY KEY, author_id integer, title text);
		INSERT INTO authors SELECT n, 'Author ' || to_char(n, 'FM000') FROM generate_series(1, 200) n;
		INSERT INTO works SELECT n, n % 200 + 1, 'Work ' || n FROM generate_series(399, 0, -1) n`)
	count := &counter{Interface: logger.Discard}
	db, err := gorm.Open(postgres.Open(address), &gorm.Config{Logger: count})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, limit := range []int{1, 20} {
		count.queries, count.rows = 0, 0
		authors, err := Authors(t.Context(), db, limit)
		if err != nil {
			t.Fatalf("Authors fails: %v", err)
		}
		if len(authors) != limit {
			t.Fatalf("Authors returns %d authors, want %d", len(authors), limit)
		}
		for i, a := range authors {
			if a.Name != fmt.Sprintf("Author %03d", i+1) || len(a.Works) != 2 || a.Works[0].ID != i || a.Works[1].ID != i+200 {
				t.Fatalf("author %d of those that Authors returns is wrong: %+v", i+1, a)
			}
		}
		if count.queries > 2 {
			t.Fatalf("for %d authors it makes %d queries, want 2", limit, count.queries)
		}
		if count.rows > int64(3*limit) {
			t.Fatalf("for %d authors with two works each it reads %d rows, want %d", limit, count.rows, 3*limit)
		}
	}
}
