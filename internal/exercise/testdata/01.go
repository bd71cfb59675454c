package title

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"example.com/penny"
)

func TestExercise(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "penny.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(penny.SQL); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]int{"the c": 1, "The Practice of Programming": 1, "the": 2, "ker": 0, "": 3, "%": 0} {
		books, err := ByTitle(t.Context(), db, prefix, 100)
		if err != nil {
			t.Fatalf("ByTitle(%q) fails: %v", prefix, err)
		}
		if len(books) != want {
			t.Fatalf("ByTitle(%q) finds %d books, want %d", prefix, len(books), want)
		}
	}
	if books, err := ByTitle(t.Context(), db, "", 2); err != nil || len(books) != 2 {
		t.Fatalf("with the limit 2, ByTitle finds %d books (%v)", len(books), err)
	}
}
