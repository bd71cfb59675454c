package explain_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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

	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/penny"
	database2 "example.com/penny/database2/books"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

var layers = []struct {
	name string
	form func(string) (string, error)
	open func(string) (penny.Store, error)
}{
	{"database2", dburl.PQ, func(url string) (penny.Store, error) { return database2.Open(url) }},
	{"database3", dburl.PGX, func(url string) (penny.Store, error) { return database3.Open(url, 2) }},
	{"database4", dburl.GORM, func(url string) (penny.Store, error) { return database4.Open(url, 2) }},
}

// ask asks a layer for an author's books as its program does.
func ask(ctx context.Context, layer int, address, author string) ([]penny.Book, error) {
	l := layers[layer]
	url, err := l.form(address)
	if err != nil {
		return nil, err
	}
	store, err := l.open(url)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return (&demo.Flags{Author: author}).Ask(ctx, store.ByAuthor)
}

// with returns an address with another part.
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

func login(user string) func(*url.URL) {
	return func(u *url.URL) { u.User = url.UserPassword(user, "hunter2!") }
}

// Every fault is made on a real server, and every layer tells the same cause of it. Then the hint is followed, and the fault
// is gone.
func TestEveryLayerTellsTheSameCauseAndItsHintWorks(t *testing.T) {
	good := pgtest.BooksURL(t)
	role := func(t *testing.T, address, statements string) string {
		name := fmt.Sprintf("role_%d", time.Now().UnixNano())
		pgtest.Exec(t, address, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'hunter2!'", name))
		t.Cleanup(func() { pgtest.Exec(t, address, fmt.Sprintf("DROP OWNED BY %s; DROP ROLE %s", name, name)) })
		pgtest.Exec(t, address, strings.ReplaceAll(statements, "ROLE_NAME", name))
		return name
	}
	for _, c := range []struct {
		cause  string
		name   string
		broken func(t *testing.T) (address string, fixed func() string) // fixed follows the hint
	}{
		{"unknown database", "without sslmode", func(t *testing.T) (string, func() string) {
			return with(t, good, func(u *url.URL) { u.RawQuery = ""; u.Path = "/nowhere" }), func() string { return good }
		}},
		{"wrong password", "without sslmode", func(t *testing.T) (string, func() string) {
			return with(t, good, func(u *url.URL) {
				u.RawQuery = ""
				u.User = url.UserPassword(u.User.Username(), "hunter2!")
			}), func() string { return good }
		}},
		{"server full", "a limit for the user, without sslmode", func(t *testing.T) (string, func() string) {
			name := role(t, good, "GRANT SELECT ON books TO ROLE_NAME; ALTER ROLE ROLE_NAME CONNECTION LIMIT 0")
			address := with(t, good, func(u *url.URL) { u.RawQuery = ""; login(name)(u) })
			return address, func() string {
				pgtest.Exec(t, good, "ALTER ROLE "+name+" CONNECTION LIMIT 5")
				return address
			}
		}},
		{"no right to connect", "without sslmode", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			name := role(t, own, "GRANT SELECT ON books TO ROLE_NAME")
			change := func(words string) {
				pgtest.Exec(t, own, "DO $$ BEGIN EXECUTE format('"+words+"', current_database()); END $$")
			}
			change("REVOKE CONNECT ON DATABASE %I FROM PUBLIC")
			address := with(t, own, func(u *url.URL) { u.RawQuery = ""; login(name)(u) })
			return address, func() string { change("GRANT CONNECT ON DATABASE %I TO " + name); return address }
		}},
		{"no right to the table", "", func(t *testing.T) (string, func() string) {
			name := role(t, good, "")
			return with(t, good, login(name)), func() string {
				pgtest.Exec(t, good, "GRANT SELECT ON books TO "+name)
				return with(t, good, login(name))
			}
		}},
		{"no right to the schema", "a table named with its schema", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			pgtest.Exec(t, own, "CREATE SCHEMA shop; ALTER TABLE books SET SCHEMA shop; CREATE VIEW books AS SELECT * FROM shop.books; ALTER VIEW books SET (security_invoker = true)")
			name := role(t, own, "GRANT SELECT ON books TO ROLE_NAME; GRANT SELECT ON shop.books TO ROLE_NAME; CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM shop.books'; DROP VIEW books; CREATE VIEW books WITH (security_invoker = true) AS SELECT * FROM shop.books WHERE peek() > 0; GRANT SELECT ON books TO ROLE_NAME")
			return with(t, own, login(name)), func() string {
				pgtest.Exec(t, own, "GRANT USAGE ON SCHEMA shop TO "+name)
				return with(t, own, login(name))
			}
		}},
		{"no books table", "", func(t *testing.T) (string, func() string) {
			own := pgtest.URL(t)
			return own, func() string { pgtest.LoadBooks(t, own); return own }
		}},
		{"no encryption", "sslmode=require", func(t *testing.T) (string, func() string) {
			return with(t, good, settings("sslmode=require")), func() string { return with(t, good, settings("")) }
		}},
		{"unknown setting", "a name", func(t *testing.T) (string, func() string) {
			return with(t, good, settings("colour=green")), func() string { return with(t, good, settings("")) }
		}},
		{"unknown setting", "a time zone", func(t *testing.T) (string, func() string) {
			return with(t, good, settings("TimeZone=Mars/Olympus")), func() string { return with(t, good, settings("TimeZone=Europe/Berlin")) }
		}},
		{"quoted backslash", "", func(t *testing.T) (string, func() string) {
			own := pgtest.BooksURL(t)
			set := func(value string) {
				pgtest.Exec(t, own, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = "+value+"', current_database()); END $$")
			}
			set("off")
			return own, func() string { set("on"); return own }
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
		{"no server", "", func(t *testing.T) (string, func() string) {
			return "postgres://penny:hunter2!@" + closed(t) + "/penny", func() string { return good }
		}},
		{"no server", "a dead port behind another one", func(t *testing.T) (string, func() string) {
			return "postgres://penny:hunter2!@" + closed(t) + "," + closed(t) + "/penny", func() string { return good }
		}},
		// Not t.TempDir(): the path of a socket has about a hundred characters at most.
		{"no server", "no socket", func(t *testing.T) (string, func() string) {
			return "postgres://penny:hunter2!@/penny?host=" + os.TempDir(), func() string { return good }
		}},
		{"unknown host", "", func(t *testing.T) (string, func() string) {
			return "postgres://penny:hunter2!@db.invalid/penny", func() string { return good }
		}},
		{"connection lost", "a server that hangs up", func(t *testing.T) (string, func() string) {
			return "postgres://penny:hunter2!@" + pgtest.Serve(t, func(conn net.Conn) { conn.Close() }) + "/penny", func() string { return good }
		}},
		{"no answer", "a server that says nothing", func(t *testing.T) (string, func() string) {
			return "postgres://penny:hunter2!@" + pgtest.Serve(t, func(net.Conn) {}) + "/penny?connect_timeout=0", func() string { return good }
		}},
		{"certificate file", "", func(t *testing.T) (string, func() string) {
			return with(t, good, settings("sslmode=verify-full&sslrootcert="+t.TempDir()+"/no such.pem")), func() string { return good }
		}},
		{"certificate expired", "", func(t *testing.T) (string, func() string) {
			address, _ := certified(t, -48*time.Hour, -24*time.Hour, "localhost")
			return address, func() string { return good }
		}},
		{"certificate expired", "not yet valid", func(t *testing.T) (string, func() string) {
			address, _ := certified(t, 24*time.Hour, 48*time.Hour, "localhost")
			return address, func() string { return good }
		}},
		{"certificate's name", "", func(t *testing.T) (string, func() string) {
			address, _ := certified(t, -time.Hour, time.Hour, "db.example.com")
			return address, func() string { return good }
		}},
		{"certificate's authority", "", func(t *testing.T) (string, func() string) {
			address, file := certified(t, -time.Hour, time.Hour, "localhost")
			return with(t, address, settings("sslmode=verify-full&sslrootcert=system")), func() string {
				return with(t, address, settings("sslmode=verify-full&sslrootcert="+file))
			}
		}},
	} {
		t.Run(strings.TrimSpace(c.cause+" "+c.name), func(t *testing.T) {
			address, fixed := c.broken(t)
			t.Setenv(dburl.Variable, address)
			const secret = "hunter2!"
			errs := make([]error, len(layers))
			var all sync.WaitGroup
			for i, l := range layers {
				all.Go(func() {
					begin := time.Now()
					_, errs[i] = ask(t.Context(), i, address, "ker")
					if took := time.Since(begin); took > demo.Patience+2*time.Second {
						t.Errorf("%s answers after %v", l.name, took)
					}
				})
			}
			all.Wait()
			for i, l := range layers {
				if errs[i] == nil {
					t.Fatalf("%s has no error", l.name)
				}
				form, _ := l.form(address)
				for _, shown := range []string{address, form} {
					says, hint := explain.Error(errs[i], shown)
					if name := explain.Name(errs[i]); explain.Find(errs[i]) == nil || hint == "" || strings.Contains(says+hint, secret) {
						t.Errorf("%s: %s: %s (%s)", l.name, name, strings.ReplaceAll(says, secret, "*****"), hint)
					}
				}
				if name := explain.Name(errs[i]); name != c.cause {
					says, _ := explain.Error(errs[i], address)
					t.Errorf("%s: the cause is %q (%s), want %q", l.name, name, says, c.cause)
				}
			}
			after := fixed()
			for i, l := range layers {
				_, err := ask(t.Context(), i, after, "ker")
				t.Setenv(dburl.Variable, after)
				if err != nil && explain.Name(err) == c.cause {
					t.Errorf("%s: the hint was followed, and the cause is still %q: %v", l.name, c.cause, err)
				}
			}
		})
	}
}

// Hosts and poolers have sentences of their own. Each is shown once, whole, and with a hint.
func TestAHostsOwnSentenceIsUnderstoodOrShownOnceWithAHint(t *testing.T) {
	for _, c := range []struct{ code, message, settings, cause string }{
		{"XX000", "Tenant or user not found", "", "not allowed"},
		{"XX000", "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size", "", "server full"},
		{"28000", "SSL connection is required. Please specify SSL options and retry.", "sslmode=disable", "encryption required"},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "penny", database "penny", no encryption`, "sslmode=disable", "encryption required"},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "penny", database "penny", SSL encryption`, "", "not allowed"},
		{"08P01", "password authentication failed", "", "wrong password"},
		{"08P01", "no such user: penny", "", "wrong password"},
		{"08P01", "no such database: penny", "", "unknown database"},
		{"08P01", "no more connections allowed (max_client_conn)", "", "server full"},
		{"08P01", "unsupported startup parameter: statement_timeout", "", "unknown setting"},
		{"57P03", "the database system is starting up", "", "server starting"},
		{"57P01", "terminating connection due to administrator command", "", "session ended"},
		{"XX000", "Control plane request failed", "", "other"},
		{"58030", "could not read file: Input/output error", "", "other"},
	} {
		t.Run(c.message, func(t *testing.T) {
			address := "postgres://penny:hunter2!@" + pgtest.Serve(t, func(conn net.Conn) { refuse(conn, c.code, c.message) }) + "/penny?" + c.settings
			t.Setenv(dburl.Variable, address)
			for i, l := range layers {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // database3 tries again what may pass
				_, err := ask(ctx, i, address, "ker")
				cancel()
				says, hint := explain.Error(err, address)
				if name := explain.Name(err); name != c.cause || hint == "" || strings.Count(says, c.message) > 1 {
					t.Errorf("%s: %s: %s (%s)", l.name, name, says, hint)
				}
				if c.cause == "other" && !strings.Contains(says, c.message) {
					t.Errorf("%s: the server's sentence is not in %q", l.name, says)
				}
			}
		})
	}
}

func TestTheSecondOfTwoHostsIsReachedInTimeIfTheFirstIsSilent(t *testing.T) {
	good := pgtest.BooksURL(t)
	silent := pgtest.Serve(t, func(net.Conn) {})
	var all sync.WaitGroup
	for _, first := range []string{silent, closed(t), silent + "," + silent} {
		address := with(t, good, func(u *url.URL) { u.Host = first + "," + u.Host })
		for i, l := range layers {
			all.Go(func() {
				begin := time.Now()
				if found, err := ask(t.Context(), i, address, "ker"); err != nil || len(found) != 2 {
					t.Errorf("%s with %s first: %d books, %v, after %v", l.name, first, len(found), err, time.Since(begin))
				}
			})
		}
	}
	all.Wait()
}

func TestALATIN1DatabaseAnswersAllLayersAlike(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{})
	pgtest.Exec(t, server.URL("postgres"), `CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	address := server.URL("latin")
	pgtest.LoadBooks(t, address+"&client_encoding=UTF8")
	pgtest.Exec(t, address+"&client_encoding=UTF8", `INSERT INTO books (isbn, author, title) VALUES ('456', 'Kéri', 'Été')`)
	for i, l := range layers {
		found, err := ask(t.Context(), i, address, "Ké")
		if err != nil || !slices.Equal(found, []penny.Book{{ISBN: "456", Author: "Kéri", Title: "Été"}}) {
			t.Errorf("%s finds %v, %v", l.name, found, err)
		}
	}
}

func TestASocketIsReachedAndNamed(t *testing.T) {
	folder, err := os.MkdirTemp("", "penny-socket-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"unix_socket_directories": folder}})
	pgtest.LoadBooks(t, server.URL("postgres"))
	for _, address := range []string{
		with(t, server.URL("postgres"), func(u *url.URL) { u.RawQuery = "host=" + folder + "&port=" + u.Port(); u.Host = "" }),
		strings.Replace(with(t, server.URL("postgres"), settings("sslmode=require")), "@127.0.0.1", "@"+url.PathEscape(folder), 1),
	} {
		for i, l := range layers {
			if found, err := ask(t.Context(), i, address, "ker"); err != nil || len(found) != 2 {
				t.Errorf("%s: %d books, %v", l.name, len(found), err)
			}
			_, err := ask(t.Context(), i, strings.Replace(address, "/postgres", "/nowhere", 1), "ker")
			if says, _ := explain.Error(err, address); !strings.Contains(says, folder+"/.s.PGSQL.") {
				t.Errorf("%s: it says %q", l.name, says)
			}
		}
	}
}

// closed returns an address where nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// refuse lets somebody knock, without encryption, and sends them away with an error.
func refuse(conn net.Conn, code, message string) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	for {
		start, err := backend.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := start.(*pgproto3.SSLRequest); ok {
			_, _ = conn.Write([]byte("N"))
			continue
		}
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
		_ = backend.Flush()
		return
	}
}

// certified returns the address of a server that has a certificate for a name, valid between two times from now, and the
// file of its authority. The server knows nothing but TLS.
func certified(t *testing.T, from, to time.Duration, name string) (address, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
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
	at := pgtest.Serve(t, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil { // SSLRequest
			_, _ = conn.Write([]byte("S"))
			encrypted := tls.Server(conn, config)
			if encrypted.Handshake() == nil {
				refuse(encrypted, "57P03", "the database system is starting up")
			}
		}
		conn.Close()
	})
	_, port, _ := net.SplitHostPort(at)
	return "postgres://penny:hunter2!@localhost:" + port + "/penny?sslmode=verify-full&sslrootcert=" + file, file
}
