package main

import (
	"bytes"
	"embed"
	"errors"
	"expvar"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"example.com/penny"
	"example.com/penny/internal/edge"
	"example.com/penny/internal/explain"
)

const (
	perPage    = 100 // books
	mostPages  = 20  // each page costs the database all books up to it
	maxAuthor  = 200 // UTF-16 units in an author's name, which is what maxlength in the form counts
	cookieName = "prev_author"
	cookieAge  = 30 * 24 * 60 * 60 // seconds

	statusLeft = 499 // the visitor closed the connection before the answer; nginx uses this number for it
)

//go:embed templates static
var files embed.FS

var pages = template.Must(template.ParseFS(files, "templates/*.html"))

// An app answers the visitors.
type app struct {
	layer  *layer
	search *searcher
	ready  *readiness
	logger *slog.Logger
	mux    *http.ServeMux
}

// A page is what a template shows.
type page struct {
	Now            time.Time
	Title, Message string // always our own sentences
	Author, Retry  string // Retry is the address that asks the same again
	Books          []penny.Book
	First, Last    int  // the numbers of the books on the page
	Next           int  // the number of the next page, or 0
	More           bool // there are more books, but no next page

	// For the footer: which layer answered, in how many milliseconds, and how many connections it has opened so far.
	Layer  string
	Took   float64
	Opened int64
}

func newApp(l *layer, logger *slog.Logger, patience time.Duration) *app {
	search := newSearcher(l.Store, patience)
	a := &app{layer: l, search: search, ready: &readiness{search: search}, logger: logger, mux: http.NewServeMux()}
	figures.Set("connections opened", expvar.Func(func() any { return l.opened() }))
	figures.Set("searches running", expvar.Func(func() any { return len(search.running) }))
	a.mux.HandleFunc("/", a.notFound)
	a.mux.HandleFunc("GET /{$}", a.index)
	a.mux.HandleFunc("GET /index", a.index)
	a.mux.HandleFunc("GET /searchform", a.searchForm)
	a.mux.HandleFunc("GET /searchresults", a.searchResults)
	a.mux.HandleFunc("GET /healthz", a.health)
	a.mux.HandleFunc("GET /readyz", a.readyz)
	a.mux.Handle("GET /static/style.css", edge.Static(files, "static/style.css"))
	a.mux.Handle("GET /static/favicon.svg", edge.Static(files, "static/favicon.svg"))
	return a
}

// answered logs an answer of net/http's own.
func (a *app) answered(client net.Addr, status, size int) {
	figures.Add("requests "+strconv.Itoa(status), 1)
	a.logger.Info("request", "method", "", "path", "", "status", status, "bytes", size, "ms", 0.0, "client", edge.Host(client.String()))
}

// ServeHTTP answers a request, with a page also if a handler panics.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			a.panicked(w, r, p, debug.Stack())
		}
	}()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		a.show(w, http.StatusMethodNotAllowed, "error", page{Title: "You can only read this page",
			Message: "Your browser tried to send something here. The shop only answers questions."})
		return
	}
	a.mux.ServeHTTP(w, r)
}

func (a *app) notFound(w http.ResponseWriter, r *http.Request) {
	a.show(w, http.StatusNotFound, "error", page{Title: "There is no such page",
		Message: "The address may be wrong, or the page is gone."})
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
	// r.URL.Query() leaves out what it cannot read, and the search would be for something else.
	query, err := url.ParseQuery(r.URL.RawQuery)
	author, number := normal(query.Get("author")), 1
	if text := query.Get("page"); text != "" && err == nil {
		number, err = strconv.Atoi(text)
	}
	switch {
	case err != nil || number < 1 || number > mostPages:
		a.form(w, r, http.StatusBadRequest, "The address of that page is not right. Please type the author here.")
		return
	case author == "":
		a.form(w, r, http.StatusOK, "Please type an author, or the first letters of one.")
		return
	case wrong(author) != "":
		a.form(w, r, http.StatusBadRequest, wrong(author))
		return
	}
	start := time.Now()
	books, err := a.search.find(r.Context(), author, number*perPage+1) // one more tells whether there are more
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: url.QueryEscape(author), Path: "/", MaxAge: cookieAge,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: edge.Proto(r) == "https"})
	took, first := float64(time.Since(start).Microseconds())/1000, (number-1)*perPage
	p := page{Title: "Books", Author: author, Took: took, First: first + 1}
	if more := len(books) > number*perPage; number < mostPages && more {
		p.Next = number + 1
	} else {
		p.More = more
	}
	p.Books = books[min(len(books), first):min(len(books), number*perPage)]
	p.Last = first + len(p.Books)
	a.show(w, http.StatusOK, "searchresults", p)
}

// unavailable says that the shop cannot look for books now. The reason is in the log, and not on the page.
func (a *app) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if p, ok := errors.AsType[*panicError](err); ok {
		a.panicked(w, r, p.value, p.stack)
		return
	}
	if r.Context().Err() != nil { // a client that closed only its own half can still read
		a.show(w, statusLeft, "error", page{Title: "You left before the answer came",
			Message: "Your browser closed the connection, so the shop stopped looking.", Retry: r.URL.RequestURI()})
		return
	}
	says, _ := explain.Error(err, a.layer.address)
	a.logger.Error("no answer for a visitor", "cause", explain.Name(err), "error", edge.Clean(says))
	w.Header().Set("Retry-After", "5")
	a.show(w, http.StatusServiceUnavailable, "error", page{Title: "The books are out of reach",
		Message: "The shop cannot look at its shelves at the moment. Please try again in a few seconds.", Retry: r.URL.RequestURI()})
}

// panicked says that something panicked. The log has its value, and where it came from.
func (a *app) panicked(w http.ResponseWriter, r *http.Request, value any, stack []byte) {
	a.logger.Error("panic", "path", edge.Clean(r.URL.Path), "value", value, "stack", string(stack))
	a.show(w, http.StatusInternalServerError, "error", page{Title: "The shop made a mistake",
		Message: "It is not your fault. Please try again later."})
}

// health says that the app is up. It does not ask the database, which could otherwise never sleep: hosts call it all the time.
func (a *app) health(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, "ok") }

// readyz says whether the app can answer a search, for a router that chooses between several copies of the app.
func (a *app) readyz(w http.ResponseWriter, r *http.Request) {
	if !a.ready.check() {
		answer(w, http.StatusServiceUnavailable, "not ready")
		return
	}
	answer(w, http.StatusOK, "ready")
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// show renders a page whole before it sends a byte, so that a page is complete or an error.
func (a *app) show(w http.ResponseWriter, status int, name string, p page) {
	p.Now, p.Layer, p.Opened = time.Now(), a.layer.name, a.layer.opened()
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name+".html", p); err != nil {
		a.logger.Error("render", "page", name, "error", edge.Clean(err.Error()))
		http.Error(w, "The shop made a mistake. Please try again later.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// Greeting returns the greeting for the time of day.
func (p page) Greeting() string {
	switch hour := p.Now.Hour(); {
	case hour < 5:
		return "Good night"
	case hour < 12:
		return "Good morning"
	case hour < 18:
		return "Good afternoon"
	}
	return "Good evening"
}

// normal returns a name as the books have it: é is one character and not e with an accent, and no character is invisible.
func normal(name string) string {
	if !utf8.ValidString(name) {
		return name // strings.Map would change it
	}
	visible := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Variation_Selector) { // such as a zero-width space or a mark of direction
			return -1
		}
		return r
	}, name)
	return norm.NFC.String(strings.TrimSpace(visible))
}

// wrong returns what is wrong with a name, or nothing if a person could have typed it.
func wrong(name string) string {
	switch {
	case len(utf16.Encode([]rune(name))) > maxAuthor:
		return "That name is too long. Its first letters are enough."
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl):
		return "That name has characters that no author has. Please type it again."
	}
	return ""
}

// previousAuthor returns the author in the visitor's cookie, if the app can have put it there.
func previousAuthor(r *http.Request) string {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	author, err := url.QueryUnescape(cookie.Value)
	if err != nil || wrong(author) != "" {
		return ""
	}
	return normal(author)
}
