package injection

import (
	"testing"

	_ "modernc.org/sqlite"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	db, _ := given.SQLite(t)
	lines := given.Lines(t, "exercises/02-injection/attack.txt")
	if len(lines) != 1 {
		t.Fatalf("attack.txt has %d lines, want one, with the author", len(lines))
	}
	attack := lines[0]
	rows, err := db.Query(`SELECT title FROM books WHERE author = '` + attack + `'`)
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
	// SQLite reads SQL up to a zero byte, and a parameter to its end: an author in the SQL cannot have one, however it is quoted.
	const zero = "Zero\x00"
	if _, err := db.Exec(`INSERT INTO books VALUES ('456', 'O''Reilly', 'Go'), ('567', $1, 'Nothing')`, zero); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		author string
		want   int
	}{{attack, 0}, {"Kernighan", 2}, {"O'Reilly", 1}, {"Nobody", 0}, {"%", 0}, {zero, 1}} {
		titles, err := Titles(t.Context(), db, c.author)
		switch {
		case c.author == zero && (err != nil || len(titles) != 1):
			t.Fatal("the author is still a part of the SQL: give it to QueryContext as a parameter")
		case err != nil:
			t.Fatalf("the search for the author %s fails: %v", c.author, err)
		case c.author == attack && len(titles) > 0:
			t.Fatal("your author works; now fix the search: it still prints every book")
		case len(titles) != c.want:
			t.Fatalf("the search finds %d books by the author %s, want %d", len(titles), c.author, c.want)
		}
	}
}
