package main

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/schollz/progressbar/v3"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

const loadAbout = `Loads penny.sql into the database at DATABASE_URL, PostgreSQL or SQLite, without psql. It makes a SQLite file if it is
missing. If the books table differs from that of penny.sql, it lists the differences and asks before it drops the table.`

func runLoad(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "load", loadAbout)
	books := f.Int("books", 0, "add `N` made-up books by as many authors")
	index := f.Bool("index", false, "add the index that keeps the search for an author fast")
	yes := f.Bool("yes", false, "replace the books table without asking, and print what was dropped")
	if err := parse(f, args); err != nil {
		return err
	}
	if *books < 0 {
		return wrong(f, "-books must not be negative")
	}
	address, _, err := env.lookup()
	if err != nil {
		return err
	}
	return load(ctx, env, address, *books, *index, *yes)
}

// A shop is what differs between PostgreSQL and SQLite.
type shop struct {
	open func(address string) (*sql.DB, error)
	// clear makes way for penny.sql's table. First it calls agreed with what penny.sql does not bring back, a line each; if that
	// returns false, clear returns errNotAgreed.
	clear  func(ctx context.Context, db *sql.DB, tx *sql.Tx, agreed func(lost []string) bool) error
	insert string // inserts the made-up books ?1 to ?2; no author begins with ker or sed, which the programs ask for
	index  string
	after  string // runs after the commit; empty: nothing
}

// load fills the database at address. Unless yes is true, it asks before it drops what penny.sql does not bring back.
func load(ctx context.Context, env *environment, address string, books int, index, yes bool) error {
	s := postgresShop
	if dburl.IsSQLite(address) {
		s = sqliteShop
	}
	db, err := s.open(address)
	if err != nil {
		return err
	}
	defer db.Close()
	watched, hang := context.WithCancelCause(ctx)
	defer hang(nil)
	if !dburl.IsSQLite(address) { // a transaction locks a SQLite file, also for watch
		go watch(watched, hang, db)
	}
	bar := progress(env, int64(books), "books")
	var dropped, agreed []string
	for {
		err := fill(watched, db, s, books, index, bar, func(lost []string) bool {
			dropped = lost
			return len(lost) == 0 || yes || slices.Equal(lost, agreed)
		})
		if err == nil {
			break
		}
		if !errors.Is(err, errNotAgreed) {
			if ctx.Err() == nil && watched.Err() != nil {
				return context.Cause(watched)
			}
			return err
		}
		// The table is not locked while the user thinks: fill looks again, and asks again if something has changed.
		if err := agree(ctx, env, dropped); err != nil {
			return err
		}
		agreed = dropped
	}
	_ = bar.Finish()
	if yes && len(dropped) > 0 {
		fmt.Fprintf(env.stdout, "Dropped the old books table, which differed from that of penny.sql:\n%s", itemize(dropped))
	}
	fmt.Fprintf(env.stdout, "The books table has %d books now", 3+books)
	if index {
		fmt.Fprint(env.stdout, ", and an index on their authors")
	}
	fmt.Fprintln(env.stdout, ".")
	return nil
}

// watchEvery is how often watch connects, and how long that may take.
const watchEvery = 3 * time.Second

// watch calls hang if the server hangs. On one connection, a long statement and a hung server look alike, so watch uses another
// one from time to time.
func watch(ctx context.Context, hang context.CancelCauseFunc, db *sql.DB) {
	for {
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return
		}
		brief, done := context.WithTimeout(ctx, watchEvery)
		err := db.PingContext(brief)
		if _, answered := errors.AsType[*pgconn.PgError](err); err != nil && !answered {
			hang(fmt.Errorf("load penny.sql: %w", cmp.Or(brief.Err(), err)))
		}
		done()
	}
}

// batch is how many made-up books are inserted between two steps of the progress bar.
const batch = 10000

// fill replaces the books table in one transaction.
func fill(ctx context.Context, db *sql.DB, s shop, books int, index bool, bar *progressbar.ProgressBar, agreed func([]string) bool) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer tx.Rollback()
	if err := s.clear(ctx, db, tx, agreed); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, penny.SQL); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	for i := 0; i < books; i += batch {
		last := min(i+batch, books)
		if _, err := tx.ExecContext(ctx, s.insert, i+1, last); err != nil {
			return fmt.Errorf("insert the made-up books: %w", err)
		}
		_ = bar.Set(last)
	}
	if index {
		if _, err := tx.ExecContext(ctx, s.index); err != nil {
			return &hinted{fmt.Errorf("make the index: %w", err),
				"load without -index; PostgreSQL's index needs the extension pg_trgm: as an administrator, CREATE EXTENSION pg_trgm;"}
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if s.after != "" && (books > 0 || index) {
		if _, err := db.ExecContext(ctx, s.after); err != nil {
			return fmt.Errorf("the books are loaded, but %s failed: %w", s.after, err)
		}
	}
	return nil
}

// errNotAgreed is the error of fill if the user has not agreed to lose what the table has.
var errNotAgreed = errors.New("the books table was left as it is")

// agree asks the user whether lost may be dropped.
func agree(ctx context.Context, env *environment, lost []string) error {
	fmt.Fprintf(env.stderr, "The books table differs from that of penny.sql:\n%s", itemize(lost))
	if env.terminal {
		fmt.Fprint(env.stderr, "Replace it? [y/N] ")
		typed := make(chan string, 1)
		go func() {
			answer, _ := bufio.NewReader(env.stdin).ReadString('\n')
			typed <- strings.ToLower(strings.TrimSpace(answer))
		}()
		select {
		case answer := <-typed:
			if answer == "y" || answer == "yes" {
				return nil
			}
		case <-ctx.Done(): // Ctrl-C
			fmt.Fprintln(env.stderr)
		}
	}
	return &hinted{errNotAgreed, "add -yes to replace it without asking"}
}

// itemize returns a line for each item, without the characters that control a terminal: names come from the database.
func itemize(items []string) string {
	var lines strings.Builder
	for _, item := range items {
		item = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, item)
		fmt.Fprintf(&lines, "  %s\n", item)
	}
	return lines.String()
}

// otherBooks returns a line that says how many books would be lost, or nothing if there are none. If the table is not like
// penny.sql's, it counts all rows, because a column may be missing. SQLite compares rows with VALUES, not with a bare list.
func otherBooks(ctx context.Context, tx *sql.Tx, alike bool) ([]string, error) {
	count, rows := `SELECT count(*) FROM books`, "rows"
	if alike {
		count, rows = count+` WHERE ((isbn, author, title) IN (VALUES ('123', 'Kernighan', 'The Practice of Programming'),
			('234', 'Kernighan', 'The C Programming Language'), ('345', 'Sedgewick', 'Algorithms in C'))) IS NOT TRUE`, "other books"
	}
	var n int
	if err := tx.QueryRowContext(ctx, count).Scan(&n); err != nil {
		return nil, fmt.Errorf("count the books: %w", err)
	}
	switch n {
	case 0:
		return nil, nil
	case 1:
		return []string{"1 " + strings.TrimSuffix(rows, "s")}, nil
	}
	return []string{fmt.Sprintf("%d %s", n, rows)}, nil
}
