// Package books finds books in a PostgreSQL database, over a new connection for every call.
package books

import (
	"context"
	"database/sql"
	"fmt"

	_ "github.com/lib/pq" // the driver "postgres"

	"example.com/penny"
)

const byAuthor = `
	SELECT COALESCE(isbn, ''), author, COALESCE(title, '') FROM books
	WHERE author ILIKE $1 ESCAPE '\'
	ORDER BY isbn COLLATE "C"
	LIMIT $2`

// A Store finds books in one database. Many goroutines may use it at once.
type Store struct{ db *sql.DB }

// Open returns a Store for the database at url. It does not connect to a server yet.
func Open(url string) (*Store, error) {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	db.SetMaxIdleConns(0) // A *sql.DB is a pool. This switches it off: each call opens a connection of its own.
	return &Store{db}, nil
}

// ByAuthor returns the books whose author begins with prefix, ordered by ISBN, at most limit of them.
// It ignores case. SQLite does so for the letters A to Z, PostgreSQL for every letter that the database's locale knows.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	rows, err := s.db.QueryContext(ctx, byAuthor, penny.Prefix(prefix), limit)
	if err != nil {
		return nil, fmt.Errorf("find books: %w", err)
	}
	defer rows.Close()
	var books []penny.Book
	for rows.Next() {
		var b penny.Book
		if err := rows.Scan(&b.ISBN, &b.Author, &b.Title); err != nil {
			return nil, fmt.Errorf("read book: %w", err)
		}
		books = append(books, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read books: %w", err)
	}
	return books, nil
}

// Stats reports what the Store's connections are doing.
func (s *Store) Stats() sql.DBStats { return s.db.Stats() }

// Close closes the connections.
func (s *Store) Close() error { return s.db.Close() }
