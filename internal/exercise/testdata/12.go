package broken

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	lines := given.Lines(t, "exercises/12-break-the-pool/broken.txt")
	if len(lines) < 3 {
		t.Fatalf("broken.txt has %d lines, want three", len(lines))
	}
	pieces, used := make(map[string][2]string), make(map[string]bool) // by promise; by piece
	for _, line := range lines[:3] {
		parts := strings.Split(line, " | ")
		if len(parts) != 3 {
			t.Fatalf("this line does not have the form FILE | PIECE | PROMISE: %s", line)
		}
		if path.Dir(parts[0]) != "database3/pool" {
			t.Fatalf("%s is not a file of the pool, such as database3/pool/conn.go", parts[0])
		}
		if used[parts[1]] {
			t.Fatalf("this piece comes twice: %s", parts[1])
		}
		used[parts[1]] = true
		promise := strings.TrimSpace(parts[2])
		if _, twice := pieces[promise]; twice {
			t.Fatalf("two pieces break the same promise: %s", promise)
		}
		pieces[promise] = [2]string{parts[0], parts[1]}
	}
	results := make(chan error, len(pieces))
	deadline, _ := t.Deadline()
	for promise, p := range pieces {
		folder := t.TempDir()
		go func() { results <- without(folder, p[0], p[1], promise, deadline.Add(-5*time.Second)) }()
	}
	for range pieces {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// without returns an error if the pool keeps the promise without the piece, or if there is no such piece or promise.
func without(folder, file, piece, promise string, deadline time.Time) error {
	source, err := filepath.Abs(filepath.FromSlash(file))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if n := strings.Count(string(text), piece); n != 1 {
		return fmt.Errorf("%s has this piece %d times, want once: %s", file, n, piece)
	}
	out, err := given.Compile(context.Background(), folder, ".", "./database3/pool/pooltest", source, []byte(strings.Replace(string(text), piece, "", 1)))
	if err != nil {
		return fmt.Errorf("without %q the pool does not compile: %s", piece, out)
	}
	run := "^TestPennysPoolKeepsEveryPromise$/^" + regexp.QuoteMeta(strings.ReplaceAll(promise, " ", "_")) + "$"
	exam := exec.Command(filepath.Join(folder, given.Program), "-test.run", run, "-test.v", "-test.timeout", time.Until(deadline).String())
	exam.Dir = filepath.FromSlash("database3/pool/pooltest")
	result, err := exam.CombinedOutput()
	tested := strings.Contains(string(result), "=== RUN   TestPennysPoolKeepsEveryPromise/")
	switch {
	case !tested && err == nil:
		return fmt.Errorf("no promise is called %q", promise)
	case !tested:
		return fmt.Errorf("%s%s", given.Broken, result)
	case err == nil:
		return fmt.Errorf("without %q the pool still keeps this promise: %s", piece, promise)
	}
	return nil
}
