// Package books finds books in a PostgreSQL or a SQLite database, with objects in place of SQL.
package books

import (
	"context"
	"database/sql"
	"fmt"

	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

// PoolSize is how many connections a Store holds at most. Without a limit database/sql opens as many as it is asked for.
const PoolSize = 8

// A Store answers questions about the books in one database. Many goroutines may ask it at once.
type Store struct {
	db   *gorm.DB
	pool *sql.DB
	// The databases differ where GORM leaves them to: in how a match ignores case, and in how text is ordered.
	like, order string
}

// Open makes a Store for the database at url. To PostgreSQL it does not connect yet.
func Open(ctx context.Context, url string) (*Store, error) {
	s := &Store{like: `author ILIKE ? ESCAPE '\'`, order: `isbn COLLATE "C"`}
	dsn, err := dburl.PGX(url)
	dialector := postgres.Open(dsn)
	if dburl.IsSQLite(url) {
		s.like, s.order = `author LIKE ? ESCAPE '\'`, "isbn"
		dsn, err = dburl.SQLite(url)
		dialector = sqlite.New(sqlite.Config{DriverName: "sqlite", DSN: dsn})
	}
	if err != nil {
		return nil, err
	}
	s.db, err = gorm.Open(dialector, &gorm.Config{DisableAutomaticPing: true, Logger: logger.Discard})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	s.pool, err = s.db.DB()
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	s.pool.SetMaxOpenConns(PoolSize)
	s.pool.SetMaxIdleConns(PoolSize)
	return s, nil
}

// ByAuthor finds the books whose author begins with prefix, ordered by ISBN, limit of them at most. It ignores case:
// to SQLite of the letters A to Z only, to PostgreSQL of those that the database's locale knows, in most Ö too.
func (s *Store) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	books, err := gorm.G[penny.Book](s.db).Where(s.like, penny.Prefix(prefix)).Order(s.order).Limit(max(limit, 0)).Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("find books: %w", err)
	}
	return books, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.pool.Close() }
