package skip_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"example.com/penny/internal/skip"
)

// TestInner is what the test below runs.
func TestInner(t *testing.T) {
	if os.Getenv("PENNY_SKIP_TEST") == "skip" {
		skip.Test(t, "as if something were missing")
	}
}

func TestGoTestServesNoSkipFromItsCacheAndNothingSkipsInCI(t *testing.T) {
	for _, c := range []struct {
		inner, ci    string
		fails, cache bool
	}{
		{"pass", "", false, true},
		{"skip", "", false, false},
		{"skip", "true", true, false},
	} {
		run := func() (string, error) {
			cmd := exec.Command("go", "test", "-run", "^TestInner$", ".")
			cmd.Env = append(os.Environ(), "PENNY_SKIP_TEST="+c.inner, "CI="+c.ci, "GOFLAGS=")
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		_, _ = run()
		out, err := run()
		if (err != nil) != c.fails || strings.Contains(out, "(cached)") != c.cache {
			t.Errorf("%+v: the second run says %s", c, out)
		}
	}
}
