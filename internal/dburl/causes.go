package dburl

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
)

// A Cause is one thing that goes wrong between a program and its database: what a person at the terminal reads, and how
// to mend it. The programs, go tool lab doctor and the page docs/troubleshooting.md all draw on the one table Causes.
type Cause struct {
	Name string // in two or three words, as the timing line counts it
	Says string // in a line; {server}, {user}, {database} and {file} stand for those of the address
	Why  string // how it comes about
	Hint string // how to mend it

	Passes bool // it may go by itself within moments: a question that changes nothing is worth asking again

	matches func(error) bool
	mend    func(*url.URL, url.Values) // changes the address and its settings; nil where another address mends nothing
}

// set mends an address by a setting in it.
func set(name, value string) func(*url.URL, url.Values) {
	return func(_ *url.URL, settings url.Values) { settings.Set(name, value) }
}

// asItIs mends nothing in the address but what is written in capitals.
func asItIs(*url.URL, url.Values) {}

// elsewhere mends an address that leads to the wrong computer or port.
func elsewhere(u *url.URL, _ url.Values) { u.Host = "HOST:5432" }

// Error makes a Cause an error: the address of the database is refused with one of them.
func (c *Cause) Error() string { return c.Says }

// Mended is what DATABASE_URL could be set to against the cause, with PASSWORD and the like for what only the user knows.
// It is empty where another address would mend nothing.
func (c *Cause) Mended(address string) string {
	if c.mend == nil {
		return ""
	}
	address, err := Clean(address)
	u := &url.URL{Scheme: "postgres", User: url.User("USER"), Host: "HOST:5432", Path: "/DATABASE"}
	if err == nil && !IsSQLite(address) {
		if u, err = url.Parse(address); err != nil {
			return ""
		}
	}
	name := u.User.Username()
	u.User = nil
	settings := u.Query()
	settings.Del("password")
	settings.Del("sslpassword")
	c.mend(u, settings)
	u.RawQuery = settings.Encode()
	_, rest, _ := strings.Cut(u.String(), "://")
	return "postgres://" + url.User(name).String() + ":PASSWORD@" + rest
}

// The causes that lie in the address itself.
var (
	notSet = &Cause{
		Name: "not set",
		Says: "DATABASE_URL is not set",
		Why: "The program takes the address of its database from the environment, so that no address, and no " +
			"password, stands in its code. Nothing is set there, and there is no .env file in this folder that sets it.",
		Hint: "export DATABASE_URL='postgres://user:password@host:5432/database', or put that line, without export, into " +
			"a file .env here; go tool lab postgres starts a server and prints the line",
		mend: asItIs,
	}
	empty = &Cause{
		Name: "empty",
		Says: "DATABASE_URL is set, but empty",
		Why: "The variable exists with nothing in it, often because a command that should have filled it printed " +
			"nothing. A variable in the environment hides the same one in .env, even when it is empty.",
		Hint: "set it to an address such as postgres://user:password@host:5432/database, or unset DATABASE_URL to let .env speak",
		mend: asItIs,
	}
	badDotEnv = &Cause{
		Name: "bad .env",
		Says: "the file .env in this folder cannot be read as lines of NAME=value",
		Why:  "A line has no equals sign, a quote is not closed, or the file is a folder or not yours to read.",
		Hint: "compare it with .env.example: one DATABASE_URL='...' a line, in single quotes",
	}
	notURL = &Cause{
		Name: "not a URL",
		Says: "DATABASE_URL is not a URL",
		Why: "It has no scheme, the part before ://. Some tools show a database's address as host=... dbname=... " +
			"instead, or show its host alone.",
		Hint: "write it as postgres://user:password@host:5432/database or sqlite:///penny.sqlite",
		mend: asItIs,
	}
	unknownScheme = &Cause{
		Name: "unknown scheme",
		Says: "DATABASE_URL is for a database that Penny does not speak",
		Why:  "The scheme, the part before ://, names the kind of database. Penny knows PostgreSQL and SQLite.",
		Hint: "begin it with postgres:// (or postgresql://) or sqlite:///",
		mend: asItIs,
	}
	malformed = &Cause{
		Name: "malformed",
		Says: "DATABASE_URL does not parse as a URL",
		Why: "Most often the password has a character in it that means something in a URL, so that the URL ends, or " +
			"its host begins, in the wrong place. The port may also be something other than a number from 1 to 65535.",
		Hint: "percent-encode these in the password: % is %25, / is %2F, ? is %3F, # is %23, @ is %40, : is %3A, a space is %20",
		mend: asItIs,
	}
	badSSLMode = &Cause{
		Name: "unknown sslmode",
		Says: "DATABASE_URL asks for an sslmode that does not exist",
		Why:  "The setting sslmode says whether the connection is encrypted, and it has six values.",
		Hint: "use sslmode=require or sslmode=verify-full on a network, sslmode=disable only on this computer",
		mend: set("sslmode", "require"),
	}
	badSQLite = &Cause{
		Name: "bad SQLite path",
		Says: "DATABASE_URL does not name a SQLite file",
		Why: "After sqlite: come three slashes and then the path. A database in memory would be empty, and a new one for " +
			"every connection. Settings behind a question mark are not known.",
		Hint: "three slashes for a file in this folder, sqlite:///penny.sqlite; four for a path from the root, sqlite:////tmp/penny.sqlite",
	}
	needsPostgres = &Cause{
		Name: "not PostgreSQL",
		Says: "DATABASE_URL is SQLite's, and this program speaks PostgreSQL",
		Why:  "database2 and database3 use a driver for PostgreSQL. Only database4 speaks both.",
		Hint: "set it to postgres://user:password@host:5432/database, or go run ./database4, which speaks SQLite too",
		mend: asItIs,
	}
	needsSQLite = &Cause{
		Name: "not SQLite",
		Says: "DATABASE_URL is PostgreSQL's, and the layer database1 speaks SQLite",
		Why:  "database1 uses a driver for SQLite. Only database4 speaks both.",
		Hint: "unset DATABASE_URL or set it to sqlite:///penny.sqlite, or choose database2, 3 or 4",
	}
)

// Causes is every cause that Penny can explain. The first that matches an error explains it.
var Causes = []*Cause{
	notSet, empty, badDotEnv, notURL, unknownScheme, malformed, badSSLMode, badSQLite, needsPostgres, needsSQLite,
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
		mend:    asItIs,
		matches: sqlState("28P01"),
	},
	{
		Name: "encryption required",
		Says: "the server at {server} refuses connections that are not encrypted",
		Why:  "The address says sslmode=disable, or the server has no rule that lets this user in without TLS.",
		Hint: "put ?sslmode=require at the end of DATABASE_URL, in place of any other sslmode",
		mend: set("sslmode", "require"),
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
		mend:    asItIs,
		matches: sqlState("28000"),
	},
	{
		Name: "no encryption",
		Says: "the server at {server} has no encryption, and DATABASE_URL demands it",
		Why:  "The address says sslmode=require or stricter, and the server was set up without TLS, as most are on one's own computer.",
		Hint: "for a server on this computer put ?sslmode=disable at the end of DATABASE_URL; on a network, turn the server's TLS on",
		mend: set("sslmode", "disable"),
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
		mend: set("sslrootcert", "system"),
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
		mend:    func(u *url.URL, _ url.Values) { u.Path = "/DATABASE" },
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
		mend: func(_ *url.URL, settings url.Values) {
			settings.Set("default_query_exec_mode", "exec")
			settings.Set("binary_parameters", "yes")
		},

		matches: sqlState("42P05", "26000", "08P01"),
	},
	{
		Name: "unknown setting",
		Says: "the server at {server} does not know a setting in DATABASE_URL",
		Why:  "What stands behind the question mark of the address is meant for another program or another server.",
		Hint: "take the settings behind the ? out of DATABASE_URL one by one; sslmode is the one that matters",
		mend: func(_ *url.URL, settings url.Values) {
			for name := range settings {
				if name != "sslmode" {
					settings.Del(name)
				}
			}
		},

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
		mend: elsewhere,
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
		mend: elsewhere,
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
		mend: elsewhere,
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
		mend: elsewhere,
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
}

// Find is the cause of err, or nil where Penny has no explanation for it.
func Find(err error) *Cause {
	for _, cause := range Causes {
		if errors.Is(err, cause) || cause.matches != nil && cause.matches(err) {
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

// Explain puts err into a line that says what went wrong at address and a hint on how to mend it, in the words of the
// user's shell; the hint is empty where Penny knows none. Neither has the password of the address in it, nor a line break.
func Explain(err error, address string) (says, hint string) {
	cause := Find(err)
	if cause == nil {
		return oneLine(Redact(err.Error(), address)), ""
	}
	return fill(cause.Says, address), ThisShell().translate(cause.Hint)
}

// fill puts the parts of the address in the place of their names.
func fill(says, address string) string {
	server, user, database, file := "the server", "in DATABASE_URL", "in DATABASE_URL", "in DATABASE_URL"
	if clean, err := Clean(address); err == nil && IsSQLite(clean) {
		file, _ = sqlitePath(clean)
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
