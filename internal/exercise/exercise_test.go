package exercise

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

const root = "../.."

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "20"); err != nil { // the checks mostly wait
		panic(err)
	}
	os.Exit(m.Run())
}

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

// temporary makes a folder as Check does: another user's server can enter it.
func temporary(t *testing.T) string {
	t.Helper()
	folder, err := scratch.New("", "exercise")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Remove() })
	return folder.Path
}

// Each check fails on the repository as it is, and on a typical mistake, and passes with the solution. The solutions stay
// in the folder, which must compile with all of them.
func TestEachCheckPassesOnlyWithTheSolution(t *testing.T) {
	skip.Long(t)
	t.Parallel()
	pgtest.Programs(t) // skips the test, or fails it, if there is no PostgreSQL
	folder := module(t)
	r := &Runner{Root: folder, Find: func(ctx context.Context) (string, error) { return localpg.Find(ctx, localpg.Search{}) }}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	server, err := r.address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	building := make(chan struct{}, runtime.NumCPU())
	for _, e := range All() {
		t.Run(fmt.Sprintf("%02d", e.Number), func(t *testing.T) {
			t.Parallel()
			program := temporary(t)
			check := func(change string, limit time.Duration) Result {
				if err := apply(folder, change); err != nil {
					t.Fatal(err)
				}
				if change == "" || filepath.Ext(e.Files[0]) == ".go" { // the program does not contain a text file
					building <- struct{}{}
					says, err := r.build(t.Context(), e, program)
					<-building
					if says != "" || err != nil {
						t.Fatalf("%s (%v)", says, err)
					}
				}
				result, err := (&Runner{Root: folder, Limit: limit}).run(t.Context(), e, program, server)
				if err != nil {
					t.Fatal(err)
				}
				return result
			}
			limit := 2 * time.Minute
			if e.Points > 1 {
				limit = 20 * time.Second // a pool that breaks promises uses all its time
			}
			mistake := func(change string) {
				result := check(change, limit)
				t.Log(result.Says)
				if result.Passed || result.Says == "" {
					t.Errorf("passed %v, says %q, want a failure and its reason, with the change: %s", result.Passed, result.Says, change)
				}
			}
			mistake("")
			for _, change := range append([]string{e.Wrong}, mistakes[e.Number]...) {
				mistake(change)
				put(t, folder, e)
			}
			result := check(e.Solution, 2*time.Minute)
			if !result.Passed || result.Points != e.Points || max(1, len(result.Promises)) != e.Points {
				t.Errorf("with the solution: %+v, want %d points", result, e.Points)
			}
		})
	}
}

// edit is a change for apply: the lines old of a file are replaced.
func edit(file, old, new string) string {
	lines := func(sign, text string) string { return sign + strings.ReplaceAll(text, "\n", "\n"+sign) + "\n" }
	return "```diff file=exercises/" + file + "\n" + lines("-", old) + lines("+", new) + "```\n"
}

// mistakes are more mistakes that the checks find, by exercise.
var mistakes = map[int][]string{
	1: {
		edit("01-title/title.go", "	WHERE author LIKE $1 ESCAPE '\\'", "	WHERE title LIKE '%' || $1 ESCAPE '\\'"),
		edit("01-title/title.go", "	WHERE author LIKE $1 ESCAPE '\\'\n	ORDER BY isbn", "	WHERE title LIKE $1 ESCAPE '\\'"),
		edit("01-title/title.go", "	WHERE author LIKE $1 ESCAPE '\\'", "	WHERE title LIKE $1"),
	},
	6: {
		edit("06-full-server/open.go", "	db.SetMaxIdleConns(0)", "	db.SetMaxOpenConns(18)"),
		edit("06-full-server/open.go", "	db.SetMaxIdleConns(0)", "	db.SetMaxOpenConns(1)"),
	},
	7: {
		edit("07-leak/leak.go", "	defer rows.Close()", "	defer conn.Release()\n	defer rows.Close()") + edit("07-leak/leak.go", "	conn.Release()\n	return titles, nil", "	return titles, nil"),
		edit("07-leak/leak.go", "	rows, err := conn.Query(ctx, `SELECT title FROM books WHERE author = $1`, author)",
			"	rows, err := conn.Query(ctx, `SELECT title FROM books WHERE author = $1`, author)\n	conn.Release()") +
			edit("07-leak/leak.go", "	conn.Release()\n	return titles, nil", "	return titles, nil"),
	},
	9: {
		edit("09-index/index.sql", "-- Below, write SQL that makes the search fast with a million books.",
			"CREATE INDEX ON books (isbn COLLATE \"C\");\nSET enable_seqscan = off;"),
	},
	13: {
		edit("13-insert/order.go", "		_, err = conn.Exec(ctx, `INSERT INTO orders (isbn) VALUES ($1)`, isbn)\n		return err",
			"		_, _ = conn.Exec(ctx, `INSERT INTO orders (key, isbn) VALUES ($1, $2)`, key, isbn)\n		return nil"),
		edit("13-insert/order.go", "		_, err = conn.Exec(ctx, `INSERT INTO orders (isbn) VALUES ($1)`, isbn)",
			"		_, err = conn.Exec(ctx, `INSERT INTO orders (key, isbn) VALUES ($1, $1) ON CONFLICT (key) DO NOTHING`, key)"),
	},
	14: {
		edit("14-transaction/move.go", "	if _, err := db.ExecContext(ctx, `UPDATE shelves SET copies = copies + $1 WHERE name = $2`, copies, to); err != nil {",
			"	if _, err := db.ExecContext(ctx, `UPDATE shelves SET copies = copies - $1 WHERE name = $2`, copies, from); err != nil {") +
			edit("14-transaction/move.go", "	_, err := db.ExecContext(ctx, `UPDATE shelves SET copies = copies - $1 WHERE name = $2`, copies, from)",
				"	_, err := db.ExecContext(ctx, `UPDATE shelves SET copies = copies + $1 WHERE name = $2`, copies, to)"),
	},
	15: {
		edit("15-last-copy/sell.go", "	var copies int", "	mu.Lock()\n	defer mu.Unlock()\n	var copies int") +
			edit("15-last-copy/sell.go", "	_, err := db.ExecContext(ctx, `UPDATE stock SET copies = $1 WHERE isbn = $2`, copies-1, isbn)",
				"	_, err := db.ExecContext(ctx, `UPDATE stock SET copies = copies - 1 WHERE isbn = $1`, isbn)") +
			edit("15-last-copy/sell.go", "	\"errors\"\n)", "	\"errors\"\n	\"sync\"\n)\n\nvar mu sync.Mutex"),
	},
	19: {
		edit("19-migration/migrate.go", "	_, err := db.ExecContext(ctx, `ALTER TABLE books ADD COLUMN price integer NOT NULL`)\n	return err",
			"	_, _ = db.ExecContext(ctx, `ALTER TABLE books ADD COLUMN price integer NOT NULL DEFAULT 0`)\n	return nil"),
		edit("19-migration/migrate.go", "	_, err := db.ExecContext(ctx, `ALTER TABLE books ADD COLUMN price integer NOT NULL`)", "	_, err := db.ExecContext(ctx, `ALTER TABLE books ADD COLUMN IF NOT EXISTS price integer; UPDATE books SET price = 0 WHERE price IS NULL`)"),
	},
}

func TestEachExerciseIsComplete(t *testing.T) {
	for _, e := range All() {
		if e.Title == "" || e.Goal == "" || e.Folder == "" || len(e.Files) == 0 || len(e.Hints) != 2 || e.Solution == "" || e.Wrong == "" {
			t.Errorf("exercise %d lacks something: %+v", e.Number, e)
		}
	}
}

func TestAHangAPanicAndAnExitAreReported(t *testing.T) {
	skip.Short(t)
	t.Parallel()
	const file = "exercises/01-title/title.go"
	const call = "\trows, err := db.QueryContext(ctx, byTitle, penny.Prefix(prefix), limit)"
	cases := []struct{ code, says string }{
		{"<-make(chan int)", "it hangs: after LIMIT it is still at " + file + ":"},
		{"for {\n}", "it hangs: after LIMIT it is still"}, // Go cannot always name the line of a loop that runs on another processor
		{`for { println("more") }`, "it hangs: after LIMIT it is still"},
		{`panic("the shelf fell")`, "it panics: the shelf fell at " + file + ":"},
		{"new(sync.Mutex).Unlock()", "it panics: sync: unlock of unlocked mutex at " + file + ":"},
		{"os.Exit(0)", "it panics: unexpected call to os.Exit(0) during test"},
	}
	// One program has the code of all cases. The file "case" in its working directory says which one to run.
	code := "\twhat, _ := os.ReadFile(\"case\")\n\tswitch string(what) {\n"
	for _, c := range cases {
		code += fmt.Sprintf("case %q:\n%s\n", c.code, c.code)
	}
	folder, program, e := module(t), temporary(t), All()[0]
	title := filepath.Join(folder, file)
	for _, r := range [][2]string{{call, code + "\t}\n" + call}, {"\t\"database/sql\"\n", "\t\"database/sql\"\n\t\"os\"\n\t\"sync\"\n"}} {
		if err := replace(title, "diff", r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if says, err := (&Runner{Root: folder}).build(t.Context(), e, program); says != "" || err != nil {
		t.Fatal(says, err)
	}
	for _, c := range cases {
		t.Run(c.code, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "case"), []byte(c.code), 0o644); err != nil {
				t.Fatal(err)
			}
			for limit := 2 * time.Second; ; limit *= 2 { // a slow machine takes longer to come to the student's code
				result, err := (&Runner{Root: folder, Limit: limit}).run(t.Context(), e, program, "")
				says := strings.Replace(c.says, "LIMIT", limit.String(), 1)
				if err == nil && !result.Passed && strings.HasPrefix(result.Says, says) && !strings.HasSuffix(result.Says, file+":1") {
					return
				}
				if limit > 30*time.Second {
					t.Fatalf("got passed %v and %q, want %q (%v)", result.Passed, result.Says, says, err)
				}
			}
		})
	}
}

func TestTheCompilersErrorIsReported(t *testing.T) {
	skip.Short(t)
	t.Parallel()
	folder, e := module(t), All()[0]
	if err := replace(filepath.Join(folder, e.Files[0]), "diff", "return books, rows.Err()", "return nil"); err != nil {
		t.Fatal(err)
	}
	result, err := (&Runner{Root: folder}).Check(t.Context(), e)
	const want = "title.go:32:9: not enough return values have (nil) want ([]penny.Book, error)"
	if err != nil || result.Passed || !strings.HasPrefix(result.Says, "it does not compile: ") || !strings.HasSuffix(result.Says, want) {
		t.Errorf("got passed %v and %q, want %q (%v)", result.Passed, result.Says, want, err)
	}
}

func TestACheckWithoutPostgreSQLReturnsAnError(t *testing.T) {
	none := errors.New("none here")
	r := &Runner{Root: root, Find: func(context.Context) (string, error) { return "", none }}
	if result, err := r.Check(t.Context(), All()[3]); !errors.Is(err, none) || result.Passed {
		t.Errorf("got passed %v and error %v, want %v", result.Passed, err, none)
	}
}

func TestTheProgressIsSaved(t *testing.T) {
	folder := t.TempDir()
	p, err := Load(folder)
	if err != nil || p.Next() != 1 {
		t.Fatalf("without a file: got next %d and %v, want 1", p.Next(), err)
	}
	p.Solved[1], p.Hints[2] = true, 1
	if err := p.Save(); err != nil {
		t.Fatal(err)
	}
	if again, err := Load(folder); err != nil || again.Next() != 2 || again.Hints[2] != 1 {
		t.Errorf("loaded again: got %+v and %v, want 1 solved and 1 hint", again, err)
	}
	for text, good := range map[string]bool{`{}`: true, `{"hints":{"1":-1}}`: true, `{"solved":null}`: false, `[]`: false, ``: false} {
		if err := os.WriteFile(filepath.Join(folder, ".exercises"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := Load(folder); (err == nil) != good || good && p.Hints[1] != 0 {
			t.Errorf("with %q in the file: got %+v and %v", text, p, err)
		}
	}
}
