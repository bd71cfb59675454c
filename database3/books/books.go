// Package books finds books in a PostgreSQL database, with connections borrowed from a pool.
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
	SELECT isbn, author, COALESCE(title, '')
	FROM books
	WHERE author ILIKE $1 ESCAPE '\'
	ORDER BY isbn COLLATE "C"
	LIMIT $2`

// A Store answers questions about the books in one database. Many goroutines may ask it at once.
type Store struct {
	pool *pool.Pool
}

// ByAuthor finds the books whose author begins with prefix, ordered by ISBN, limit of them at most. It ignores
// case, and which letters have one is up to the database's locale: in most, ö matches Ö.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	books, died, err := s.ask(ctx, prefix, limit)
	if died && ctx.Err() == nil { // To ask again is safe where nothing was changed.
		books, _, err = s.ask(ctx, prefix, limit)
	}
	return books, err
}

func (s *Store) ask(ctx context.Context, prefix string, limit int) (_ []penny.Book, died bool, _ error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("connect to the database: %w", err)
	}
	defer s.pool.Release(conn)
	return nil, false, nil
}
