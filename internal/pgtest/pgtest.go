// Package pgtest gives each test its own PostgreSQL database, on a real server that the tests start. It uses none of
// the user's servers and settings.
//
// The tests of a package share a server, which starts with the first test that asks for it.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

// patience is how long a test waits for a server at most.
const patience = time.Minute

// init removes the user's settings for PostgreSQL's clients, which both drivers would read.
func init() {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
}

// Programs returns the folder with PostgreSQL's programs. If there is no PostgreSQL to start, or with -short, it skips the test;
// under continuous integration it fails it.
func Programs(tb testing.TB) string {
	tb.Helper()
	skip.Short(tb)
	bin, err := programs()
	if errors.Is(err, localpg.ErrMissing) {
		skip.Test(tb, fmt.Sprintf("%v: %s", err, localpg.HowToInstall()))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return bin
}

// URL returns the address of an empty database, which is dropped when the test ends.
func URL(tb testing.TB) string {
	tb.Helper()
	return fresh(tb, "template0")
}

// BooksURL returns the address of a database with penny.sql loaded, which is dropped when the test ends.
func BooksURL(tb testing.TB) string {
	tb.Helper()
	return fresh(tb, booksTemplate)
}

// DictionaryURL is like URL for a database that orders text as an English dictionary does and knows every letter's case.
func DictionaryURL(tb testing.TB) string {
	tb.Helper()
	return fresh(tb, "template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LC_CTYPE 'C.UTF-8' LC_COLLATE 'C'")
}

func fresh(tb testing.TB, template string) string {
	tb.Helper()
	admin := Admin(tb)
	name := "penny_" + strings.ToLower(rand.Text())
	administer(tb, "CREATE DATABASE "+name+" TEMPLATE "+template)
	tb.Cleanup(func() { administer(tb, "DROP DATABASE "+name+" WITH (FORCE)") })
	u, err := url.Parse(admin)
	if err != nil {
		tb.Fatal("the shared server's address does not parse")
	}
	u.Path = "/" + name
	return u.String()
}

// Admin returns the address of the shared server's own database, with an administrator's rights.
func Admin(tb testing.TB) string {
	tb.Helper()
	return theChild(tb).address
}

func theChild(tb testing.TB) *child {
	tb.Helper()
	Programs(tb)
	c, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// administer runs a statement in the shared server's own database, over a connection that is opened once: on some
// machines a new one costs as much as a new database.
func administer(tb testing.TB, statement string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	office.mu.Lock()
	defer office.mu.Unlock()
	if office.conn == nil || office.conn.IsClosed() {
		office.conn = connect(ctx, tb, Admin(tb))
	}
	if _, err := office.conn.Exec(ctx, statement); err != nil {
		tb.Fatalf("%.60s: %v", statement, err)
	}
}

// office is the connection of administer.
var office struct {
	mu   sync.Mutex
	conn *pgx.Conn
}

// Own returns o with settings that start a test's own server in a moment, from a copy of existing data.
func Own(tb testing.TB, o localpg.Options) localpg.Options {
	tb.Helper()
	o.BinDir, o.TempDir, o.CopyOf = Programs(tb), memory(), theChild(tb).original
	return o
}

// Server starts a server for the test alone, which may break it. It is stopped when the test ends.
func Server(tb testing.TB, o localpg.Options) *localpg.Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := localpg.Start(ctx, Own(tb, o))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := server.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return server
}

// Folder returns a temporary folder that other users may enter, such as PostgreSQL's, unlike that of t.TempDir. It is removed
// when the test ends.
func Folder(tb testing.TB) string {
	tb.Helper()
	folder, err := scratch.New("", "test")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := folder.Remove(); err != nil {
			tb.Error(err)
		}
	})
	return folder.Path
}

// Exec runs SQL statements at address.
func Exec(tb testing.TB, address, statements string) {
	tb.Helper()
	if err := execute(address, statements); err != nil {
		tb.Fatal(err)
	}
}

// Query runs a query at address that returns one row, and stores its columns in what into points to.
func Query(tb testing.TB, address, query string, into ...any) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn := connect(ctx, tb, address)
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, query).Scan(into...); err != nil {
		tb.Fatalf("%.60s: %v", query, err)
	}
}

// LoadBooks loads penny.sql at address.
func LoadBooks(tb testing.TB, address string) {
	tb.Helper()
	Exec(tb, address, penny.SQL)
}

// Lock locks a table at address, also for readers, until unlock is called or the test ends.
func Lock(tb testing.TB, address, table string) (unlock func()) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn := connect(ctx, tb, address)
	unlock = func() { conn.Close(context.Background()) }
	tb.Cleanup(unlock)
	if _, err := conn.Exec(ctx, "BEGIN; LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		tb.Fatal(err)
	}
	return unlock
}

// connect opens a connection. It tries again while the server is full, which a test may have caused.
func connect(ctx context.Context, tb testing.TB, address string) *pgx.Conn {
	tb.Helper()
	for {
		conn, err := pgx.Connect(ctx, address)
		if err == nil {
			return conn
		}
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "53300" {
			tb.Fatal(err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			tb.Fatal(err)
		}
	}
}

func execute(address, statements string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, statements).ReadAll(); err != nil {
		return fmt.Errorf("%.60s: %w", statements, err)
	}
	return nil
}

// Eventually waits until cond holds. If cond does not hold in time, the test fails.
func Eventually(tb testing.TB, within time.Duration, what string, cond func() bool) {
	tb.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("after %v it is still not true that %s", within, what)
		}
	}
}

// booksTemplate is a database of the shared server with penny.sql loaded; to copy it costs less than to load it again.
const booksTemplate = "penny_books"

// Serve returns the address of a server that is not PostgreSQL. It calls answer with each connection, and ends with the test.
func Serve(tb testing.TB, answer func(net.Conn)) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tb.Cleanup(func() { conn.Close() })
			go answer(conn)
		}
	}()
	return listener.Addr().String()
}
