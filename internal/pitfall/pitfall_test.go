package pitfall

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

// Each pitfall is one, and what is beside it prevents it.
func TestEachPitfallIsOneAndIsPrevented(t *testing.T) {
	pgtest.Admin(t) // skips the test, or fails it, if there is no PostgreSQL
	bin, err := localpg.Find(t.Context(), localpg.Search{})
	if err != nil {
		t.Fatal(err)
	}
	counts := regexp.MustCompile(`(?:calls failed|books found) +(\d+) of \d+ +(\d+) of \d+`)
	for _, p := range All {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := p.Show(t.Context(), &out, bin)
			if errors.Is(err, ErrNoBouncer) {
				skip.Test(t, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Log(out.String())
			if p.Name == "no-index" {
				if !regexp.MustCompile(`plan +Seq Scan +Bitmap Heap Scan`).MatchString(out.String()) {
					t.Errorf("the plans are not as they should be:\n%s", out.String())
				}
				return
			}
			count := counts.FindStringSubmatch(out.String())
			if count == nil || count[1] == "0" || count[2] != "0" {
				t.Errorf("want figures above 0 without, and 0 with what prevents it:\n%s", out.String())
			}
			for _, line := range strings.Split(out.String(), "\n") {
				if len([]rune(line)) > 80 {
					t.Errorf("a line has %d characters, more than a projector shows: %s", len([]rune(line)), line)
				}
			}
		})
	}
}
