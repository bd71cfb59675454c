package books_test

import (
	"context"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/database3/books"
	"example.com/penny/internal/bookstest"
	"example.com/penny/internal/pgtest"
)

func TestTheLayerMeetsTheContract(t *testing.T) {
	bookstest.Run(t, bookstest.Postgres, func(ctx context.Context, url string) (bookstest.Store, error) {
		return books.Open(ctx, url)
	})
}

func TestAQuestionWhoseConnectionIsKilledIsAskedOnceMore(t *testing.T) {
	url := pgtest.BooksURL(t)
	store, err := books.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	type answer struct {
		books []penny.Book
		err   error
	}
	unlock := pgtest.Lock(t, url, "books")
	answers := make(chan answer)
	go func() {
		found, err := store.ByAuthor(t.Context(), "ker", 10)
		answers <- answer{found, err}
	}()
	killed := 0
	pgtest.Eventually(t, 30*time.Second, "the question waits for the table, and its connection is killed", func() bool {
		pgtest.Query(t, url, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`, &killed)
		return killed == 1
	})
	unlock()
	if got := <-answers; got.err != nil || len(got.books) != 2 {
		t.Errorf("got %v, %v", got.books, got.err)
	}
	if opened := store.Opened(); opened != 2 {
		t.Errorf("%d connections were opened, want the one that was killed and another", opened)
	}
}
