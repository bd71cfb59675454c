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
		titles, err := Titles(ctx, p, "Kernighan")
		if err != nil {
			t.Fatalf("the search for Kernighan fails: %v; %d of the pool's 2 connections are in use", err, p.Stats().InUse)
		}
		if len(titles) != 2 {
			t.Fatalf("Titles finds %d books by Kernighan, want 2", len(titles))
		}
		_, _ = Titles(ctx, p, "Nameless") // fails at the title, or not: both are right
		cancel()
		_, _ = Titles(ctx, p, "Kernighan")
		if n := p.Stats().InUse; n != 0 {
			t.Fatalf("after a call that fails, %d of the pool's 2 connections are still in use", n)
		}
	}
}
