package doctest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

// The chapter's own commands move the books from one server to another.
func TestTheBooksMoveBetweenTwoServersAsThePageSays(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"sh", "pg_dump", "psql"} {
		if _, err := exec.LookPath(program); err != nil {
			skip.Test(t, err)
		}
	}
	commands := ""
	for _, b := range blocks(read(t, root+"/docs/05-using-the-database.md")) {
		if b.info == "sh" && strings.Contains(b.text, "pg_dump") {
			commands = b.text
		}
	}
	from, to := pgtest.BooksURL(t), pgtest.Server(t, localpg.Options{}).URL("postgres")
	pgtest.Exec(t, from, `INSERT INTO books VALUES ('456', 'Özil', 'A title with '' in it')`)
	pgtest.Exec(t, to, `CREATE TABLE books (isbn text); INSERT INTO books VALUES ('old')`)
	commands = strings.NewReplacer("the old address", from, "the new address", to).Replace(commands)
	shell := exec.Command("sh", "-e", "-c", commands)
	shell.Env = append(os.Environ(), "PSQLRC=/dev/null")
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const all = `SELECT string_agg(isbn || author || title, ';' ORDER BY isbn) FROM books`
	var before, after string
	pgtest.Query(t, from, all, &before)
	pgtest.Query(t, to, all, &after)
	if before != after || !strings.Contains(after, "Özil") {
		t.Errorf("the new database has %q, the old one %q", after, before)
	}
	var keys int
	pgtest.Query(t, to, `SELECT count(*) FROM pg_index WHERE indrelid = 'books'::regclass AND indisprimary`, &keys)
	if keys != 1 {
		t.Error("the new table has no primary key")
	}
}
