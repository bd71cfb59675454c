package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

func TestLoadFillsAnEmptyDatabaseAndAsksBeforeItReplacesOtherBooks(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{
		"PostgreSQL": pgtest.URL(t),
		"SQLite":     "sqlite:///" + filepath.ToSlash(filepath.Join(t.TempDir(), "penny.sqlite")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, step := range []struct {
				input string
				args  []string
				want  string
				books string
			}{
				{"", []string{"load"}, "has 3 books now", "has 3 books"},
				{"", []string{"load"}, "has 3 books now", "has 3 books"},
				{"", []string{"load", "-index"}, "has 3 books now, and an index", "has 3 books"},
				{"", []string{"load", "-books", "1500", "-index"}, "has 1503 books now, and an index", "has 1503 books"},
				{"", []string{"load"}, "", "has 1503 books"},
				{"n\n", []string{"load"}, "", "has 1503 books"},
				{"\n", []string{"load"}, "", "has 1503 books"},
				{"y\n", []string{"load"}, "has 3 books now", "has 3 books"},
				{"", []string{"load", "-books", "10"}, "has 13 books now", "has 13 books"},
				{"", []string{"load", "-yes"}, "penny.sql:\n  10 other books\nThe books table has 3 books now", "has 3 books"},
				{"", []string{"load", "-yes"}, "has 3 books now", "has 3 books"},
			} {
				out, errs, status := lab(t, address, step.input, step.args...)
				if refused := step.want == ""; refused != (status == 1) || !strings.Contains(out, step.want) {
					t.Fatalf("%v with input %q: got status %d, %q, %q; want %q", step.args, step.input, status, out, errs, step.want)
				} else if refused && (!strings.Contains(errs, "\n  1500 other books\n") || !strings.Contains(errs, "hint: add -yes")) {
					t.Errorf("got %q, want the question and the hint", errs)
				}
				if out, _, status := lab(t, address, "", "doctor"); status != 0 || !strings.Contains(out, step.books) {
					t.Fatalf("after %v the doctor says %q, want %q", step.args, out, step.books)
				}
			}
		})
	}
}

func TestLoadSaysHowATableDiffersBeforeItDropsIt(t *testing.T) {
	t.Parallel()
	server := pgtest.BooksURL(t)
	role := newRole(t, server)
	for _, c := range []struct{ sql, want string }{
		{`INSERT INTO books VALUES ('1', NULL, 'x')`, "1 other book"},
		{`UPDATE books SET title = NULL WHERE isbn = '123'`, "1 other book"},
		{`ALTER TABLE books ADD price numeric(8,2) DEFAULT 1`, "another column: price numeric(8,2) DEFAULT 1"},
		{`ALTER TABLE books DROP title`, "no column title text"},
		{`ALTER TABLE books ALTER isbn TYPE integer USING isbn::integer`, "column 1: isbn integer NOT NULL, not isbn text NOT NULL"},
		{`ALTER TABLE books ALTER author TYPE text COLLATE "C"`, `column 2: author text COLLATE "C", not author text`},
		{`ALTER TABLE books ADD n integer GENERATED ALWAYS AS IDENTITY`, "another column: n integer NOT NULL IDENTITY"},
		{`ALTER TABLE books ADD n serial`, "sequence books_n_seq"},
		{`ALTER TABLE books DROP CONSTRAINT books_pkey`, "no PRIMARY KEY (isbn)"},
		{`ALTER TABLE books ADD CONSTRAINT named CHECK (author <> '')`, "constraint named on table books"},
		{`CREATE INDEX books_title ON books (title)`, "index books_title"},
		{`CREATE INDEX books_author ON books (author)`, "index books_author"},
		{`GRANT SELECT, INSERT ON books TO ` + role, "the grant of INSERT, SELECT to " + role},
		{`GRANT SELECT ON books TO PUBLIC`, "the grant of SELECT to PUBLIC"},
		{`GRANT SELECT (title) ON books TO ` + role, "the grants on its column title"},
		{`ALTER TABLE books OWNER TO ` + role, "its owner is " + role},
		{`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
			CREATE TRIGGER once BEFORE INSERT ON books FOR EACH ROW EXECUTE FUNCTION f()`, "trigger once on table books"},
		{`CREATE RULE quiet AS ON DELETE TO books DO INSTEAD NOTHING`, "rule quiet on table books"},
		{`CREATE POLICY mine ON books USING (true)`, "policy mine on table books"},
		{`ALTER TABLE books ENABLE ROW LEVEL SECURITY`, "its relrowsecurity is true"},
		{`COMMENT ON TABLE books IS 'mine'`, "the comment on table books"},
		{`ALTER TABLE books FORCE ROW LEVEL SECURITY`, "its relforcerowsecurity is true"},
		{`COMMENT ON CONSTRAINT books_pkey ON books IS 'mine'`, "the comment on constraint books_pkey on table books"},
		{`COMMENT ON INDEX books_pkey IS 'mine'`, "the comment on index books_pkey"},
		{`COMMENT ON COLUMN books.title IS 'mine'`, "the comment on column title of table books"},
		{`ALTER TABLE books SET (fillfactor = 70)`, `its reloptions is ["fillfactor=70"]`},
		{`ALTER TABLE books SET UNLOGGED`, "its relpersistence is u"},
		{`CREATE TABLE parent (isbn text NOT NULL); ALTER TABLE books INHERIT parent`, "its parent parent"},
		{`CREATE TABLE child () INHERITS (books)`, "table child"},
		{`DROP TABLE books; CREATE TABLE books (isbn text PRIMARY KEY, author text, title text) PARTITION BY LIST (isbn)`, "its relkind is p"},
		{`CREATE VIEW shelf AS SELECT title FROM books; CREATE VIEW above AS SELECT * FROM shelf`, "view above"},
		{`CREATE MATERIALIZED VIEW shelf AS SELECT title FROM books`, "materialized view shelf"},
		{`CREATE TABLE loans (isbn text REFERENCES books)`, "constraint loans_isbn_fkey on table loans"},
		{`CREATE FUNCTION f(books) RETURNS text LANGUAGE sql AS 'SELECT 1::text'`, "function f(books)"},
		{`CREATE STATISTICS pair ON author, title FROM books`, "statistics object pair"},
		{`CREATE TABLE other (b books)`, "column b of table other"},
		{`CREATE PUBLICATION news FOR TABLE books`, "publication of table books in publication news"},
		{"COMMENT ON TABLE books IS 'x'; CREATE INDEX \"\x1b[2J\" ON books (title)", "the comment on table books"},
	} {
		t.Run(c.want, func(t *testing.T) {
			pgtest.Exec(t, server, c.sql)
			out, errs, status := lab(t, server, "", "load")
			if status != 1 || out != "" || !strings.Contains(errs, "\n  "+c.want) || strings.Contains(errs, "\x1b") {
				t.Errorf("got status %d and %q, want 1 and %q", status, errs, c.want)
			}
			out, errs, status = lab(t, server, "", "load", "-yes")
			if status != 0 || !strings.Contains(out, "\n  "+c.want) {
				t.Errorf("with -yes: got status %d, %q, %q; want 0 and %q", status, out, errs, c.want)
			}
			pgtest.Exec(t, server, `DROP TABLE IF EXISTS loans, parent, other; DROP FUNCTION IF EXISTS f()`)
		})
	}
	if out, errs, _ := lab(t, server, "", "load"); out != "The books table has 3 books now.\n" {
		t.Error("nothing differs, but load says: " + errs)
	}
}

func TestLoadReplacesOnlyTheFirstBooksTableOfTheSearchPath(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	pgtest.Exec(t, address, `CREATE SCHEMA first; CREATE SCHEMA "Second"; CREATE TABLE "Second".books AS SELECT * FROM books;
		CREATE SCHEMA extensions; CREATE EXTENSION pg_trgm SCHEMA extensions;
		ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; DELETE FROM public.books WHERE isbn = '123'`)
	path := address + "&search_path=first,%22Second%22,public"
	if out, errs, status := lab(t, path, "", "load", "-yes", "-index", "-books", "7"); status != 0 || !strings.Contains(out, "no PRIMARY KEY (isbn)") {
		t.Fatal(out, errs)
	}
	var inFirst *string
	var second, public int
	pgtest.Query(t, address, `SELECT to_regclass('first.books')::text, (SELECT count(*) FROM "Second".books), (SELECT count(*) FROM public.books)`,
		&inFirst, &second, &public)
	if inFirst != nil || second != 10 || public != 2 {
		t.Errorf("first has books: %v; Second has %d and public has %d; want false, 10 and 2", inFirst != nil, second, public)
	}
	if _, errs, _ := lab(t, path, "", "load"); !strings.Contains(errs, "penny.sql:\n  7 other books\nlab load:") { // and neither the default grant nor the index
		t.Errorf("got %s, want only the 7 other books", errs)
	}
}

func TestLoadSaysHowASQLiteTableDiffersAndChangesNothingElse(t *testing.T) {
	t.Parallel()
	const keep = `CREATE TABLE loans (isbn TEXT REFERENCES books ON DELETE CASCADE); INSERT INTO loans VALUES ('123');
		CREATE VIEW shelf AS SELECT title FROM books;`
	for _, c := range []struct{ sql, want string }{
		{`INSERT INTO books VALUES (NULL, NULL, 'x')`, "1 other book"},
		{`ALTER TABLE books ADD price INTEGER`, "its definition: CREATE TABLE books (isbn TEXT PRIMARY KEY, author TEXT, title TEXT, price INTEGER)"},
		{`DROP TABLE books; CREATE TABLE Books (isbn)`, "its definition: CREATE TABLE Books (isbn)"},
		{`CREATE INDEX mine ON books (title)`, "index mine"},
		{`CREATE INDEX books_author ON books (author)`, "index books_author"},
		{`CREATE TRIGGER once AFTER INSERT ON books BEGIN SELECT 1; END`, "trigger once"},
		{`DROP TABLE books; CREATE TABLE "BOOKS" ( "isbn"  text PRIMARY KEY, author text, title TEXT)`, ""},
		{`SELECT 1`, ""},
	} {
		t.Run(cmp.Or(c.want, "nothing"), func(t *testing.T) {
			db, address := sqliteFile(t)
			if _, err := db.Exec(penny.SQL + keep + c.sql); err != nil {
				t.Fatal(err)
			}
			out, errs, status := lab(t, address, "", "load")
			if c.want == "" && status != 0 || c.want != "" && (status != 1 || out != "" || !strings.Contains(errs, "\n  "+c.want+"\n")) {
				t.Errorf("got status %d, %q, %q; want %q", status, out, errs, c.want)
			}
			if out, errs, status = lab(t, address, "", "load", "-yes"); status != 0 || !strings.Contains(out, c.want) {
				t.Errorf("with -yes: got status %d, %q, %q; want 0 and %q", status, out, errs, c.want)
			}
			var loans, shelf int
			if err := db.QueryRow(`SELECT (SELECT count(*) FROM loans), (SELECT count(*) FROM shelf)`).Scan(&loans, &shelf); err != nil || loans != 1 || shelf != 3 {
				t.Errorf("%d loans and %d titles are left, want 1 and 3 (%v)", loans, shelf, err)
			}
		})
	}
}

func TestLoadDoesNotChangeASQLiteFileThatItCannotLoad(t *testing.T) {
	t.Parallel()
	db, address := sqliteFile(t)
	if _, err := db.Exec(`CREATE VIEW books AS SELECT 1`); err != nil {
		t.Fatal(err)
	}
	thesis := filepath.Join(t.TempDir(), "thesis.txt")
	if err := os.WriteFile(thesis, bytes.Repeat([]byte("My thesis. "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for address, says := range map[string]string{
		address:                                 "books is a view, not a table",
		"sqlite:///" + filepath.ToSlash(thesis): "is not a SQLite database",
	} {
		if _, errs, status := lab(t, address, "", "load", "-yes"); status != 1 || !strings.Contains(errs, says) || !strings.Contains(errs, "hint: ") {
			t.Errorf("got status %d and %q, want 1 and %q", status, errs, says)
		}
	}
	if text, err := os.ReadFile(thesis); err != nil || len(text) != 11000 {
		t.Errorf("%d bytes are left of the thesis, want 11000 (%v)", len(text), err)
	}
}

// sqliteFile returns an empty SQLite database and its address.
func sqliteFile(t *testing.T) (*sql.DB, string) {
	t.Helper()
	file := filepath.ToSlash(filepath.Join(t.TempDir(), "penny.sqlite"))
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, "sqlite:///" + file
}

func TestCtrlCAtTheQuestionEndsLoadAndChangesNothing(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	pgtest.Exec(t, address, `INSERT INTO books VALUES ('1', 'a', 'b')`)
	ctx, interrupt := context.WithCancel(t.Context())
	env := at(address, readerFunc(func([]byte) (int, error) {
		interrupt()
		select {} // the user types nothing
	}), io.Discard, io.Discard)
	env.terminal = true
	if status := run(ctx, env, []string{"load"}); status != 1 {
		t.Errorf("got status %d, want 1", status)
	}
	var left int
	pgtest.Query(t, address, `SELECT count(*) FROM books`, &left)
	if left != 4 {
		t.Errorf("%d books are left, want 4", left)
	}
}

// The user agrees to lose what was shown, and no more.
func TestLoadAsksAgainIfTheTableHasChangedMeanwhile(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	pgtest.Exec(t, address, `INSERT INTO books VALUES ('1', 'a', 'b')`)
	asked := 0
	var errs bytes.Buffer
	yes := readerFunc(func(p []byte) (int, error) {
		if asked++; asked == 1 {
			pgtest.Exec(t, address, `CREATE INDEX mine ON books (title)`)
		}
		return copy(p, "y\n"), nil
	})
	env := at(address, yes, io.Discard, &errs)
	env.terminal = true
	if status := run(t.Context(), env, []string{"load"}); status != 0 || asked != 2 || !strings.Contains(errs.String(), "index mine") {
		t.Errorf("got status %d after %d questions, want 0 after 2: %s", status, asked, errs.String())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// newRole makes a role whose password is hunter2, and drops it with all that it owns at address when the test ends.
func newRole(t *testing.T, address string) string {
	t.Helper()
	name := "penny_" + strings.ToLower(rand.Text())
	pgtest.Exec(t, address, "CREATE ROLE "+name+" LOGIN PASSWORD 'hunter2'")
	t.Cleanup(func() { pgtest.Exec(t, address, "DROP OWNED BY "+name+" CASCADE; DROP ROLE "+name) })
	return name
}

func TestLoadSaysThatAStandbyCannotBeWrittenTo(t *testing.T) {
	t.Parallel()
	primary := pgtest.Server(t, localpg.Options{})
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	if _, errs, status := lab(t, standby.URL("postgres"), "", "load"); status != 1 || !strings.Contains(errs, "the server is a standby") || !strings.Contains(errs, "hint: ") {
		t.Errorf("got status %d and %s, want 1, the reason and a hint", status, errs)
	}
}

func TestManyLoadsAtOnceAllSucceed(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{"no table": pgtest.URL(t), "a table": pgtest.BooksURL(t)} {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, errs, status := lab(t, address, "", "load", "-yes"); status != 0 {
					t.Errorf("%s: %s", name, errs)
				}
			})
		}
		all.Wait()
	}
}

func TestLoadSaysWhoHoldsTheTable(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	unlock := pgtest.Lock(t, address+"&application_name=notebook", "books")
	_, errs, status := lab(t, address, "", "load")
	says := regexp.MustCompile(`(?s)is in use by process \d+ of the user \w+, application notebook, in a transaction for 00:\d\d:\d\d\nhint: .* (SELECT pg_terminate_backend\(\d+\);)\n`).FindStringSubmatch(errs)
	if status != 1 || says == nil {
		t.Fatalf("got status %d and %s, want 1, the process and how to end it", status, errs)
	}
	pgtest.Exec(t, address, says[1]) // the hint works
	defer unlock()
	pgtest.Eventually(t, time.Minute, "the lock is free", func() bool {
		_, errs, status = lab(t, address, "", "load")
		return status == 0
	})
}

func TestLoadExplainsWhyItCannotLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sql, settings string
		says                string
		fix                 func(hint string) string // the SQL that the hint names
		setting             string                   // the setting that the hint names
	}{
		{name: "no right to create tables", sql: `REVOKE CREATE ON SCHEMA public FROM PUBLIC`, says: "user %s may not create tables in the schema public",
			fix: func(hint string) string { return hint[strings.Index(hint, "GRANT"):] }},
		{name: "another user's table", sql: `CREATE TABLE books (x int)`, says: "the user %s may not replace it"},
		{name: "read-only", settings: "&default_transaction_read_only=on", says: "the database is read-only", setting: "&default_transaction_read_only=off"},
		{name: "no schema", settings: "&search_path=nowhere", says: `may use no schema of the search_path nowhere`, setting: "&search_path=public"},
		{name: "a view", sql: `CREATE VIEW books AS SELECT 1`, says: "there is a view books, which is not a table",
			fix: func(string) string { return `ALTER VIEW books RENAME TO another` }},
		{name: "a foreign table", sql: `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE books (x int) SERVER s`,
			says: "there is a foreign table books", fix: func(string) string { return `ALTER FOREIGN TABLE books RENAME TO another` }},
		{name: "a type", sql: `CREATE TYPE books AS (x int)`, says: "there is a composite type books",
			fix: func(string) string { return `ALTER TYPE books RENAME TO another` }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			admin := pgtest.URL(t)
			role := newRole(t, admin)
			pgtest.Exec(t, admin, `GRANT CREATE ON SCHEMA public TO PUBLIC; `+c.sql)
			u, err := url.Parse(admin)
			if err != nil {
				t.Fatal("the address does not parse")
			}
			u.User = url.UserPassword(role, "hunter2")
			_, errs, status := lab(t, u.String()+c.settings, "", "load", "-yes")
			says := c.says
			if strings.Contains(says, "%s") {
				says = fmt.Sprintf(says, role)
			}
			_, hint, hinted := strings.Cut(errs, "\nhint: ")
			if status != 1 || !strings.Contains(errs, says) || !hinted {
				t.Fatalf("got status %d and %s, want 1, %q and a hint", status, errs, says)
			}
			switch {
			case c.fix != nil:
				pgtest.Exec(t, admin, c.fix(hint))
			case c.setting != "":
				if !strings.Contains(hint, c.setting[1:]) {
					t.Errorf("the hint %s lacks %s", hint, c.setting[1:])
				}
			default:
				return
			}
			if _, errs, status := lab(t, u.String()+c.setting, "", "load"); status != 0 {
				t.Errorf("after the hint: %s", errs)
			}
		})
	}
}
