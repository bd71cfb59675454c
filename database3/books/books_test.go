package books_test

import (
	"context"
	"testing"

	"example.com/penny/database3/books"
	"example.com/penny/internal/bookstest"
)

func TestTheLayerMeetsTheContract(t *testing.T) {
	bookstest.Run(t, bookstest.Postgres, func(ctx context.Context, url string) (bookstest.Store, error) {
		return books.Open(ctx, url)
	})
}
