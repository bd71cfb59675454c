package books_test

import (
	"context"
	"testing"

	"example.com/penny/database4/books"
	"example.com/penny/internal/bookstest"
)

func open(ctx context.Context, url string) (bookstest.Store, error) {
	return books.Open(ctx, url)
}

func TestTheLayerMeetsTheContractOnPostgreSQL(t *testing.T) {
	bookstest.Run(t, bookstest.Postgres, open)
}

func TestTheLayerMeetsTheContractOnSQLite(t *testing.T) {
	bookstest.Run(t, bookstest.SQLite, open)
}
