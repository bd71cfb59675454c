// Package lastcopy is for exercise 15.
package lastcopy

import (
	"context"
	"database/sql"
	"errors"
)

// ErrSoldOut is the error of Sell if there is no copy left.
var ErrSoldOut = errors.New("sold out")

// Table makes the stock.
const Table = `CREATE TABLE stock (isbn text PRIMARY KEY, copies integer NOT NULL)`

// Sell sells a copy of a book.
func Sell(ctx context.Context, db *sql.DB, isbn string) error {
	var copies int
	if err := db.QueryRowContext(ctx, `SELECT copies FROM stock WHERE isbn = $1`, isbn).Scan(&copies); err != nil {
		return err
	}
	if copies == 0 {
		return ErrSoldOut
	}
	_, err := db.ExecContext(ctx, `UPDATE stock SET copies = $1 WHERE isbn = $2`, copies-1, isbn)
	return err
}
