// Package leak is for exercise 7.
package leak

import (
	"context"

	"example.com/penny/database3/pool"
)

// Titles returns the titles of an author's books.
func Titles(ctx context.Context, p *pool.Pool, author string) ([]string, error) {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT title FROM books WHERE author = $1`, author)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var titles []string
	for rows.Next() {
		var title string
		if err := rows.Scan(&title); err != nil {
			return nil, err
		}
		titles = append(titles, title)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	conn.Release()
	return titles, nil
}
