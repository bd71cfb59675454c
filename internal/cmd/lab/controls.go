package main

import (
	"context"
	"database/sql"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/penny/internal/dburl"
)

// rows are pgx's or database/sql's.
type rows interface {
	Next() bool
	Scan(into ...any) error
	Err() error
}

// read reads the books to the end, as the stages do.
func read(rows rows) error {
	for rows.Next() {
		var isbn, author, title string
		if err := rows.Scan(&isbn, &author, &title); err != nil {
			return err
		}
	}
	return rows.Err()
}

// openPgxPerCall is database2 with another driver.
func openPgxPerCall(_ context.Context, address string, _ int) (store, error) {
	dsn, err := dburl.PGX(address)
	if err != nil {
		return nil, err
	}
	var opened atomic.Int64
	return &control{
		ask: func(ctx context.Context, pattern string, limit int) error {
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			opened.Add(1)
			rows, err := conn.Query(ctx, byAuthor, pattern, limit)
			if err != nil {
				return err
			}
			defer rows.Close()
			return read(rows)
		},
		opened: opened.Load,
		close:  func() error { return nil },
	}, nil
}

// openPgxpool is database3 with another pool.
func openPgxpool(ctx context.Context, address string, size int) (store, error) {
	dsn, err := dburl.PGX(address)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(size)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &control{
		ask: func(ctx context.Context, pattern string, limit int) error {
			rows, err := pool.Query(ctx, byAuthor, pattern, limit)
			if err != nil {
				return err
			}
			defer rows.Close()
			return read(rows)
		},
		opened: func() int64 { return pool.Stat().NewConnsCount() },
		close:  func() error { pool.Close(); return nil },
	}, nil
}

// openSQL is database2 with its *sql.DB opened once: database/sql has a pool of its own.
func openSQL(_ context.Context, address string, size int) (store, error) {
	dsn, err := dburl.PQ(address)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return &control{
		ask: func(ctx context.Context, pattern string, limit int) error {
			rows, err := db.QueryContext(ctx, byAuthor, pattern, limit)
			if err != nil {
				return err
			}
			defer rows.Close()
			return read(rows)
		},
		opened: func() int64 {
			s := db.Stats()
			return int64(s.OpenConnections) + s.MaxIdleClosed + s.MaxIdleTimeClosed + s.MaxLifetimeClosed
		},
		close: db.Close,
	}, nil
}
