package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"

	database1 "example.com/penny/database1/books"
	"example.com/penny/internal/dburl"
)

var sqliteShop = shop{
	open:  openSQLite,
	clear: clearSQLite,
	insert: `WITH RECURSIVE made (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM made WHERE i < ?2)
		INSERT INTO books SELECT printf('9%012d', i), printf('Author %07d', i), 'The Collected Works, volume ' || i FROM made`,
	index: sqliteIndex,
}

const sqliteIndex = `CREATE INDEX books_author ON books (author COLLATE NOCASE)`

func openSQLite(address string) (*sql.DB, error) {
	file, err := dburl.File(address)
	if err != nil {
		return nil, err
	}
	if err := database1.Create(file); err != nil {
		return nil, err
	}
	dsn, err := dburl.SQLite(address)
	if err != nil {
		return nil, err
	}
	// A transaction locks the file from its start, so that nobody changes the table between the check and the drop. With foreign
	// keys on, DROP TABLE would fail, or delete rows of other tables that refer to the books.
	return sql.Open("sqlite", strings.Replace(dsn, "foreign_keys(1)", "foreign_keys(0)", 1)+"&_txlock=immediate")
}

// clearSQLite compares the books table, its indexes and its triggers with those of penny.sql. It drops nothing: penny.sql does.
// Views and other tables stay, and refer to the new table.
func clearSQLite(ctx context.Context, _ *sql.DB, tx *sql.Tx, agreed func([]string) bool) error {
	found, err := tx.QueryContext(ctx, `SELECT type, name, sql FROM sqlite_schema
		WHERE tbl_name = 'books' COLLATE NOCASE AND sql IS NOT NULL ORDER BY type DESC, name`)
	if err != nil {
		return fmt.Errorf("look for the books table: %w", err)
	}
	defer found.Close()
	var lost []string
	exists, same := false, true
	for found.Next() {
		var kind, name, definition string
		if err := found.Scan(&kind, &name, &definition); err != nil {
			return fmt.Errorf("look for the books table: %w", err)
		}
		switch {
		case kind == "view":
			return &hinted{fmt.Errorf("%s is a view, not a table", name), "lab load does not drop it: use another file"}
		case kind == "table":
			if exists, same = true, alike(definition, `CREATE TABLE books (isbn TEXT PRIMARY KEY, author TEXT, title TEXT)`); !same {
				lost = append(lost, "its definition: "+definition)
			}
		case !alike(definition, sqliteIndex):
			lost = append(lost, kind+" "+name)
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("look for the books table: %w", err)
	}
	if exists {
		others, err := otherBooks(ctx, tx, same)
		if err != nil {
			return err
		}
		lost = append(others, lost...)
	}
	if !agreed(lost) {
		return errNotAgreed
	}
	return nil
}

// alike reports whether two definitions differ at most in spaces, capitals and quotes around names.
func alike(a, b string) bool {
	plain := strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "", `"`, "", "`", "", "[", "", "]", "")
	return plain.Replace(strings.ToLower(a)) == plain.Replace(strings.ToLower(b))
}
