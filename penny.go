// Package penny holds what the stages of Penny, a small bookshop, share: the book, its table, and the search for an author.
package penny

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
)

// SQL is penny.sql. It drops the books table, makes it again, and fills it with the three books. SQLite and PostgreSQL
// both read it.
//
//go:embed penny.sql
var SQL string

// A Book is one row of the books table. GORM, which database4 uses, finds the table and its columns by these names.
type Book struct {
	ISBN   string `gorm:"primaryKey"`
	Author string
	Title  string
}

// String returns the book as the programs print it: its ISBN, its author and its title, each on a line.
func (b Book) String() string {
	return fmt.Sprintf("%s\n%s\n%s\n", b.ISBN, b.Author, b.Title)
}

// A Store finds books. Each of the four stages has one.
type Store interface {
	// ByAuthor returns the books whose author begins with prefix, ordered by ISBN, at most limit of them.
	ByAuthor(ctx context.Context, prefix string, limit int) ([]Book, error)
	// Close closes the connections.
	Close() error
}

// wildcards escapes the characters that have a meaning in a LIKE pattern.
var wildcards = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Prefix returns the LIKE pattern for every text that begins with prefix. The query must say ESCAPE '\': PostgreSQL has that
// by default, and SQLite has no default.
func Prefix(prefix string) string {
	return wildcards.Replace(prefix) + "%"
}
