package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	folder := filepath.FromSlash("exercises/17-module")
	mod, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		t.Fatal("exercises/17-module has no go.mod yet: go mod init")
	}
	if !strings.Contains(string(mod), "replace example.com/penny => ") {
		t.Fatal("go.mod does not say where Penny is: go mod edit -replace")
	}
	address := given.Books(t, "")
	given.Exec(t, address, `INSERT INTO books (isbn) VALUES ('1'), ('2'), ('3'), ('4')`)
	program := filepath.Join(t.TempDir(), "counter.exe")
	build := exec.Command("go", "build", "-mod=mod", "-o", program, ".")
	build.Dir = folder
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("it does not compile: %s", out)
	}
	list := exec.Command("go", "list", "-mod=mod", "-f", `{{join .Imports " "}}`, ".")
	list.Dir = folder
	if out, err := list.Output(); err != nil || !strings.Contains(string(out), "example.com/penny/database3/pool") {
		t.Fatalf("main.go does not use Penny's pool: it imports %s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	counter := exec.CommandContext(ctx, program)
	counter.Env = append(os.Environ(), "DATABASE_URL="+address)
	out, err := counter.Output()
	if err != nil {
		t.Fatalf("the program fails: %v", err)
	}
	if strings.TrimSpace(string(out)) != "7" {
		t.Fatalf("the program prints %q; the table has 7 books", strings.TrimSpace(string(out)))
	}
}
