// Package explain turns an error from a database into its cause and a hint that helps.
package explain

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"

	"example.com/penny/internal/dburl"
)

// A Cause is one thing that goes wrong between a program and its database. The programs, go tool lab doctor and the page
// docs/troubleshooting.md all use the table Causes.
type Cause struct {
	Name string // in two or three words, as the timing lines count it
	Says string // in one line; {server}, {user}, {database} and {file} stand for those of the address
	Why  string // how it comes about
	Hint string // what to do

	Passes bool // it may pass within moments, so that a read is worth another try

	matches func(error) bool
}

// Causes is every cause that Penny can explain. The first that matches an error explains it.
var Causes = append(ofAddress(), []*Cause{
	{
		Name: "stopped",
		Says: "stopped before the answer came",
		Why:  "The program was told to stop, by Ctrl-C or by its host, while it waited for the database.",
		Hint: "run it again",
		matches: func(err error) bool {
			return errors.Is(err, context.Canceled)
		},
	},
	{
		Name: "wrong password",
		Says: "the server at {server} refuses the user {user} with this password",
		Why: "The password is wrong or has changed, or there is no such user: the server does not say which. " +
			"Hosts change a database's password from time to time, and its address with it.",
		Hint:    "copy the address anew from your host's page (Heroku: Settings, Config Vars) and set DATABASE_URL to it",
		matches: sqlState("28P01"),
	},
	{
		Name: "encryption required",
		Says: "the server at {server} refuses connections that are not encrypted",
		Why:  "The address says sslmode=disable, or the server has no rule that lets this user in without TLS.",
		Hint: "put ?sslmode=require at the end of DATABASE_URL, in place of any other sslmode",
		matches: func(err error) bool {
			return sqlState("28000")(err) && strings.Contains(err.Error(), "no encryption")
		},
	},
	{
		Name: "not allowed",
		Says: "the server at {server} does not let the user {user} in",
		Why: "There is no such user, or the server's pg_hba.conf has no rule that lets this user come from this computer " +
			"to this database.",
		Hint:    "check the user in DATABASE_URL, and whether your host wants this computer's address on a list of allowed ones",
		matches: sqlState("28000"),
	},
	{
		Name: "no encryption",
		Says: "the server at {server} has no encryption, and DATABASE_URL demands it",
		Why:  "The address says sslmode=require or stricter, and the server was set up without TLS, as most are on one's own computer.",
		Hint: "for a server on this computer put ?sslmode=disable at the end of DATABASE_URL; on a network, turn the server's TLS on",
		matches: func(err error) bool {
			// Neither driver gives this a code: the first text is lib/pq's, the second pgx's.
			return contains(err, "SSL is not enabled on the server", "server refused TLS connection")
		},
	},
	{
		Name: "certificate",
		Says: "the certificate of the server at {server} cannot be verified",
		Why: "The address says sslmode=verify-ca or verify-full, and the server's certificate is signed by nobody this " +
			"computer trusts, is out of date, or is for another host name.",
		Hint: "check the host in DATABASE_URL; for a public certificate add sslrootcert=system, for your host's own sslrootcert=FILE",
		matches: func(err error) bool {
			var authority x509.UnknownAuthorityError
			var name x509.HostnameError
			var invalid x509.CertificateInvalidError
			return errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid) ||
				contains(err, "failed to verify certificate", "root certificate file")
		},
	},
	{
		Name:    "unknown database",
		Says:    "the server at {server} has no database {database}",
		Why:     "The name after the last slash of the address is not the name of a database on that server.",
		Hint:    "check that name in DATABASE_URL, or make the database with psql: CREATE DATABASE name;",
		matches: sqlState("3D000"),
	},
	{
		Name: "no books table",
		Says: "the database {database} has no books table",
		Why:  "The database is there, but nobody has loaded penny.sql into it yet.",
		Hint: "load it: psql \"$DATABASE_URL\" -f penny.sql, or without psql: go tool lab load",
		matches: func(err error) bool {
			return sqlState("42P01")(err) || contains(err, "no such table")
		},
	},
	{
		Name: "other books table",
		Says: "the books table in {database} is not the one of penny.sql",
		Why:  "There is a table called books, but it lacks a column that Penny asks for.",
		Hint: "keep that table and use another database; penny.sql would drop it",
		matches: func(err error) bool {
			return sqlState("42703")(err) || contains(err, "no such column")
		},
	},
	{
		Name: "no permission",
		Says: "the user {user} may not read the books table in {database}",
		Why:  "The table belongs to another user, who has not granted this one the right to read it.",
		Hint: "as its owner: GRANT SELECT ON books TO the user; or use the owner's address",

		matches: sqlState("42501"),
	},
	{
		Name:   "server full",
		Passes: true,
		Says:   "the server at {server} is full: it lends no more connections",
		Why: "Every server has a limit, and small hosted plans have 20, three of them kept for the administrator. " +
			"A program that opens a connection for every call, or several programs with a pool each, use them up.",
		Hint: "close other programs, or hold fewer connections: that is what the pool of database3 is for, and its -pool flag",

		matches: sqlState("53300"),
	},
	{
		Name:   "server starting",
		Passes: true,
		Says:   "the server at {server} is starting or stopping",
		Why:    "A server that restarts refuses connections for some seconds and ends those that it had.",
		Hint:   "try again in a few seconds",

		matches: sqlState("57P01", "57P02", "57P03"),
	},
	{
		Name: "pooler in between",
		Says: "a prepared statement went astray between this program and the server at {server}",
		Why: "Something like PgBouncer in transaction mode hands each transaction to another connection, and a statement " +
			"that was prepared on one is unknown, or known already, on the next.",
		Hint: "put default_query_exec_mode=exec&binary_parameters=yes behind the ? of DATABASE_URL: the first is pgx's, the second lib/pq's",

		matches: sqlState("42P05", "26000", "08P01"),
	},
	{
		Name: "unknown setting",
		Says: "the server at {server} does not know a setting in DATABASE_URL",
		Why:  "What stands behind the question mark of the address is meant for another program or another server.",
		Hint: "take the settings behind the ? out of DATABASE_URL one by one; sslmode is the one that matters",

		matches: sqlState("42704", "22023"),
	},
	{
		Name: "not text",
		Says: "the author's name has characters in it that PostgreSQL does not store",
		Why:  "PostgreSQL takes text in UTF-8 without zero bytes.",
		Hint: "type the name again; in a file, save it as UTF-8",

		matches: sqlState("22021"),
	},
	{
		Name: "query ended",
		Says: "the server at {server} ended the query before it was done",
		Why:  "The query took longer than the server's or the caller's limit, or an administrator stopped it.",
		Hint: "try again; if the table is large, an index makes the search fast: go tool lab load -index",

		matches: sqlState("57014", "25P02", "55P03"),
	},
	{
		Name: "unknown host",
		Says: "no computer called {server} is known",
		Why:  "The host's name in the address is misspelt, or this computer has no network or no name server.",
		Hint: "check the host in DATABASE_URL, between @ and the next : or /, and whether this computer is online",
		matches: func(err error) bool {
			var dns *net.DNSError
			return errors.As(err, &dns)
		},
	},
	{
		Name:   "no server",
		Passes: true,
		Says:   "no server answers at {server}",
		Why: "The computer is there, but nothing listens at that port: PostgreSQL is not running, or it runs at another " +
			"port or on another computer.",
		Hint: "start PostgreSQL (go tool lab postgres does it), or mend the host and the port in DATABASE_URL",
		matches: func(err error) bool {
			const windowsRefused = syscall.Errno(10061) // WSAECONNREFUSED
			return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, windowsRefused) ||
				errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) ||
				contains(err, "connect: no such file or directory") // a Unix socket
		},
	},
	{
		Name:    "no SQLite file",
		Says:    "the SQLite file {file} cannot be opened",
		Why:     "There is no such file or folder, it is a folder itself, or it is not yours to read and write.",
		Hint:    "check the path in DATABASE_URL: three slashes for this folder, four for the root; go run ./database1 makes penny.sqlite here",
		matches: or(sqliteCode(14, 23), func(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) }),
	},
	{
		Name:    "not a database",
		Says:    "{file} is not a SQLite database",
		Why:     "The file holds something else, such as text, or it is damaged.",
		Hint:    "check the path; if the file is meant to be Penny's, move it away and let go run ./database1 make a new one",
		matches: sqliteCode(26, 11),
	},
	{
		Name:    "locked",
		Passes:  true,
		Says:    "the SQLite file {file} is locked by another program",
		Why:     "SQLite lets one program write at a time, and locks the whole file for it. Penny waits for five seconds.",
		Hint:    "close the other program, such as an open sqlite3 session with a transaction, and try again",
		matches: sqliteCode(5, 6),
	},
	{
		Name:    "disk",
		Says:    "the SQLite file {file} cannot be read or written",
		Why:     "The disk is full, the file is read-only, or the disk reports an error.",
		Hint:    "free some space, or copy the file to a folder that is yours to write",
		matches: sqliteCode(8, 10, 13),
	},
	{
		Name: "pool in use",
		Says: "every connection of the pool is in use, and none came back in time",
		Why: "The pool lends a number of connections and no more. Those who have them hold them for longer than this caller " +
			"could wait: their questions are slow, or somebody does not give them back.",
		Hint: "release what you acquire, with defer; hold it for one question only; if the questions are slow, see why",
		matches: func(err error) bool {
			return contains(err, "connections are in use")
		},
	},
	{
		Name: "no answer",
		Says: "{server} did not answer in time",
		Why: "The computer, or a firewall before it, swallows what is sent, the server hangs, or a free plan's database is " +
			"still waking up.",
		Hint: "try again in a minute; then check the host and the port in DATABASE_URL and your host's status page",
		matches: func(err error) bool {
			var network net.Error
			return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
				errors.As(err, &network) && network.Timeout() || errors.Is(err, syscall.ETIMEDOUT) ||
				contains(err, "i/o timeout") // lib/pq passes the text on alone where it was writing
		},
	},
	{
		Name: "not PostgreSQL's",
		Says: "what answers at {server} is not PostgreSQL",
		Why:  "Another program, such as a web server, listens at that port.",
		Hint: "mend the port in DATABASE_URL: PostgreSQL's is 5432 where nobody has chosen another",
		matches: func(err error) bool {
			return contains(err, "invalid body length", "unexpected message", "received unexpected", "unknown message type")
		},
	},
	{
		Name:   "connection lost",
		Passes: true,
		Says:   "the connection to {server} broke",
		Why:    "The server stopped, ended the connection, or the network between failed, in the middle of a call.",
		Hint:   "try again; if it goes on, check that what listens at that port is PostgreSQL",
		matches: func(err error) bool {
			return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) ||
				errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
				contains(err, "conn closed")
		},
	},
}...)

// ofAddress returns the causes that are in the address itself.
func ofAddress() (causes []*Cause) {
	for _, p := range dburl.Problems {
		causes = append(causes, &Cause{Name: p.Name, Says: p.Says, Why: p.Why, Hint: p.Hint,
			matches: func(err error) bool { return errors.Is(err, p) }})
	}
	return causes
}

// Find is the cause of err, or nil where Penny has no explanation for it.
func Find(err error) *Cause {
	for _, cause := range Causes {
		if cause.matches(err) {
			return cause
		}
	}
	return nil
}

// Name is the name of err's cause, as the timing line counts it, or "other".
func Name(err error) string {
	if cause := Find(err); cause != nil {
		return cause.Name
	}
	return "other"
}

// Error returns what went wrong at address in one line, and a hint. The hint is empty if the cause is unknown. Neither
// contains the password of the address.
func Error(err error, address string) (says, hint string) {
	cause := Find(err)
	if cause == nil {
		return oneLine(dburl.Redact(err.Error(), address)), ""
	}
	return fill(cause.Says, address), cause.Hint
}

// fill puts the parts of the address in the place of their names.
func fill(says, address string) string {
	server, user, database, file := "the server", "in DATABASE_URL", "in DATABASE_URL", "in DATABASE_URL"
	if clean, err := dburl.Clean(address); err == nil && dburl.IsSQLite(clean) {
		file, _ = dburl.File(clean)
		database = file
	} else if u, err := url.Parse(clean); err == nil && clean != "" {
		server, user = u.Host, u.User.Username()
		if database = strings.TrimPrefix(u.Path, "/"); database == "" {
			database = user
		}
	}
	return oneLine(strings.NewReplacer("{server}", server, "{user}", user, "{database}", database, "{file}", file).Replace(says))
}

// oneLine folds a text of several lines, such as pgx's errors, into one and takes out what could confuse a terminal.
func oneLine(text string) string {
	fields := strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f })
	return strings.Join(fields, " ")
}

// sqlState matches an error with one of PostgreSQL's codes. lib/pq's and pgx's errors both have this method.
func sqlState(codes ...string) func(error) bool {
	return func(err error) bool {
		var server interface{ SQLState() string }
		return errors.As(err, &server) && slices.Contains(codes, server.SQLState())
	}
}

// sqliteCode matches an error with one of SQLite's primary result codes, which are the low byte of the extended ones.
func sqliteCode(codes ...int) func(error) bool {
	return func(err error) bool {
		var file interface{ Code() int }
		return errors.As(err, &file) && slices.Contains(codes, file.Code()&0xff)
	}
}

func contains(err error, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(err.Error(), text) })
}

func or(first, second func(error) bool) func(error) bool {
	return func(err error) bool { return first(err) || second(err) }
}
