package injection

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"example.com/penny"
	"example.com/penny/internal/exercise/given"
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
	lines := given.Lines(t, "exercises/02-injection/attack.txt")
	if len(lines) != 1 {
		t.Fatalf("attack.txt has %d lines, want one with the author", len(lines))
	}
	rows, err := db.Query(`SELECT title FROM books WHERE author = '` + lines[0] + `'`)
	if err != nil {
		t.Fatalf("with your author, the SQL does not run: %v", err)
	}
	found := 0
	for rows.Next() {
		found++
	}
	rows.Close()
	if found != 3 {
		t.Fatalf("with your author, the search prints %d books, want all three", found)
	}
	if titles, err := Titles(t.Context(), db, lines[0]); err != nil || len(titles) != 0 {
		t.Fatalf("the search still runs your attack: it finds %d books (%v)", len(titles), err)
	}
	if _, err := db.Exec(`INSERT INTO books VALUES ('456', 'O''Reilly', 'Go')`); err != nil {
		t.Fatal(err)
	}
	for author, want := range map[string]int{"Kernighan": 2, "O'Reilly": 1, "Nobody": 0} {
		if titles, err := Titles(t.Context(), db, author); err != nil || len(titles) != want {
			t.Fatalf("the search finds %d books by %s, want %d (%v)", len(titles), author, want, err)
		}
	}
}
