package explained

import (
	"regexp"
	"strings"
	"testing"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	answers := given.Answers(t, "exercises/18-explain/plans.txt")
	db := given.Open(t, given.Books(t, ""))
	_, err := db.Exec(`INSERT INTO books SELECT 'x' || n, md5(n::text), 'Book ' || n FROM generate_series(1, 100000) n;
		CREATE EXTENSION pg_trgm; CREATE INDEX books_author ON books USING gin (author gin_trgm_ops);
		SET max_parallel_workers_per_gather = 0; ANALYZE books`)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct{ name, where string }{
		{"by isbn", "WHERE isbn = 'x77'"}, {"by prefix", "WHERE author ILIKE 'kern%'"}, {"by title", "WHERE title = 'Book 5'"}, {"everything", ""},
	} {
		rows, err := db.Query("EXPLAIN SELECT * FROM books " + q.where)
		if err != nil {
			t.Fatal(err)
		}
		plan := ""
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan += line + "\n"
		}
		rows.Close()
		scan := regexp.MustCompile(`(?i)(Seq|Index|Index Only|Bitmap Heap) Scan`)
		if got := scan.FindString(answers[q.name]); got == "" || !strings.EqualFold(got, scan.FindString(plan)) {
			t.Fatalf("%s: the plan is not %q", q.name, answers[q.name])
		}
	}
}
