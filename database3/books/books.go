// Package books finds books in a PostgreSQL database, with connections that it borrows from a pool.
package books

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	"example.com/penny/database3/pool"
	"example.com/penny/internal/dburl"
)

const byAuthor = `
	SELECT isbn, author, COALESCE(title, '') FROM books
	WHERE author ILIKE $1 ESCAPE '\'
	ORDER BY isbn COLLATE "C"
	LIMIT $2`

// A Store answers questions about the books in one database. Many goroutines may ask it at once.
type Store struct{ pool *pool.Pool }

// Open makes a Store for the PostgreSQL database at url, which holds 8 connections at most. It does not connect yet.
func Open(ctx context.Context, url string) (*Store, error) { return OpenPool(ctx, url, 8) }

// OpenPool is Open with a pool of another size.
func OpenPool(ctx context.Context, url string, size int) (*Store, error) {
	dsn, err := dburl.PGX(url)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) }
	return &Store{pool: pool.New(size, dial)}, nil
}

// ByAuthor finds the books whose author begins with prefix, ordered by ISBN, limit of them at most. It ignores
// case, and which letters have one is up to the database's locale: in most, ö matches Ö.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	books, died, err := s.once(ctx, prefix, limit)
	if died && ctx.Err() == nil { // To ask once more is safe: asking changes nothing.
		books, _, err = s.once(ctx, prefix, limit)
	}
	return books, err
}

// once asks over one connection, and tells whether that connection died of it.
func (s *Store) once(ctx context.Context, prefix string, limit int) (books []penny.Book, died bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("connect: %w", err)
	}
	defer s.pool.Release(conn)
	books, err = find(ctx, conn, prefix, limit)
	return books, err != nil && conn.IsClosed(), err
}

// find is ByAuthor over one connection.
func find(ctx context.Context, conn *pgx.Conn, prefix string, limit int) ([]penny.Book, error) {
	rows, err := conn.Query(ctx, byAuthor, penny.Prefix(prefix), max(limit, 0))
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

// Close closes the connections.
func (s *Store) Close() error { return s.pool.Close() }
