package leak

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
	given.Exec(t, address, `INSERT INTO books VALUES ('0', 'Nameless', NULL)`)
	p := pool.New(2, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, address) })
	defer p.Close()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if titles, err := Titles(ctx, p, "Kernighan"); err != nil || len(titles) != 2 {
			t.Fatalf("Titles finds %d books by Kernighan, want 2 (%v); the pool has %d of its 2 connections in use", len(titles), err, p.Stats().InUse)
		}
		_, _ = Titles(ctx, p, "Nameless") // fails at the title, or not: both are right
		cancel()
		_, _ = Titles(ctx, p, "Kernighan")
		if n := p.Stats().InUse; n != 0 {
			t.Fatalf("nobody uses a connection, and the pool has lent %d", n)
		}
	}
}
