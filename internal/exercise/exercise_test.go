package exercise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

const root = "../.."

// module copies Penny's Go files and the exercises into a folder.
func module(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && (entry.Name() == ".git" || relative == "docs"):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(folder, relative), 0o755)
		case !entry.Type().IsRegular() || entry.Name() == ".env" || strings.HasSuffix(path, ".sqlite"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, relative), text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// put copies an exercise's files back from the repository.
func put(t *testing.T, folder string, e Exercise) {
	t.Helper()
	if strings.HasPrefix(e.Folder, "exercises/") {
		if err := os.RemoveAll(filepath.Join(folder, filepath.Dir(e.Files[0]))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(folder, filepath.Dir(e.Files[0])), os.DirFS(filepath.Join(root, filepath.Dir(e.Files[0])))); err != nil {
		t.Fatal(err)
	}
}

func runner(t *testing.T, root string) *Runner {
	t.Helper()
	pgtest.Admin(t) // skips the test, or fails it, if there is no PostgreSQL
	r := &Runner{Root: root, Limit: 2 * time.Minute, Find: func(ctx context.Context) (string, error) { return localpg.Find(ctx, localpg.Search{}) }}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Each check fails on the repository as it is, and on a typical mistake, and passes with the solution. No file
// is put back after the solution: the whole has to compile with all solutions in place.
func TestEachCheckTellsTheSolutionFromTheRest(t *testing.T) {
	skip.Long(t)
	folder := module(t)
	r := runner(t, folder)
	check := func(t *testing.T, e Exercise) Result {
		t.Helper()
		result, err := r.Check(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	for _, e := range All() {
		t.Run(fmt.Sprintf("%02d", e.Number), func(t *testing.T) {
			t.Parallel() // each exercise has files of its own
			if result := check(t, e); result.Passed || result.Says == "" {
				t.Errorf("as the repository is: passed %v, %q", result.Passed, result.Says)
			} else {
				t.Logf("as it is: %s", result.Says)
			}
			if err := e.Wrong.Apply(folder); err != nil {
				t.Fatal(err)
			}
			if result := check(t, e); result.Passed || result.Says == "" || strings.HasPrefix(result.Says, "it does not compile") {
				t.Errorf("with the wrong solution: passed %v, %q", result.Passed, result.Says)
			} else {
				t.Logf("wrong: %s", result.Says)
			}
			put(t, folder, e)
			if err := e.Solution.Apply(folder); err != nil {
				t.Fatal(err)
			}
			result := check(t, e)
			if !result.Passed || result.Points != e.Points {
				t.Errorf("with the solution: %+v", result)
			}
			if n := max(1, len(result.Promises)); n != e.Points {
				t.Errorf("the check has %d promises, and the exercise %d points", n, e.Points)
			}
		})
	}
}

func TestEachExerciseIsComplete(t *testing.T) {
	for _, e := range All() {
		if e.Title == "" || e.Goal == "" || e.Folder == "" || len(e.Files) == 0 || len(e.Hints) != 2 || e.Solution.Text == "" || e.Wrong.Text == "" {
			t.Errorf("exercise %d lacks something: %+v", e.Number, e)
		}
	}
}

func TestAHangAPanicAndAnExitAreToldAsSuch(t *testing.T) {
	folder := module(t)
	r := &Runner{Root: folder, Limit: 2 * time.Second}
	e := All()[0]
	for _, c := range []struct{ body, says string }{
		{"<-make(chan int)", "it hangs: after 2s it is still at exercises/01-title/title.go:"},
		{`for { println("more") }`, "it hangs: after 2s it is still"},
		{`panic("the shelf fell")`, "it panics: the shelf fell at exercises/01-title/title.go:"},
		{"os.Exit(0)", "it panics: unexpected call to os.Exit(0) during test"},
		{"return nil", "it does not compile: exercises/01-title/title.go:"},
	} {
		put(t, folder, e)
		change := Change{"```diff file=exercises/01-title/title.go\n \t\"database/sql\"\n+\t\"os\"\n```\n" +
			"```diff file=exercises/01-title/title.go\n+var _ = os.Exit\n+\n const byTitle = `\n```\n" +
			"```diff file=exercises/01-title/title.go\n+\t" + strings.ReplaceAll(c.body, "\n", "\n+") +
			"\n \trows, err := db.QueryContext(ctx, byTitle, penny.Prefix(prefix), limit)\n```"}
		if err := change.Apply(folder); err != nil {
			t.Fatal(err)
		}
		result, err := r.Check(t.Context(), e)
		if err != nil || result.Passed || !strings.HasPrefix(result.Says, c.says) {
			t.Errorf("%s: passed %v, says %q, want %q (%v)", c.body, result.Passed, result.Says, c.says, err)
		}
	}
}

// Without a server nothing passes.
func TestWithoutPostgreSQLACheckIsRefused(t *testing.T) {
	none := errors.New("none here")
	r := &Runner{Root: root, Find: func(context.Context) (string, error) { return "", none }}
	if result, err := r.Check(t.Context(), All()[3]); !errors.Is(err, none) || result.Passed {
		t.Errorf("passed %v, error %v", result.Passed, err)
	}
}

func TestTheProgressIsKept(t *testing.T) {
	folder := t.TempDir()
	p, err := Load(folder)
	if err != nil || p.Next() != 1 {
		t.Fatalf("without a file: next %d, %v", p.Next(), err)
	}
	p.Solved[1], p.Hints[2] = true, 1
	if err := p.Save(); err != nil {
		t.Fatal(err)
	}
	if again, err := Load(folder); err != nil || again.Next() != 2 || again.Hints[2] != 1 {
		t.Errorf("loaded again: %+v, %v", again, err)
	}
}
