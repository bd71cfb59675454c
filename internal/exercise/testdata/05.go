package roundtrips

import (
	"net/url"
	"strconv"
	"testing"
	"time"

	"example.com/penny"
	two "example.com/penny/database2/books"
	three "example.com/penny/database3/books"
	"example.com/penny/internal/exercise/given"
	"example.com/penny/internal/relay"
)

const roundTrip = 60 * time.Millisecond

// trips returns the round trips of a call. A busy computer makes a call slower and never faster: the fastest counts.
func trips(t *testing.T, calls int, store penny.Store) int {
	fewest := 100
	for range calls {
		start := time.Now()
		if _, err := store.ByAuthor(t.Context(), "ker", 10); err != nil {
			t.Fatal(err)
		}
		fewest = min(fewest, int(time.Since(start)/roundTrip))
	}
	return fewest
}

func TestExercise(t *testing.T) {
	answers := given.Answers(t, "exercises/05-round-trips/answer.txt")
	u, err := url.Parse(given.Books(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	r, err := relay.Start(u.Host, roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	u.Host = r.Addr()
	without, err := two.Open(u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	measured := map[string]int{"database2": trips(t, 5, without), "first": 100}
	for range 3 {
		pooled, err := three.Open(u.String(), 1)
		if err != nil {
			t.Fatal(err)
		}
		measured["first"] = min(measured["first"], trips(t, 1, pooled))
		measured["database3"] = trips(t, 5, pooled)
		pooled.Close()
	}
	for _, name := range []string{"database2", "database3", "first"} {
		got, err := strconv.Atoi(answers[name])
		if err != nil {
			t.Fatalf("answer.txt has no number for %s", name)
		}
		if got != measured[name] {
			t.Fatalf("your answer for %s, %d, is not what the network sees", name, got)
		}
	}
}
