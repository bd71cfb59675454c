package books_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"example.com/penny"
	"example.com/penny/database1/books"
	"example.com/penny/internal/bookstest"
)

func TestContract(t *testing.T) {
	bookstest.Run(t, bookstest.SQLite, func(url string) (penny.Store, error) { return books.Open(url) })
}

func TestCreateMakesTheFileOnce(t *testing.T) {
	folder := t.TempDir()
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

	db, err := sql.Open("sqlite", file)
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
		t.Errorf("Create touched a file that was there: %d books, %v", left, err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want penny.sqlite alone", entries, err)
	}
}
