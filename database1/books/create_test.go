package books_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"example.com/penny/database1/books"
	"example.com/penny/internal/dburl"
)

func TestCreateMakesTheFileOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "50% of it") // SQLite reads % and ? in a name as parts of a URI, unless escaped
	if runtime.GOOS != "windows" {
		folder += "?"
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "penny.sqlite")

	// Programs that start at the same time all find a complete file.
	var starts sync.WaitGroup
	for range 8 {
		starts.Go(func() {
			if err := books.Create(file); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()

	url, err := dburl.SQLite("sqlite:///" + file)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`DELETE FROM books WHERE isbn <> '345'`); err != nil {
		t.Fatal(err)
	}
	if err := books.Create(file); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.QueryRow(`SELECT count(*) FROM books`).Scan(&left); err != nil || left != 1 {
		t.Errorf("Create changed an existing file: got %d books and %v, want 1 book", left, err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v; want only penny.sqlite", entries, err)
	}

	// SQLite would write an old journal into the new file.
	if err := os.WriteFile(filepath.Join(folder, "other.sqlite-journal"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := books.Create(filepath.Join(folder, "other.sqlite")); err == nil || !strings.Contains(err.Error(), "is left from a deleted database") {
		t.Errorf("with an old journal: got %v, want an error that names it", err)
	}
}
