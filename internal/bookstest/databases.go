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
	url, err := dburl.SQLite("sqlite:///" + filepath.ToSlash(file))
	if err != nil {
		tb.Fatal(err)
	}
	return Database{URL: url, Exec: exec}
}

// Postgres is a PostgreSQL database of the test's own with penny.sql loaded. Its text is ordered as in a dictionary, as on
// most servers, so that a layer which leaves the order to the database is found out.
func Postgres(tb testing.TB) Database {
	tb.Helper()
	url := pgtest.DictionaryURL(tb)
	pgtest.LoadBooks(tb, url)
	return Database{URL: url, Exec: func(statements string) { pgtest.Exec(tb, url, statements) }, Folds: true}
}
