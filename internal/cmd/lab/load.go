package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/schollz/progressbar/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	"example.com/penny/internal/dburl"
)

const loadAbout = `Loads penny.sql into the database at DATABASE_URL, PostgreSQL or SQLite, with no psql needed. A SQLite file is made
when it is missing. A books table that holds anything but the three books is replaced only when you agree.`

// theThree is how many books penny.sql has.
const theThree = 3

func runLoad(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "load", loadAbout)
	books := f.Int("books", 0, "add `N` made-up books by as many authors")
	index := f.Bool("index", false, "add the index that keeps the search for an author fast")
	yes := f.Bool("yes", false, "replace a books table that has other books in it without asking")
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
	var shop shop = &postgresShop{}
	if dburl.IsSQLite(address) {
		shop = &sqliteShop{}
	}
	if err := shop.open(ctx, address); err != nil {
		return err
	}
	defer shop.close()
	count, others, err := shop.stock(ctx)
	if err != nil {
		return err
	}
	if others && !*yes {
		if err := agree(env, count); err != nil {
			return err
		}
	}
	bar := progress(env, int64(*books), "books")
	if err := shop.fill(ctx, *books, *index, bar); err != nil {
		return err
	}
	_ = bar.Finish()
	fmt.Fprintf(env.stdout, "The books table has %d books now", theThree+*books)
	if *index {
		fmt.Fprint(env.stdout, ", and an index on their authors")
	}
	fmt.Fprintln(env.stdout, ".")
	return nil
}

// agree asks the user whether to throw the books away.
func agree(env *environment, count int) error {
	refused := &hinted{errors.New("the books table was left as it is"), "go tool lab load -yes replaces it without asking"}
	if !env.terminal {
		return refused
	}
	fmt.Fprintf(env.stderr, "The books table has %d books in it that are not the three of penny.sql. Replace it? [y/N] ", count)
	answer, err := bufio.NewReader(env.stdin).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") && !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return refused
	}
	return nil
}

// A shop is a database to be filled.
type shop interface {
	open(ctx context.Context, address string) error
	// stock counts the books, and tells whether they are others than those of penny.sql.
	stock(ctx context.Context) (count int, others bool, err error)
	// fill replaces the table in one transaction: it has all of the new books, or still the old ones.
	fill(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar) error
	close()
}

// stockQuery counts the books, and those that are penny.sql's. SQLite compares rows with VALUES, not with a bare list.
const stockQuery = `SELECT count(*), count(CASE WHEN (isbn, author, title) IN (VALUES
	('123', 'Kernighan', 'The Practice of Programming'), ('234', 'Kernighan', 'The C Programming Language'),
	('345', 'Sedgewick', 'Algorithms in C')) THEN 1 END) FROM books`

// madeUp is the i-th made-up book. No author begins with ker or with sed, so the programs still print what they did.
func madeUp(i int) (isbn, author, title string) {
	return fmt.Sprintf("9%012d", i), fmt.Sprintf("Author %07d", i), fmt.Sprintf("The Collected Works, volume %d", i)
}

type postgresShop struct{ conn *pgx.Conn }

func (s *postgresShop) open(ctx context.Context, address string) (err error) {
	dsn, err := dburl.PGX(address)
	if err != nil {
		return err
	}
	if s.conn, err = pgx.Connect(ctx, dsn); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (s *postgresShop) close() { s.conn.Close(context.Background()) }

func (s *postgresShop) stock(ctx context.Context) (int, bool, error) {
	var table *string
	if err := s.conn.QueryRow(ctx, `SELECT to_regclass('books')::text`).Scan(&table); err != nil {
		return 0, false, fmt.Errorf("look for the books table: %w", err)
	}
	if table == nil {
		return 0, false, nil
	}
	var count, known int
	if err := s.conn.QueryRow(ctx, stockQuery).Scan(&count, &known); err != nil {
		return 0, false, fmt.Errorf("count the books: %w", err)
	}
	return count, count != known, nil
}

func (s *postgresShop) fill(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(ctx, penny.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	i := 0
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"books"}, []string{"isbn", "author", "title"}, pgx.CopyFromFunc(func() ([]any, error) {
		if i == books {
			return nil, nil
		}
		i++
		if i%1000 == 0 {
			_ = bar.Set(i)
		}
		isbn, author, title := madeUp(i)
		return []any{isbn, author, title}, nil
	})); err != nil {
		return fmt.Errorf("copy the made-up books: %w", err)
	}
	if index {
		for _, statement := range []string{
			`CREATE EXTENSION IF NOT EXISTS pg_trgm`,
			`CREATE INDEX books_author ON books USING gin (author gin_trgm_ops)`,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("make the index: %w", err)
			}
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if books > 0 || index {
		if _, err := s.conn.Exec(ctx, `VACUUM ANALYZE books`); err != nil {
			return fmt.Errorf("count what is in the table for the planner: %w", err)
		}
	}
	return nil
}

type sqliteShop struct{ db *sql.DB }

func (s *sqliteShop) open(ctx context.Context, address string) error {
	file, err := dburl.File(address)
	if err != nil {
		return err
	}
	if err := database1.Create(file); err != nil {
		return err
	}
	dsn, err := dburl.SQLite(address)
	if err != nil {
		return err
	}
	if s.db, err = sql.Open("sqlite", dsn); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(1)
	return nil
}

func (s *sqliteShop) close() { s.db.Close() }

func (s *sqliteShop) stock(ctx context.Context) (count int, others bool, err error) {
	var tables, known int
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = 'books'`).Scan(&tables); err != nil {
		return 0, false, fmt.Errorf("look for the books table: %w", err)
	}
	if tables == 0 {
		return 0, false, nil
	}
	if err := s.db.QueryRowContext(ctx, stockQuery).Scan(&count, &known); err != nil {
		return 0, false, fmt.Errorf("count the books: %w", err)
	}
	return count, count != known, nil
}

func (s *sqliteShop) fill(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, penny.SQL); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO books (isbn, author, title) VALUES (?, ?, ?)`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer insert.Close()
	for i := 1; i <= books; i++ {
		isbn, author, title := madeUp(i)
		if _, err := insert.ExecContext(ctx, isbn, author, title); err != nil {
			return fmt.Errorf("insert a made-up book: %w", err)
		}
		if i%1000 == 0 {
			_ = bar.Set(i)
		}
	}
	if index {
		if _, err := tx.ExecContext(ctx, `CREATE INDEX books_author ON books (author COLLATE NOCASE)`); err != nil {
			return fmt.Errorf("make the index: %w", err)
		}
	}
	return tx.Commit()
}
