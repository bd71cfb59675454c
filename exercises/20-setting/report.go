// Package setting is for exercise 20.
package setting

import (
	"context"

	"example.com/penny/database3/pool"
)

// Report runs a query that returns a number. The server may work on it for 200 ms at most.
func Report(ctx context.Context, p *pool.Pool, query string) (n int, err error) {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SET statement_timeout = 200`); err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, query).Scan(&n)
	return n, err
}
