package title

import (
	"testing"

	_ "modernc.org/sqlite"

	"example.com/penny"
	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	db, _ := given.SQLite(t)
	if _, err := db.Exec(`INSERT INTO books VALUES ('012', 'Dijkstra', 'The Humble Programmer'), ('678', 'Pike', '100% Go')`); err != nil {
		t.Fatal(err)
	}
	humble, practice := penny.Book{ISBN: "012", Author: "Dijkstra", Title: "The Humble Programmer"}, penny.Book{ISBN: "123", Author: "Kernighan", Title: "The Practice of Programming"}
	c, algorithms := penny.Book{ISBN: "234", Author: "Kernighan", Title: "The C Programming Language"}, penny.Book{ISBN: "345", Author: "Sedgewick", Title: "Algorithms in C"}
	percent := penny.Book{ISBN: "678", Author: "Pike", Title: "100% Go"}
	for _, q := range []struct {
		prefix string
		limit  int
		want   []penny.Book
	}{
		{"the c", 100, []penny.Book{c}}, {"The Practice of Programming", 100, []penny.Book{practice}}, {"ker", 100, nil}, {"programm", 100, nil},
		{"the", 100, []penny.Book{humble, practice, c}}, {"the", 2, []penny.Book{humble, practice}}, {"%", 100, nil}, {"100%", 100, []penny.Book{percent}},
		{"", 100, []penny.Book{humble, practice, c, algorithms, percent}},
	} {
		books, err := ByTitle(t.Context(), db, q.prefix, q.limit)
		if err != nil {
			t.Fatalf("ByTitle(%q) fails: %v", q.prefix, err)
		}
		if len(books) != len(q.want) {
			t.Fatalf("with the limit %d, ByTitle(%q) finds %d books, want %d", q.limit, q.prefix, len(books), len(q.want))
		}
		for i, book := range books {
			if book != q.want[i] {
				t.Fatalf("book %d that ByTitle(%q) returns is %+v, want %+v", i+1, q.prefix, book, q.want[i])
			}
		}
	}
}
