package outgrow

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// Each book is on one of three servers, by the hash of its ISBN. A fourth has no books, but knows where they are. Without
// -record, all but the one that dies are databases of one server; the fourth does not see the difference.
func TestBooksOnThreeServersAreFoundByTheSameSQL(t *testing.T) {
	long(t)
	t.Parallel()
	books, asked := 12_000, 10
	if *record {
		books, asked = 1_000_000, 200
	}
	one, front := pgtest.URL(t), pgtest.URL(t)
	known := 0
	pgtest.Query(t, one, "SELECT count(*) FROM pg_available_extensions WHERE name IN ('postgres_fdw', 'pg_trgm')", &known)
	if known < 2 {
		t.Skip("this PostgreSQL has no postgres_fdw or no pg_trgm")
	}
	fill := func(address, where string) {
		pgtest.Exec(t, address, fmt.Sprintf(`
			CREATE EXTENSION pg_trgm;
			CREATE TABLE books (isbn text COLLATE "C" PRIMARY KEY, author text, title text);
			CREATE TABLE layout (isbn text COLLATE "C") PARTITION BY HASH (isbn);
			INSERT INTO books SELECT isbn, author, title FROM (
				SELECT 'x' || i AS isbn, initcap(left(md5(i::text), 8)) AS author, 'Book ' || i AS title FROM generate_series(1, %d) AS i
				UNION ALL VALUES ('123', 'Kernighan', 'The Practice of Programming'), ('234', 'Kernighan', 'The C Programming Language'),
					('345', 'Sedgewick', 'Algorithms in C')) AS a WHERE %s;
			CREATE INDEX books_author ON books USING gin (author gin_trgm_ops);
			ANALYZE books`, books, where))
	}
	fill(one, "true")
	var shards []string
	var mortal *localpg.Server
	var schema strings.Builder
	for shard := range 3 {
		var address string
		if shard == 1 || *record {
			server := pgtest.Server(t, localpg.Options{})
			address = server.URL("postgres")
			if shard == 1 {
				mortal = server
			}
		} else {
			address = pgtest.URL(t)
		}
		shards = append(shards, address)
		fill(address, fmt.Sprintf("satisfies_hash_partition('layout'::regclass, 3, %d, isbn)", shard))
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal("the address does not parse")
		}
		password, _ := u.User.Password()
		fmt.Fprintf(&schema, `
			CREATE SERVER shard%[1]d FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '%[2]s', dbname '%[4]s', async_capable 'true');
			CREATE USER MAPPING FOR CURRENT_USER SERVER shard%[1]d OPTIONS (user 'postgres', password '%[3]s');
			CREATE FOREIGN TABLE books%[1]d PARTITION OF books FOR VALUES WITH (MODULUS 3, REMAINDER %[1]d) SERVER shard%[1]d OPTIONS (table_name 'books');
			CREATE FOREIGN TABLE plain%[1]d PARTITION OF plain FOR VALUES WITH (MODULUS 3, REMAINDER %[1]d) SERVER shard%[1]d OPTIONS (table_name 'books');`,
			shard, u.Port(), password, u.Path[1:])
	}
	// A generic plan would not send ESCAPE to the servers, but fetch every book.
	pgtest.Exec(t, front, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_custom_plan', current_database()); END $$`)
	pgtest.Exec(t, front, `CREATE EXTENSION postgres_fdw; CREATE EXTENSION pg_trgm;
		CREATE TABLE books (isbn text COLLATE "C", author text, title text) PARTITION BY HASH (isbn);
		CREATE TABLE plain (isbn text, author text, title text) PARTITION BY HASH (isbn);`+schema.String())
	total := 0
	for _, address := range shards {
		n := 0
		pgtest.Query(t, address, "SELECT count(*) FROM books", &n)
		if n < books/4 {
			t.Errorf("a server has %d books, want at least %d", n, books/4)
		}
		total += n
	}
	if total != books+3 {
		t.Errorf("the servers have %d books together, want %d", total, books+3)
	}

	const query = `SELECT isbn, author, title FROM %s WHERE author ILIKE 'ker%%' ESCAPE '\' ORDER BY isbn COLLATE "C" LIMIT 10`
	shown := plan(t, front, fmt.Sprintf(query, "books"))
	if strings.Count(shown, "Foreign Scan") != 3 || strings.Count(shown, "~~* 'ker%')) ORDER BY isbn") != 3 {
		t.Errorf("the servers do not each search and sort their own books:\n%s", shown)
	}
	atOnce := plan(t, front, fmt.Sprintf(query, "plain"))
	if strings.Count(atOnce, "Async Foreign Scan") != 3 {
		t.Errorf("the servers are not asked at the same time:\n%s", atOnce)
	}
	inside := plan(t, shards[0], fmt.Sprintf(query, "books"))
	if !strings.Contains(inside, "books_author") {
		t.Errorf("a server does not use its index:\n%s", inside)
	}

	report := fmt.Sprintf("%d books on three servers\n\n", books+3)
	for _, name := range slices.Sorted(maps.Keys(layers)) {
		for _, way := range [][2]string{{"one table", one}, {"three servers", front}} {
			where := way[0]
			s := open(t, name, way[1])
			calls(t.Context(), s, 10)
			r := load.Run(t.Context(), load.Options{Calls: asked, Workers: 1, Name: explain.Name}, func(ctx context.Context) error {
				found, err := s.ByAuthor(ctx, "ker", 10)
				if err == nil && (len(found) != 2 || found[0].ISBN != "123" || found[1].ISBN != "234") {
					err = fmt.Errorf("found %v", found)
				}
				return err
			})
			if r.Failed() > 0 {
				t.Errorf("%s, %s: %v", name, where, r.Err)
			}
			report += fmt.Sprintf("%s, %-14s p50 %s\n", name, where+":", load.Milliseconds(r.Percentile(50)))
		}
	}
	report += "\nThe plan, with the ISBN's collation as the query orders:\n" + shown + "\nThe plan, with another collation:\n" + atOnce
	t.Log(report)

	// If one of them is gone, no search has an answer.
	s := open(t, "database3", front)
	mortal.Halt(localpg.Immediate)
	if result := calls(t.Context(), s, 20); result.Failed() != 20 || explain.Name(result.Err) != "other server" {
		t.Errorf("without one server, %s of %d calls failed: %v", result.ErrorCounts(), result.Calls, result.Err)
	}
	if err := mortal.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if result := calls(t.Context(), s, 20); result.Failed() > 0 {
		t.Errorf("after it is back, %s of %d calls failed: %v", result.ErrorCounts(), result.Calls, result.Err)
	}
	writeRecord(t, "shards.txt", "-run TestBooksOnThreeServers", report)
}

// plan returns how the server at address would answer a query.
func plan(t *testing.T, address, query string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "EXPLAIN (VERBOSE, COSTS off) "+query)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n") + "\n"
}
