// Package skip skips a test that this computer, or the moment, is not for.
package skip

import (
	"flag"
	"os"
	"testing"
)

// Test skips the test, and gives the reason. Under continuous integration, with CI set, the test fails instead.
func Test(tb testing.TB, reason any) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatal(reason)
	}
	// go test would serve this skip from its cache after the missing thing has been installed: it knows of no file outside
	// the module. It caches no result whose list of files does not end in a newline, so give the list a tail of zeros.
	if list := flag.Lookup("test.testlogfile"); list != nil && list.Value.String() != "" {
		_ = os.Truncate(list.Value.String(), 1<<20)
	}
	tb.Skip(reason)
}

// Long skips a test that takes minutes, unless CI is set. .ci/run sets it, and so does CI=1 go test ./internal/exercise.
func Long(tb testing.TB) {
	tb.Helper()
	if os.Getenv("CI") == "" || testing.Short() {
		tb.Skip("it takes minutes: only with CI set")
	}
}
