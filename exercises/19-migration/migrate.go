// Package migration is for exercise 19.
package migration

import (
	"context"
	"database/sql"
)

// Migrate gives each book a price, in cents. It runs whenever the app starts.
func Migrate(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `ALTER TABLE books ADD COLUMN price integer NOT NULL`)
	return err
}
