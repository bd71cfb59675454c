// Package penny holds what every stage of Penny, the little bookshop, has in common: what a book is and how it prints,
// the table it lives in, and how a search for an author is put to a database.
package penny

import (
	_ "embed"
	"fmt"
	"strings"
)

// SQL is penny.sql: it makes the books table anew and puts the three books in. It drops the table that was there.
// SQLite and PostgreSQL both read it.
//
//go:embed penny.sql
var SQL string

// A Book is one row of the books table. GORM, which database4 uses, finds the table and its columns by these names.
type Book struct {
	ISBN   string `gorm:"primaryKey"`
	Author string
	Title  string
}

// String is the book as the programs print it: a line each for its ISBN, its author and its title.
func (b Book) String() string {
	return fmt.Sprintf("%s\n%s\n%s\n", b.ISBN, b.Author, b.Title)
}

// wildcards makes the characters that mean something to LIKE mean themselves.
var wildcards = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Prefix is the LIKE pattern for all that begins with prefix. The query must say ESCAPE '\', because PostgreSQL
// escapes with a backslash by default and SQLite with nothing.
func Prefix(prefix string) string {
	return wildcards.Replace(prefix) + "%"
}
