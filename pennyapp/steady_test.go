package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/relay"
)

// layers are those that talk to PostgreSQL.
var layers = []string{"database2", "database3", "database4"}

func openLayer(t *testing.T, layer, address string) penny.Store {
	t.Helper()
	t.Setenv("DATABASE_URL", address)
	store, err := open(layer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// visitors makes n requests from each of so many clients at once, and tells how many did not get the books.
func visitors(ctx context.Context, base string, clients, n int) (failed int64, first string) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var (
		lost   atomic.Int64
		reason atomic.Pointer[string]
		all    sync.WaitGroup
	)
	for range clients {
		all.Go(func() {
			for range n {
				if err := visit(ctx, transport, base); err != nil {
					text := err.Error()
					lost.Add(1)
					reason.CompareAndSwap(nil, &text)
				}
			}
		})
	}
	all.Wait()
	if text := reason.Load(); text != nil {
		first = *text
	}
	return lost.Load(), first
}

func visit(ctx context.Context, transport http.RoundTripper, base string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/searchresults?author=ker", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != 200 || !strings.Contains(string(body), "The C Programming Language") {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

func TestWithAPoolTwoHundredVisitorsOnASmallServerLoseNoRequest(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "20"}})
	pgtest.LoadBooks(t, server.URL("postgres"))
	for _, layer := range []string{"database3", "database4"} {
		t.Run(layer, func(t *testing.T) {
			base, _ := shop(t, openLayer(t, layer, server.URL("postgres")))
			if failed, first := visitors(t.Context(), base, 200, 5); failed > 0 {
				t.Errorf("%d of 1000 requests were lost, the first with %s", failed, first)
			}
			for _, fault := range []struct {
				name string
				do   func() error
			}{
				{"every connection is killed", func() error {
					pgtest.Exec(t, server.URL("postgres"), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
						WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
					return nil
				}},
				{"the server restarts", func() error { return server.Restart(t.Context(), localpg.Fast) }},
			} {
				type outcome struct {
					failed int64
					first  string
				}
				stop, cancel := context.WithCancel(t.Context())
				done := make(chan outcome)
				go func() {
					var total outcome
					for stop.Err() == nil {
						failed, first := visitors(t.Context(), base, 20, 5)
						total.failed += failed
						total.first += first
					}
					done <- total
				}()
				err := fault.do()
				cancel()
				total := <-done
				if err != nil || total.failed > 0 {
					t.Errorf("when %s, %d requests are lost, the first with %s; %v", fault.name, total.failed, total.first, err)
				}
			}
		})
	}
}

func TestADatabaseThatIsDownIsA503WithinTwoSecondsAndTheAppRecovers(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{})
	pgtest.LoadBooks(t, server.URL("postgres"))
	server.Halt(localpg.Fast)
	shops := make(map[string]string)
	for _, layer := range layers {
		base, log := shop(t, openLayer(t, layer, server.URL("postgres"))) // down at start is no reason not to start
		shops[layer] = base
		start := time.Now()
		response, body := get(t, base+"/searchresults?author=ker")
		if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || time.Since(start) > patience+5*time.Second {
			t.Errorf("%s: status %d after %v", layer, response.StatusCode, time.Since(start))
		}
		for _, secret := range []string{"127.0.0.1", "postgres", "refused"} {
			if strings.Contains(body, secret) {
				t.Errorf("%s: the page has %q in it", layer, secret)
			}
		}
		if !strings.Contains(log.String(), "no server answers at 127.0.0.1:") {
			t.Errorf("%s: the log does not tell why", layer)
		}
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for layer, base := range shops {
		if err := visit(t.Context(), http.DefaultTransport, base); err != nil {
			t.Errorf("%s, with the server up again: %v", layer, err)
		}
	}
}

func TestASlowDatabaseIsA503AndNoQueryIsLeftRunning(t *testing.T) {
	for _, layer := range layers {
		t.Run(layer, func(t *testing.T) {
			address := pgtest.BooksURL(t)
			base, _ := shop(t, openLayer(t, layer, address))
			release := pgtest.Lock(t, address, "books")
			start := time.Now()
			if response, _ := get(t, base+"/searchresults?author=ker"); response.StatusCode != 503 || time.Since(start) > patience+5*time.Second {
				t.Errorf("status %d after %v", response.StatusCode, time.Since(start))
			}
			pgtest.Eventually(t, 5*time.Second, "no query waits for the table", func() bool {
				waiting := 0
				pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock'`, &waiting)
				return waiting == 0
			})
			release()
			if err := visit(t.Context(), http.DefaultTransport, base); err != nil {
				t.Errorf("with the lock gone: %v", err)
			}
		})
	}
}

func TestAFarServerAnswers(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{TLS: true})
	pgtest.LoadBooks(t, server.URL("postgres"))
	for _, name := range layers {
		address, _ := through(t, server.URL("postgres"), 250*time.Millisecond)
		base, _ := shop(t, openLayer(t, name, address))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 3 {
				if err := visit(t.Context(), http.DefaultTransport, base); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// through returns the address of a relay to the server at address that takes roundTrip.
func through(t *testing.T, address string, roundTrip time.Duration) (string, *relay.Relay) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	r, err := relay.Start(u.Host, roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	u.Host = r.Addr()
	return u.String(), r
}

func TestAServerThatEndsIdleSessionsLosesNoVisitor(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"idle_session_timeout": "300ms"}})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	for _, name := range layers {
		t.Run(name, func(t *testing.T) {
			base, _ := shop(t, openLayer(t, name, address))
			for range 3 {
				if failed, first := visitors(t.Context(), base, 8, 1); failed > 0 {
					t.Errorf("%d of 8 visitors were lost, the first with %s", failed, first)
				}
				pgtest.Eventually(t, 30*time.Second, "the server has ended the idle sessions", func() bool {
					sessions := -1
					pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`, &sessions)
					return sessions == 0
				})
			}
		})
	}
}

func TestAStatementTimeoutOfTheAddressEndsTheQueryOnTheServer(t *testing.T) {
	for _, name := range layers {
		t.Run(name, func(t *testing.T) {
			address := pgtest.BooksURL(t)
			pgtest.Lock(t, address, "books")
			store := openLayer(t, name, address+"&statement_timeout=50")
			if _, err := store.ByAuthor(t.Context(), "ker", 10); explain.Name(err) != "query ended" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRequestsInFlightAreAnsweredBeforeTheStoreIsClosed(t *testing.T) {
	var events []string
	var mu sync.Mutex
	note := func(event string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, event)
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	store := &slowStore{asked: asked, answer: answer, note: note}
	server := httptest.NewServer(newApp(layerOf(store), discard, patience))
	result := make(chan int)
	go func() {
		response, _ := get(t, server.URL+"/searchresults?author=ker")
		note("answered")
		result <- response.StatusCode
	}()
	<-asked
	stopped := make(chan error)
	go func() {
		err := server.Config.Shutdown(context.Background())
		store.Close()
		stopped <- err
	}()
	close(answer)
	if status := <-result; status != 200 {
		t.Errorf("the request in flight got %d", status)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	server.Close()
	if got := strings.Join(events, ", "); got != "found, answered, closed" && got != "found, closed, answered" {
		t.Errorf("in the order %s", got)
	}
}

type slowStore struct {
	asked, answer chan struct{}
	note          func(string)
}

func (s *slowStore) ByAuthor(context.Context, string, int) ([]penny.Book, error) {
	close(s.asked)
	<-s.answer
	s.note("found")
	return nil, nil
}

func (s *slowStore) Close() error {
	s.note("closed")
	return nil
}

func TestWithNothingSetTheBooksAreInAFileThatTheAppMakes(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("DATABASE_URL", "")
	os.Unsetenv("DATABASE_URL")
	for _, layer := range []string{"database1", "1", "database4"} {
		store, err := open(layer)
		if err != nil {
			t.Fatal(err)
		}
		books, err := store.ByAuthor(t.Context(), "ker", 10)
		if err != nil || len(books) != 2 {
			t.Errorf("%s: %v, %v", layer, books, err)
		}
		store.Close()
	}
	if _, err := os.Stat("penny.sqlite"); err != nil {
		t.Error(err)
	}
	for layer, want := range map[string]string{"database2": "DATABASE_URL is not set", "database9": "there is no such layer"} {
		_, err := open(layer)
		if err == nil {
			t.Errorf("%s opened", layer)
			continue
		}
		if says, hint := explainStart(err); says != want || hint == "" {
			t.Errorf("%s: it says %q with the hint %q", layer, says, hint)
		}
	}
	t.Setenv("DATABASE_URL", "sqlite:///"+filepath.ToSlash(filepath.Join(t.TempDir(), "typo.sqlite")))
	if _, err := open("database4"); err == nil {
		t.Error("a SQLite file that is missing was made, though DATABASE_URL names it")
	}
	for _, port := range []string{"", "0", "http", "70000"} {
		t.Setenv("PORT", port)
		if _, err := listen(); err == nil {
			t.Errorf("PORT=%q was taken", port)
		}
	}
}

func query(address, settings string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.RawQuery = settings
	return u.String()
}
