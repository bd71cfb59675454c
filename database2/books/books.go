// Package books finds books in a PostgreSQL database, with a new connection for every call.
package books

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"

	_ "github.com/lib/pq" // the driver "postgres"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

const byAuthor = `
	SELECT isbn, author, COALESCE(title, '') FROM books
	WHERE author ILIKE $1 ESCAPE '\'
	ORDER BY isbn COLLATE "C"
	LIMIT $2`

// A Store answers questions about the books in one database. Many goroutines may ask it at once.
type Store struct {
	dsn    string
	opened atomic.Int64
}

// Open makes a Store for the PostgreSQL database at url. It does not connect yet.
func Open(ctx context.Context, url string) (*Store, error) {
	dsn, err := dburl.PQ(url)
	if err != nil {
		return nil, err
	}
	return &Store{dsn: dsn}, nil
}

// ByAuthor finds the books whose author begins with prefix, ordered by ISBN, limit of them at most. It ignores
// case, and which letters have one is up to the database's locale: in most, ö matches Ö.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	// A *sql.DB is itself a pool of connections. Opened and closed here, it holds one, for this call alone.
	db, err := sql.Open("postgres", s.dsn)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	s.opened.Add(1)
	return find(ctx, conn, prefix, limit)
}

// find is ByAuthor over one connection.
func find(ctx context.Context, conn *sql.Conn, prefix string, limit int) ([]penny.Book, error) {
	rows, err := conn.QueryContext(ctx, byAuthor, penny.Prefix(prefix), max(limit, 0))
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

// Close has nothing to close: each call closed its own.
func (s *Store) Close() error { return nil }
