// Package bookstest is the contract of the layers: the answers that each of them gives on a real database.
package bookstest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/internal/relay"
)

// A Database is a database that belongs to one test.
type Database struct {
	URL  string
	Exec func(statements string) // runs SQL in it, without the layer
	// Folds reports whether ö matches Ö when the database ignores case.
	Folds bool
}

// The books that the contract searches, in the byte order of their ISBN. A book without an author or a title is legal: the
// table demands only an ISBN.
const catalogue = `
	DELETE FROM books;
	INSERT INTO books (isbn, author, title) VALUES
		('0-13', 'Kernighan', 'The Practice of Programming'),
		('0-2',  'Kernighan', 'The C Programming Language'),
		('012',  'kernel',    'Small letters'),
		('02',   'KERN',      'Capitals'),
		('A1',   'Sedgewick', 'Algorithms in C'),
		('B1',   NULL,        'Beowulf'),
		('B2',   'Nameless',  NULL),
		('C1',   '100% sure', 'Percent'),
		('C2',   '100 sure',  'No percent'),
		('D1',   'a_b',       'Underscore'),
		('D2',   'axb',       'No underscore'),
		('E1',   'back\slash', 'Backslash'),
		('E2',   'backslash', 'No backslash'),
		('F1',   'O''Reilly', 'Quote'),
		('G1',   'Öz',        'Capital umlaut'),
		('G2',   'özil',      'Small umlaut'),
		('H1',   '李白',       'Moonlight'),
		('a1',   'Sedgewick', 'Algorithms in Go');`

var everyISBN = []string{"0-13", "0-2", "012", "02", "A1", "B2", "C1", "C2", "D1", "D2", "E1", "E2", "F1", "G1", "G2", "H1", "a1"}

// Run tests the layer that open opens. newDatabase returns a database with penny.sql loaded; each subtest gets its own.
func Run(t *testing.T, newDatabase func(testing.TB) Database, open func(url string) (penny.Store, error)) {
	start := func(t *testing.T) (penny.Store, Database) {
		t.Helper()
		db := newDatabase(t)
		store, err := open(db.URL)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return store, db
	}
	searches := func(t *testing.T) (search func(prefix string, limit int) []string, db Database) {
		t.Helper()
		store, db := start(t)
		db.Exec(catalogue)
		return func(prefix string, limit int) []string {
			t.Helper()
			books, err := store.ByAuthor(t.Context(), prefix, limit)
			if err != nil {
				t.Fatalf("ByAuthor(%q, %d): %v", prefix, limit, err)
			}
			isbns := []string{}
			for _, book := range books {
				isbns = append(isbns, book.ISBN)
			}
			return isbns
		}, db
	}

	t.Run("the Kernighan books", func(t *testing.T) {
		store, _ := start(t)
		got, err := store.ByAuthor(t.Context(), "ker", 100)
		if err != nil {
			t.Fatal(err)
		}
		want := []penny.Book{
			{ISBN: "123", Author: "Kernighan", Title: "The Practice of Programming"},
			{ISBN: "234", Author: "Kernighan", Title: "The C Programming Language"},
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})

	t.Run("a prefix finds the authors that begin with it, and no others", func(t *testing.T) {
		search, db := searches(t)
		umlauts := []string{"G2"}
		if db.Folds {
			umlauts = []string{"G1", "G2"}
		}
		for _, c := range []struct {
			what, prefix string
			want         []string
		}{
			{"case is ignored, and books are sorted by the bytes of their ISBN", "ker", []string{"0-13", "0-2", "012", "02"}},
			{"capitals find small letters", "KERN", []string{"0-13", "0-2", "012", "02"}},
			{"a whole name", "sedgewick", []string{"A1", "a1"}},
			{"an empty prefix finds every book that has an author", "", everyISBN},
			{"the middle of a name finds nothing", "ernighan", nil},
			{"nobody", "zzz", nil},
			{"more than the name", "Kernighan and Ritchie", nil},
			{"% is no wildcard", "100%", []string{"C1"}},
			{"% alone finds nothing", "%", nil},
			{"_ is no wildcard", "a_", []string{"D1"}},
			{"_ alone finds nothing", "_", nil},
			{`\ is no escape`, `back\`, []string{"E1"}},
			{`\ does not escape %`, `\%`, nil},
			{"a quote", "o'", []string{"F1"}},
			{"SQL in the prefix is text", "x' OR '1'='1", nil},
			{"SQL that drops the table is text", "'; DROP TABLE books; --", nil},
			{"letters that are not ASCII", "李", []string{"H1"}},
			{"an umlaut, as the database folds it", "öz", umlauts},
			{"a space counts", " ker", nil},
			{"a line break counts", "ker\n", nil},
			{"a long prefix", strings.Repeat("k", 10_000), nil},
		} {
			t.Run(c.what, func(t *testing.T) {
				if got := search(c.prefix, 100); !slices.Equal(got, c.want) {
					t.Errorf("ByAuthor(%q) found %q, want %q", c.prefix, got, c.want)
				}
			})
		}
		if got := search("", 100); !slices.Equal(got, everyISBN) {
			t.Errorf("after all searches the table holds %q, want %q", got, everyISBN)
		}
	})

	t.Run("limit is the largest number of books", func(t *testing.T) {
		search, _ := searches(t)
		for _, limit := range []int{0, 1, 3, len(everyISBN), len(everyISBN) + 1} {
			want := everyISBN[:min(limit, len(everyISBN))]
			if got := search("", limit); !slices.Equal(got, want) {
				t.Errorf("limit %d: found %q, want %q", limit, got, want)
			}
		}
	})

	t.Run("a book without a title has an empty one", func(t *testing.T) {
		store, db := start(t)
		db.Exec(catalogue)
		got, err := store.ByAuthor(t.Context(), "nameless", 10)
		if err != nil {
			t.Fatal(err)
		}
		if want := []penny.Book{{ISBN: "B2", Author: "Nameless"}}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})

	t.Run("the next call sees a change", func(t *testing.T) {
		store, db := start(t)
		if _, err := store.ByAuthor(t.Context(), "ker", 10); err != nil {
			t.Fatal(err)
		}
		db.Exec(`DELETE FROM books WHERE isbn = '123';`)
		got, err := store.ByAuthor(t.Context(), "ker", 10)
		if err != nil || len(got) != 1 {
			t.Errorf("after one of two was deleted: got %v, %v", got, err)
		}
	})

	t.Run("a call with a cancelled context returns the context's error", func(t *testing.T) {
		store, _ := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := store.ByAuthor(ctx, "ker", 10); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want one that is context.Canceled", err)
		}
		if got, err := store.ByAuthor(t.Context(), "ker", 10); err != nil || len(got) != 2 {
			t.Errorf("the next call: got %v, %v", got, err)
		}
	})

	t.Run("a missing table is an error, and the Store works when the table comes", func(t *testing.T) {
		store, db := start(t)
		db.Exec(`DROP TABLE books;`)
		if got, err := store.ByAuthor(t.Context(), "ker", 10); err == nil {
			t.Errorf("with no table: got %v and no error", got)
		}
		db.Exec(penny.SQL)
		if got, err := store.ByAuthor(t.Context(), "ker", 10); err != nil || len(got) != 2 {
			t.Errorf("with the table: got %v, %v", got, err)
		}
	})

	t.Run("each of many callers gets its own answer", func(t *testing.T) {
		store, _ := start(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var callers sync.WaitGroup
		failures := make(chan error, 20)
		for i := range cap(failures) {
			callers.Go(func() {
				prefix, want := "ker", 2
				if i%2 == 1 {
					prefix, want = "sed", 1
				}
				for range 3 {
					got, err := store.ByAuthor(ctx, prefix, 10)
					if err != nil || len(got) != want {
						failures <- fmt.Errorf("ByAuthor(%q): got %v, %w", prefix, got, err)
						return
					}
				}
			})
		}
		callers.Wait()
		close(failures)
		for err := range failures {
			t.Error(err)
		}
	})

	t.Run("Close may be called twice", func(t *testing.T) {
		store, _ := start(t)
		if _, err := store.ByAuthor(t.Context(), "ker", 10); err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("the first Close: %v", err)
		}
	})
}

// Connections makes five calls, one after the other, through a relay that counts connections. It fails the test unless the
// relay has seen want of them and opened, the layer's own count, says the same.
func Connections(t *testing.T, want int, open func(url string) (store penny.Store, opened func() int64, err error)) {
	u, err := url.Parse(Postgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	r, err := relay.Start(u.Host, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	u.Host = r.Addr()
	store, opened, err := open(u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if r.Accepted() != 0 {
		t.Error("Open connects, and its comment says that it does not")
	}
	for range 5 {
		if _, err := store.ByAuthor(t.Context(), "ker", 10); err != nil {
			t.Fatal(err)
		}
	}
	if r.Accepted() != want || opened() != int64(want) {
		t.Errorf("five calls opened %d connections and the layer counts %d; want %d", r.Accepted(), opened(), want)
	}
}
