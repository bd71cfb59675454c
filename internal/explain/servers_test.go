package explain_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/binary"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	database2 "example.com/penny/database2/books"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil { // they mostly wait
		panic(err)
	}
	os.Exit(m.Run())
}

type layer struct {
	name string
	form func(string) (string, error)
	open func(string) (penny.Store, error)
}

// layersFor returns the layers that take an address.
func layersFor(address string) []layer {
	database4 := layer{"database4", dburl.GORM, func(url string) (penny.Store, error) { return database4.Open(url, 2) }}
	if dburl.IsSQLite(address) {
		return []layer{{"database1", dburl.SQLite, func(url string) (penny.Store, error) { return database1.Open(url) }}, database4}
	}
	return []layer{
		{"database2", dburl.PQ, func(url string) (penny.Store, error) { return database2.Open(url) }},
		{"database3", dburl.PGX, func(url string) (penny.Store, error) { return database3.Open(url, 2) }},
		database4,
	}
}

// ask asks a layer for an author's books as its program does.
func (l layer) ask(t *testing.T, address, author string) ([]penny.Book, error) {
	url, err := l.form(address)
	if err != nil {
		return nil, err
	}
	store, err := l.open(url)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return (&demo.Flags{Author: author}).Ask(t.Context(), store.ByAuthor)
}

// answer calls ask until there is an answer in time: the computer may be slow.
func (l layer) answer(t *testing.T, address, author string) (found []penny.Book, err error) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, l.name+" answers", func() bool {
		found, err = l.ask(t, address, author)
		cause := name(err, address)
		return cause != "no answer" && cause != "slow file"
	})
	return found, err
}

func name(err error, address string) string {
	if err == nil {
		return ""
	}

	if cause := explain.Find(err, address); cause != nil {
		return cause.Name
	}
	return "other"
}

// with returns an address after a change.
func with(t *testing.T, address string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	change(u)
	return u.String()
}

func settings(text string) func(*url.URL) { return func(u *url.URL) { u.RawQuery = text } }
func host(address string) func(*url.URL) {
	return func(u *url.URL) { u.Host, u.RawQuery = address, "" }
}
func login(user string) func(*url.URL) {
	return func(u *url.URL) { u.User, u.RawQuery = url.UserPassword(user, secret), "" }
}

const secret = "hunter2!"

// role makes a role with the password secret, runs the statements for it, and returns the address with it.
func role(t *testing.T, address, statements string) (name, its string) {
	t.Helper()
	name = "role_" + strings.ToLower(rand.Text())
	pgtest.Exec(t, address, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", name, secret))
	t.Cleanup(func() { pgtest.Exec(t, address, fmt.Sprintf("DROP OWNED BY %s; DROP ROLE %s", name, name)) })
	pgtest.Exec(t, address, strings.ReplaceAll(statements, "ROLE_NAME", name))
	return name, with(t, address, login(name))
}

// database runs a statement about the database at address, in which %I stands for its name.
func database(t *testing.T, address, statement string) {
	t.Helper()
	pgtest.Exec(t, address, fmt.Sprintf("DO $$ BEGIN EXECUTE format('%s', current_database()); END $$", strings.ReplaceAll(statement, "'", "''")))
}

// Each fault happens on a real server, and every layer names the same cause. Then the test follows the hint, and every layer
// finds the books.
func TestEveryLayerNamesTheSameCauseAndItsHintWorks(t *testing.T) {
	t.Parallel()
	good := pgtest.BooksURL(t)
	// changed is a fault that is one part of the address. The hint says to correct that part.
	changed := func(change func(*url.URL)) func(*testing.T) (string, func() string) {
		return func(t *testing.T) (string, func() string) {
			return with(t, good, change), func() string { return good }
		}
	}
	// served is the address of a server that is not PostgreSQL.
	served := func(answer func(net.Conn)) func(*testing.T) (string, func() string) {
		return func(t *testing.T) (string, func() string) { return changed(host(pgtest.Serve(t, answer)))(t) }
	}
	// filed is a SQLite file with something wrong in it. The hint says to move the file away and make another.
	filed := func(content string) func(*testing.T) (string, func() string) {
		return func(t *testing.T) (string, func() string) {
			file := filepath.Join(t.TempDir(), "penny.sqlite")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			return sqlite(file), func() string {
				if err := os.Rename(file, file+".old"); err != nil {
					t.Fatal(err)
				}
				create(t, file)
				return sqlite(file)
			}
		}
	}
	for _, c := range []struct {
		cause  string
		name   string
		broken func(t *testing.T) (address string, fixed func() string) // fixed follows the hint
	}{
		// These wait for some seconds, so they begin first.
		{"server full", "a limit for the user, without sslmode", func(t *testing.T) (string, func() string) {
			_, its := role(t, good, "GRANT SELECT ON books TO ROLE_NAME; ALTER ROLE ROLE_NAME CONNECTION LIMIT 3")
			var others []*pgx.Conn
			for range 3 {
				others = append(others, connect(t, its))
			}
			return its, func() string {
				for _, other := range others {
					other.Close(t.Context())
				}
				return its
			}
		}},
		{"locked", "", func(t *testing.T) (string, func() string) {
			file := filepath.Join(t.TempDir(), "penny.sqlite")
			create(t, file)
			db, err := sql.Open("sqlite", file+"?_txlock=exclusive")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			return sqlite(file), func() string { tx.Rollback(); return sqlite(file) }
		}},
		{"no server", "a dead port", changed(func(u *url.URL) { host(dead)(u) })},
		{"no server", "a dead port behind another one", changed(func(u *url.URL) { host(dead + "," + dead)(u) })},
		{"no server", "no socket", changed(func(u *url.URL) { u.Host, u.RawQuery = "", "host="+os.TempDir() })},
		{"connection lost", "a server that hangs up", served(func(conn net.Conn) { conn.Close() })},
		{"no answer", "a server that says nothing", served(func(net.Conn) {})},

		{"unknown database", "without sslmode", changed(func(u *url.URL) { u.Path, u.RawQuery = "/nowhere", "" })},
		{"wrong password", "without sslmode", changed(func(u *url.URL) { login(u.User.Username())(u) })},
		{"no encryption", "sslmode=require", changed(settings("sslmode=require"))},
		{"no encryption", "sslrootcert=system", changed(settings("sslrootcert=system"))},
		{"certificate file", "a missing one", changed(settings("sslmode=verify-full&sslrootcert=/no/such file.pem"))},
		{"unknown setting", "a name", changed(settings("colour=green"))},
		{"unknown setting", "a time zone", changed(settings("TimeZone=Mars/Olympus"))},
		{"unknown host", "", changed(host("db.invalid"))},
		{"no right to connect", "without sslmode", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			name, its := role(t, own, "GRANT SELECT ON books TO ROLE_NAME")
			database(t, own, "REVOKE CONNECT ON DATABASE %I FROM PUBLIC")
			return its, func() string { database(t, own, "GRANT CONNECT ON DATABASE %I TO "+name); return its }
		}},
		{"no right to the table", "", func(t *testing.T) (string, func() string) {
			name, its := role(t, good, "")
			return its, func() string { pgtest.Exec(t, good, "GRANT SELECT ON books TO "+name); return its }
		}},
		{"no right to the schema", "behind a view", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			// A function names the schema when the view is read, as the reader.
			name, its := role(t, own, `CREATE SCHEMA shop; ALTER TABLE books SET SCHEMA shop;
				CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM shop.books';
				CREATE VIEW books WITH (security_invoker = true) AS SELECT * FROM shop.books WHERE peek() > 0;
				GRANT SELECT ON books, shop.books TO ROLE_NAME`)
			return its, func() string { pgtest.Exec(t, own, "GRANT USAGE ON SCHEMA shop TO "+name); return its }
		}},
		{"no books table", "", func(t *testing.T) (string, func() string) {
			own := pgtest.URL(t)
			return own, func() string { pgtest.LoadBooks(t, own); return own }
		}},
		{"other books table", "", func(t *testing.T) (string, func() string) {
			own := pgtest.URL(t)
			pgtest.Exec(t, own, "CREATE TABLE books (name text)")
			return own, func() string { return good }
		}},
		{"quoted backslash", "", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			database(t, own, "ALTER DATABASE %I SET standard_conforming_strings = off")
			return own, func() string { database(t, own, "ALTER DATABASE %I SET standard_conforming_strings = on"); return own }
		}},
		{"query ended", "statement_timeout", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			unlock := pgtest.Lock(t, own, "books")
			return with(t, own, settings("statement_timeout=300")), func() string { unlock(); return own }
		}},
		{"query ended", "statement_timeout among the options", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			unlock := pgtest.Lock(t, own, "books")
			return with(t, own, settings("options=-c%20statement_timeout%3D300ms")), func() string { unlock(); return own }
		}},
		{"encryption required", "sslmode=disable", func(t *testing.T) (string, func() string) {
			address, _ := encrypted(t, good, -time.Hour, time.Hour)
			return with(t, address, settings("sslmode=disable")), func() string { return with(t, address, settings("sslmode=require")) }
		}},
		{"certificate expired", "", func(t *testing.T) (string, func() string) {
			address, _ := encrypted(t, good, -48*time.Hour, -24*time.Hour)
			return address, func() string { renewed, _ := encrypted(t, good, -time.Hour, time.Hour); return renewed }
		}},
		{"certificate expired", "not yet valid", func(t *testing.T) (string, func() string) {
			address, _ := encrypted(t, good, 24*time.Hour, 48*time.Hour)
			return address, func() string { renewed, _ := encrypted(t, good, -time.Hour, time.Hour); return renewed }
		}},
		{"certificate's name", "", func(t *testing.T) (string, func() string) {
			address, _ := encrypted(t, good, -time.Hour, time.Hour)
			return strings.Replace(address, "@localhost:", "@127.0.0.1:", 1), func() string { return address }
		}},
		{"certificate's authority", "", func(t *testing.T) (string, func() string) {
			address, file := encrypted(t, good, -time.Hour, time.Hour)
			return with(t, address, settings("sslmode=verify-full&sslrootcert=system")), func() string {
				return with(t, address, settings("sslmode=verify-full&sslrootcert="+file))
			}
		}},
		{"not a database", "", filed(strings.Repeat("some notes, and no database ", 50))},
		{"other file", "an empty file", filed("")},
		{"no SQLite file", "", func(t *testing.T) (string, func() string) {
			file := filepath.Join(t.TempDir(), "penny.sqlite")
			return sqlite(file), func() string { create(t, file); return sqlite(file) }
		}},
	} {
		t.Run(strings.TrimSpace(c.cause+" "+c.name), func(t *testing.T) {
			t.Parallel()
			address, fixed := c.broken(t)
			everyLayer(address, func(l layer) {
				ask := l.answer
				if c.cause == "no answer" {
					ask = l.ask
				}
				_, err := ask(t, address, "ker")
				if err == nil {
					t.Errorf("%s: no error", l.name)
					return
				}
				form, _ := l.form(address)
				for _, shown := range []string{address, form} {
					says, hint := explain.Error(err, shown)
					if cause := name(err, shown); cause != c.cause || hint == "" || strings.Contains(says+hint, secret) {
						t.Errorf("%s: the cause is %q, want %q: %s (%s)", l.name, cause, c.cause, strings.ReplaceAll(says, secret, "*****"), hint)
					}
				}
			})
			after := fixed()
			everyLayer(after, func(l layer) {
				var found []penny.Book
				var err error
				pgtest.Eventually(t, time.Minute, l.name+" finds the books after the hint was followed", func() bool {
					found, err = l.ask(t, after, "ker")
					return len(found) == 2
				})
				if err != nil {
					t.Errorf("%s: %v", l.name, err)
				}
			})
		})
	}
}

// everyLayer runs do for all layers that take an address, at once.
func everyLayer(address string, do func(layer)) {
	var all sync.WaitGroup
	for _, l := range layersFor(address) {
		all.Go(func() { do(l) })
	}
	all.Wait()
}

func sqlite(file string) string { return "sqlite:///" + filepath.ToSlash(file) }

func create(t *testing.T, file string) {
	t.Helper()
	if err := database1.Create(file); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// The stages' own query cannot cause these errors. Another statement does, and after the hint it succeeds: for another user, on
// another connection or a second time.
func TestTheHintsForOtherStatementsWork(t *testing.T) {
	t.Parallel()
	own := pgtest.BooksURL(t)
	const (
		read   = "SELECT title FROM books WHERE isbn = '123'"
		write  = "UPDATE books SET title = 'Go' WHERE isbn = '123'"
		byISBN = "SELECT title FROM changing WHERE isbn = $1" // pgx prepares what has an argument
	)
	for _, c := range []struct {
		cause, statement string
		broken           func(t *testing.T) (conn *pgx.Conn, fixed func() *pgx.Conn)
	}{
		{"read-only", write, func(t *testing.T) (*pgx.Conn, func() *pgx.Conn) {
			conn := connect(t, own+"&default_transaction_read_only=on")
			return conn, func() *pgx.Conn { return connect(t, own) }
		}},
		{"no permission", "SET session_replication_role = replica", func(t *testing.T) (*pgx.Conn, func() *pgx.Conn) {
			_, its := role(t, own, "")
			return connect(t, its), func() *pgx.Conn { return connect(t, own) }
		}},
		{"no right to the schema", "CREATE TABLE orders (id int)", func(t *testing.T) (*pgx.Conn, func() *pgx.Conn) {
			name, its := role(t, own, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
			conn := connect(t, its)
			return conn, func() *pgx.Conn { pgtest.Exec(t, own, "GRANT USAGE, CREATE ON SCHEMA public TO "+name); return conn }
		}},
		{"session ended", read, func(t *testing.T) (*pgx.Conn, func() *pgx.Conn) {
			conn := connect(t, own)
			pgtest.Exec(t, own, fmt.Sprintf("SELECT pg_terminate_backend(%d, 60000)", conn.PgConn().PID()))
			return conn, func() *pgx.Conn { return connect(t, own) }
		}},
		{"table changed", byISBN, func(t *testing.T) (*pgx.Conn, func() *pgx.Conn) {
			pgtest.Exec(t, own, "CREATE TABLE changing AS SELECT * FROM books")
			conn := connect(t, own)
			if _, err := conn.Exec(t.Context(), byISBN, "123"); err != nil {
				t.Fatal(err)
			}
			pgtest.Exec(t, own, "ALTER TABLE changing ALTER title TYPE varchar(100)")
			return conn, func() *pgx.Conn { return conn }
		}},
		{"conflict", write, func(t *testing.T) (*pgx.Conn, func() *pgx.Conn) {
			conn := connect(t, own+"&default_transaction_isolation=repeatable%20read")
			if _, err := conn.Exec(t.Context(), "BEGIN; "+read); err != nil {
				t.Fatal(err)
			}
			pgtest.Exec(t, own, write)
			return conn, func() *pgx.Conn {
				if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
					t.Fatal(err)
				}
				return conn
			}
		}},
	} {
		t.Run(c.cause, func(t *testing.T) {
			t.Parallel()
			conn, fixed := c.broken(t)
			var args []any
			if c.statement == byISBN {
				args = []any{"123"}
			}
			if _, err := conn.Exec(t.Context(), c.statement, args...); err == nil || name(err, own) != c.cause {
				t.Errorf("%v is explained as %q, want %q", err, name(err, own), c.cause)
			}
			if _, err := fixed().Exec(t.Context(), c.statement, args...); err != nil {
				t.Errorf("after the hint: %v", err)
			}
		})
	}
}

// Hosts and poolers have their own messages. If Penny does not know a message, it shows the whole message once, with a hint.
func TestAHostsOwnMessageIsUnderstoodOrShownOnceWithAHint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ code, message, settings, cause string }{
		{"XX000", "Tenant or user not found", "", "not allowed"},
		{"XX000", "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size", "", "server full"},
		{"XX000", "(EMAXCONN) max client connections reached, limit: 200", "", "server full"},
		{"28000", "SSL connection is required. Please specify SSL options and retry.", "sslmode=disable", "encryption required"},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "penny", database "penny", no encryption`, "sslmode=disable", "encryption required"},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "penny", database "penny", SSL encryption`, "", "not allowed"},
		{"08P01", "password authentication failed", "", "wrong password"},
		{"08P01", "no such user: penny", "", "wrong password"},
		{"08P01", "no such database: penny", "", "unknown database"},
		{"08P01", "no more connections allowed (max_client_conn)", "", "server full"},
		{"08P01", "unsupported startup parameter: statement_timeout", "", "unknown setting"},
		{"08P01", "server conn crashed?", "", "session ended"},
		{"57014", "canceling statement due to user request", "", "query cancelled"},
		{"22021", `invalid byte sequence for encoding "UTF8": 0xe9 0x74 0xe9`, "", "stored bytes"},
		{"22P02", `invalid input syntax for type integer: ""`, "", "other books table"},
		{"57P03", "the database system is starting up", "", "server starting"},
		{"57P01", "terminating connection due to administrator command", "", "session ended"},
		{"XX000", "Control plane request failed", "", "other"},
		{"58030", "could not read file: Input/output error", "", "other"},
	} {
		t.Run(c.message, func(t *testing.T) {
			t.Parallel()
			address := "postgres://penny:hunter2!@" + pgtest.Serve(t, func(conn net.Conn) { refuse(conn, conn, c.code, c.message); conn.Close() }) + "/penny?" + c.settings
			everyLayer(address, func(l layer) {
				_, err := l.answer(t, address, "ker")
				says, hint := explain.Error(err, address)
				if cause := name(err, address); cause != c.cause || hint == "" || strings.Count(says, c.message) > 1 {
					t.Errorf("%s: the cause is %q, want %q: %s (%s)", l.name, cause, c.cause, says, hint)
				}
				if c.cause == "other" && !strings.Contains(says, c.message) {
					t.Errorf("%s: %q lacks the server's message", l.name, says)
				}
			})
		})
	}
}

func TestTheLastHostIsReachedInTimeIfTheOthersAreSilentOrDead(t *testing.T) {
	t.Parallel()
	good := pgtest.BooksURL(t)
	silent := pgtest.Serve(t, func(net.Conn) {})
	for _, first := range []string{silent, dead, silent + "," + silent} {
		t.Run("after "+first, func(t *testing.T) {
			t.Parallel()
			address := with(t, good, func(u *url.URL) { u.Host = first + "," + u.Host })
			everyLayer(address, func(l layer) {
				if found, err := l.answer(t, address, "ker"); err != nil || len(found) != 2 {
					t.Errorf("%s: got %d books, %v; want 2", l.name, len(found), err)
				}
			})
		})
	}
}

func TestAllLayersGetTheSameAnswersFromALATIN1Database(t *testing.T) {
	t.Parallel()
	name := "latin_" + strings.ToLower(rand.Text())
	pgtest.Exec(t, pgtest.Admin(t), "CREATE DATABASE "+name+" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	t.Cleanup(func() { pgtest.Exec(t, pgtest.Admin(t), "DROP DATABASE "+name+" WITH (FORCE)") })
	address := with(t, pgtest.Admin(t), func(u *url.URL) { u.Path = name })
	pgtest.LoadBooks(t, address+"&client_encoding=UTF8")
	pgtest.Exec(t, address+"&client_encoding=UTF8", `INSERT INTO books (isbn, author, title) VALUES ('456', 'Kéri', 'Été')`)
	everyLayer(address, func(l layer) {
		if _, err := l.answer(t, address, "Кé"); explain.Name(err) != "not text" {
			t.Errorf("%s, asked for a Cyrillic letter: got %v, want the cause \"not text\"", l.name, err)
		}
		found, err := l.answer(t, address, "Ké")
		if err != nil || !slices.Equal(found, []penny.Book{{ISBN: "456", Author: "Kéri", Title: "Été"}}) {
			t.Errorf("%s: got %v, %v; want the book 456", l.name, found, err)
		}
	})
}

func TestEveryLayerReachesASocketAndItsErrorNamesIt(t *testing.T) {
	t.Parallel()
	folder := pgtest.Folder(t)
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"unix_socket_directories": folder}})
	pgtest.LoadBooks(t, server.URL("postgres"))
	addresses := []string{
		with(t, server.URL("postgres"), func(u *url.URL) { u.RawQuery = "host=" + folder + "&port=" + u.Port(); u.Host = "" }),
		strings.Replace(with(t, server.URL("postgres"), settings("sslmode=require")), "@127.0.0.1", "@"+url.PathEscape(folder), 1),
	}
	finds := func() {
		t.Helper()
		for _, address := range addresses {
			everyLayer(address, func(l layer) {
				if found, err := l.answer(t, address, "ker"); err != nil || len(found) != 2 {
					t.Errorf("%s: got %d books, %v; want 2", l.name, len(found), err)
				}
			})
		}
	}
	finds()
	for _, address := range addresses {
		everyLayer(address, func(l layer) {
			_, err := l.answer(t, strings.Replace(address, "/postgres", "/nowhere", 1), "ker")
			if says, _ := explain.Error(err, address); !strings.Contains(says, folder+"/.s.PGSQL.") {
				t.Errorf("%s: %q lacks the socket", l.name, says)
			}
		})
	}
	server.Halt(localpg.Fast)
	everyLayer(addresses[0], func(l layer) {
		if _, err := l.answer(t, addresses[0], "ker"); name(err, addresses[0]) != "no server" {
			t.Errorf("%s, after the server stopped: got %v, want the cause \"no server\"", l.name, err)
		}
	})
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	finds()
}

// dead is an address at which nothing listens, and nothing will: no system gives out port 1 by itself.
const dead = "127.0.0.1:1"

// refuse answers a client, without encryption, with an error.
func refuse(from io.Reader, to io.Writer, code, message string) {
	backend := pgproto3.NewBackend(from, to)
	for {
		start, err := backend.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := start.(*pgproto3.SSLRequest); ok {
			_, _ = to.Write([]byte("N"))
			continue
		}
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
		_ = backend.Flush()
		return
	}
}

// encrypted puts a proxy that demands encryption before the server at address. Its certificate is for localhost and valid
// between two times from now. encrypted returns the proxy's address, and the file of the certificate's authority.
func encrypted(t *testing.T, address string, from, to time.Duration) (its, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to), IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	behind, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	at := pgtest.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		request := make([]byte, 8)
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		if binary.BigEndian.Uint32(request[4:]) != 80877103 { // SSLRequest
			refuse(io.MultiReader(bytes.NewReader(request), conn), conn, "28000", "no pg_hba.conf entry, no encryption")
			return
		}
		_, _ = conn.Write([]byte("S"))
		client := tls.Server(conn, config)
		server, err := net.Dial("tcp", behind.Host)
		if err != nil {
			return
		}
		defer server.Close()
		go func() {
			_, _ = io.Copy(server, client) // until one side hangs up
			server.Close()
		}()
		_, _ = io.Copy(client, server)
	})
	_, port, _ := net.SplitHostPort(at)
	return with(t, address, func(u *url.URL) {
		u.Host, u.RawQuery = "localhost:"+port, "sslmode=verify-full&sslrootcert="+file
	}), file
}
