package setting

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/database3/pool"
	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	p := pool.New(1, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) })
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next := func(after string) {
		t.Helper()
		conn, err := p.Acquire(ctx)
		if err != nil {
			t.Fatalf("after %s, the next caller gets no connection: %v", after, err)
		}
		defer conn.Release()
		if _, err := conn.Exec(ctx, `SELECT pg_sleep(0.5)`); err != nil {
			t.Fatalf("after %s, the next caller's query fails: %v", after, err)
		}
	}
	n, err := Report(ctx, p, `SELECT count(*) FROM books`)
	if err != nil {
		t.Fatalf("Report fails: %v", err)
	}
	if n != 3 {
		t.Fatalf("Report returns %d, want 3", n)
	}
	next("a report that works")
	if _, err := Report(ctx, p, `SELECT count(*) FROM books, pg_sleep(2)`); err == nil {
		t.Fatal("a report of two seconds runs to its end; its limit is 200 ms")
	}
	next("a report that takes too long")
	if _, err := Report(ctx, p, `SELECT nothing FROM books`); err == nil {
		t.Fatal("the column of a report does not exist, and Report returns no error")
	}
	next("a report that fails")
}
