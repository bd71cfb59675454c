package race

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// The number of round trips of a call is the reason for the race's result.
func TestEachContenderMakesItsExactNumberOfRoundTrips(t *testing.T) {
	t.Parallel()
	own := func(t *testing.T, o localpg.Options) *localpg.Server {
		server := pgtest.Server(t, o)
		pgtest.LoadBooks(t, server.URL("postgres"))
		return server
	}
	for name, server := range map[string]struct {
		address func(*testing.T) string
		connect float64 // round trips of a call over a new connection
	}{
		"password": {func(t *testing.T) string { return pgtest.BooksURL(t) }, 6},
		"no password": {func(t *testing.T) string {
			server := own(t, localpg.Options{})
			if err := os.WriteFile(filepath.Join(server.Folder(), "pg_hba.conf"), []byte("host all all 127.0.0.1/32 trust\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := server.Restart(t.Context(), localpg.Fast); err != nil {
				t.Fatal(err)
			}
			return server.URL("postgres")
		}, 4},
		"TLS": {func(t *testing.T) string { return own(t, localpg.Options{TLS: true}).URL("postgres") }, 9},
		// If the server has no encryption, both drivers hang up and connect again without it.
		"prefer": {func(t *testing.T) string {
			return strings.Replace(pgtest.BooksURL(t), "sslmode=disable", "sslmode=prefer", 1)
		}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := server.address(t)
			if name == "TLS" {
				version := 0
				pgtest.Query(t, address, "SELECT current_setting('server_version_num')::int", &version)
				if version >= 180000 {
					server.connect = 8 // it takes the kind of key that Go offers first
				}
			}
			want := map[string]float64{"database1": 0, "database2": server.connect, "pgx-per-call": server.connect, "database3": 1, "pgxpool": 1, "sql.DB": 2, "database4": 1}
			var all sync.WaitGroup
			for _, c := range Contenders {
				all.Go(func() {
					got, err := c.solo(t.Context(), Options{Address: address, Pool: 2}, 0)
					if err != nil || got.RoundTrips != want[c.Name] {
						t.Errorf("%s: got %v round trips, want %v (%v)", c.Name, got.RoundTrips, want[c.Name], err)
					}
					opened := map[bool]float64{false: 1}[c.Pooled]
					if name == "prefer" {
						opened *= 2
					}
					if got.Connections != opened {
						t.Errorf("%s: got %v connections a call, want %v", c.Name, got.Connections, opened)
					}
				})
			}
			all.Wait()
			if name == "TLS" {
				if _, err := Record(t.Context(), Options{Address: address, Contenders: Contenders, Calls: 4, Workers: 2, Pool: 2}, nil); !errors.Is(err, ErrEncrypted) {
					t.Errorf("a recording of an encrypted connection: got %v, want ErrEncrypted", err)
				}
			}
		})
	}
}

// Eight callers and pools of three: the relay sees every connection, call and round trip, and no pool opens more than three.
func TestTheRecordingAccountsForEveryCallAndEveryConnection(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	o := Options{Address: address, Contenders: Contenders, Calls: 32, Workers: 8, Pool: 3, RTT: 4 * time.Millisecond}
	r, err := Record(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Lanes) != 6 || r.Server == "" || r.Most == 0 {
		t.Fatalf("got %+v, want 6 lanes, the server's version and its limit", r)
	}
	for _, l := range r.Lanes {
		open := 32
		if l.Pooled {
			open = 3
		}
		if len(l.Conns) != open || len(l.Errors) > 0 {
			t.Errorf("%s: got %d connections, want %d, and the errors %v", l.Name, len(l.Conns), open, l.Errors)
		}
		answers := make([]int, 32)
		for _, c := range l.Conns {
			for i, trip := range c.Trips {
				if trip.Call >= 0 && trip.Phase == "question" {
					answers[trip.Call]++
				}
				if i > 0 && trip.Begin < c.Trips[i-1].End || trip.End > c.Close {
					t.Errorf("%s: round trip %d begins before the last one has ended, or ends after its connection: %+v", l.Name, i, c)
				}
			}
		}
		if i := slices.IndexFunc(answers, func(n int) bool { return n != 1 }); i >= 0 {
			t.Errorf("%s: call %d has %d questions, want 1", l.Name, i, answers[i])
		}
		for i, call := range l.Calls {
			if call.Begin > call.End || call.End > l.Elapsed {
				t.Errorf("%s: call %d is %+v, want it within the %v of all", l.Name, i, call, l.Elapsed)
			}
		}
		for _, c := range l.Conns {
			if !l.Pooled && (c.Open < l.Calls[c.Trips[0].Call].Begin || c.Open > l.Calls[c.Trips[0].Call].End) {
				t.Errorf("%s: the connection %+v was not opened during its call %+v", l.Name, c, l.Calls[c.Trips[0].Call])
			}
		}
		most := 0
		for _, s := range l.Processes {
			most = max(most, len(s.PIDs))
		}
		if l.Pooled && most != 3 || most == 0 || len(l.Processes[len(l.Processes)-1].PIDs) > 0 {
			t.Errorf("%s: the server had %d processes at most, want 3 with a pool, and some without; in the end it had %v, want none",
				l.Name, most, l.Processes[len(l.Processes)-1].PIDs)
		}
		want := map[string]string{"database2": "socket login login login prepare question goodbye", "database3": "question", "sql.DB": "prepare question"}[l.Name]
		var phases []string
		for _, trip := range l.Timeline {
			phases = append(phases, trip.Phase)
		}
		if got := strings.Join(phases, " "); want != "" && got != want {
			t.Errorf("%s: the timeline is %s, want %s", l.Name, got, want)
		}
	}
	if s := r.Sentence; !strings.HasPrefix(s, "6 round trips against 1, 4 ms apart: ") {
		t.Errorf("the sentence is %q, want 6 round trips against 1, 4 ms apart", s)
	}
	for name, draw := range map[string]func(io.Writer, float64) error{"timeline": r.Timeline, "slots": r.Slots} {
		for _, width := range []float64{320, 960, 1900} {
			var svg bytes.Buffer
			if err := draw(&svg, width); err != nil {
				t.Fatal(err)
			}
			if err := xml.Unmarshal(svg.Bytes(), new(struct{})); err != nil || !strings.Contains(svg.String(), "<desc") || !strings.Contains(svg.String(), r.Date) {
				t.Errorf("%s, %v wide: want XML with a description and the date (%v)", name, width, err)
			}
		}
	}
}

// stuck is a store whose driver ignores its context.
type stuck struct {
	penny.Store
	asked, end chan struct{}
}

func (s stuck) ByAuthor(context.Context, string, int) ([]penny.Book, error) {
	close(s.asked)
	<-s.end
	return nil, nil
}

func TestOneCtrlCEndsACallWhateverItsDriverDoes(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s := stuck{asked: make(chan struct{}), end: make(chan struct{})}
	defer close(s.end)
	done := make(chan error, 1)
	go func() { done <- ask(ctx, s, 100) }()
	<-s.asked
	stop()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	case <-time.After(demo.Patience):
		t.Error("the call still waits for its driver")
	}
}

func TestTheAddressThroughARelayKeepsItsSettings(t *testing.T) {
	r, through, err := Through("postgres://penny:secret@db.example:5433/shop?sslmode=verify-full&sslrootcert=/my%20ca.pem&search_path=a,%20b", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := dburl.Parse(through)
	if err != nil {
		t.Fatal(err)
	}
	if got.Server() != r.Addr() || got.Database != "shop" || got.Password != "secret" || got.Settings["sslmode"] != "verify-ca" ||
		got.Settings["sslrootcert"] != "/my ca.pem" || got.Settings["search_path"] != "a, b" {
		t.Errorf("got %+v, want the relay's address, sslmode=verify-ca, and everything else as it was", got)
	}
	if _, _, err := Through("postgres://penny@one.example,two.example/shop", 0); !errors.Is(err, ErrSeveralHosts) {
		t.Errorf("two hosts: got %v, want ErrSeveralHosts", err)
	}
}
