// Package insert is for exercise 13.
package insert

import (
	"context"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/retry"
)

// Table makes the table of orders. Two orders never have the same key.
const Table = `CREATE TABLE orders (key text UNIQUE, isbn text NOT NULL)`

// Order orders a book. The customer's browser makes a new key for each order, and reuses it if it sends the order again.
func Order(ctx context.Context, url, key, isbn string) error {
	return retry.Read(ctx, func() error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(ctx, `INSERT INTO orders (isbn) VALUES ($1)`, isbn)
		return err
	})
}
