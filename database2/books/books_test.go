package books_test

import (
	"testing"

	"example.com/penny"
	"example.com/penny/database2/books"
	"example.com/penny/internal/bookstest"
	"example.com/penny/internal/demo"
)

func TestContract(t *testing.T) {
	bookstest.Run(t, bookstest.Postgres, func(url string) (penny.Store, error) { return books.Open(url) })
}

func TestEachCallOpensAConnection(t *testing.T) {
	bookstest.Connections(t, 5, func(url string) (penny.Store, func() int64, error) {
		store, err := books.Open(url)
		return store, func() int64 { return demo.Opened(store.Stats()) }, err
	})
}
