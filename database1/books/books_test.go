package books_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"example.com/penny/database1/books"
	"example.com/penny/internal/bookstest"
)

func TestTheLayerMeetsTheContract(t *testing.T) {
	bookstest.Run(t, bookstest.SQLite, func(ctx context.Context, url string) (bookstest.Store, error) {
		return books.Open(ctx, url)
	})
}

func TestCreateMakesTheFileOnceAndLeavesItAloneAfterwards(t *testing.T) {
	folder := t.TempDir()
	url := "sqlite:///" + filepath.Join(folder, "penny.sqlite")

	// Programs that start at the same time all find a whole file.
	var starts sync.WaitGroup
	for range 8 {
		starts.Go(func() {
			if err := books.Create(t.Context(), url); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()

	db, err := sql.Open("sqlite", filepath.Join(folder, "penny.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`DELETE FROM books WHERE isbn <> '345'`); err != nil {
		t.Fatal(err)
	}
	if err := books.Create(t.Context(), url); err != nil {
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
