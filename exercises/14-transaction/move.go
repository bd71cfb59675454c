// Package transaction is for exercise 14.
package transaction

import (
	"context"
	"database/sql"
)

// Table makes the shelves. A shelf cannot have a negative number of copies.
const Table = `CREATE TABLE shelves (name text PRIMARY KEY, copies integer NOT NULL CHECK (copies >= 0))`

// Move moves copies from one shelf to another.
func Move(ctx context.Context, db *sql.DB, from, to string, copies int) error {
	if _, err := db.ExecContext(ctx, `UPDATE shelves SET copies = copies + $1 WHERE name = $2`, copies, to); err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, `UPDATE shelves SET copies = copies - $1 WHERE name = $2`, copies, from)
	return err
}
