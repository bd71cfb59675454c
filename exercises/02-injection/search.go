// Package injection is for exercise 2.
package injection

import (
	"context"
	"database/sql"
)

// Titles returns the titles of an author's books.
func Titles(ctx context.Context, db *sql.DB, author string) ([]string, error) {
	query := `SELECT title FROM books WHERE author = '` + author + `'`
	rows, err := db.QueryContext(ctx, query)
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
	return titles, rows.Err()
}
