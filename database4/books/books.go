// Package books finds books in a PostgreSQL or SQLite database, with objects in place of SQL.
package books

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"example.com/penny"
)

// A Store finds books in one database. Many goroutines may use it at once.
type Store struct {
	db      *gorm.DB
	pool    *sql.DB
	dialect dialect
}

// Open returns a Store for the database at url, with at most size connections. It does not connect to a server yet.
func Open(url string, size int) (*Store, error) {
	d := dialectOf(url)
	db, err := gorm.Open(d.dialector, &gorm.Config{DisableAutomaticPing: true, Logger: logger.Discard})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	pool, err := db.DB()
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	pool.SetMaxOpenConns(size)           // The default has no limit.
	pool.SetMaxIdleConns(size)           // The default keeps two.
	pool.SetConnMaxIdleTime(time.Minute) // Networks drop idle connections silently.
	return &Store{db, pool, d}, nil
}

// ByAuthor returns the books whose author begins with prefix, ordered by ISBN, at most limit of them.
// It ignores case. SQLite does so for the letters A to Z, PostgreSQL for every letter that the database's locale knows.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	query := gorm.G[penny.Book](s.db).Where(s.dialect.like, penny.Prefix(prefix))
	books, err := query.Order(s.dialect.order).Limit(limit).Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("find books: %w", err)
	}
	return books, nil
}

// Stats reports what the Store's connections are doing.
func (s *Store) Stats() sql.DBStats { return s.pool.Stats() }

// Close closes the connections.
func (s *Store) Close() error { return s.pool.Close() }
