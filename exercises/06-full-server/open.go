// Package full is for exercise 6.
package full

import (
	"database/sql"

	_ "github.com/lib/pq" // the driver "postgres"
)

// Open opens the database as database2 does: no connection is kept for the next call.
func Open(url string) (*sql.DB, error) {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(0)
	return db, nil
}
