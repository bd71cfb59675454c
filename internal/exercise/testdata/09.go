package index

import (
	"regexp"
	"strings"
	"testing"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	text := given.Text(t, "exercises/09-index/index.sql")
	address := given.Books(t, "")
	db := given.Open(t, address)
	db.SetMaxOpenConns(1)
	_, err := db.Exec(`INSERT INTO books SELECT 'x' || n, md5(n::text), 'Book ' || n FROM generate_series(1, 100000) n`)
	if err != nil {
		t.Fatal(err)
	}
	// As psql does, each on its own: CREATE INDEX CONCURRENTLY needs that.
	for _, statement := range regexp.MustCompile(`;[ \t\r]*(\n|$)`).Split(text, -1) {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("your SQL does not run: %v", err)
		}
	}
	db = given.Open(t, address) // a new session, like a program's: what your SQL has SET in its own session is gone
	if _, err := db.Exec(`ANALYZE books`); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query(`EXPLAIN SELECT isbn, author, title FROM books WHERE author ILIKE 'kern%' ESCAPE '\' ORDER BY isbn COLLATE "C" LIMIT 100`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, line)
	}
	if all := strings.Join(plan, "\n"); strings.Contains(all, "Seq Scan") || !strings.Contains(all, "Index") {
		t.Fatal("the server still reads all books for a search: Seq Scan on books")
	}
}
