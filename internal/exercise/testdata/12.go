package broken

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	lines := given.Lines(t, "exercises/12-break-the-pool/broken.txt")
	if len(lines) < 3 {
		t.Fatalf("broken.txt has %d lines, want three", len(lines))
	}
	seen := make(map[string]bool)
	for _, line := range lines[:3] {
		parts := strings.Split(line, " | ")
		if len(parts) != 3 {
			t.Fatalf("this line does not have the form FILE | PIECE | PROMISE: %s", line)
		}
		file, piece, promise := parts[0], parts[1], strings.TrimSpace(parts[2])
		if seen[promise] {
			t.Fatalf("two pieces break the same promise: %s", promise)
		}
		seen[promise] = true
		text, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), piece); n != 1 {
			t.Fatalf("%s has this piece %d times, want once: %s", file, n, piece)
		}
		path, err := filepath.Abs(filepath.FromSlash(file))
		if err != nil {
			t.Fatal(err)
		}
		folder := t.TempDir()
		without, overlay, program := filepath.Join(folder, "without.go"), filepath.Join(folder, "overlay.json"), filepath.Join(folder, "exam.exe")
		if err := os.WriteFile(without, []byte(strings.Replace(string(text), piece, "", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := json.Marshal(map[string]map[string]string{"Replace": {path: without}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(overlay, list, 0o600); err != nil {
			t.Fatal(err)
		}
		build := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", program, "./database3/pool/pooltest")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("without %q the pool does not compile: %s", piece, out)
		}
		run := "^TestPennysPoolKeepsEveryPromise$/^" + regexp.QuoteMeta(strings.ReplaceAll(promise, " ", "_")) + "$"
		exam := exec.Command(program, "-test.run", run, "-test.v", "-test.timeout=40s")
		exam.Dir = filepath.FromSlash("database3/pool/pooltest")
		out, err := exam.CombinedOutput()
		switch {
		case !strings.Contains(string(out), "=== RUN   TestPennysPoolKeepsEveryPromise/"):
			t.Fatalf("no promise is called %q", promise)
		case err == nil:
			t.Fatalf("without %q the pool still keeps this promise: %s", piece, promise)
		}
	}
}
