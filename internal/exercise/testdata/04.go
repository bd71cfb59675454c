package order

import (
	"strings"
	"testing"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	query := given.Text(t, "exercises/04-order/books.sql")
	const want = "0-2 012 A1 B1 a1 b1"
	for server, options := range map[string]string{
		"by bytes":        "LC_COLLATE 'C' LC_CTYPE 'C'",
		"as a dictionary": "LOCALE_PROVIDER icu ICU_LOCALE 'en' LC_CTYPE 'C' LC_COLLATE 'C'",
	} {
		db := given.Open(t, given.Books(t, options))
		_, err := db.Exec(`DELETE FROM books; INSERT INTO books (isbn) VALUES ('b1'), ('B1'), ('a1'), ('A1'), ('012'), ('0-2')`)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := db.Query(query)
		if err != nil {
			t.Fatalf("the query does not run: %v", err)
		}
		var got []string
		for rows.Next() {
			var isbn string
			if err := rows.Scan(&isbn); err != nil {
				t.Fatalf("the query must return one column, the ISBN: %v", err)
			}
			got = append(got, isbn)
		}
		rows.Close()
		if strings.Join(got, " ") != want {
			t.Fatalf("on a server that orders %s, the query returns %s; want %s", server, strings.Join(got, " "), want)
		}
	}
}
