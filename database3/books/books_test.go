package books_test

import (
	"testing"

	"example.com/penny"
	"example.com/penny/database3/books"
	"example.com/penny/internal/bookstest"
)

func TestContract(t *testing.T) {
	bookstest.Run(t, bookstest.Postgres, func(url string) (penny.Store, error) { return books.Open(url, 8) })
}

func TestCallsShareAConnection(t *testing.T) {
	bookstest.Connections(t, 1, func(url string) (penny.Store, func() int64, error) {
		store, err := books.Open(url, 8)
		return store, func() int64 { return store.Stats().Dials }, err
	})
}
