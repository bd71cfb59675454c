package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/schollz/progressbar/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	"example.com/penny/internal/dburl"
)

type sqliteShop struct{ db *sql.DB }

func (s *sqliteShop) open(ctx context.Context, address string) error {
	file, err := dburl.File(address)
	if err != nil {
		return err
	}
	if err := database1.Create(file); err != nil {
		return err
	}
	dsn, err := dburl.SQLite(address)
	if err != nil {
		return err
	}
	if s.db, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil { // what fill sees is what it drops
		return err
	}
	s.db.SetMaxOpenConns(1)
	// With foreign keys on, DROP TABLE would delete the rows of other tables that refer to the books.
	_, err = s.db.ExecContext(ctx, `PRAGMA foreign_keys = OFF`)
	return err
}

func (s *sqliteShop) close() { s.db.Close() }

func (s *sqliteShop) fill(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar, agreed func([]string) bool) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	lost, err := sqliteLost(ctx, tx)
	if err != nil {
		return err
	}
	if !agreed(lost) {
		return errNotAgreed
	}
	if _, err := tx.ExecContext(ctx, penny.SQL); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO books (isbn, author, title) VALUES (?, ?, ?)`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer insert.Close()
	for i := 1; i <= books; i++ {
		isbn, author, title := madeUp(i)
		if _, err := insert.ExecContext(ctx, isbn, author, title); err != nil {
			return fmt.Errorf("insert a made-up book: %w", err)
		}
		if i%1000 == 0 {
			_ = bar.Set(i)
		}
	}
	if index {
		if _, err := tx.ExecContext(ctx, sqliteIndex); err != nil {
			return fmt.Errorf("make the index: %w", err)
		}
	}
	return tx.Commit()
}

const (
	sqliteTable = `CREATE TABLE books (isbn TEXT PRIMARY KEY, author TEXT, title TEXT)` // as in penny.sql
	sqliteIndex = `CREATE INDEX books_author ON books (author COLLATE NOCASE)`
)

// sqliteLost returns what is lost with the books table: its own definition if it is another, its indexes and triggers,
// and its books. Views and other tables stay, and find the new table.
func sqliteLost(ctx context.Context, tx *sql.Tx) (lost []string, err error) {
	found, err := tx.QueryContext(ctx, `SELECT type, name, sql FROM sqlite_schema
		WHERE tbl_name = 'books' COLLATE NOCASE AND sql IS NOT NULL ORDER BY type DESC, name`)
	if err != nil {
		return nil, fmt.Errorf("look for the books table: %w", err)
	}
	defer found.Close()
	exists, same := false, false
	for found.Next() {
		var kind, name, definition string
		if err := found.Scan(&kind, &name, &definition); err != nil {
			return nil, fmt.Errorf("look for the books table: %w", err)
		}
		switch {
		case kind == "view":
			return nil, &hinted{fmt.Errorf("%s is a view, not a table", name), "lab load does not drop it: use another file"}
		case kind == "table":
			if exists, same = true, alike(definition, sqliteTable); !same {
				lost = append(lost, "its definition: "+definition)
			}
		case !alike(definition, sqliteIndex):
			lost = append(lost, kind+" "+name)
		}
	}
	if err := found.Err(); err != nil || !exists {
		return nil, err
	}
	count := countOthers
	if !same { // it may lack a column
		count = countAll
	}
	var others int
	if err := tx.QueryRowContext(ctx, count).Scan(&others); err != nil {
		return nil, fmt.Errorf("count the books: %w", err)
	}
	return append(otherBooks(others), lost...), nil
}

// alike reports whether two definitions are the same but for spaces, capitals and quotes around names.
func alike(a, b string) bool {
	plain := func(text string) string {
		return strings.ToLower(strings.NewReplacer(`"`, "", "`", "", "[", "", "]", "", "IF NOT EXISTS", "").Replace(strings.Join(strings.Fields(text), "")))
	}
	return plain(a) == plain(b)
}
