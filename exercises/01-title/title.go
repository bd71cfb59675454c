// Package title is for exercise 1.
package title

import (
	"context"
	"database/sql"

	"example.com/penny"
)

const byTitle = `
	SELECT isbn, author, title FROM books
	WHERE author LIKE $1 ESCAPE '\'
	ORDER BY isbn
	LIMIT $2`

// ByTitle returns the books whose title begins with prefix, ordered by ISBN, at most limit of them.
func ByTitle(ctx context.Context, db *sql.DB, prefix string, limit int) ([]penny.Book, error) {
	rows, err := db.QueryContext(ctx, byTitle, penny.Prefix(prefix), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var books []penny.Book
	for rows.Next() {
		var b penny.Book
		if err := rows.Scan(&b.ISBN, &b.Author, &b.Title); err != nil {
			return nil, err
		}
		books = append(books, b)
	}
	return books, rows.Err()
}
