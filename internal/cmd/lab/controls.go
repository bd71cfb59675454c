package main

import (
	"context"
	"database/sql"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/penny/internal/demo"
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
func openPgxPerCall(_ context.Context, url string, _ int) (racer, error) {
	var opened atomic.Int64
	return racer{&control{
		ask: func(ctx context.Context, pattern string, limit int) error {
			conn, err := pgx.Connect(ctx, url)
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
		close: func() error { return nil },
	}, opened.Load}, nil
}

// openPgxpool is database3 with another pool.
func openPgxpool(ctx context.Context, url string, size int) (racer, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return racer{}, err
	}
	config.MaxConns = int32(size)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return racer{}, err
	}
	return racer{&control{
		ask: func(ctx context.Context, pattern string, limit int) error {
			rows, err := pool.Query(ctx, byAuthor, pattern, limit)
			if err != nil {
				return err
			}
			defer rows.Close()
			return read(rows)
		},
		close: func() error { pool.Close(); return nil },
	}, func() int64 { return pool.Stat().NewConnsCount() }}, nil
}

// openSQL is database2 with its *sql.DB opened once: database/sql has a pool of its own.
func openSQL(_ context.Context, url string, size int) (racer, error) {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return racer{}, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return racer{&control{
		ask: func(ctx context.Context, pattern string, limit int) error {
			rows, err := db.QueryContext(ctx, byAuthor, pattern, limit)
			if err != nil {
				return err
			}
			defer rows.Close()
			return read(rows)
		},
		close: db.Close,
	}, func() int64 { return demo.Opened(db.Stats()) }}, nil
}
