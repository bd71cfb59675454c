package relay_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/relay"
)

// phases returns the phases of the round trips of the first connection that a relay has seen.
func phases(t *testing.T, r *relay.Relay) []string {
	t.Helper()
	var names []string
	trips := r.Seen()[0].Trips
	for i, trip := range trips {
		names = append(names, trip.Phase)
		if goodbye := i == len(trips)-1; !goodbye && trip.End.Before(trip.Begin) { // a server that hangs up does not answer
			t.Errorf("round trip %d, %s, has no end", i, trip.Phase)
		}
	}
	return names
}

// watched returns an address that leads through a watching relay to the server at address.
func watched(t *testing.T, address string, roundTrip time.Duration) (*relay.Relay, string) {
	t.Helper()
	r, through, err := relay.Before(address, roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	r.Watch()
	return r, through
}

func ask(t *testing.T, address string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(context.Background(), `SELECT isbn FROM books WHERE author = $1 LIMIT $2`, "Kernighan", int64(77)); err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
}

func TestTheRelayCountsTheRoundTripsOfAConnectionAndKnowsTheirPhases(t *testing.T) {
	t.Parallel()
	r, address := watched(t, pgtest.BooksURL(t), 10*time.Millisecond)
	ask(t, address)
	pgtest.Eventually(t, time.Minute, "the relay has seen the end", func() bool { return !r.Seen()[0].Closed.IsZero() })
	want := []string{relay.Socket, relay.Login, relay.Login, relay.Login, relay.Prepare, relay.Question, relay.Goodbye}
	if got := phases(t, r); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := r.Trips(); n != 6 {
		t.Errorf("got %d round trips, want 6", n)
	}
	for _, trip := range r.Seen()[0].Trips[:6] {
		if took := trip.End.Sub(trip.Begin); took < 10*time.Millisecond {
			t.Errorf("%s took %v, want at least 10ms", trip.Phase, took)
		}
	}
	if values := r.Seen()[0].Trips[5].Values; len(values) != 2 || string(values[0]) != "Kernighan" {
		t.Errorf("the question's values are %q, want 2, the first Kernighan", values)
	}
}

// Under TLS a relay cannot read, but the direction still changes at each round trip.
func TestTheRelayCountsRoundTripsUnderTLS(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{TLS: true})
	pgtest.LoadBooks(t, server.URL("postgres"))
	r, address := watched(t, server.URL("postgres"), 0)
	ask(t, address)
	pgtest.Eventually(t, time.Minute, "the relay has seen the end", func() bool { return !r.Seen()[0].Closed.IsZero() })
	got := phases(t, r)
	if n := r.Trips(); n != 9 || got[0] != relay.Socket || got[1] != relay.TLS || !slices.Contains(got, relay.Encrypted) || slices.Contains(got, relay.Question) {
		t.Errorf("got %d round trips, want 9: %v", n, got)
	}
}

// pgx sends a batch at once, and its answers of two megabytes come in many pieces.
func TestManyPiecesAreStillOneRoundTrip(t *testing.T) {
	t.Parallel()
	r, address := watched(t, pgtest.BooksURL(t), 0)
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	before := r.Trips()
	batch := &pgx.Batch{}
	for i := range 20 {
		batch.Queue("SELECT repeat('x', 100000) || '" + strconv.Itoa(i) + "'")
	}
	if err := conn.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatal(err)
	}
	if n := r.Trips() - before; n != 2 {
		t.Errorf("got %d round trips, want 2: one to prepare and one to ask", n)
	}
}
