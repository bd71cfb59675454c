package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	"example.com/penny/internal/bookstest"
	"example.com/penny/internal/edge"
	"example.com/penny/internal/pgtest"
)

// shop serves the app with its middleware and limits, as on the internet.
func shop(t *testing.T, store penny.Store) (base string, log *safeBuffer) {
	t.Helper()
	server, log := unstarted(store)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, log
}

// unstarted returns the app on a server that does not listen to visitors yet.
func unstarted(store penny.Store) (server *httptest.Server, log *safeBuffer) {
	log = &safeBuffer{}
	a := newApp(layerOf(store), slog.New(slog.NewJSONHandler(log, nil)), patience)
	server = httptest.NewUnstartedServer(nil)
	server.Config = newHTTPServer(a)
	server.Listener = &edge.Listener{Listener: server.Listener, Most: 1000, Answered: a.answered, Refused: func() {}}
	return server, log
}

const patience = 4 * time.Second

// layerOf returns a layer on any store.
func layerOf(store penny.Store) *layer {
	if l, ok := store.(*layer); ok {
		return l
	}
	return &layer{Store: store, name: "database0", address: os.Getenv("DATABASE_URL"), opened: func() int64 { return 7 }}
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
		{"/searchresults?author=ker", 200, []string{"2 books.", "<td>123</td><td>Kernighan</td><td>The Practice of Programming</td>"}},
		{"/searchresults?author=+ker+", 200, []string{"2 books."}},
		{"/searchresults?author=Sedgewick", 200, []string{"One book."}},
		{"/searchresults?author=nobody", 200, []string{"We have no book by such an author."}},
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
	if rows := strings.Count(body, "<tr><td>"); rows != 100 || !strings.Contains(body, "Books 1 to 100.") {
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
		if response.StatusCode != 405 || response.Header.Get("Allow") != "GET, HEAD" || !bytes.Contains(body, []byte("can only read this page")) {
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
		if response.StatusCode != 500 || !strings.Contains(body, "The shop made a mistake") || strings.Contains(body, "in the store") {
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

func TestAStoreThatDoesNotHeedItsDeadlineIsGivenUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		<-release
		return nil, nil
	}))
	start := time.Now()
	response, _ := get(t, base+"/searchresults?author=ker")
	if took := time.Since(start); response.StatusCode != 503 || took > patience+5*time.Second {
		t.Errorf("status %d after %v", response.StatusCode, took)
	}
}

// last returns the last line of the log whose msg is "request".
func lastRequest(t *testing.T, log *safeBuffer) map[string]any {
	t.Helper()
	var last map[string]any
	for line := range strings.Lines(log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("the log has the line %q: %v", line, err)
		}
		if fields["msg"] == "request" {
			last = fields
		}
	}
	return last
}

func TestAVisitorWhoLeavesIsLoggedAs499(t *testing.T) {
	asked := make(chan struct{})
	base, log := shop(t, storeFunc(func(ctx context.Context, _ string, _ int) ([]penny.Book, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-asked
		leave()
	}()
	r, _ := http.NewRequestWithContext(ctx, "GET", base+"/searchresults?author=ker", nil)
	if _, err := http.DefaultClient.Do(r); err == nil {
		t.Fatal("the visitor stayed")
	}
	pgtest.Eventually(t, 10*time.Second, "the log has the request", func() bool { return lastRequest(t, log) != nil })
	if got := lastRequest(t, log)["status"]; got != 499.0 {
		t.Errorf("it is logged as %v", got)
	}
}

func TestAClientThatClosesItsHalfGetsAPage(t *testing.T) {
	base, _ := shop(t, storeFunc(func(ctx context.Context, _ string, _ int) ([]penny.Book, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /searchresults?author=ker HTTP/1.1\r\nHost: penny\r\n\r\n")
	conn.(*net.TCPConn).CloseWrite()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode == 200 || len(body) == 0 {
		t.Errorf("status %d and %d bytes", response.StatusCode, len(body))
	}
}

func TestAnswersOfTheServerItselfAreLogged(t *testing.T) {
	for text, want := range map[string]float64{
		"nonsense\r\n\r\n":       400,
		"GET / HTTP/1.1\r\n\r\n": 400, // no Host
		"GET / HTTP/1.1\r\nHost: penny\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n": 431,
	} {
		base, log := shop(t, storeFunc(nil))
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		conn.Close()
		if err != nil || float64(response.StatusCode) != want {
			t.Errorf("%.20q: %v, %v", text, response, err)
		}
		if line := lastRequest(t, log); line["status"] != want || line["client"] != "127.0.0.1" {
			t.Errorf("%.20q: the log has %v", text, line)
		}
	}
}

func TestAPanicIsLoggedWithItsValueAndItsOwnStack(t *testing.T) {
	base, log := shop(t, storeFunc(panics))
	get(t, base+"/searchresults?author=ker")
	if text := log.String(); !strings.Contains(text, "a shelf fell down") || !strings.Contains(text, "pennyapp.panics") {
		t.Errorf("the log is %s", text)
	}
}

func panics(context.Context, string, int) ([]penny.Book, error) { panic("a shelf fell down") }

func TestSearchesBeyondTheBoundAreRefusedAtOnce(t *testing.T) {
	release := make(chan struct{})
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		<-release // a driver that does not heed its context
		return nil, nil
	}))
	transport := &http.Transport{MaxIdleConnsPerHost: mostSearches}
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for range mostSearches {
		all.Go(func() { _ = visit(t.Context(), transport, base) })
	}
	all.Wait() // each has its 503 after the patience, and its search still runs
	start := time.Now()
	response, body := get(t, base+"/searchresults?author=ker")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || !strings.Contains(body, "Try again") || time.Since(start) > patience {
		t.Errorf("status %d after %v", response.StatusCode, time.Since(start))
	}
	close(release)
	pgtest.Eventually(t, 10*time.Second, "a search has room again", func() bool {
		response, _ := get(t, base+"/searchresults?author=ker")
		return response.StatusCode == 200
	})
}

func TestConnectionsBeyondTheBoundGetA503(t *testing.T) {
	server, _ := unstarted(storeFunc(nil))
	var refused atomic.Int64
	listener := server.Listener.(*edge.Listener)
	listener.Most, listener.Refused = 1, func() { refused.Add(1) }
	server.Start()
	defer server.Close()
	first, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(conn net.Conn) int {
		t.Helper()
		io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: penny\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode
	}
	if got := ask(first); got != 200 {
		t.Errorf("the first connection gets %d", got)
	}
	second, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got := ask(second); got != 503 || refused.Load() != 1 {
		t.Errorf("the second connection gets %d, and %d were refused", got, refused.Load())
	}
	first.Close()
	pgtest.Eventually(t, 10*time.Second, "there is room again", func() bool {
		response, err := http.Get(server.URL + "/healthz")
		return err == nil && response.StatusCode == 200
	})
}

func TestPassingFailuresAreAskedAgainByFewVisitors(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		calls.Add(1)
		return nil, syscall.ECONNREFUSED
	}))
	if err := visit(t.Context(), http.DefaultTransport, base); err == nil {
		t.Error("a visitor got the books")
	}
	if one := calls.Swap(0); one < 2 || one > 6 {
		t.Errorf("one visitor asked %d times", one)
	}
	const clients = 200
	visitors(t.Context(), base, clients, 1)
	if got := calls.Load(); got > clients+6*mostRetries {
		t.Errorf("%d visitors asked %d times", clients, got)
	}
}

func TestResultsGoOnOnTheNextPage(t *testing.T) {
	base, _ := shop(t, storeFunc(func(_ context.Context, _ string, limit int) ([]penny.Book, error) {
		books := make([]penny.Book, min(limit, 250))
		for i := range books {
			books[i].Title = fmt.Sprintf("Book %d.", i+1)
		}
		return books, nil
	}))
	for number, want := range map[int]string{1: "Books 1 to 100.", 2: "Books 101 to 200.", 3: "Books 201 to 250."} {
		_, body := get(t, fmt.Sprintf("%s/searchresults?author=k&page=%d", base, number))
		first, next := fmt.Sprintf("<td>Book %d.</td>", (number-1)*100+1), fmt.Sprintf("author=k&amp;page=%d", number+1)
		if !strings.Contains(body, want) || !strings.Contains(body, first) || strings.Contains(body, next) != (number < 3) {
			t.Errorf("page %d: %s", number, body)
		}
	}
	for _, page := range []string{"0", "-1", "x", "21", "99999999999999999999"} {
		if response, _ := get(t, base+"/searchresults?author=k&page="+page); response.StatusCode != 400 {
			t.Errorf("page %s: status %d", page, response.StatusCode)
		}
	}
}

func TestNamesAreNormalised(t *testing.T) {
	var asked string
	base, _ := shop(t, storeFunc(func(_ context.Context, author string, _ int) ([]penny.Book, error) {
		asked = author
		return nil, nil
	}))
	for typed, want := range map[string]string{"Ke\u0301r": "Kér", "\u200bker\ufeff": "ker", " ker ": "ker", strings.Repeat("李", 200): strings.Repeat("李", 200)} {
		asked = ""
		get(t, base+"/searchresults?author="+url.QueryEscape(typed))
		if asked != want {
			t.Errorf("%q is searched as %q, want %q", typed, asked, want)
		}
	}
	if response, _ := get(t, base+"/searchresults?author="+url.QueryEscape(strings.Repeat("😀", 101))); response.StatusCode != 400 {
		t.Errorf("202 UTF-16 units: status %d", response.StatusCode)
	}
}

func TestFilesAreValidatedAndPagesHaveALength(t *testing.T) {
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	response, _ := get(t, base+"/static/style.css")
	tag := response.Header.Get("ETag")
	if again, body := get(t, base+"/static/style.css", "If-None-Match", tag); tag == "" || again.StatusCode != 304 || body != "" {
		t.Errorf("with the tag %s: status %d", tag, again.StatusCode)
	}
	for _, path := range []string{"/", "/searchresults?author=ker", "/nothing"} {
		if response, body := get(t, base+path); response.ContentLength != int64(len(body)) {
			t.Errorf("%s has %d bytes and says %d", path, len(body), response.ContentLength)
		}
	}
}

func TestARouterSaysHowTheVisitorCame(t *testing.T) {
	store, _ := sqliteStore(t)
	base, log := shop(t, store)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, c := range []struct {
		path, name, value string
		status            int
	}{
		{"/searchform?a=b", "X-Forwarded-Proto", "http", 308},
		{"/searchform", "X-Forwarded-Proto", "https,http", 200},
		{"/searchform", "Forwarded", `for=192.0.2.1;proto="http"`, 308},
		{"/searchform", "Forwarded", "for=192.0.2.1; Proto=https, for=10.0.0.1;proto=http", 200},
		{"/healthz", "X-Forwarded-Proto", "http", 200},
		{"/searchform", "X-Forwarded-Proto", "", 200},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", base+c.path, nil)
		r.Header.Set(c.name, c.value)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if to := response.Header.Get("Location"); response.StatusCode != c.status || c.status == 308 && !strings.HasPrefix(to, "https://127.0.0.1") {
			t.Errorf("%s: %s: status %d, to %q", c.name, c.value, response.StatusCode, to)
		}
	}
	response, _ := get(t, base+"/", "X-Request-Id", "router-7", "X-Forwarded-For", "203.0.113.9, 198.51.100.2")
	line := lastRequest(t, log)
	if response.Header.Get("X-Request-Id") != "router-7" || line["id"] != "router-7" || line["client"] != "127.0.0.1" || line["forwarded_for"] != "198.51.100.2" {
		t.Errorf("the log has %v", line)
	}
}

func TestReadyzAsksTheDatabaseOnceASecondAtMost(t *testing.T) {
	var asked atomic.Int64
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		if asked.Add(1); asked.Load() > 1 {
			return nil, errors.New("down")
		}
		return nil, nil
	}))
	start := time.Now()
	ready := 0
	for range 20 {
		if response, _ := get(t, base+"/readyz"); response.StatusCode == 200 {
			ready++
		}
	}
	if got := asked.Load(); got > 1+int64(time.Since(start)/time.Second) || ready == 0 {
		t.Errorf("the database was asked %d times in %v, and the app was ready %d times", got, time.Since(start), ready)
	}
	pgtest.Eventually(t, 10*time.Second, "the app is not ready", func() bool {
		response, _ := get(t, base+"/readyz")
		return response.StatusCode == 503
	})
}

func TestTheFooterSaysWhichLayerAnswered(t *testing.T) {
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) { return nil, nil }))
	if _, body := get(t, base+"/searchresults?author=ker"); !regexp.MustCompile(`Answered by database0 in \d+\.\d ms. Connections opened so far: 7\.`).MatchString(body) {
		t.Errorf("the page is %s", body)
	}
}

func TestABrokenDotEnvStopsTheStart(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("DATABASE_URL", "")
	os.Unsetenv("DATABASE_URL")
	if err := os.WriteFile(".env", []byte("DATABASE_URL='postgres://half\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open("database4"); err == nil {
		t.Error("the app serves another database")
	}
}
