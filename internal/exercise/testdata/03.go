package addresses

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/exercise/given"
	"example.com/penny/internal/explain"
)

func TestExercise(t *testing.T) {
	u, err := url.Parse(given.Books(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	parts := strings.NewReplacer("USER", u.User.Username(), "PASSWORD", password, "HOST", u.Hostname(), "PORT", u.Port(),
		"NAME", strings.TrimPrefix(u.Path, "/"))
	lines := given.Lines(t, "exercises/03-addresses/addresses.txt")
	if len(lines) < 5 {
		t.Fatalf("addresses.txt has %d addresses, want five", len(lines))
	}
	seen := make(map[string]string)
	for _, line := range lines {
		err := connect(t.Context(), parts.Replace(line))
		if err == nil {
			t.Fatalf("this address works, and each of the five should fail: %s", line)
		}
		name := explain.Name(err)
		if other, ok := seen[name]; ok {
			t.Fatalf("two addresses fail for the same reason, %q: %s and %s", name, other, line)
		}
		seen[name] = line
	}
}

func connect(ctx context.Context, address string) error {
	address, err := dburl.PGX(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "SELECT isbn FROM books")
	return err
}
