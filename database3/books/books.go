// Package books finds books in a PostgreSQL database, over connections from a pool.
package books

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	"example.com/penny/database3/pool"
)

const byAuthor = `
	SELECT COALESCE(isbn, ''), author, COALESCE(title, '') FROM books
	WHERE author ILIKE $1 ESCAPE '\'
	ORDER BY isbn COLLATE "C"
	LIMIT $2`

// A Store finds books in one database. Many goroutines may use it at once.
type Store struct{ pool *pool.Pool }

// Open returns a Store for the database at url, with at most size connections. It does not connect to a server yet.
func Open(url string, size int) (*Store, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	dial := func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, config) }
	return &Store{pool.New(size, dial)}, nil
}

// ByAuthor returns the books whose author begins with prefix, ordered by ISBN, at most limit of them.
// It ignores case. SQLite does so for the letters A to Z, PostgreSQL for every letter that the database's locale knows.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	rows, err := conn.Query(ctx, byAuthor, penny.Prefix(prefix), limit)
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
func (s *Store) Stats() pool.Stats { return s.pool.Stats() }

// Close closes the connections.
func (s *Store) Close() error { return s.pool.Close() }
