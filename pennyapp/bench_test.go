package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/penny"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/pgtest"
)

// BenchmarkSearchResults requests the page of results from 16 clients: from the app on its pooled layers and, to compare, from
// a bare net/http handler over pgxpool, which renders the same template without the app's middleware and limits.
func BenchmarkSearchResults(b *testing.B) {
	address := pgtest.BooksURL(b)
	serve := func(handler http.Handler) func(*testing.B) {
		return func(b *testing.B) {
			server := httptest.NewServer(handler)
			defer server.Close()
			measure(b, server.URL, 16)
		}
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	three, err := database3.Open(address, poolSize)
	if err != nil {
		b.Fatal(err)
	}
	defer three.Close()
	four, err := database4.Open(address, poolSize)
	if err != nil {
		b.Fatal(err)
	}
	defer four.Close()
	b.Run("bare", serve(bare(pool)))
	b.Run("database3", serve(newHTTPServer(newApp(layerOf(three), discard, patience)).Handler))
	b.Run("database4", serve(newHTTPServer(newApp(layerOf(four), discard, patience)).Handler))
}

// bare returns a handler that only shows the page.
func bare(pool *pgxpool.Pool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		author := r.URL.Query().Get("author")
		rows, err := pool.Query(r.Context(), `SELECT isbn, author, COALESCE(title, '') FROM books
			WHERE author ILIKE $1 ESCAPE '\' ORDER BY isbn COLLATE "C" LIMIT $2`, penny.Prefix(author), perPage+1)
		if err != nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		defer rows.Close()
		var books []penny.Book
		for rows.Next() {
			var book penny.Book
			if err := rows.Scan(&book.ISBN, &book.Author, &book.Title); err != nil {
				http.Error(w, "no", http.StatusInternalServerError)
				return
			}
			books = append(books, book)
		}
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: url.QueryEscape(author)})
		var body bytes.Buffer
		_ = pages.ExecuteTemplate(&body, "searchresults.html", page{Title: "Books", Author: author, Books: books})
		_, _ = w.Write(body.Bytes())
	})
}

func measure(b *testing.B, base string, clients int) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	if err := visit(b.Context(), transport, base); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range clients {
		n := b.N / clients
		if i < b.N%clients {
			n++
		}
		all.Go(func() {
			for range n {
				if err := visit(b.Context(), transport, base); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
