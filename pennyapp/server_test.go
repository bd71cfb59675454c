package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/penny"
	"example.com/penny/internal/edge"
	"example.com/penny/internal/skip"
)

func TestEveryPageHasItsStatusAndItsText(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	for hour, want := range map[int]string{0: "Good night", 4: "Good night", 5: "Good morning", 11: "Good morning",
		12: "Good afternoon", 17: "Good afternoon", 18: "Good evening", 23: "Good evening"} {
		if got := (page{Now: time.Date(2026, 1, 1, hour, 30, 0, 0, time.UTC)}).Greeting(); got != want {
			t.Errorf("at %d:30: got %q, want %q", hour, got, want)
		}
	}
}

func TestAHostileSearchIsShownAsTextOrRefused(t *testing.T) {
	t.Parallel()
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
				t.Errorf("%.60s: the page contains %q", c.query, bad)
			}
		}
	}
}

func TestTheCookieRemembersAnyAuthorAndNothingElse(t *testing.T) {
	t.Parallel()
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, author := range []string{"ker", "O'Reilly; path=/evil", "李白", `"quoted"`, "a=b&c"} {
		response, _ := get(t, base+"/searchresults?author="+url.QueryEscape(author))
		cookies := response.Cookies()
		if len(cookies) != 1 || cookies[0].Name != "prev_author" || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Secure {
			t.Fatalf("%q: got the cookies %v, want one prev_author", author, cookies)
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
		t.Errorf("behind TLS: got %v and %v, want a Secure cookie and Strict-Transport-Security", c, response.Header)
	}
	if response, _ := get(t, base+"/searchresults?author="); len(response.Cookies()) != 0 {
		t.Error("a blank search sets a cookie")
	}
}

func htmlEscape(s string) string {
	return strings.NewReplacer("&", "&amp;", "'", "&#39;", `"`, "&#34;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func TestEveryAnswerForbidsFramesSniffingAndForeignContent(t *testing.T) {
	t.Parallel()
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	for _, path := range []string{"/", "/searchresults?author=ker", "/nothing", "/static/style.css", "/searchresults?author=%ff"} {
		response, _ := get(t, base+path)
		h := response.Header
		if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: the headers allow frames, sniffing or foreign content: %v", path, h)
		}
		if h.Get("Server") != "" || h.Get("X-Powered-By") != "" {
			t.Errorf("%s names its software: %v", path, h)
		}
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	t.Parallel()
	store, _ := sqliteStore(t)
	base, log := shop(t, store)
	if status, _ := send(t, dial(t, base), "OPTIONS * HTTP/1.1\r\nHost: penny\r\n\r\n"); status != 405 {
		t.Errorf("OPTIONS *: got status %d, want 405", status)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "BREW"} {
		r, _ := http.NewRequestWithContext(t.Context(), method, base+"/searchresults?author=ker", strings.NewReader("author=ker"))
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 405 || response.Header.Get("Allow") != "GET, HEAD" || !bytes.Contains(body, []byte("can only read this page")) {
			t.Errorf("%s: got %d, Allow %q; want 405, GET, HEAD", method, response.StatusCode, response.Header.Get("Allow"))
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), "HEAD", base+"/searchresults?author=ker", nil)
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || response.StatusCode != 200 {
		t.Errorf("HEAD: got %v, %v, want status 200", response, err)
	}
	eventually(t, "the log has the HEAD, with no bytes", func() bool {
		return strings.Contains(log.String(), `"method":"HEAD","path":"/searchresults","status":200,"bytes":0`)
	})
}

func TestTheServerHangsUpOnASlowClient(t *testing.T) {
	skip.Short(t)
	t.Parallel()
	server, _ := unstarted(storeFunc(nil), patience)
	server.Start()
	t.Cleanup(server.Close)
	conn := dial(t, server.URL)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: penny\r\nX-Slow: ")
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("after a minute the server still waits: %v", err)
	}
}

func TestALogLineCannotBeForged(t *testing.T) {
	t.Parallel()
	base, log := shop(t, storeFunc(nil))
	send(t, dial(t, base), "GET /%0a%7b%22level%22:%22ERROR%22%7d%1b[31m%e2%80%ae HTTP/1.1\r\nHost: penny\r\nConnection: close\r\n\r\n")
	text := log.String()
	if lines := strings.Count(text, "\n"); lines != 1 || strings.ContainsAny(text, "\x1b") || strings.Contains(text, "\u202e") || strings.Contains(text, `\u001b`) {
		t.Errorf("got the log %q, want one line without control characters", text)
	}
}

func TestAPanicGivesAPageAndALogLineWithItsStack(t *testing.T) {
	t.Parallel()
	base, log := shop(t, storeFunc(panics))
	for range 2 {
		response, body := get(t, base+"/searchresults?author=ker")
		if response.StatusCode != 500 || !strings.Contains(body, "The shop made a mistake") || strings.Contains(body, "a shelf fell down") {
			t.Errorf("got status %d and %q, want 500 and a page without the panic's text", response.StatusCode, body)
		}
	}
	if text := log.String(); !strings.Contains(text, `"msg":"panic"`) || !strings.Contains(text, "a shelf fell down") || !strings.Contains(text, "pennyapp.panics") {
		t.Errorf("the log lacks the panic or its stack: %s", text)
	}
}

func panics(context.Context, string, int) ([]penny.Book, error) { panic("a shelf fell down") }

func TestADatabaseThatFailsGivesAPageWithoutDetails(t *testing.T) {
	t.Parallel()
	base, log := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		return nil, errors.New("user penny password hunter2 host db.example.com")
	}))
	response, body := get(t, base+"/searchresults?author=ker")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || !strings.Contains(body, "out of reach") {
		t.Errorf("got status %d and %q, want 503, Retry-After and the reason", response.StatusCode, body)
	}
	if strings.Contains(body, "example.com") || strings.Contains(body+log.String(), "hunter2") {
		t.Error("the page shows the host, or the page or the log shows the password")
	}
	if response, _ := get(t, base+"/healthz"); response.StatusCode != 200 {
		t.Errorf("/healthz: got status %d, want 200 though the database fails", response.StatusCode)
	}
}

func TestARequestEndsThoughTheStoreIgnoresItsDeadline(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	base, _ := hastyShop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		<-release
		return nil, nil
	}), 10*time.Millisecond)
	t.Cleanup(func() { close(release) })
	if response, _ := get(t, base+"/searchresults?author=ker"); response.StatusCode != 503 {
		t.Errorf("got status %d, want 503", response.StatusCode)
	}
}

// lastRequest returns the last line of the log whose msg is "request".
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
	t.Parallel()
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
		t.Fatal("no error for a visitor who leaves")
	}
	eventually(t, "the log has the request", func() bool { return lastRequest(t, log) != nil })
	if got := lastRequest(t, log)["status"]; got != 499.0 {
		t.Errorf("the log has status %v, want 499", got)
	}
}

func TestAClientThatClosesItsSideGetsAPage(t *testing.T) {
	t.Parallel()
	base, _ := shop(t, waits)
	conn := dial(t, base)
	io.WriteString(conn, "GET /searchresults?author=ker HTTP/1.1\r\nHost: penny\r\n\r\n")
	conn.(*net.TCPConn).CloseWrite()
	if status, size := send(t, conn, ""); status != 499 || size == 0 {
		t.Errorf("got status %d and %d bytes, want 499 and a page", status, size)
	}
}

func TestRequestsThatNetHTTPRefusesAreLogged(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"nonsense\r\n\r\n":                      400,
		"GET / HTTP/1.1\r\n\r\n":                400, // no Host
		"GET / HTTP/9.9\r\nHost: penny\r\n\r\n": 505,
		"GET / HTTP/1.1\r\nHost: penny\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n": 431,
	} {
		t.Run(fmt.Sprintf("%.20q", text), func(t *testing.T) {
			t.Parallel()
			base, log := shop(t, storeFunc(nil))
			if status, _ := send(t, dial(t, base), text); status != want {
				t.Errorf("got status %d, want %d", status, want)
			}
			if line := lastRequest(t, log); line["status"] != float64(want) || line["client"] != "127.0.0.1" {
				t.Errorf("the log has %v, want status %d and the client 127.0.0.1", line, want)
			}
		})
	}
}

func TestSearchesBeyondTheLimitDoNotReachTheStore(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	release := make(chan struct{})
	base, _ := hastyShop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		asked.Add(1)
		<-release // a driver that ignores its context
		return nil, nil
	}), 10*time.Millisecond)
	visitors(t.Context(), base, mostSearches, 1) // each gets a 503 when its patience ends, and its search still runs
	response, body := get(t, base+"/searchresults?author=ker")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || !strings.Contains(body, "Try again") || asked.Load() > mostSearches {
		t.Errorf("got status %d after %d searches, want 503 after at most %d", response.StatusCode, asked.Load(), mostSearches)
	}
	close(release)
	eventually(t, "a search succeeds again", func() bool {
		response, _ := get(t, base+"/searchresults?author=ker")
		return response.StatusCode == 200
	})
}

func TestConnectionsBeyondTheLimitGetA503(t *testing.T) {
	t.Parallel()
	server, _ := unstarted(storeFunc(nil), patience)
	var refused atomic.Int64
	listener := server.Listener.(*edge.Listener)
	listener.Most, listener.Refused = 1, func() { refused.Add(1) }
	server.Start()
	t.Cleanup(server.Close)
	const ask = "GET /healthz HTTP/1.1\r\nHost: penny\r\n\r\n"
	first := dial(t, server.URL)
	if got, _ := send(t, first, ask); got != 200 {
		t.Errorf("the first connection got status %d, want 200", got)
	}
	if got, _ := send(t, dial(t, server.URL), ask); got != 503 || refused.Load() != 1 {
		t.Errorf("the second connection got status %d and %d were refused, want 503 and 1", got, refused.Load())
	}
	first.Close()
	eventually(t, "a connection is accepted again", func() bool {
		response, err := http.Get(server.URL + "/healthz")
		return err == nil && response.StatusCode == 200
	})
}

func TestASearchIsTriedAgainUnlessManyOthersWaitToTryAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		silent, ignoring := int64(0), make(chan struct{})
		defer close(ignoring)
		s := newSearcher(storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
			if calls.Add(1) == silent {
				<-ignoring
			}
			return nil, syscall.ECONNREFUSED
		}), time.Second)
		ask := func() int64 {
			t.Helper()
			calls.Store(0)
			if _, err := s.find(t.Context(), "ker", 1); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
			return calls.Load()
		}
		if n := ask(); n < 2 {
			t.Errorf("one visitor asked %d times in a second, want at least 2", n)
		}
		silent = 2 // the server becomes silent and the driver ignores its context: the error is still that of the first try
		if n := ask(); n != 2 {
			t.Errorf("a visitor whose second try took all the patience asked %d times, want 2", n)
		}
		for range mostRetries {
			s.retrying <- struct{}{}
		}
		if n := ask(); n != 1 {
			t.Errorf("while many others try again, a visitor asked %d times, want 1", n)
		}
	})
}

func TestTheFiguresAreServedToThisComputerOnly(t *testing.T) {
	t.Parallel()
	for _, address := range []string{":0", "0.0.0.0:0", "192.0.2.1:0", "nonsense"} {
		if _, err := listenDebug(address); err == nil || !strings.Contains(err.Error(), "not an address of this computer alone") {
			t.Errorf("%s: got %v, want an error that says that others can reach it", address, err)
		}
	}
	listener, err := listenDebug("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	get(t, base+"/searchresults?author=ker")
	if text := figures.String(); !strings.Contains(text, `"requests 200": `) || !strings.Contains(text, `"searches running": `) {
		t.Errorf("the figures lack the requests or the searches: %s", text)
	}
}

func TestResultsContinueOnTheNextPage(t *testing.T) {
	t.Parallel()
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
		rows := strings.Count(body, "<tr><td>")
		if !strings.Contains(body, want) || !strings.Contains(body, first) || rows > 100 || strings.Contains(body, next) != (number < 3) {
			t.Errorf("page %d lacks %q, or has wrong books or links: %s", number, want, body)
		}
	}
	for _, page := range []string{"0", "-1", "x", "21", "99999999999999999999"} {
		if response, _ := get(t, base+"/searchresults?author=k&page="+page); response.StatusCode != 400 {
			t.Errorf("page %s: got status %d, want 400", page, response.StatusCode)
		}
	}
}

func TestTheLastPageSaysThatThereAreMoreBooks(t *testing.T) {
	t.Parallel()
	base, _ := shop(t, storeFunc(func(_ context.Context, _ string, limit int) ([]penny.Book, error) {
		return make([]penny.Book, limit), nil
	}))
	if _, body := get(t, base+"/searchresults?author=k&page=20"); !strings.Contains(body, "There are more.") || strings.Contains(body, "Next page") {
		t.Errorf("got %s, want a note and no next page", body)
	}
}

func TestNamesAreNormalised(t *testing.T) {
	t.Parallel()
	var asked string
	base, _ := shop(t, storeFunc(func(_ context.Context, author string, _ int) ([]penny.Book, error) {
		asked = author
		return nil, nil
	}))
	for typed, want := range map[string]string{"Ke\u0301r": "Kér", "\u200bker\ufeff": "ker", "\u202ake\u00adr\u200f": "ker", " ker ": "ker", strings.Repeat("李", 200): strings.Repeat("李", 200)} {
		asked = ""
		get(t, base+"/searchresults?author="+url.QueryEscape(typed))
		if asked != want {
			t.Errorf("%q is searched as %q, want %q", typed, asked, want)
		}
	}
	if response, _ := get(t, base+"/searchresults?author="+url.QueryEscape(strings.Repeat("😀", 101))); response.StatusCode != 400 {
		t.Errorf("202 UTF-16 units: got status %d, want 400", response.StatusCode)
	}
}

func TestFilesHaveAnETagAndPagesHaveALength(t *testing.T) {
	t.Parallel()
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	response, _ := get(t, base+"/static/style.css")
	tag := response.Header.Get("ETag")
	if again, body := get(t, base+"/static/style.css", "If-None-Match", tag); tag == "" || again.StatusCode != 304 || body != "" {
		t.Errorf("with the ETag %s: got status %d, want 304", tag, again.StatusCode)
	}
	for _, path := range []string{"/", "/searchresults?author=ker", "/nothing"} {
		if response, body := get(t, base+path); response.ContentLength != int64(len(body)) {
			t.Errorf("%s: got Content-Length %d, want %d", path, response.ContentLength, len(body))
		}
	}
}

func TestARoutersHeadersSayHowTheVisitorConnected(t *testing.T) {
	t.Parallel()
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
			t.Errorf("%s: %s: got status %d to %q, want %d", c.name, c.value, response.StatusCode, to, c.status)
		}
	}
	response, _ := get(t, base+"/", "X-Request-Id", "router-7", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "192.0.2.1, 198.51.100.2")
	line := lastRequest(t, log)
	if response.Header.Get("X-Request-Id") != "router-7" || line["id"] != "router-7" || line["client"] != "127.0.0.1" || line["forwarded_for"] != "198.51.100.2" {
		t.Errorf("the log has %v, want the id router-7 and forwarded_for 198.51.100.2", line)
	}
}

func TestReadyzAsksTheDatabaseOnceASecondAtMost(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) {
		if asked.Add(1) > 1 {
			return nil, errors.New("down")
		}
		return nil, nil
	}))
	start, ready := time.Now(), 0
	eventually(t, "/readyz answers with 503", func() bool {
		response, _ := get(t, base+"/readyz")
		if response.StatusCode == 200 {
			ready++
		}
		return response.StatusCode == 503
	})
	if got := asked.Load(); got > 1+int64(time.Since(start)/time.Second) || ready == 0 {
		t.Errorf("the database was asked %d times in %v, want once a second at most; it was ready %d times, want 1 at least",
			got, time.Since(start), ready)
	}
}

func TestTheFooterSaysWhichLayerAnswered(t *testing.T) {
	t.Parallel()
	base, _ := shop(t, storeFunc(func(context.Context, string, int) ([]penny.Book, error) { return nil, nil }))
	if _, body := get(t, base+"/searchresults?author=ker"); !regexp.MustCompile(`Answered by database0 in \d+\.\d ms. Connections opened so far: 7\.`).MatchString(body) {
		t.Errorf("the footer does not name the layer: %s", body)
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
		t.Error("no error for a broken .env")
	}
}
