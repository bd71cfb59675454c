package pitfall

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

func TestEachPitfallHappensWithoutItsFixAndNotWithIt(t *testing.T) {
	counts := regexp.MustCompile(`(?:calls failed|books found) +(\d+) of \d+ +(\d+) of \d+`)
	show := func(t *testing.T, names ...string) {
		t.Parallel()
		server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": Places}})
		for _, name := range names {
			pgtest.LoadBooks(t, server.URL("postgres"))
			p := All[slices.IndexFunc(All, func(p Pitfall) bool { return p.Name == name })]
			var b strings.Builder
			if err := p.Show(t.Context(), &b, server); errors.Is(err, ErrNoBouncer) {
				skip.Test(t, err)
			} else if err != nil {
				t.Fatal(err)
			}
			out := b.String()
			t.Log(out)
			count := counts.FindStringSubmatch(out)
			switch {
			case name == "no-index":
				if !regexp.MustCompile(`plan +Seq Scan +Bitmap Heap Scan`).MatchString(out) {
					t.Errorf("want a Seq Scan without the index and a Bitmap Heap Scan with it:\n%s", out)
				}
			case count == nil || count[1] == "0" || count[2] != "0":
				t.Errorf("want more than 0 without the fix, and 0 with it:\n%s", out)
			}
			for line := range strings.Lines(out) {
				if n := utf8.RuneCountInString(line); n > 80 {
					t.Errorf("a line has %d characters, want 80 at most: %s", n, line)
				}
			}
		}
	}
	t.Run("faults", func(t *testing.T) { show(t, "restart", "failover") })
	t.Run("others", func(t *testing.T) {
		show(t, "injection", "full-server", "leak", "dead-connections", "failed-transaction", "no-index", "transaction-pooler")
	})
}
