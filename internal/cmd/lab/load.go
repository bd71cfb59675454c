package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/schollz/progressbar/v3"

	"example.com/penny/internal/dburl"
)

const loadAbout = `Loads penny.sql into the database at DATABASE_URL, PostgreSQL or SQLite, without psql. It makes a SQLite file if it is
missing. If a books table differs in anything from that of penny.sql, it says in what, and asks before it drops the table.`

// theThree is how many books penny.sql has.
const theThree = 3

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
	address, err := dburl.Get(dburl.Clean)
	if err != nil {
		return err
	}
	return fillAt(ctx, env, address, *books, *index, *yes)
}

// fillAt fills the database at address. Unless yes is true, it asks before it drops what penny.sql does not bring back.
func fillAt(ctx context.Context, env *environment, address string, books int, index, yes bool) error {
	var shop shop = &postgresShop{}
	if dburl.IsSQLite(address) {
		shop = &sqliteShop{}
	}
	if err := shop.open(ctx, address); err != nil {
		return err
	}
	defer shop.close()
	bar := progress(env, int64(books), "books")
	var dropped, agreed []string
	for {
		err := shop.fill(ctx, books, index, bar, func(lost []string) bool {
			dropped = lost
			return len(lost) == 0 || yes || slices.Equal(lost, agreed)
		})
		if !errors.Is(err, errNotAgreed) {
			if err != nil {
				return err
			}
			break
		}
		// The table is not locked while the user thinks: fill looks again, and asks again if something has changed.
		if err := agree(env, dropped); err != nil {
			return err
		}
		agreed = dropped
	}
	_ = bar.Finish()
	if yes && len(dropped) > 0 {
		fmt.Fprintf(env.stdout, "Dropped the old books table, which differed from that of penny.sql:\n%s", itemize(dropped))
	}
	fmt.Fprintf(env.stdout, "The books table has %d books now", theThree+books)
	if index {
		fmt.Fprint(env.stdout, ", and an index on their authors")
	}
	fmt.Fprintln(env.stdout, ".")
	return nil
}

// errNotAgreed is fill's error if the user has not agreed to lose what the table has.
var errNotAgreed = errors.New("the books table was left as it is")

// agree asks the user whether lost may be dropped.
func agree(env *environment, lost []string) error {
	fmt.Fprintf(env.stderr, "The books table differs from that of penny.sql:\n%s", itemize(lost))
	if env.terminal {
		fmt.Fprint(env.stderr, "Replace it? [y/N] ")
		answer, err := bufio.NewReader(env.stdin).ReadString('\n')
		if answer = strings.ToLower(strings.TrimSpace(answer)); err == nil && (answer == "y" || answer == "yes") {
			return nil
		}
	}
	return &hinted{errNotAgreed, "go tool lab load -yes replaces it without asking"}
}

// itemize returns a line for each item. Names come from the database: what could confuse a terminal is left out of them.
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

// A shop is a database to be filled.
type shop interface {
	open(ctx context.Context, address string) error
	// fill replaces the books table in one transaction. It asks agreed whether the table may lose what penny.sql does not
	// bring back, a line each, and leaves the table as it is and returns errNotAgreed if it may not.
	fill(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar, agreed func(lost []string) bool) error
	close()
}

// countOthers counts the books that are not penny.sql's, and countAll all of them, up to a million and one. SQLite compares
// rows with VALUES, not with a bare list.
const (
	countOthers = `SELECT count(*) FROM (SELECT 1 FROM books WHERE ((isbn, author, title) IN (VALUES
		('123', 'Kernighan', 'The Practice of Programming'), ('234', 'Kernighan', 'The C Programming Language'),
		('345', 'Sedgewick', 'Algorithms in C'))) IS NOT TRUE LIMIT 1000001) AS others`
	countAll = `SELECT count(*) FROM (SELECT 1 FROM books LIMIT 1000001) AS books`
)

// otherBooks says how many books would be lost, or nothing if there are none.
func otherBooks(others int) []string {
	switch others {
	case 0:
		return nil
	case 1:
		return []string{"1 other book"}
	case 1000001:
		return []string{"more than 1000000 other books"}
	}
	return []string{fmt.Sprintf("%d other books", others)}
}

// madeUp returns the i-th made-up book. No author begins with ker or sed, so the programs still print what they did.
func madeUp(i int) (isbn, author, title string) {
	return fmt.Sprintf("9%012d", i), fmt.Sprintf("Author %07d", i), fmt.Sprintf("The Collected Works, volume %d", i)
}
