package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	"example.com/penny/internal/bookstest"
)

// shop is the app as it stands on the internet, middleware and limits included, on a store.
func shop(t *testing.T, store penny.Store) (base string, log *safeBuffer) {
	t.Helper()
	log = &safeBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	server := httptest.NewUnstartedServer(nil)
	server.Config = newHTTPServer(newApp(store, logger), logger)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, log
}

type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func sqliteStore(t *testing.T) (penny.Store, bookstest.Database) {
	t.Helper()
	db := bookstest.SQLite(t)
	store, err := database1.Open(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	return store, db
}

// get fetches a page; a query is given raw, as a hostile client would send it.
func get(t *testing.T, address string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// A storeFunc is a store made of one function.
type storeFunc func(ctx context.Context, prefix string, limit int) ([]penny.Book, error)

func (f storeFunc) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	return f(ctx, prefix, limit)
}
func (f storeFunc) Close() error { return nil }

func TestEveryPageSaysWhatItIsFor(t *testing.T) {
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, c := range []struct {
		path   string
		status int
		want   []string
	}{
		{"/", 200, []string{"Good ", "Search for an author"}},
		{"/index", 200, []string{"Good "}},
		{"/searchform", 200, []string{`name="author"`, "autofocus", "Previous author search: (None)"}},
		{"/searchresults?author=ker", 200, []string{"2 books by authors", "<td>123</td><td>Kernighan</td><td>The Practice of Programming</td>"}},
		{"/searchresults?author=+ker+", 200, []string{"2 books by authors"}},
		{"/searchresults?author=Sedgewick", 200, []string{"One book by an author"}},
		{"/searchresults?author=nobody", 200, []string{"We have no book by an author whose name begins so."}},
		{"/searchresults?author=", 200, []string{"Please type an author", `name="author"`}},
		{"/searchresults?author=++", 200, []string{"Please type an author"}},
		{"/searchresults", 200, []string{"Please type an author"}},
		{"/nothing", 404, []string{"There is no such page", "Penny"}},
		{"/static/", 404, []string{"There is no such page"}},
		{"/static/style.css", 200, []string{"--paper"}},
		{"/healthz", 200, []string{"ok"}},
	} {
		response, body := get(t, base+c.path)
		if response.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.path, response.StatusCode, c.status)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s lacks %q", c.path, want)
			}
		}
	}
}

func TestTheGreetingFollowsTheClock(t *testing.T) {
	for hour, want := range map[int]string{0: "Good night", 4: "Good night", 5: "Good morning", 11: "Good morning",
		12: "Good afternoon", 17: "Good afternoon", 18: "Good evening", 23: "Good evening"} {
		if got := (page{Now: time.Date(2026, 1, 1, hour, 30, 0, 0, time.UTC)}).Greeting(); got != want {
			t.Errorf("at %d:30 it says %q, want %q", hour, got, want)
		}
	}
}

func TestOnlyTheFirstHundredBooksAreShownAndThePageSaysSo(t *testing.T) {
	base, _ := shop(t, storeFunc(func(_ context.Context, _ string, limit int) ([]penny.Book, error) {
		return make([]penny.Book, limit), nil
	}))
	_, body := get(t, base+"/searchresults?author=k")
	if rows := strings.Count(body, "<tr><td>"); rows != 100 || !strings.Contains(body, "These are the first 100") {
		t.Errorf("%d rows", rows)
	}
}

func TestAHostileAuthorIsTextOrIsRefused(t *testing.T) {
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, c := range []struct {
		query  string
		status int
	}{
		{"author=" + url.QueryEscape(`<script>alert(1)</script>`), 200},
		{"author=" + url.QueryEscape(`"><img src=x onerror=alert(1)>`), 200},
		{"author=" + url.QueryEscape(`' OR 1=1; --`), 200},
		{"author=" + url.QueryEscape(`{{.Now}}`), 200},
		{"author=%25", 200},
		{"author=a;author=b", 400},
		{"author=%zz", 400},
		{"author=%00", 400},
		{"author=ker%00", 400},
		{"author=%ff", 400},
		{"author=%ed%a0%80", 400},
		{"author=a%0d%0aSet-Cookie:x=y", 400},
		{"author=%1b[31m", 400},
		{"author=" + strings.Repeat("k", 201), 400},
		{"author=" + strings.Repeat("k", 9000), 400},
		{"author=" + strings.Repeat("k", 60000), 431},
		{"error_msg=" + url.QueryEscape("You have been hacked"), 200},
	} {
		response, body := get(t, base+"/searchresults?"+c.query)
		if response.StatusCode != c.status {
			t.Errorf("%.60s: status %d, want %d", c.query, response.StatusCode, c.status)
		}
		for _, bad := range []string{"<script", "<img", "hacked", "Kernighan"} {
			if strings.Contains(body, bad) {
				t.Errorf("%.60s: the page has %q in it", c.query, bad)
			}
		}
	}
}

func TestTheCookieRemembersAnyAuthorAndNothingElse(t *testing.T) {
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, author := range []string{"ker", "O'Reilly; path=/evil", "李白", `"quoted"`, "a=b&c"} {
		response, _ := get(t, base+"/searchresults?author="+url.QueryEscape(author))
		cookies := response.Cookies()
		if len(cookies) != 1 || cookies[0].Name != "prev_author" || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Secure {
			t.Fatalf("%q: the cookies are %v", author, cookies)
		}
		_, body := get(t, base+"/searchform", "Cookie", "prev_author="+cookies[0].Value)
		if want := ">" + htmlEscape(author) + "</a>"; !strings.Contains(body, want) {
			t.Errorf("%q: the form lacks %q", author, want)
		}
	}
	for _, forged := range []string{"%zz", "%00", "%ff", strings.Repeat("k", 300), "a%0ab"} {
		if _, body := get(t, base+"/searchform", "Cookie", "prev_author="+forged); !strings.Contains(body, "(None)") {
			t.Errorf("the forged cookie %.20q is shown", forged)
		}
	}
	_, body := get(t, base+"/searchform", "Cookie", "prev_author=%3Cscript%3E")
	if strings.Contains(body, "<script>") {
		t.Error("a script in the cookie is on the page")
	}
	response, _ := get(t, base+"/searchresults?author=ker", "X-Forwarded-Proto", "https")
	if c := response.Cookies(); len(c) != 1 || !c[0].Secure || response.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("behind TLS: %v, %v", c, response.Header)
	}
	if response, _ := get(t, base+"/searchresults?author="); len(response.Cookies()) != 0 {
		t.Error("a blank search sets a cookie")
	}
}

func htmlEscape(s string) string {
	return strings.NewReplacer("&", "&amp;", "'", "&#39;", `"`, "&#34;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func TestEveryAnswerForbidsFramesSniffingAndForeignContent(t *testing.T) {
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, path := range []string{"/", "/searchresults?author=ker", "/nothing", "/static/style.css", "/searchresults?author=%ff"} {
		response, _ := get(t, base+path)
		h := response.Header
		if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", path, h)
		}
		if h.Get("Server") != "" || h.Get("X-Powered-By") != "" {
			t.Errorf("%s tells what it runs on: %v", path, h)
		}
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "BREW"} {
		r, _ := http.NewRequestWithContext(t.Context(), method, base+"/searchresults?author=ker", strings.NewReader("author=ker"))
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 405 || response.Header.Get("Allow") != "GET, HEAD" || !bytes.Contains(body, []byte("can only be read")) {
			t.Errorf("%s: %d, Allow %q", method, response.StatusCode, response.Header.Get("Allow"))
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), "HEAD", base+"/searchresults?author=ker", nil)
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || response.StatusCode != 200 {
		t.Errorf("HEAD: %v, %v", response, err)
	}
}

func TestASlowClientIsHungUpOn(t *testing.T) {
	t.Parallel()
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: penny\r\nX-Slow: ")
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	start := time.Now()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("after %v the server still waits: %v", time.Since(start), err)
	}
}

func TestALogLineCannotBeForged(t *testing.T) {
	store, _ := sqliteStore(t)
	base, log := shop(t, store)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /%0a%7b%22level%22:%22ERROR%22%7d%1b[31m%e2%80%ae HTTP/1.1\r\nHost: penny\r\nConnection: close\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if lines := strings.Count(text, "\n"); lines != 1 || strings.ContainsAny(text, "\x1b") || strings.Contains(text, "\u202e") || strings.Contains(text, `\u001b`) {
		t.Errorf("the log is %q", text)
	}
}

func TestAPanicIsAPageAndALogLineAndNotTheEnd(t *testing.T) {
	base, log := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) { panic("in the store") }))
	for range 2 {
		response, body := get(t, base+"/searchresults?author=ker")
		if response.StatusCode != 500 || !strings.Contains(body, "The shop has made a mistake") || strings.Contains(body, "in the store") {
			t.Errorf("status %d, %q", response.StatusCode, body)
		}
	}
	if !strings.Contains(log.String(), `"msg":"panic"`) {
		t.Error("the log does not tell")
	}
}

func TestADatabaseThatFailsIsAPageWithoutDetails(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://penny:hunter2@db.example.com/penny")
	base, log := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		return nil, errors.New("user penny password hunter2 host db.example.com")
	}))
	response, body := get(t, base+"/searchresults?author=ker")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || !strings.Contains(body, "out of reach") {
		t.Errorf("status %d", response.StatusCode)
	}
	if strings.Contains(body, "example.com") || strings.Contains(body+log.String(), "hunter2") {
		t.Error("the page or the log tells too much")
	}
	if response, _ := get(t, base+"/healthz"); response.StatusCode != 200 {
		t.Error("/healthz asks the database")
	}
}

func TestAStoreThatDoesNotHeedItsDeadlineIsGivenUpWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		<-release
		return nil, nil
	}))
	start := time.Now()
	response, _ := get(t, base+"/searchresults?author=ker")
	if took := time.Since(start); response.StatusCode != 503 || took > 5*time.Second {
		t.Errorf("status %d after %v", response.StatusCode, took)
	}
}
