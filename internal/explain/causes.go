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
	Says string // in one line; {server}, {servers}, {user}, {database}, {file} and {message} stand for what is known
	Why  string // why it happens, unless Says tells that
	Hint string // what to do

	Passes bool // it may pass within moments, so that a read is worth another try
	Ended  bool // a connection ended before the answer came, so that a read is worth another try at once

	matches func(*evidence) bool
}

// unknown is the cause of everything that is not in the table. It shows the error's own sentence.
var unknown = &Cause{
	Name: "other",
	Says: "{message}",
	Hint: "go tool lab doctor checks each step of the way to the database",
}

// Windows numbers these errors of the network differently.
const (
	wsaUnreachable = syscall.Errno(10051) // WSAENETUNREACH
	wsaRefused     = syscall.Errno(10061) // WSAECONNREFUSED
	wsaNoHost      = syscall.Errno(10065) // WSAEHOSTUNREACH
)

// remake is the hint if a SQLite file is not what it should be.
const remake = "check the path; if it is Penny's file, move it away: go run ./database1 makes a new penny.sqlite in this folder, go tool lab load makes one elsewhere"

// Causes are the causes that Penny knows. The first that matches an error explains it.
var Causes = append(ofAddress(), []*Cause{
	{Name: "stopped", matches: stopped,
		Says: "stopped before the answer came",
		Hint: "run it again"},

	// What a server says while a program connects.
	{Name: "wrong password", matches: or(code("28P01"),
		says(`auth.* failed|no such user|wrong password|password.*(required|missing|incorrect)`, "08P01", "28000"),
		says(`no password supplied|password is empty`, "")),
		Says: "the server at {server} does not accept this password for the user {user}",
		Why:  "The password is wrong or missing, or the user does not exist: most servers do not say which.",
		Hint: "copy the whole address again, from your host's page (Heroku: Settings, Config Vars) or from go tool lab postgres"},
	{Name: "encryption required", matches: or(and(says(`no encryption`, "28000"), sslmode("disable")),
		and(says(`(ssl|tls|encryption|secure transport).*(required|must|only|enforce)|(require|must use|only).*(ssl|tls|encrypt)|insecure`,
			"28000", "08P01", "08004", "XX000"), sslmode("", "disable", "allow", "prefer"))),
		Says: "the server at {server} accepts only encrypted connections: {message}",
		Hint: "set sslmode=require in DATABASE_URL, in place of any other sslmode"},
	{Name: "not allowed", matches: or(code("28000"), says(`tenant or user not found`, "XX000")),
		Says: "the server at {server} does not let the user {user} in: {message}",
		Why:  "The user does not exist, or the server's pg_hba.conf has no rule for this user, database and computer.",
		Hint: "check the user in DATABASE_URL, and your host's list of computers that may connect"},
	{Name: "no encryption", matches: says(`SSL is not enabled on the server|server refused TLS connection`, ""),
		Says: "{server} does not offer encryption, and the settings demand it",
		Why:  "sslmode is in DATABASE_URL, or comes from the variable PGSSLMODE.",
		Hint: "on your own computer, replace all settings that begin with ssl in DATABASE_URL with sslmode=disable; on a network, check the host and port"},
	{Name: "certificate expired", matches: as(func(err x509.CertificateInvalidError) bool { return err.Reason == x509.Expired }),
		Says: "the certificate of {server} is not valid now: {message}",
		Hint: "check this computer's date; if it is right, the server needs a new certificate"},
	{Name: "certificate's name", matches: as(func(x509.HostnameError) bool { return true }),
		Says: "the certificate of {server} is for another name: {message}",
		Hint: "use a name from the certificate as the host in DATABASE_URL"},
	{Name: "certificate's authority", matches: as(func(x509.UnknownAuthorityError) bool { return true }),
		Says: "this computer does not trust the authority that signed the certificate of {server}: {message}",
		Hint: "save your host's CA certificate in a file and add sslrootcert=FILE to DATABASE_URL; for a public authority, sslrootcert=system"},
	{Name: "certificate", matches: or(as(func(x509.CertificateInvalidError) bool { return true }), says(`failed to verify certificate|x509: `, "")),
		Says: "the certificate of {server} cannot be verified: {message}",
		Hint: "check the host and sslrootcert in DATABASE_URL; ask your host which certificate it uses"},
	{Name: "certificate file", matches: or(and(onServer, as(func(*fs.PathError) bool { return true })),
		says(`CA file|CA to cert pool|pem from sslrootcert|root certificate|sslcert|sslkey|private key|failed to find any PEM data`, "")),
		Says: "a certificate file cannot be used: {message}",
		Hint: "check sslrootcert, sslcert and sslkey in DATABASE_URL, or PGSSLROOTCERT, PGSSLCERT and PGSSLKEY; sslrootcert=system needs no file"},
	{Name: "unknown database", matches: or(code("3D000"), says(`no such database|database .* does not exist`, "08P01", "XX000")),
		Says: "the server at {server} has no database {database}",
		Hint: "check the name after the last / of DATABASE_URL, or make the database with psql: CREATE DATABASE name;"},
	{Name: "server full", Passes: true, matches: or(code("53300", "53400"),
		says(`no more connections|max.*client|too many (clients|connections)`, "08P01", "XX000")),
		Says: "the server at {server} is full: {message}",
		Why:  "Small plans let 17 connections in. Programs that connect for each call, or have a pool each, use them up.",
		Hint: "close other programs, or open fewer connections: database3 has a pool, with the flag -pool"},
	{Name: "server starting", Passes: true, matches: or(code("57P03"),
		says(`server_login_retry|server login|cannot connect to server|connect failed|is starting`, "08P01", "XX000")),
		Says: "the server at {server} is starting or stopping: {message}",
		Hint: "try again in a few seconds"},
	{Name: "no primary", Passes: true, matches: anywhere(`read only connection|server is in (hot )?standby mode|session is read-only`),
		Says: "none of the servers at {servers} takes writes at the moment",
		Why:  "target_session_attrs asks for a primary, and only standbys answered. After a primary fails, a standby takes over within seconds.",
		Hint: "try again in a few seconds; if it goes on, check the hosts and target_session_attrs in DATABASE_URL"},
	{Name: "no standby", Passes: true, matches: anywhere(`connection is not read only|server is not in (hot )?standby mode|session is not read-only`),
		Says: "none of the servers at {servers} is a standby at the moment",
		Why:  "target_session_attrs asks for a server that only reads, and only servers that take writes answered.",
		Hint: "add a standby to the hosts in DATABASE_URL, or use target_session_attrs=prefer-standby, which also takes a primary"},
	{Name: "session ended", Passes: true, Ended: true, matches: or(code("57P01", "57P02", "57P05", "25P03", "25P04"), says(`server conn crashed`, "08P01")),
		Says: "the server at {server} ended the connection: {message}",
		Why:  "An administrator ended it, the server is stopping or crashed, or the connection was idle for too long.",
		Hint: "run it again; if the server has stopped, start it"},

	// What a server says to a question.
	{Name: "no books table", matches: code("42P01", "3F000"),
		Says: "the user {user} finds no books table in the database {database}",
		Why:  "Nobody has loaded penny.sql, or the table is in a schema that is not in the search_path, or that the user may not use.",
		Hint: "load it: go tool lab load, or with psql: psql YOUR_ADDRESS -f penny.sql"},
	{Name: "other books table", matches: or(code("42703", "42883", "42804", "42809", "22P02", "22007"),
		says(`cannot scan|can't scan|scan error on column|unsupported scan`, "")),
		Says: "the books table in {database} is not the one of penny.sql: {message}",
		Hint: "keep that table and use another database, because penny.sql would drop it"},
	{Name: "no right to the schema", matches: says(`for schema`, "42501"),
		Says: "the user {user} may not use the schema of the books: {message}",
		Why:  "Since PostgreSQL 15, only a database's owner may make tables in public.",
		Hint: "as the schema's owner: GRANT USAGE ON SCHEMA public TO the user (USAGE, CREATE to load the books); or use your own database"},
	{Name: "no right to connect", matches: says(`for database`, "42501"),
		Says: "the user {user} may not connect to the database {database}: {message}",
		Hint: "as the database's owner: GRANT CONNECT ON DATABASE name TO the user; or use another database"},
	{Name: "no right to the table", matches: says(`for (table|relation|view|foreign table|materialized view)`, "42501"),
		Says: "the user {user} may not read the books table: {message}",
		Hint: "as the table's owner: GRANT SELECT ON books TO the user; or use the owner's address"},
	{Name: "no permission", matches: code("42501"),
		Says: "the user {user} may not do this: {message}",
		Hint: "use the address of the owner or an administrator, or ask them for that right"},
	{Name: "read-only", matches: code("25006"),
		Says: "the database {database} at {server} only lets you read: {message}",
		Why:  "The server is a standby, or the database or the user is set to read-only.",
		Hint: "use the address of the primary server, or one without default_transaction_read_only"},
	{Name: "pooler in between", matches: or(code("42P05", "26000"), says(`prepared statement`, "08P01")),
		Says: "a prepared statement is missing at {server}, or exists there already: {message}",
		Why:  "A pooler such as PgBouncer gives each transaction another connection, which does not know the statement.",
		Hint: "add default_query_exec_mode=exec&binary_parameters=yes after the ? of DATABASE_URL: the first is for pgx, the second for lib/pq"},
	{Name: "unknown setting", matches: or(says(`parameter`, "42704", "22023", "08P01"), says(`time zone`, "22023")),
		Says: "the server at {server} does not accept a setting: {message}",
		Hint: "take that setting out of DATABASE_URL, or unset the variable that has it, such as PGOPTIONS or PGTZ"},
	{Name: "quoted backslash", matches: says(`unterminated quoted string`, "42601"),
		Says: "the server at {server} reads a backslash in quotes in the old way: {message}",
		Why:  "standard_conforming_strings is off, so the backslash of Penny's ESCAPE '\\' escapes the quote.",
		Hint: "add standard_conforming_strings=on after the ? of DATABASE_URL"},
	{Name: "stored bytes", matches: says(`invalid byte sequence|equivalent in encoding "UTF8"`, "22021", "22P05"),
		Says: "a book in the database {database} has bytes that are not text in UTF-8: {message}",
		Why:  "The database's encoding is SQL_ASCII, which takes any bytes, or the bytes are not characters in its encoding.",
		Hint: "correct that book, or use a database with the encoding UTF8: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0;"},
	{Name: "not text", matches: code("22021", "22P05"),
		Says: "the author's name has characters that the database cannot store: {message}",
		Hint: "type the name again, without special characters"},
	{Name: "query cancelled", matches: says(`user request`, "57014"),
		Says: "the query at {server} was cancelled: {message}",
		Why:  "It took longer than the program waits, or an administrator cancelled it. Another program may have locked the table.",
		Hint: "try again; go tool lab load says who has locked the table"},
	{Name: "query ended", matches: code("57014", "55P03"),
		Says: "the server at {server} ended the query: {message}",
		Why:  "It took longer than a limit of the server, or another program has locked the table.",
		Hint: "try again; if the table is large, go tool lab load -index makes the search fast; to raise the limit, add statement_timeout=5s after the ? of DATABASE_URL"},
	{Name: "conflict", Passes: true, matches: code("40001", "40P01"),
		Says: "the query met another program's change: {message}",
		Hint: "run it again"},
	{Name: "table changed", Passes: true, matches: says(`cached plan`, "0A000"),
		Says: "the books table changed while the program ran: {message}",
		Hint: "run it again"},
	{Name: "other server", Passes: true, Ended: true, matches: code("08000", "08001", "08003", "08006"),
		Says: "the server at {server} cannot reach another server that it needs: {message}",
		Hint: "try again in a few seconds; if it goes on, check the servers behind this one"},

	// What happens to a SQLite file.
	{Name: "not a database", matches: sqlite(26),
		Says: "{file} is not a SQLite database",
		Hint: remake},
	{Name: "damaged file", matches: sqlite(11),
		Says: "{file} is damaged: {message}",
		Hint: remake},
	{Name: "other file", matches: and(sqlite(1), says(`no such (table|column)`, "")),
		Says: "{file} does not hold Penny's books: {message}",
		Hint: remake},
	{Name: "old journal", matches: says(`is left from a deleted database`, ""),
		Says: "{message}",
		Why:  "That file has the unfinished changes of a program that was killed. SQLite would write them into the new database.",
		Hint: "delete that file, or put back the database that it belongs to"},
	{Name: "locked", Passes: true, matches: sqlite(5, 6),
		Says: "another program has locked {file}",
		Why:  "SQLite lets one program write at a time. Penny waits for three seconds.",
		Hint: "close the other program, such as a sqlite3 session with an open transaction"},
	{Name: "disk full", matches: or(sqlite(13), is(syscall.ENOSPC, syscall.EDQUOT)),
		Says: "the disk is full, and {file} cannot be written",
		Hint: "free some space, or run the program in a folder on another disk"},
	{Name: "read-only file", matches: or(sqlite(8), and(onFile, is(fs.ErrPermission, syscall.EROFS))),
		Says: "{file} cannot be written: {message}",
		Why:  "SQLite also writes other files in its folder.",
		Hint: "copy the file to a folder that you may write to, or run the program in one"},
	{Name: "no SQLite file", matches: or(sqlite(14, 23), and(onFile, is(fs.ErrNotExist, syscall.ENOTDIR, syscall.EISDIR))),
		Says: "{file} cannot be opened: {message}",
		Hint: "check the path (sqlite:/// and a name is a file in this folder, sqlite://// a path from the root); go run ./database1 makes penny.sqlite here"},
	{Name: "disk", matches: sqlite(10),
		Says: "the disk reports an error for {file}: {message}",
		Hint: "copy the file to another disk and run the program there"},
	{Name: "slow file", matches: and(onFile, is(context.DeadlineExceeded)),
		Says: "{file} did not answer in time",
		Hint: "try again; if the table is large, go tool lab load -index makes the search fast"},
	{Name: "SQLite", matches: func(e *evidence) bool { return e.sqlite != 0 },
		Says: "{message}",
		Hint: remake},

	// What happens before a server says anything.
	{Name: "pool in use", matches: anywhere(`connections are in use`),
		Says: "every connection of the pool is in use, and none came back in time",
		Hint: "release each connection as soon as its question is answered, and find out why questions are slow"},
	{Name: "name service", Passes: true, matches: as(func(err *net.DNSError) bool { return err.IsTemporary || err.IsTimeout }),
		Says: "the name service did not answer: {message}",
		Hint: "check whether this computer is online, and try again"},
	{Name: "unknown host", matches: as(func(*net.DNSError) bool { return true }),
		Says: "there is no computer called {server}",
		Hint: "check the host in DATABASE_URL, between @ and the next : or /"},
	{Name: "no route", matches: is(syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, wsaUnreachable, wsaNoHost),
		Says: "this computer has no route to {server}: {message}",
		Why:  "Some hosts have only an IPv6 address, and many networks carry only IPv4.",
		Hint: "try another network, or the address of your host's pooler, which often has IPv4"},
	{Name: "no server", Passes: true, matches: or(is(syscall.ECONNREFUSED, wsaRefused),
		and(is(syscall.ENOENT), as(func(err *net.OpError) bool { return err.Net == "unix" }))),
		Says: "no server answers at {server}",
		Hint: "start PostgreSQL (go tool lab postgres starts one), or change the host and port in DATABASE_URL; database4 and pennyapp also run on SQLite"},
	{Name: "blocked", matches: and(is(fs.ErrPermission), as(func(*net.OpError) bool { return true })),
		Says: "this computer does not let the program connect to {server}: {message}",
		Hint: "check this computer's firewall, or the rights of the socket's folder"},
	{Name: "no answer", matches: or(is(context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.ETIMEDOUT),
		as(func(err net.Error) bool { return err.Timeout() }),
		says(`i/o timeout`, ""), says(`query_wait_timeout`, "08P01")), // the latter is PgBouncer's, which waited for its server
		Says: "{server} did not answer in time",
		Why:  "A firewall or a network swallows what is sent, the server hangs, a free plan's database is waking up, or a program has locked the table.",
		Hint: "try again in a minute; go tool lab doctor shows how far it gets, and go tool lab load says who has locked the table"},
	{Name: "not PostgreSQL's", matches: says(`invalid body length|invalid message length|unexpected message|unexpected response|unknown message type|`+
		`unknown response for startup|tls: first record does not look like a TLS handshake|message too large|invalid protocol`, ""),
		Says: "what answers at {server} is not PostgreSQL",
		Hint: "change the port in DATABASE_URL: PostgreSQL's is usually 5432"},
	{Name: "connection lost", Passes: true, Ended: true, matches: or(is(io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED),
		says(`conn closed|bad connection`, "")),
		Says: "{server} hung up before it answered",
		Why:  "The server stopped or ended the connection, a network cut it, or what listens there is not PostgreSQL.",
		Hint: "try again; if it goes on, check the host and port in DATABASE_URL and the server's log"},
}...)

// ofAddress returns the causes that are in the address itself.
func ofAddress() (causes []*Cause) {
	for _, p := range dburl.Problems {
		causes = append(causes, &Cause{Name: p.Name, Says: p.Says, Why: p.Why, Hint: p.Hint,
			matches: func(e *evidence) bool { return errors.Is(e.all, p) }})
	}
	return causes
}
