// Package race runs Penny's stages side by side: it measures how long their calls take, and counts and records what they send
// over the wire.
package race

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	database2 "example.com/penny/database2/books"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
)

// A Contender finds the books with one driver, and with a pool or without.
type Contender struct {
	Name, About string
	Pooled      bool // it uses its connections again
	Local       bool // it reads a SQLite file on this computer, and asks no server

	form  func(address string) (string, error) // puts an address in the form that the driver takes
	store func(url string, size int) (penny.Store, error)
}

// NoPool and Pool are the two contenders that the lecture compares.
const NoPool, Pool = "database2", "database3"

// Contenders are the four stages and three controls, each a stage with one thing changed.
var Contenders = []Contender{
	{"database1", "SQLite, database/sql's pool", true, true, dburl.SQLite, func(url string, _ int) (penny.Store, error) { return database1.Open(url) }},
	{NoPool, "lib/pq, a connection for every call", false, false, dburl.PQ, func(url string, _ int) (penny.Store, error) { return database2.Open(url) }},
	{"pgx-per-call", "pgx, a connection for every call", false, false, dburl.PGX, openPgxPerCall},
	{Pool, "pgx, Penny's pool", true, false, dburl.PGX, func(url string, size int) (penny.Store, error) { return database3.Open(url, size) }},
	{"pgxpool", "pgx, its own pool", true, false, dburl.PGX, openPgxpool},
	{"sql.DB", "lib/pq, database/sql's pool", true, false, dburl.PQ, openSQL},
	{"database4", "GORM over pgx, database/sql's pool", true, false, dburl.GORM, func(url string, size int) (penny.Store, error) { return database4.Open(url, size) }},
}

// byAuthor is the stages' question.
const byAuthor = `SELECT COALESCE(isbn, ''), author, COALESCE(title, '') FROM books
	WHERE author ILIKE $1 ESCAPE '\' ORDER BY isbn COLLATE "C" LIMIT $2`

// A control is a contender that is not a stage.
type control struct {
	byAuthor func(ctx context.Context, pattern string, limit int) ([]penny.Book, error)
	close    func() error
}

func (c control) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	return c.byAuthor(ctx, penny.Prefix(prefix), limit)
}

func (c control) Close() error { return c.close() }

// openPgxPerCall is database2 with another driver.
func openPgxPerCall(url string, _ int) (penny.Store, error) {
	return control{func(ctx context.Context, pattern string, limit int) ([]penny.Book, error) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, err
		}
		defer conn.Close(ctx)
		rows, _ := conn.Query(ctx, byAuthor, pattern, limit) // CollectRows returns its error
		return pgx.CollectRows(rows, pgx.RowToStructByPos[penny.Book])
	}, func() error { return nil }}, nil
}

// openPgxpool is database3 with another pool.
func openPgxpool(url string, size int) (penny.Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(size)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	return control{func(ctx context.Context, pattern string, limit int) ([]penny.Book, error) {
		rows, _ := pool.Query(ctx, byAuthor, pattern, limit)
		return pgx.CollectRows(rows, pgx.RowToStructByPos[penny.Book])
	}, func() error { pool.Close(); return nil }}, nil
}

// openSQL is database2 with the pool of database/sql.
func openSQL(url string, size int) (penny.Store, error) {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return control{func(ctx context.Context, pattern string, limit int) (books []penny.Book, err error) {
		rows, err := db.QueryContext(ctx, byAuthor, pattern, limit)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var b penny.Book
			if err := rows.Scan(&b.ISBN, &b.Author, &b.Title); err != nil {
				return nil, err
			}
			books = append(books, b)
		}
		return books, rows.Err()
	}, db.Close}, nil
}

// Names returns the contenders' names with commas between them.
func Names() string {
	var all []string
	for _, c := range Contenders {
		all = append(all, c.Name)
	}
	return strings.Join(all, ",")
}

// Choose returns the contenders with the names in only, which has commas between them, in the order of Contenders. It
// returns all of them if only is empty.
func Choose(only string) ([]Contender, error) {
	if only == "" {
		return Contenders, nil
	}
	wanted := strings.Split(strings.ReplaceAll(only, " ", ""), ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(Contenders, func(c Contender) bool { return c.Name == name }) {
			return nil, fmt.Errorf("no contender is called %q; there are %s", name, Names())
		}
	}
	return slices.DeleteFunc(slices.Clone(Contenders), func(c Contender) bool { return !slices.Contains(wanted, c.Name) }), nil
}

// open opens the contender's store for a race.
func (c Contender) open(o Options) (penny.Store, error) {
	if c.Local {
		return c.Open("sqlite:///"+filepath.ToSlash(o.file), o.Pool)
	}
	return c.Open(o.Address, o.Pool)
}

// Open opens the contender's store for the database at address, which dburl.Clean returned. If it has a pool, that holds at most
// size connections.
func (c Contender) Open(address string, size int) (penny.Store, error) {
	url, err := c.form(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	s, err := c.store(url, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return s, nil
}

// ask asks the books' question as the programs do.
func ask(ctx context.Context, s penny.Store, limit int) error {
	_, err := demo.Ask(ctx, s.ByAuthor, "ker", limit)
	return err
}
