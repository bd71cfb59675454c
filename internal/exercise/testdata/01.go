package title

import (
	"testing"

	_ "modernc.org/sqlite"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	db, _ := given.SQLite(t)
	for prefix, want := range map[string]int{"the c": 1, "The Practice of Programming": 1, "the": 2, "ker": 0, "": 3, "%": 0} {
		books, err := ByTitle(t.Context(), db, prefix, 100)
		if err != nil {
			t.Fatalf("ByTitle(%q) fails: %v", prefix, err)
		}
		if len(books) != want {
			t.Fatalf("ByTitle(%q) finds %d books, want %d", prefix, len(books), want)
		}
	}
	books, err := ByTitle(t.Context(), db, "", 2)
	if err != nil {
		t.Fatalf("ByTitle fails: %v", err)
	}
	if len(books) != 2 {
		t.Fatalf("with the limit 2, ByTitle finds %d books", len(books))
	}
}
