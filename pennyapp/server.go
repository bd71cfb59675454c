package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/penny"
	"example.com/penny/internal/explain"
)

const (
	shown      = 100                     // books on a page of results
	maxAuthor  = 200                     // bytes in an author's name
	patience   = 1800 * time.Millisecond // for the database to answer, the second try included
	cookieName = "prev_author"
	cookieDays = 30
)

//go:embed templates static
var files embed.FS

var pages = template.Must(template.ParseFS(files, "templates/*.html"))

// An app answers the visitors.
type app struct {
	store  penny.Store
	logger *slog.Logger
	mux    *http.ServeMux
	now    func() time.Time
}

// A page is what a template shows.
type page struct {
	Title   string
	Now     time.Time
	Message string // what the visitor should know; always one of our own sentences
	Author  string
	Books   []penny.Book
	More    bool // there are more books than are shown
}

func newApp(store penny.Store, logger *slog.Logger) *app {
	a := &app{store: store, logger: logger, mux: http.NewServeMux(), now: time.Now}
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // the folder is embedded: only a mistake in this file can take it away
	}
	a.mux.HandleFunc("GET /{$}", a.index)
	a.mux.HandleFunc("GET /index", a.index)
	a.mux.HandleFunc("GET /searchform", a.searchForm)
	a.mux.HandleFunc("GET /searchresults", a.searchResults)
	a.mux.HandleFunc("GET /healthz", a.health)
	assets := http.StripPrefix("/static/", cached(http.FileServerFS(static)))
	a.mux.Handle("GET /static/style.css", assets)
	a.mux.Handle("GET /static/favicon.svg", assets)
	return a
}

// ServeHTTP finds the handler for a request, and answers in the app's own pages where there is none.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asGet := r
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !reads {
		asGet = r.Clone(r.Context())
		asGet.Method = http.MethodGet
	}
	handler, pattern := a.mux.Handler(asGet)
	switch {
	case pattern != "" && reads:
		handler.ServeHTTP(w, r)
		return
	case pattern != "":
		w.Header().Set("Allow", "GET, HEAD")
		a.show(w, http.StatusMethodNotAllowed, "error", page{Title: "This page can only be read",
			Message: "Your browser tried to send something here. There is nothing to send: the shop only answers questions."})
		return
	}
	a.show(w, http.StatusNotFound, "error", page{Title: "There is no such page",
		Message: "The address may be misspelt, or the page may have gone."})
}

func (a *app) index(w http.ResponseWriter, r *http.Request) {
	a.show(w, http.StatusOK, "index", page{Title: "Welcome"})
}

func (a *app) searchForm(w http.ResponseWriter, r *http.Request) {
	a.form(w, r, http.StatusOK, "")
}

// form shows the search form, with the author of the last search in this browser.
func (a *app) form(w http.ResponseWriter, r *http.Request, status int, message string) {
	a.show(w, status, "searchform", page{Title: "Search", Message: message, Author: previousAuthor(r)})
}

func (a *app) searchResults(w http.ResponseWriter, r *http.Request) {
	// r.URL.Query() would leave out what it cannot read, and search for something else than was asked.
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		a.form(w, r, http.StatusBadRequest, "The address of that page was garbled. Please type the author here.")
		return
	}
	author := strings.TrimSpace(query.Get("author"))
	switch {
	case author == "":
		a.form(w, r, http.StatusOK, "Please type an author, or the beginning of one.")
		return
	case len(author) > maxAuthor:
		a.form(w, r, http.StatusBadRequest, "That name is too long. The beginning of it will do.")
		return
	case !isText(author):
		a.form(w, r, http.StatusBadRequest, "That name has characters in it that no author has. Please type it again.")
		return
	}
	books, err := a.find(r.Context(), author)
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: url.QueryEscape(author), Path: "/", MaxAge: cookieDays * 24 * 60 * 60,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: overTLS(r)})
	more := len(books) > shown
	a.show(w, http.StatusOK, "searchresults", page{Title: "Books", Author: author, Books: books[:min(len(books), shown)], More: more})
}

// find asks the store and, where the connection broke or the server was full, once more: asking changes nothing. Both
// have to fit into the time that a visitor waits. A layer that does not heed its deadline is left to itself.
func (a *app) find(ctx context.Context, author string) ([]penny.Book, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct {
		books []penny.Book
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				answers <- answer{err: &panicError{p}}
			}
		}()
		books, err := a.store.ByAuthor(ctx, author, shown+1)
		for pause := 20 * time.Millisecond; worthAsking(ctx, err); pause *= 2 {
			select {
			case <-time.After(pause):
				books, err = a.store.ByAuthor(ctx, author, shown+1)
			case <-ctx.Done():
			}
		}
		answers <- answer{books, err}
	}()
	select {
	case a := <-answers:
		return a.books, a.err
	case <-ctx.Done():
	}
	// An answer that comes at the last moment, or the reason why there is none, is worth a little more.
	select {
	case a := <-answers:
		return a.books, a.err
	case <-time.After(100 * time.Millisecond):
		return nil, ctx.Err()
	}
}

// worthAsking tells whether to ask again: a failure that passes by itself, and time left.
func worthAsking(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	cause := explain.Find(err)
	return cause != nil && cause.Passes
}

// A panicError is a panic in the store, taken over to the request's own goroutine.
type panicError struct{ value any }

func (e *panicError) Error() string { return "the store panicked" }

// unavailable says that the books cannot be had now. What is wrong stands in the log, and not on the page.
func (a *app) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	var p *panicError
	if errors.As(err, &p) {
		panic(p.value)
	}
	if r.Context().Err() != nil {
		return // the visitor has gone
	}
	address := databaseAddress()
	says, _ := explain.Error(err, address)
	a.logger.Error("the database does not answer", "cause", explain.Name(err), "error", clean(says))
	w.Header().Set("Retry-After", "5")
	a.show(w, http.StatusServiceUnavailable, "error", page{Title: "The books are out of reach",
		Message: "The shop cannot look into its shelves at the moment. Please try again in a few seconds."})
}

// health says that the app is up. It does not ask the database: hosts call it all the time, and would keep a database
// awake that could sleep.
func (a *app) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

// show renders a template whole before it sends a byte, so that a page is either right or an error.
func (a *app) show(w http.ResponseWriter, status int, name string, p page) {
	p.Now = a.now()
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name+".html", p); err != nil {
		a.logger.Error("render", "page", name, "error", clean(err.Error()))
		http.Error(w, "The shop has made a mistake. Please try again later.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// Greeting is the greeting for the time of day.
func (p page) Greeting() string {
	switch hour := p.Now.Hour(); {
	case hour < 5:
		return "Good night"
	case hour < 12:
		return "Good morning"
	case hour < 18:
		return "Good afternoon"
	default:
		return "Good evening"
	}
}

// isText tells whether a name is text that a person could have typed.
func isText(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// previousAuthor is the author in the visitor's cookie, if it is one that the app can have put there.
func previousAuthor(r *http.Request) string {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	author, err := url.QueryUnescape(cookie.Value)
	if err != nil || len(author) > maxAuthor || !isText(author) {
		return ""
	}
	return author
}
