package bookstest

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"example.com/penny"
)

// SQLite is a SQLite file of the test's own with penny.sql loaded.
func SQLite(tb testing.TB) Database {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "penny.sqlite")
	exec := func(statements string) {
		tb.Helper()
		db, err := sql.Open("sqlite", file)
		if err != nil {
			tb.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(statements); err != nil {
			tb.Fatal(err)
		}
	}
	exec(penny.SQL)
	return Database{URL: "sqlite:///" + filepath.ToSlash(file), Exec: exec}
}
