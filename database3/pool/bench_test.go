package pool_test

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/jackc/puddle/v2"
	_ "github.com/lib/pq" // the driver "postgres"

	"example.com/penny/database3/pool"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// A contender is a pool in the benchmarks. Its cycle acquires a connection, uses it if use is true, and releases it.
type contender struct {
	name string
	make func(b *testing.B, url string, max int) (cycle func(use bool) error)
}

const query = `SELECT isbn, author, COALESCE(title, '') FROM books WHERE author ILIKE $1 ESCAPE '\' ORDER BY isbn COLLATE "C" LIMIT $2`

// scan reads the books with the driver's own rows.
func scan(rows pgx.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	return readAll(rows)
}

func scanSQL(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	return readAll(rows)
}

func readAll(rows interface {
	Next() bool
	Scan(into ...any) error
	Err() error
}) error {
	for rows.Next() {
		var isbn, author, title string
		if err := rows.Scan(&isbn, &author, &title); err != nil {
			return err
		}
	}
	return rows.Err()
}

var contenders = []contender{
	{"penny", func(b *testing.B, url string, max int) func(bool) error {
		p := pool.New(max, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
		b.Cleanup(func() { p.Close() })
		ctx := context.Background()
		return func(use bool) error {
			conn, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			if use {
				return scan(conn.Query(ctx, query, "ker%", 100))
			}
			return nil
		}
	}},
	{"pgxpool", func(b *testing.B, url string, max int) func(bool) error {
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			b.Fatal(err)
		}
		config.MaxConns = int32(max)
		p, err := pgxpool.NewWithConfig(context.Background(), config)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.Close)
		ctx := context.Background()
		return func(use bool) error {
			conn, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			if use {
				return scan(conn.Query(ctx, query, "ker%", 100))
			}
			return nil
		}
	}},
	{"puddle", func(b *testing.B, url string, max int) func(bool) error {
		p, err := puddle.NewPool(&puddle.Config[*pgx.Conn]{
			Constructor: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
			Destructor:  func(conn *pgx.Conn) { conn.Close(context.Background()) },
			MaxSize:     int32(max),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.Close)
		ctx := context.Background()
		return func(use bool) error {
			resource, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer resource.Release()
			if use {
				return scan(resource.Value().Query(ctx, query, "ker%", 100))
			}
			return nil
		}
	}},
	{"database-sql-pgx", sqlContender("pgx")},
	{"database-sql-pq", sqlContender("postgres")},
}

func sqlContender(driver string) func(*testing.B, string, int) func(bool) error {
	return func(b *testing.B, url string, max int) func(bool) error {
		db, err := sql.Open(driver, url)
		if err != nil {
			b.Fatal(err)
		}
		db.SetMaxOpenConns(max)
		db.SetMaxIdleConns(max)
		b.Cleanup(func() { db.Close() })
		ctx := context.Background()
		return func(use bool) error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			if use {
				return scanSQL(conn.QueryContext(ctx, query, "ker%", 100))
			}
			return nil
		}
	}
}

// BenchmarkBorrow acquires a connection and releases it, with nothing in between.
func BenchmarkBorrow(b *testing.B) {
	for _, load := range []struct {
		name               string
		goroutines, places int
	}{{"alone", 1, 4}, {"16on4", 16, 4}} {
		for _, c := range contenders {
			b.Run(load.name+"/"+c.name, func(b *testing.B) { run(b, c, load.goroutines, load.places, false) })
		}
	}
}

// BenchmarkBooks asks for the Kernighan books over 10 connections from 10 goroutines. pgbench, PostgreSQL's own load
// generator, does the same with prepared statements and as many connections.
func BenchmarkBooks(b *testing.B) {
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) { run(b, c, 10, 10, true) })
	}
	b.Run("pgbench", func(b *testing.B) {
		bin := localpg.Installed()
		if bin == "" {
			b.Skip("pgbench comes only with an installed PostgreSQL")
		}
		script := filepath.Join(b.TempDir(), "books.sql")
		text := strings.NewReplacer("$1", "'ker%'", "$2", "100").Replace(query) + ";\n"
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		each := max(b.N/10, 1)
		out, err := exec.Command(filepath.Join(bin, "pgbench"), "-n", "-M", "prepared", "-c", "10", "-j", "2",
			"-t", strconv.Itoa(each), "-f", script, pgtest.BooksURL(b)).CombinedOutput()
		if err != nil {
			b.Fatalf("pgbench: %v", err)
		}
		match := regexp.MustCompile(`tps = ([\d.]+) \(without`).FindSubmatch(out)
		if match == nil {
			b.Fatal("pgbench printed no speed")
		}
		rate, _ := strconv.ParseFloat(string(match[1]), 64)
		b.ReportMetric(1e9/rate, "ns/op")
		b.ReportMetric(rate, "calls/s")
	})
}

func run(b *testing.B, c contender, goroutines, places int, use bool) {
	cycle := c.make(b, pgtest.BooksURL(b), places)
	// Every connection is opened, and its statement prepared, before the clock runs.
	var warm sync.WaitGroup
	for range goroutines * 4 {
		warm.Go(func() {
			if err := cycle(true); err != nil {
				b.Error(err)
			}
		})
	}
	warm.Wait()
	b.ReportAllocs()
	b.ResetTimer()
	var workers sync.WaitGroup
	left := make(chan int, goroutines)
	for i := range goroutines {
		n := b.N / goroutines
		if i < b.N%goroutines {
			n++
		}
		left <- n
		workers.Go(func() {
			for range <-left {
				if err := cycle(use); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	if use {
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	}
}
