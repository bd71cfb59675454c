package bookstest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/penny"
	books1 "example.com/penny/database1/books"
	books2 "example.com/penny/database2/books"
	books3 "example.com/penny/database3/books"
	books4 "example.com/penny/database4/books"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/relay"
)

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

// layers are the stages' layers, each with the number of connections that it opens for five calls.
var layers = []struct {
	name        string
	open        func(url string) (penny.Store, func() int64, error)
	databases   []string
	connections int
}{
	{"database1", func(url string) (penny.Store, func() int64, error) {
		store, err := books1.Open(url)
		return store, nil, err
	}, []string{"SQLite"}, 0},
	{"database2", func(url string) (penny.Store, func() int64, error) {
		store, err := books2.Open(url)
		return store, func() int64 { return demo.Opened(store.Stats()) }, err
	}, []string{"PostgreSQL"}, 5},
	{"database3", func(url string) (penny.Store, func() int64, error) {
		store, err := books3.Open(url, 8)
		return store, func() int64 { return store.Stats().Dials }, err
	}, []string{"PostgreSQL"}, 1},
	{"database4", func(url string) (penny.Store, func() int64, error) {
		store, err := books4.Open(url, 8)
		return store, func() int64 { return demo.Opened(store.Stats()) }, err
	}, []string{"PostgreSQL", "SQLite"}, 1},
}

func TestEveryLayerGivesTheSameAnswers(t *testing.T) {
	for _, layer := range layers {
		for _, database := range layer.databases {
			t.Run(layer.name+" on "+database, func(t *testing.T) {
				t.Parallel()
				contract(t, map[string]func(testing.TB) Database{"PostgreSQL": Postgres, "SQLite": SQLite}[database], func(url string) (penny.Store, error) {
					store, _, err := layer.open(url)
					return store, err
				})
			})
		}
	}
}

func TestOnlyDatabase2OpensAConnectionForEveryCall(t *testing.T) {
	for _, layer := range layers {
		if layer.connections > 0 {
			t.Run(layer.name, func(t *testing.T) {
				t.Parallel()
				connections(t, layer.connections, layer.open)
			})
		}
	}
}

// contract tests the layer that open opens, on the database that newDatabase returns.
func contract(t *testing.T, newDatabase func(testing.TB) Database, open func(url string) (penny.Store, error)) {
	db := newDatabase(t)
	// start loads penny.sql, runs more statements, and opens the layer.
	start := func(t *testing.T, statements string) penny.Store {
		t.Helper()
		db.Exec(t, penny.SQL+statements)
		store, err := open(db.URL)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return store
	}

	t.Run("the Kernighan books", func(t *testing.T) {
		want := []penny.Book{
			{ISBN: "123", Author: "Kernighan", Title: "The Practice of Programming"},
			{ISBN: "234", Author: "Kernighan", Title: "The C Programming Language"},
		}
		if got := find(t, start(t, ""), "ker", 100); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})

	t.Run("a prefix finds the authors that begin with it, and no others", func(t *testing.T) {
		store := start(t, catalogue)
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
			{"% is not a wildcard", "100%", []string{"C1"}},
			{"% alone finds nothing", "%", nil},
			{"_ is not a wildcard", "a_", []string{"D1"}},
			{"_ alone finds nothing", "_", nil},
			{`\ is not an escape character`, `back\`, []string{"E1"}},
			{`\ does not escape %`, `\%`, nil},
			{"a quote", "o'", []string{"F1"}},
			{"SQL in the prefix is text", "x' OR '1'='1", nil},
			{"SQL that drops the table is text", "'; DROP TABLE books; --", nil},
			{"letters that are not ASCII", "李", []string{"H1"}},
			{"an umlaut in capitals, if the database knows its case", "öz", umlauts},
			{"a space counts", " ker", nil},
			{"a line break counts", "ker\n", nil},
			{"a long prefix", strings.Repeat("k", 10_000), nil},
			{"after all that the table is unchanged", "", everyISBN},
		} {
			t.Run(c.what, func(t *testing.T) {
				if got := isbns(find(t, store, c.prefix, 100)); !slices.Equal(got, c.want) {
					t.Errorf("ByAuthor(%q) found %q, want %q", c.prefix, got, c.want)
				}
			})
		}
	})

	t.Run("limit is the largest number of books", func(t *testing.T) {
		store := start(t, catalogue)
		for _, limit := range []int{0, 1, 3, len(everyISBN), len(everyISBN) + 1} {
			want := everyISBN[:min(limit, len(everyISBN))]
			if got := isbns(find(t, store, "", limit)); !slices.Equal(got, want) {
				t.Errorf("limit %d: found %q, want %q", limit, got, want)
			}
		}
	})

	t.Run("a book without a title has an empty one", func(t *testing.T) {
		want := []penny.Book{{ISBN: "B2", Author: "Nameless"}}
		if got := find(t, start(t, catalogue), "nameless", 10); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})

	t.Run("the next call sees a change", func(t *testing.T) {
		store := start(t, "")
		find(t, store, "ker", 10)
		db.Exec(t, `DELETE FROM books WHERE isbn = '123';`)
		if got := find(t, store, "ker", 10); len(got) != 1 {
			t.Errorf("after one of two was deleted: got %v, want one book", got)
		}
	})

	t.Run("a call with a cancelled context returns the context's error", func(t *testing.T) {
		store := start(t, "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := store.ByAuthor(ctx, "ker", 10); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want one that is context.Canceled", err)
		}
		if got := find(t, store, "ker", 10); len(got) != 2 {
			t.Errorf("the next call: got %v, want two books", got)
		}
	})

	t.Run("a missing table is an error, and the Store works when it is there", func(t *testing.T) {
		store := start(t, `DROP TABLE books;`)
		if got, err := store.ByAuthor(t.Context(), "ker", 10); err == nil {
			t.Errorf("with no table: no error, and got %v", got)
		}
		db.Exec(t, penny.SQL)
		if got := find(t, store, "ker", 10); len(got) != 2 {
			t.Errorf("with the table: got %v, want two books", got)
		}
	})

	t.Run("each of many callers gets its own answer", func(t *testing.T) {
		store := start(t, "")
		var callers sync.WaitGroup
		for i := range 20 {
			callers.Go(func() {
				prefix, want := "ker", 2
				if i%2 == 1 {
					prefix, want = "sed", 1
				}
				for range 3 {
					if got, err := store.ByAuthor(t.Context(), prefix, 10); err != nil || len(got) != want {
						t.Errorf("ByAuthor(%q): got %v, %v; want %d books", prefix, got, err, want)
					}
				}
			})
		}
		callers.Wait()
	})

	t.Run("Close may be called twice", func(t *testing.T) {
		store := start(t, "")
		find(t, store, "ker", 10)
		if err := store.Close(); err != nil {
			t.Errorf("the first Close: %v", err)
		}
	})
}

// find returns the books that the store finds. If the store returns an error, the test fails.
func find(t *testing.T, store penny.Store, prefix string, limit int) []penny.Book {
	t.Helper()
	books, err := store.ByAuthor(t.Context(), prefix, limit)
	if err != nil {
		t.Fatalf("ByAuthor(%.100q, %d): %v", prefix, limit, err)
	}
	return books
}

func isbns(books []penny.Book) (isbns []string) {
	for _, book := range books {
		isbns = append(isbns, book.ISBN)
	}
	return isbns
}

// connections makes five calls, one after the other, through a relay that counts connections. It fails the test unless the
// relay has seen want of them and opened, the layer's own count, says the same.
func connections(t *testing.T, want int, open func(url string) (store penny.Store, opened func() int64, err error)) {
	r, address, err := relay.Before(Postgres(t).URL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	store, opened, err := open(address)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if r.Accepted() != 0 {
		t.Error("Open connects, though its comment says that it does not")
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
