package check

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	var module struct {
		Replace []struct{ Old struct{ Path string } }
	}
	edit := exec.Command("go", "mod", "edit", "-json")
	edit.Dir = folder
	if out, err := edit.Output(); err != nil || json.Unmarshal(out, &module) != nil {
		t.Fatal("go.mod cannot be read: go mod verify says why")
	}
	found := false
	for _, replace := range module.Replace {
		found = found || replace.Old.Path == "example.com/penny"
	}
	if !found {
		t.Fatal("go.mod does not say where Penny is: go mod edit -replace")
	}
	address := given.Books(t, "")
	given.Exec(t, address, `INSERT INTO books (isbn) VALUES ('1'), ('2'), ('3'), ('4')`)
	// The check adds to go.mod and go.sum what it needs. So that the student's files stay as they are, these are copies.
	temporary := t.TempDir()
	program, copied := filepath.Join(temporary, "counter.exe"), filepath.Join(temporary, "go.mod")
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(copied, mod, 0o600), os.WriteFile(filepath.Join(temporary, "go.sum"), sum, 0o600)); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-modfile", copied, "-mod=mod", "-o", program, ".")
	build.Dir = folder
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("it does not compile: %s", out)
	}
	list := exec.Command("go", "list", "-modfile", copied, "-mod=mod", "-f", `{{join .Imports " "}}`, ".")
	list.Dir = folder
	if out, err := list.Output(); err != nil || !strings.Contains(string(out), "example.com/penny/database3/pool") {
		t.Fatal("main.go does not import Penny's pool, example.com/penny/database3/pool")
	}
	if text, err := os.ReadFile(filepath.Join(folder, "main.go")); err == nil && regexp.MustCompile(`_\s+"example.com/penny/database3/pool"`).Match(text) {
		t.Fatal("main.go imports Penny's pool and does not use it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	counter := exec.CommandContext(ctx, program)
	counter.Env = append(os.Environ(), "DATABASE_URL="+address)
	var errs strings.Builder
	counter.Stderr = &errs
	out, err := counter.Output()
	if err != nil {
		t.Fatalf("the program fails: %v: %s", err, errs.String())
	}
	if strings.TrimSpace(string(out)) != "7" {
		t.Fatalf("the program prints %q; the table has 7 books", strings.TrimSpace(string(out)))
	}
}
