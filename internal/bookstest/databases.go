// Package bookstest has databases with the books, for tests of the layers. Its own tests are the layers' contract: the answers
// that each of them gives on a real database.
package bookstest

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"example.com/penny"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/pgtest"
)

// A Database is a database that belongs to one test.
type Database struct {
	URL  string
	Exec func(tb testing.TB, statements string) // runs SQL in it, without the layer
	// Folds reports whether ö matches Ö when the database ignores case.
	Folds bool
}

// SQLite returns a SQLite file with penny.sql loaded, removed when the test ends.
func SQLite(tb testing.TB) Database {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "penny.sqlite")
	exec := func(tb testing.TB, statements string) {
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
	exec(tb, penny.SQL)
	url, err := dburl.SQLite("sqlite:///" + filepath.ToSlash(file))
	if err != nil {
		tb.Fatal(err)
	}
	return Database{URL: url, Exec: exec}
}

// Postgres returns a PostgreSQL database with penny.sql loaded, dropped when the test ends. It sorts text like a dictionary,
// as most servers do, so that a layer that forgets its own order fails.
func Postgres(tb testing.TB) Database {
	tb.Helper()
	url := pgtest.DictionaryURL(tb)
	pgtest.LoadBooks(tb, url)
	return Database{URL: url, Exec: func(tb testing.TB, statements string) { pgtest.Exec(tb, url, statements) }, Folds: true}
}
