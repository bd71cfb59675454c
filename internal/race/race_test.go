package race

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// The reason for the race's result, exactly: how many round trips a call of each contender makes.
func TestEachContenderMakesItsExactNumberOfRoundTrips(t *testing.T) {
	trust := pgtest.Server(t, localpg.Options{})
	pgtest.LoadBooks(t, trust.URL("postgres"))
	access := ""
	pgtest.Query(t, trust.URL("postgres"), `SHOW hba_file`, &access)
	if err := os.WriteFile(access, []byte("host all all 127.0.0.1/32 trust\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after time.Time
	pgtest.Query(t, trust.URL("postgres"), `SELECT pg_conf_load_time() FROM pg_reload_conf()`, &before)
	pgtest.Eventually(t, time.Minute, "the server has read the file", func() bool {
		pgtest.Query(t, trust.URL("postgres"), `SELECT pg_conf_load_time()`, &after)
		return after.After(before)
	})
	encrypted := pgtest.Server(t, localpg.Options{TLS: true})
	pgtest.LoadBooks(t, encrypted.URL("postgres"))
	if _, err := Record(t.Context(), Options{Address: encrypted.URL("postgres"), Contenders: Contenders, Calls: 4, Workers: 2, Pool: 2}, nil); !errors.Is(err, ErrEncrypted) {
		t.Errorf("a recording of what is encrypted: %v", err)
	}
	password := pgtest.BooksURL(t)
	prefer := strings.Replace(password, "sslmode=disable", "sslmode=prefer", 1)
	for server, address := range map[string]string{"password": password, "prefer": prefer, "trust": trust.URL("postgres"), "TLS": encrypted.URL("postgres")} {
		connect := map[string]float64{"password": 6, "prefer": 8, "trust": 4, "TLS": 9}[server]
		want := map[string]float64{"database1": 0, "database2": connect, "pgx-per-call": connect, "database3": 1, "pgxpool": 1, "sql.DB": 2, "database4": 1}
		for _, c := range Contenders {
			got, err := c.solo(t.Context(), Options{Address: address, Pool: 2}, 0)
			if err != nil || got.RoundTrips != want[c.Name] {
				t.Errorf("%s with %s: %v round trips, want %v (%v)", c.Name, server, got.RoundTrips, want[c.Name], err)
			}
			opened := map[bool]float64{false: 1}[c.Pooled]
			if server == "prefer" {
				opened *= 2 // when the server has no encryption, both drivers hang up and connect again without it
			}
			if got.Connections != opened {
				t.Errorf("%s with %s: %v connections a call, want %v", c.Name, server, got.Connections, opened)
			}
		}
	}
}

// Eight callers and pools of three: the relay sees every connection, call and round trip, and no pool opens more than three.
func TestTheRecordingAccountsForEveryCallAndEveryConnection(t *testing.T) {
	address := pgtest.BooksURL(t)
	o := Options{Address: address, Contenders: Contenders, Calls: 32, Workers: 8, Pool: 3, RTT: 4 * time.Millisecond}
	r, err := Record(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Lanes) != 6 || r.Server == "" || r.Most == 0 {
		t.Fatalf("%+v", r)
	}
	for _, l := range r.Lanes {
		open := 32
		if l.Pooled {
			open = 3
		}
		if len(l.Conns) != open || len(l.Errors) > 0 {
			t.Errorf("%s: %d connections, want %d; %v", l.Name, len(l.Conns), open, l.Errors)
		}
		answers := make([]int, 32)
		for _, c := range l.Conns {
			for i, trip := range c.Trips {
				if trip.Call >= 0 && trip.Phase == "question" {
					answers[trip.Call]++
				}
				if i > 0 && trip.Begin < c.Trips[i-1].End || trip.End > c.Close {
					t.Errorf("%s: %+v comes before %+v has ended, or ends after its connection", l.Name, trip, c.Trips[i-1])
				}
			}
		}
		if i := slices.IndexFunc(answers, func(n int) bool { return n != 1 }); i >= 0 {
			t.Errorf("%s: call %d has %d questions", l.Name, i, answers[i])
		}
		for i, call := range l.Calls {
			if call.Begin > call.End || call.End > l.Elapsed {
				t.Errorf("%s: call %d is %+v, and all took %v", l.Name, i, call, l.Elapsed)
			}
		}
		for _, c := range l.Conns {
			if call := l.Calls[c.Call]; !l.Pooled && (c.Open < call.Begin || c.Open > call.End) {
				t.Errorf("%s: %+v belongs to %+v", l.Name, c, call)
			}
		}
		most := 0
		for _, s := range l.Processes {
			most = max(most, len(s.PIDs))
		}
		if l.Pooled && most != 3 || most == 0 || len(l.Processes[len(l.Processes)-1].PIDs) > 0 {
			t.Errorf("%s: the server counted %d processes, and in the end %v", l.Name, most, l.Processes[len(l.Processes)-1])
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
	if s := r.Sentence(); !strings.HasPrefix(s, "6 round trips against 1, 4 ms apart: ") {
		t.Errorf("the sentence is %q", s)
	}
	for name, draw := range map[string]func(io.Writer, float64) error{"timeline": r.Timeline, "slots": r.Slots} {
		for _, width := range []float64{320, 960, 1900} {
			var svg bytes.Buffer
			if err := draw(&svg, width); err != nil {
				t.Fatal(err)
			}
			if err := xml.Unmarshal(svg.Bytes(), new(struct{})); err != nil || !strings.Contains(svg.String(), "<desc") || !strings.Contains(svg.String(), r.Date) {
				t.Errorf("%s, %v wide: %v", name, width, err)
			}
		}
	}
}

// stuck is a store whose driver does not heed its context.
type stuck struct {
	penny.Store
	end chan struct{}
}

func (s stuck) ByAuthor(context.Context, string, int) ([]penny.Book, error) {
	<-s.end
	return nil, nil
}

func TestOneCtrlCEndsACallWhateverItsDriverDoes(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	end, done := make(chan struct{}), make(chan error, 1)
	defer close(end)
	go func() { done <- ask(ctx, stuck{end: end}, 100) }()
	stop()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(demo.Patience):
		t.Error("it waits for the driver")
	}
}
