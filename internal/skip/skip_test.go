package skip_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"example.com/penny/internal/skip"
)

// TestInner runs in the processes that the test below starts.
func TestInner(t *testing.T) {
	if os.Getenv("PENNY_SKIP_TEST") == "skip" {
		skip.Test(t, "as if something were missing")
	}
}

func TestASkipIsNotCachedAndFailsInCI(t *testing.T) {
	skip.Short(t)
	for _, c := range []struct {
		inner, ci    string
		fails, cache bool
	}{
		{"pass", "", false, true},
		{"skip", "", false, false},
		{"skip", "true", true, false},
	} {
		t.Run(c.inner+c.ci, func(t *testing.T) {
			t.Parallel()
			var out []byte
			var err error
			for range 2 { // the second run is from the cache, if it may be
				cmd := exec.Command("go", "test", "-run", "^TestInner$", ".")
				cmd.Env = append(os.Environ(), "PENNY_SKIP_TEST="+c.inner, "CI="+c.ci, "GOFLAGS=")
				out, err = cmd.CombinedOutput()
			}
			if (err != nil) != c.fails || strings.Contains(string(out), "(cached)") != c.cache {
				t.Errorf("the second run: want an error: %v, want it cached: %v, got %s", c.fails, c.cache, out)
			}
		})
	}
}
