package books_test

import (
	"testing"

	"example.com/penny"
	"example.com/penny/database4/books"
	"example.com/penny/internal/bookstest"
	"example.com/penny/internal/demo"
)

func TestContractOnPostgreSQL(t *testing.T) {
	bookstest.Run(t, bookstest.Postgres, func(url string) (penny.Store, error) { return books.Open(url, 8) })
}

func TestContractOnSQLite(t *testing.T) {
	bookstest.Run(t, bookstest.SQLite, func(url string) (penny.Store, error) { return books.Open(url, 8) })
}

func TestCallsShareAConnection(t *testing.T) {
	bookstest.Connections(t, 1, func(url string) (penny.Store, func() int64, error) {
		store, err := books.Open(url, 8)
		return store, func() int64 { return demo.Opened(store.Stats()) }, err
	})
}
