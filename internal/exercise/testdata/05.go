package roundtrips

import (
	"strconv"
	"testing"

	"example.com/penny"
	two "example.com/penny/database2/books"
	three "example.com/penny/database3/books"
	"example.com/penny/internal/exercise/given"
	"example.com/penny/internal/relay"
)

func TestExercise(t *testing.T) {
	names, answers := []string{"database2", "first", "database3"}, make(map[string]int)
	for _, name := range names {
		n, err := strconv.Atoi(given.Answers(t, "exercises/05-round-trips/answer.txt")[name])
		if err != nil {
			t.Fatalf("answer.txt has no number for %s", name)
		}
		answers[name] = n
	}
	r, address, err := relay.Before(given.Books(t, ""), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Watch()
	unpooled, err := two.Open(address)
	if err != nil {
		t.Fatal(err)
	}
	defer unpooled.Close()
	pooled, err := three.Open(address, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pooled.Close()
	for i, store := range []penny.Store{unpooled, pooled, pooled} {
		before := r.Trips()
		if _, err := store.ByAuthor(t.Context(), "ker", 10); err != nil {
			t.Fatal(err)
		}
		if answer := answers[names[i]]; answer != r.Trips()-before {
			t.Fatalf("your answer for %s, %d, is not what the network sees", names[i], answer)
		}
	}
}
