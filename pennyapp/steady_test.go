package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/penny/internal/explain"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// The pools of two shops fit into a small server. While a new version replaces the old one, both run.
func TestWithAPoolTwoHundredVisitorsOnASmallServerLoseNoRequest(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "20"}})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	var bases []string
	for _, layer := range []string{"database3", "database4"} {
		base, _ := shop(t, openLayer(t, layer, address))
		bases = append(bases, base)
	}
	// visit sends visitors to both shops until done returns, at least for one round.
	visit := func(what string, clients int, done func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i, base := range bases {
			all.Go(func() {
				for again := true; again; again = ctx.Err() == nil {
					if failed, reason := visitors(t.Context(), base, clients, 5); failed > 0 {
						t.Errorf("%s, shop %d: %d of %d requests were lost, one with %v", what, i+1, failed, clients*5, reason)
						return
					}
				}
			})
		}
		done()
		cancel()
		all.Wait()
	}
	visit("at first", 200, func() {})
	visit("when every connection is killed", 20, func() {
		pgtest.Exec(t, address, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
	})
	visit("when the server restarts", 20, func() {
		if err := server.Restart(t.Context(), localpg.Fast); err != nil {
			t.Error(err)
		}
	})
}

func TestADatabaseThatIsDownGivesA503AndTheAppRecovers(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	server.Halt(localpg.Fast)
	shops := make(map[string]string)
	for _, layer := range layers { // the app starts though the server is down
		shops[layer], _ = shop(t, openLayer(t, layer, address))
	}
	t.Run("down", func(t *testing.T) {
		eachLayer(t, func(t *testing.T, layer string) {
			base, log := hastyShop(t, openLayer(t, layer, address), 10*time.Second)
			response, body := get(t, base+"/searchresults?author=ker")
			if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
				t.Errorf("got status %d, want 503 and Retry-After", response.StatusCode)
			}
			for _, secret := range []string{"127.0.0.1", "postgres", "refused"} {
				if strings.Contains(body, secret) {
					t.Errorf("the page contains %q", secret)
				}
			}
			// On a busy machine, the time can be over before the driver has said why it failed.
			eventually(t, "the log says why", func() bool {
				says := strings.Contains(log.String(), "no server answers at 127.0.0.1:")
				if !says {
					get(t, base+"/searchresults?author=ker")
				}
				return says
			})
		})
	})
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for layer, base := range shops {
		if err := visit(t.Context(), http.DefaultTransport, base); err != nil {
			t.Errorf("%s, with the server up again: %v", layer, err)
		}
	}
}

func TestASlowDatabaseGivesA503AndNoQueryIsLeftRunning(t *testing.T) {
	t.Parallel()
	eachLayer(t, func(t *testing.T, layer string) {
		address := pgtest.BooksURL(t)
		store := openLayer(t, layer, address)
		base, _ := hastyShop(t, store, 5*time.Second)
		release := pgtest.Lock(t, address, "books")
		got := make(chan error, 1)
		var seen atomic.Bool
		go func() {
			for {
				err := visit(t.Context(), http.DefaultTransport, base)
				if seen.Load() {
					got <- err
					return
				}
			}
		}()
		eventually(t, "the query waits for the table", func() bool { return waiting(t, address) == 1 })
		seen.Store(true)
		if err := <-got; err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("a visitor of a slow database got %v, want 503", err)
		}
		eventually(t, "no query waits for the table", func() bool { return waiting(t, address) == 0 })
		release()
		base, _ = shop(t, store)
		if err := visit(t.Context(), http.DefaultTransport, base); err != nil {
			t.Errorf("after the lock was released: %v", err)
		}
	})
}

func TestNoRequestFailsIfTheServerEndsIdleSessions(t *testing.T) {
	t.Parallel()
	eachLayer(t, func(t *testing.T, layer string) {
		address := pgtest.BooksURL(t)
		base, log := shop(t, openLayer(t, layer, address+"&idle_session_timeout=1000"))
		for range 2 {
			if failed, reason := visitors(t.Context(), base, 8, 1); failed > 0 {
				t.Errorf("%d of 8 requests failed, one with %v: %s", failed, reason, log)
			}
			eventually(t, "the server has ended the idle sessions", func() bool { return sessions(t, address) == 0 })
		}
	})
}

// sessions returns how many others use the database at address.
func sessions(t *testing.T, address string) (n int) {
	t.Helper()
	pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`, &n)
	return n
}

// waiting returns how many queries wait for a lock in the database at address.
func waiting(t *testing.T, address string) (n int) {
	t.Helper()
	pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`, &n)
	return n
}

func TestAStatementTimeoutInTheAddressEndsTheQueryOnTheServer(t *testing.T) {
	t.Parallel()
	eachLayer(t, func(t *testing.T, layer string) {
		address := pgtest.BooksURL(t)
		pgtest.Lock(t, address, "books")
		store := openLayer(t, layer, address+"&statement_timeout=50")
		if _, err := store.ByAuthor(t.Context(), "ker", 10); explain.Name(err) != "query ended" {
			t.Errorf("got %v, want an error whose cause is \"query ended\"", err)
		}
	})
}

func TestWithNothingSetTheAppCreatesAFileWithTheBooks(t *testing.T) {
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
			t.Errorf("%s: got %v, %v, want 2 books", layer, books, err)
		}
		store.Close()
	}
	if _, err := os.Stat("penny.sqlite"); err != nil {
		t.Error(err)
	}
	for layer, want := range map[string]string{"database2": "DATABASE_URL is not set", "database9": "there is no such layer"} {
		_, err := open(layer)
		if err == nil {
			t.Errorf("no error for %s", layer)
			continue
		}
		if says, hint := explainStart(err); says != want || hint == "" {
			t.Errorf("%s: got %q with the hint %q, want %q and a hint", layer, says, hint, want)
		}
	}
	t.Setenv("DATABASE_URL", "sqlite:///"+filepath.ToSlash(filepath.Join(t.TempDir(), "typo.sqlite")))
	if _, err := open("database4"); err == nil {
		t.Error("no error for a DATABASE_URL that names a missing SQLite file")
	}
	for _, port := range []string{"", "0", "http", "70000"} {
		t.Setenv("PORT", port)
		if _, err := listen(); err == nil {
			t.Errorf("no error for PORT=%q", port)
		}
	}
}
