package explain

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"example.com/penny/internal/dburl"
)

// A Cause is one thing that goes wrong between a program and its database. The programs, go tool lab doctor and the page
// docs/troubleshooting.md all use the table Causes.
type Cause struct {
	Name string // in two or three words, as the timing lines count it
	Says string // in one line; {server}, {user}, {database}, {file} and {message} stand for what is known
	Why  string // how it comes about
	Hint string // what to do

	Passes bool // it may pass within moments, so that a read is worth another try

	matches func(*evidence) bool
}

// unknown is the cause of everything that is not in the table. It shows the error's own sentence.
var unknown = &Cause{
	Name: "other",
	Says: "{message}",
	Why:  "Penny does not know this error, and shows what the server or the driver said.",
	Hint: "go tool lab doctor checks each step of the way to the database",
}

// unknownFile is the hint for an unknown error of SQLite, about which the doctor may know nothing.
const unknownFile = "if the file is Penny's, move it away and run go run ./database1, which makes a new one"

const (
	wsaRefused     = syscall.Errno(10061) // WSAECONNREFUSED: Windows' own numbers
	wsaUnreachable = syscall.Errno(10051) // WSAENETUNREACH
	wsaNoHost      = syscall.Errno(10065) // WSAEHOSTUNREACH
)

// Causes are the causes that Penny knows. The first that matches an error explains it.
var Causes = append(ofAddress(), []*Cause{
	{
		Name:    "stopped",
		Says:    "stopped before the answer came",
		Why:     "Somebody pressed Ctrl-C, or the host stopped the program, while it waited for the database.",
		Hint:    "run it again",
		matches: stopped,
	},

	// What a server says while it lets somebody in.
	{
		Name: "wrong password",
		Says: "the server at {server} does not accept this password for the user {user}",
		Why: "The password is wrong or missing, or the user does not exist: most servers do not say which. Hosts change a " +
			"database's password from time to time, and its address with it.",
		Hint: "copy the whole address from your host's page again (Heroku: Settings, Config Vars) and set DATABASE_URL to it",
		matches: or(code("28P01"), codeSaying(`auth.* failed|no such user|wrong password|password.*(required|missing|incorrect)`, "08P01", "28000"),
			text("no password supplied", "password is empty")),
	},
	{
		Name: "encryption required",
		Says: "the server at {server} accepts only encrypted connections: {message}",
		Why:  "The address says sslmode=disable, or the server wants encryption and this connection had none.",
		Hint: "set sslmode=require in DATABASE_URL, in place of any other sslmode",
		matches: or(and(codeSaying(`no encryption`, "28000"), forbidsTLS),
			and(codeSaying(`((ssl|tls|encryption|secure transport).*(required|must|only|enforce))|((require|must use|only).*(ssl|tls|encrypt))|insecure`,
				"28000", "08P01", "08004", "XX000"), plain)),
	},
	{
		Name: "not allowed",
		Says: "the server at {server} does not let the user {user} in: {message}",
		Why: "The user does not exist, or the server's file pg_hba.conf has no rule that lets this user in from this computer, " +
			"to this database, with or without encryption.",
		Hint:    "check the user in DATABASE_URL, and whether your host has a list of computers that may connect",
		matches: or(code("28000"), codeSaying(`tenant or user not found`, "XX000")),
	},
	{
		Name: "no encryption",
		Says: "{server} does not offer encryption, and DATABASE_URL demands it",
		Why: "The address says sslmode=require or stricter. Most servers on one's own computer have no encryption. If what " +
			"listens there is not PostgreSQL, it has none either.",
		Hint:    "for a server on your own computer take sslmode out of DATABASE_URL; on a network, check the host and the port",
		matches: text("SSL is not enabled on the server", "server refused TLS connection"),
	},
	{
		Name:    "certificate expired",
		Says:    "the certificate of {server} is not valid now: {message}",
		Why:     "A certificate is valid from one date to another, and this computer's clock is outside of them.",
		Hint:    "check this computer's date; if it is right, the server needs a new certificate",
		matches: as(func(err x509.CertificateInvalidError) bool { return err.Reason == x509.Expired }),
	},
	{
		Name:    "certificate's name",
		Says:    "the certificate of {server} is for another name: {message}",
		Why:     "sslmode=verify-full compares the host in the address with the names in the certificate.",
		Hint:    "use a name from the certificate as the host in DATABASE_URL",
		matches: as(func(x509.HostnameError) bool { return true }),
	},
	{
		Name:    "certificate's authority",
		Says:    "this computer does not trust who signed the certificate of {server}: {message}",
		Why:     "sslmode=verify-ca and verify-full accept only a certificate that a known authority signed.",
		Hint:    "put your host's certificate of authority into a file and add sslrootcert=FILE to DATABASE_URL; for a public authority, sslrootcert=system",
		matches: as(func(x509.UnknownAuthorityError) bool { return true }),
	},
	{
		Name:    "certificate",
		Says:    "the certificate of {server} cannot be verified: {message}",
		Why:     "sslmode=verify-ca and verify-full check the server's certificate, and this one does not pass.",
		Hint:    "check the host in DATABASE_URL, and sslrootcert if it is set; ask your host which certificate it uses",
		matches: or(as(func(x509.CertificateInvalidError) bool { return true }), text("failed to verify certificate", "x509: ")),
	},
	{
		Name: "certificate file",
		Says: "a certificate file of DATABASE_URL cannot be used: {message}",
		Why:  "sslrootcert, sslcert and sslkey name files on this computer. One is missing, is not yours to read, or holds no certificate.",
		Hint: "check the paths of sslrootcert, sslcert and sslkey in DATABASE_URL; sslrootcert=system needs no file",
		matches: or(and(as(func(*fs.PathError) bool { return true }), onServer),
			text("CA file", "CA to cert pool", "pem from sslrootcert", "root certificate", "sslcert", "sslkey", "private key", "failed to find any PEM data")),
	},
	{
		Name:    "unknown database",
		Says:    "the server at {server} has no database {database}",
		Why:     "The name after the last slash of the address is not the name of a database on that server.",
		Hint:    "check that name in DATABASE_URL, or make the database with psql: CREATE DATABASE name;",
		matches: or(code("3D000"), codeSaying(`no such database|database .* does not exist`, "08P01", "XX000")),
	},
	{
		Name:   "server full",
		Says:   "the server at {server} is full: {message}",
		Passes: true,
		Why: "Each server limits its connections, and hosts also limit those of a user or a database. Small plans have 20, of " +
			"which the administrator keeps three. A program that opens a connection for each call uses them up, and so do " +
			"several programs with a pool each.",
		Hint:    "close other programs, or open fewer connections: that is what the pool of database3 and its flag -pool are for",
		matches: or(code("53300", "53400"), codeSaying(`no more connections|max.*clients|too many (clients|connections)|query_wait_timeout`, "08P01", "XX000")),
	},
	{
		Name:    "server starting",
		Says:    "the server at {server} is starting or stopping: {message}",
		Passes:  true,
		Why:     "While a server starts, stops or recovers, it refuses connections for some seconds.",
		Hint:    "try again in a few seconds",
		matches: or(code("57P03"), codeSaying(`server_login_retry|server login|cannot connect to server|connect failed|is starting`, "08P01", "XX000")),
	},
	{
		Name:   "no primary",
		Says:   "none of the servers at {server} takes writes at the moment",
		Passes: true,
		Why: "The address has target_session_attrs, and each server that answered is of the other kind: a standby while the " +
			"program asks for a primary, or the reverse. After a primary fails, it takes seconds until a standby takes over.",
		Hint: "try again in a few seconds; if it goes on, check the hosts and target_session_attrs in DATABASE_URL",
		matches: func(e *evidence) bool {
			all := &evidence{err: e.all} // A host that is down may come after the standby that answered.
			return text("read only connection", "connection is not read only", "server is not in hot standby mode", "server is in standby mode",
				"session is read-only", "session is not read-only", "server is in hot standby mode")(all)
		},
	},
	{
		Name:    "session ended",
		Says:    "the server at {server} ended the connection: {message}",
		Passes:  true,
		Why:     "An administrator ended this connection, the server is stopping or crashed, or the connection was idle for too long.",
		Hint:    "run it again; if the server is stopping, start it or wait until it is up",
		matches: code("57P01", "57P02", "57P05", "25P03", "25P04"),
	},

	// What a server says to a question.
	{
		Name:    "no books table",
		Says:    "the database {database} has no books table",
		Why:     "The database exists, but nobody has loaded penny.sql into it, or the table is in a schema that is not searched.",
		Hint:    "load it: go tool lab load, or with psql: psql YOUR_ADDRESS -f penny.sql",
		matches: or(code("42P01", "3F000"), and(sqlite(1), text("no such table"))),
	},
	{
		Name: "other books table",
		Says: "the books table in {database} is not the one of penny.sql: {message}",
		Why:  "There is a table called books, but a column is missing or has another type.",
		Hint: "keep that table and use another database, because penny.sql would drop it",
		matches: or(code("42703", "42883", "42804", "42809"), and(sqlite(1), text("no such column")),
			text("cannot scan", "can't scan", "Scan error on column", "unsupported Scan")),
	},
	{
		Name:    "no right to the schema",
		Says:    "the user {user} may not use the schema of the books: {message}",
		Why:     "A role needs the right USAGE to read a table in a schema, and CREATE to make one. PostgreSQL 15 and later grant CREATE in public to nobody.",
		Hint:    "as the schema's owner: GRANT USAGE ON SCHEMA public TO the user (to load the books: GRANT USAGE, CREATE); or use a database of your own",
		matches: codeSaying(`for schema`, "42501"),
	},
	{
		Name:    "no right to connect",
		Says:    "the user {user} may not connect to the database {database}: {message}",
		Why:     "A role needs the right CONNECT on a database, and its owner has taken it away.",
		Hint:    "as the database's owner: GRANT CONNECT ON DATABASE name TO the user; or use another database",
		matches: codeSaying(`for database`, "42501"),
	},
	{
		Name:    "no right to the table",
		Says:    "the user {user} may not read the books table: {message}",
		Why:     "The table belongs to another user, who has not granted this one the right to read it.",
		Hint:    "as the table's owner: GRANT SELECT ON books TO the user; or use the owner's address",
		matches: codeSaying(`for (table|relation|view|foreign table|materialized view)`, "42501"),
	},
	{
		Name:    "no permission",
		Says:    "the user {user} may not do this: {message}",
		Why:     "What the program asked for needs a right that this user does not have.",
		Hint:    "use the address of the owner or an administrator, or ask them for that right",
		matches: code("42501"),
	},
	{
		Name:    "read-only",
		Says:    "the database {database} at {server} only lets you read: {message}",
		Why:     "The server is a standby, or the database or the user is set to read-only.",
		Hint:    "use the address of the primary server, or one without default_transaction_read_only",
		matches: code("25006"),
	},
	{
		Name: "pooler in between",
		Says: "a prepared statement is unknown or known already at {server}: {message}",
		Why: "A pooler such as PgBouncer in transaction mode gives each transaction another connection. A statement that was " +
			"prepared on one is unknown on the next.",
		Hint:    "add default_query_exec_mode=exec&binary_parameters=yes after the ? of DATABASE_URL: the first is for pgx, the second for lib/pq",
		matches: or(code("42P05", "26000"), codeSaying(`prepared statement`, "08P01")),
	},
	{
		Name:    "unknown setting",
		Says:    "the server at {server} does not accept a setting of DATABASE_URL: {message}",
		Why:     "A setting after the question mark of the address is for another program or another server, or its value is wrong.",
		Hint:    "take that setting out of DATABASE_URL",
		matches: or(codeSaying(`parameter`, "42704", "22023", "08P01"), codeSaying(`time zone`, "22023")),
	},
	{
		Name:    "quoted backslash",
		Says:    "the server at {server} reads a backslash in quotes in the old way: {message}",
		Why:     "standard_conforming_strings is off. Then a backslash escapes the quote behind it, and Penny's ESCAPE '\\' never ends.",
		Hint:    "as the database's owner: ALTER DATABASE name SET standard_conforming_strings = on",
		matches: codeSaying(`unterminated quoted string`, "42601"),
	},
	{
		Name:    "not text",
		Says:    "the author's name has characters that the database cannot store: {message}",
		Why:     "The database has an encoding, such as UTF-8 or LATIN1. PostgreSQL stores no zero bytes, and no character that its encoding lacks.",
		Hint:    "type the name again, without special characters",
		matches: code("22021", "22P05"),
	},
	{
		Name:    "query ended",
		Says:    "the server at {server} ended the query: {message}",
		Why:     "The query took longer than a limit of the server allows, another program locked the table, or an administrator ended it.",
		Hint:    "try again; if the table is large, go tool lab load -index adds an index that makes the search fast",
		matches: code("57014", "55P03"),
	},
	{
		Name:    "conflict",
		Says:    "the query met another program's change: {message}",
		Passes:  true,
		Why:     "Two programs changed the same rows, or a standby had to apply a change that the query still needed.",
		Hint:    "run it again",
		matches: code("40001", "40P01"),
	},
	{
		Name:    "table changed",
		Says:    "the books table changed while the program ran: {message}",
		Passes:  true,
		Why:     "Each connection keeps a prepared statement. After somebody changes a column's type, it fails once.",
		Hint:    "run it again",
		matches: codeSaying(`cached plan`, "0A000"),
	},
	{
		Name:    "other server",
		Says:    "the server at {server} cannot reach another server that it needs: {message}",
		Passes:  true,
		Why:     "The books, or the way to them, are on several servers, and one of them is down or out of reach.",
		Hint:    "try again in a few seconds; if it goes on, check the servers behind this one",
		matches: code("08000", "08001", "08003", "08006"),
	},

	// What happens before a server says anything.
	{
		Name:    "pool in use",
		Says:    "every connection of the pool is in use, and none came back in time",
		Why:     "The pool lends a limited number of connections. Their borrowers keep them longer than this caller could wait.",
		Hint:    "release each connection as soon as its question is answered; if questions are slow, find out why",
		matches: func(e *evidence) bool { return text("connections are in use")(&evidence{err: e.all}) },
	},
	{
		Name:    "name service",
		Says:    "the name service did not answer: {message}",
		Passes:  true,
		Why:     "This computer is offline, or its name server does not answer at the moment.",
		Hint:    "check whether this computer is online, and try again",
		matches: as(func(err *net.DNSError) bool { return err.IsTemporary || err.IsTimeout }),
	},
	{
		Name:    "unknown host",
		Says:    "there is no computer called {server}",
		Why:     "The name of the host in the address is misspelt, or known only in another network.",
		Hint:    "check the host in DATABASE_URL, between @ and the next : or /",
		matches: as(func(*net.DNSError) bool { return true }),
	},
	{
		Name:    "no route",
		Says:    "no way leads from this computer to {server}: {message}",
		Why:     "The network does not carry packets there. Some hosts have only an IPv6 address, and many networks carry only IPv4.",
		Hint:    "try another network, or the address of your host's pooler, which often has IPv4",
		matches: is(syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, wsaUnreachable, wsaNoHost),
	},
	{
		Name:   "no server",
		Says:   "no server answers at {server}",
		Passes: true,
		Why: "The computer is there, but nothing listens at that port or socket: PostgreSQL is not running, or it has another " +
			"port or is on another computer.",
		Hint: "start PostgreSQL (go tool lab postgres starts one), or change the host and port in DATABASE_URL; database4 and pennyapp also run on SQLite",
		matches: or(is(syscall.ECONNREFUSED, wsaRefused),
			and(is(syscall.ENOENT), as(func(err *net.OpError) bool { return err.Net == "unix" }))),
	},
	{
		Name:    "blocked",
		Says:    "this computer does not let the program connect to {server}: {message}",
		Why:     "A firewall on this computer, or the rights of a socket's file, forbid it.",
		Hint:    "check this computer's firewall, or the rights of the socket's folder",
		matches: and(is(fs.ErrPermission), as(func(*net.OpError) bool { return true })),
	},
	{
		Name: "no answer",
		Says: "{server} did not answer in time",
		Why: "A firewall or a network on the way swallows what is sent, the server hangs, or the database of a free plan is " +
			"still waking up.",
		Hint: "try again in a minute; then check the host and port in DATABASE_URL, and your host's status page",
		matches: or(is(context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.ETIMEDOUT),
			as(func(err net.Error) bool { return err.Timeout() }),
			text("i/o timeout")), // lib/pq passes on the text alone if it was writing
	},
	{
		Name: "not PostgreSQL's",
		Says: "what answers at {server} is not PostgreSQL",
		Why:  "Another program, such as a web server, listens at that port.",
		Hint: "change the port in DATABASE_URL: PostgreSQL's is 5432 unless somebody chose another",
		matches: text("invalid body length", "invalid message length", "unexpected message", "unexpected response", "unknown message type",
			"unknown response for startup", "tls: first record does not look like a TLS handshake", "message too large", "invalid protocol"),
	},
	{
		Name:   "connection lost",
		Says:   "{server} hung up before it answered",
		Passes: true,
		Why: "The server stopped or ended the connection, a network on the way cut it, or what listens at that port is not " +
			"PostgreSQL.",
		Hint: "try again; if it goes on, check the host and port in DATABASE_URL and the server's log",
		matches: or(is(io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED),
			text("conn closed", "bad connection")),
	},

	// What happens to a SQLite file.
	{
		Name:    "not a database",
		Says:    "{file} is not a SQLite database",
		Why:     "The file holds something else, such as text, or it is damaged.",
		Hint:    "check the path; if the file is Penny's, move it away and run go run ./database1, which makes a new one",
		matches: sqlite(26, 11),
	},
	{
		Name:    "locked",
		Says:    "another program has locked the SQLite file {file}",
		Passes:  true,
		Why:     "SQLite lets one program write at a time, and locks the whole file for it. Penny waits for five seconds.",
		Hint:    "close the other program, such as a sqlite3 session with an open transaction, and try again",
		matches: sqlite(5, 6),
	},
	{
		Name:    "disk full",
		Says:    "the disk is full, and {file} cannot be written",
		Why:     "The disk or your share of it has no space left.",
		Hint:    "free some space, or run the program in a folder on another disk",
		matches: or(sqlite(13), is(syscall.ENOSPC, syscall.EDQUOT)),
	},
	{
		Name:    "read-only file",
		Says:    "{file} cannot be written: {message}",
		Why:     "The file, its folder or its disk is read-only, or belongs to another user. SQLite also writes beside the file, in the same folder.",
		Hint:    "copy the file to a folder that you may write to, or run the program in one",
		matches: or(sqlite(8), and(onFile, is(fs.ErrPermission, syscall.EROFS))),
	},
	{
		Name:    "no SQLite file",
		Says:    "the SQLite file {file} cannot be opened: {message}",
		Why:     "The file or its folder does not exist, it is a folder itself, or you may not read it.",
		Hint:    "check the path (sqlite:/// and a name is a file in this folder, sqlite://// a path from the root); go run ./database1 makes penny.sqlite here",
		matches: or(sqlite(14, 23), and(onFile, is(fs.ErrNotExist, syscall.ENOTDIR, syscall.EISDIR))),
	},
	{
		Name:    "disk",
		Says:    "the disk reports an error for {file}: {message}",
		Why:     "The disk is damaged or was removed, or a network disk is out of reach.",
		Hint:    "copy the file to another disk and run the program there",
		matches: sqlite(10),
	},
}...)

// ofAddress returns the causes that are in the address itself.
func ofAddress() (causes []*Cause) {
	for _, p := range dburl.Problems {
		causes = append(causes, &Cause{Name: p.Name, Says: p.Says, Why: p.Why, Hint: p.Hint,
			matches: func(e *evidence) bool { return errors.Is(e.all, p) }})
	}
	return causes
}
