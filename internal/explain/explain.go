// Package explain turns an error from a database into its cause and a hint that helps.
//
// The evidence is typed: the server's error code and sentence, the system's error, the certificate's. It comes from the last
// attempt that was made, because a driver tries several hosts, with and without encryption, and joins all their errors.
package explain

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"example.com/penny/internal/dburl"
)

// Error returns what went wrong at address in one line, and a hint. The address may be DATABASE_URL as the user wrote it or a
// form that a driver takes. Neither line contains its password.
func Error(err error, address string) (says, hint string) {
	e := examine(err, address)
	cause := e.cause()
	return e.fill(cause.Says), cause.Hint
}

// Find returns the cause of an error at address, or nil if Penny does not know it.
func Find(err error, address string) *Cause {
	if cause := examine(err, address).cause(); cause != unknown {
		return cause
	}
	return nil
}

// Name returns the name of err's cause, as the timing lines count it, or "other".
func Name(err error) string { return examine(err, "").cause().Name }

// Passes reports whether err may pass within moments, so that a read is worth another try.
func Passes(err error) bool { return examine(err, "").cause().Passes }

// Ended reports whether err says that a connection ended before the answer came.
func Ended(err error) bool { return examine(err, "").cause().Ended }

// Place returns where the database at address is, without the user and the password: a file, or a server and a database.
func Place(address string) string {
	e := examine(errors.New(""), address)
	if e.file != "" {
		return "the SQLite file " + e.file
	}
	return "PostgreSQL at " + e.server + "/" + e.database
}

// evidence is what is known about a failure.
type evidence struct {
	all    error  // the whole error
	err    error  // the part of it that says most: the last one in which a server spoke, else that of the last attempt
	code   string // the server's error code (SQLSTATE); empty if no server spoke
	sqlite int    // SQLite's primary result code; 0 if SQLite did not speak
	text   string // the server's own sentence, else that of err
	short  string // text without what the callers put before it

	what    string // the setting or character that is wrong in the address
	address string // as it was given

	server, user, database, file, sslmode string // what the address means; empty if the address is unknown
	servers                               string // all hosts; server is the one that err is about, if that is known
}

// A serverError is what a server said. lib/pq's and pgx's errors both are one.
type serverError interface {
	error
	SQLState() string
}

// sentence finds the server's sentence in what lib/pq and pgx make of it.
var sentence = regexp.MustCompile(`(?s)^(?:pq: |FATAL: |ERROR: |PANIC: )*(.*?)(?: at (?:column|position) [\d:]+)?(?: \((?:SQLSTATE )?\w{5}\))?$`)

// examine collects the evidence. Without an address, it is that of DATABASE_URL.
func examine(err error, address string) *evidence {
	e := &evidence{all: err, err: last(err), address: cmp.Or(address, os.Getenv(dburl.Variable))}
	e.text, e.short = e.err.Error(), innermost(e.err).Error()
	if server, spoke := errors.AsType[serverError](e.err); spoke {
		e.code = server.SQLState()
		e.text = sentence.FindStringSubmatch(server.Error())[1]
		e.short = e.text
	}
	var sqlite interface{ Code() int } // modernc.org/sqlite's; the low byte is the primary code
	if errors.As(e.err, &sqlite) {
		e.sqlite = sqlite.Code() & 0xff
	}
	var problem *dburl.Problem
	if errors.As(err, &problem) {
		e.what = problem.What
	}
	target, bad := dburl.Parse(e.address)
	if bad != nil {
		return e
	}
	e.file, e.server, e.user, e.database, e.sslmode = target.File, target.Server(), target.User, target.Database, target.Settings["sslmode"]
	e.servers = e.server
	if lookup, ok := errors.AsType[*net.DNSError](e.err); ok {
		e.server = lookup.Name // without a port
	} else if dial, ok := errors.AsType[*net.OpError](e.err); ok && dial.Op == "dial" && dial.Addr != nil && len(target.Hosts) > 1 {
		e.server = dial.Addr.String() // the one of several hosts that the error is about
	}
	return e
}

// last returns the error of the last attempt: of joined errors the last one in which a server spoke, else the last one.
func last(err error) error {
	for part := err; part != nil; part = errors.Unwrap(part) {
		if joined, ok := part.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
			attempts := joined.Unwrap()
			for _, attempt := range slices.Backward(attempts) { // a server's own words say more than a host that is down
				if _, spoke := errors.AsType[serverError](attempt); spoke {
					return last(attempt)
				}
			}
			return last(attempts[len(attempts)-1])
		}
	}
	return err
}

// innermost returns the part of an error that says what happened, without what the callers put before it.
func innermost(err error) error {
	switch err.(type) {
	case *fs.PathError, *net.OpError, *net.DNSError: // they name the file or the host
		return err
	}
	if inner := errors.Unwrap(err); inner != nil {
		return innermost(inner)
	}
	return err
}

// cause returns the first cause in the table that matches, or unknown.
func (e *evidence) cause() *Cause {
	if i := slices.IndexFunc(Causes, func(c *Cause) bool { return c.matches(e) }); i >= 0 {
		return Causes[i]
	}
	return unknown
}

// reason returns what happened, in the words of the server or the system.
func (e *evidence) reason() string {
	if e.sqlite != 14 || e.file == "" {
		return e.short
	}
	// SQLite does not say why it cannot open a file; the system does.
	file, err := os.OpenFile(e.file, os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	file.Close()
	return e.short + ", or another file that it needs in that folder"
}

// fill replaces the words in braces by what is known. It returns one line, without characters that a terminal does not print.
func (e *evidence) fill(text string) string {
	message := dburl.Redact(e.reason(), e.address)
	if e.code != "" {
		message += " (" + e.code + ")"
	}
	text = strings.NewReplacer(
		"{server}", cmp.Or(e.server, "the server"), "{servers}", cmp.Or(e.servers, "the address"), "{user}", cmp.Or(e.user, "of DATABASE_URL"),
		"{database}", cmp.Or(e.database, "of DATABASE_URL"), "{file}", cmp.Or(e.file, "the SQLite file"), "{message}", message,
		"{what}", cmp.Or(e.what, "something"),
	).Replace(text)
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }), " ")
}

// The following build the matches of the table.

// code matches if the server gave one of the codes.
func code(codes ...string) func(*evidence) bool {
	return func(e *evidence) bool { return slices.Contains(codes, e.code) }
}

// says matches if the server gave one of the codes and its sentence matches pattern, in small or capital letters. The code
// "" stands for an error that is not a server's: some failures of the drivers have no type, only a text.
func says(pattern string, codes ...string) func(*evidence) bool {
	p := regexp.MustCompile("(?i)" + pattern)
	return func(e *evidence) bool { return slices.Contains(codes, e.code) && p.MatchString(e.text) }
}

// anywhere matches if the error of any attempt matches pattern: a host that is down may come after the one that says why.
func anywhere(pattern string) func(*evidence) bool {
	p := regexp.MustCompile(pattern)
	return func(e *evidence) bool { return p.MatchString(e.all.Error()) }
}

// sqlite matches if SQLite gave one of the primary result codes.
func sqlite(codes ...int) func(*evidence) bool {
	return func(e *evidence) bool { return slices.Contains(codes, e.sqlite) }
}

// sslmode matches if the address has one of the modes of encryption.
func sslmode(modes ...string) func(*evidence) bool {
	return func(e *evidence) bool { return slices.Contains(modes, e.sslmode) }
}

// is matches if the last attempt ended with one of the errors.
func is(targets ...error) func(*evidence) bool {
	return func(e *evidence) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(e.err, target) })
	}
}

// as matches if the last attempt ended with an error of type E that is good.
func as[E error](good func(E) bool) func(*evidence) bool {
	return func(e *evidence) bool {
		target, found := errors.AsType[E](e.err)
		return found && good(target)
	}
}

func or(matches ...func(*evidence) bool) func(*evidence) bool {
	return func(e *evidence) bool {
		return slices.ContainsFunc(matches, func(match func(*evidence) bool) bool { return match(e) })
	}
}

func and(first, second func(*evidence) bool) func(*evidence) bool {
	return func(e *evidence) bool { return first(e) && second(e) }
}

// stopped matches if the user stopped the program, whatever the last attempt was.
func stopped(e *evidence) bool { return errors.Is(e.all, context.Canceled) }

// onFile matches if the address is that of a SQLite file.
func onFile(e *evidence) bool { return e.file != "" }

// onServer matches if the address is that of a server.
func onServer(e *evidence) bool { return e.server != "" }
