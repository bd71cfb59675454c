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

	"example.com/penny/internal/dburl"
)

// Error returns what went wrong at address in one line, and a hint. The address may be DATABASE_URL as the user wrote it or a
// form that a driver takes. Neither line contains its password.
func Error(err error, address string) (says, hint string) {
	e := examine(err, address)
	cause := e.cause()
	hint = cause.Hint
	if cause == unknown && e.file != "" {
		hint = unknownFile
	}
	return oneLine(e.fill(cause.Says)), hint
}

// Find returns the cause of err, or nil if Penny does not know it.
func Find(err error) *Cause {
	if cause := examine(err, "").cause(); cause != unknown {
		return cause
	}
	return nil
}

// Name returns the name of err's cause, as the timing lines count it, or "other".
func Name(err error) string { return examine(err, "").cause().Name }

// Passes reports whether err may pass within moments, so that a read is worth another try.
func Passes(err error) bool { return examine(err, "").cause().Passes }

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
	err    error  // the part of it that the last attempt left
	code   string // the server's error code (SQLSTATE); empty if no server spoke
	says   string // the server's own sentence, else the error's
	sqlite int    // SQLite's primary result code; 0 if SQLite did not speak

	what    string // the setting or character that is wrong in the address
	address string // as it was given

	server, user, database, file, sslmode string // what the address means; empty if the address is unknown
}

func examine(err error, address string) *evidence {
	e := &evidence{all: err, err: last(err), address: cmp.Or(address, os.Getenv(dburl.Variable))}
	e.says = innermost(e.err).Error()
	var server interface{ SQLState() string } // lib/pq's and pgx's errors both have it
	if errors.As(e.err, &server) {
		e.code = server.SQLState()
		e.says = sentence(server.(error).Error(), e.code)
	}
	var sqlite interface{ Code() int } // modernc.org/sqlite's; the low byte is the primary code
	if errors.As(e.err, &sqlite) {
		e.sqlite = sqlite.Code() & 0xff
	}
	e.locate()
	return e
}

// last returns the error of the last attempt: of joined errors the last one.
func last(err error) error {
	for part := err; part != nil; {
		switch wrapper := part.(type) {
		case interface{ Unwrap() []error }:
			parts := wrapper.Unwrap()
			if len(parts) == 0 {
				return err
			}
			err = parts[len(parts)-1]
			part = err
		case interface{ Unwrap() error }:
			part = wrapper.Unwrap()
		default:
			return err
		}
	}
	return err
}

// innermost returns the part of an error that says what happened, without what the callers put before it.
func innermost(err error) error {
	for {
		switch err.(type) {
		case *fs.PathError, *net.OpError, *net.DNSError: // they name the file or the host
			return err
		}
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

var place = regexp.MustCompile(` at (column \d+|position \d+:\d+)$`)

// sentence returns the server's sentence without what lib/pq and pgx put around it.
func sentence(text, code string) string {
	text = strings.TrimSuffix(strings.TrimSuffix(text, " (SQLSTATE "+code+")"), " ("+code+")")
	text = place.ReplaceAllString(strings.TrimPrefix(text, "pq: "), "")
	for _, severity := range []string{"FATAL: ", "ERROR: ", "PANIC: "} {
		text = strings.TrimPrefix(text, severity)
	}
	return text
}

// locate reads the address, to which dburl has added all that the driver goes by.
func (e *evidence) locate() {
	var problem *dburl.Problem
	if errors.As(e.all, &problem) {
		e.what = problem.What
	}
	target, err := dburl.Parse(e.address)
	if err != nil {
		return
	}
	e.file, e.server, e.user, e.database, e.sslmode = target.File, target.Server(), target.User, target.Database, target.Settings["sslmode"]
	// A dial knows which of several hosts it was for.
	var dial *net.OpError
	if errors.As(e.err, &dial) && dial.Op == "dial" && dial.Addr != nil && len(target.Hosts) > 1 {
		e.server = dial.Addr.String()
	}
}

// cause returns the first cause in the table that matches, or unknown.
func (e *evidence) cause() *Cause {
	for _, cause := range Causes {
		if cause.matches(e) {
			return cause
		}
	}
	return unknown
}

// fill puts what is known into the place of the words in braces.
func (e *evidence) fill(text string) string {
	says := dburl.Redact(e.says, e.address)
	if e.code != "" {
		says += " (" + e.code + ")"
	}
	return strings.NewReplacer(
		"{server}", cmp.Or(e.server, "the server"), "{user}", cmp.Or(e.user, "of DATABASE_URL"),
		"{database}", cmp.Or(e.database, "of DATABASE_URL"), "{file}", cmp.Or(e.file, "of the books"), "{message}", says,
		"{what}", cmp.Or(e.what, "something"),
	).Replace(text)
}

// oneLine folds the lines of a text into one and leaves out what could confuse a terminal.
func oneLine(text string) string {
	fields := strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f })
	return strings.Join(fields, " ")
}

// The following build the matches of the table.

// code matches if the server gave one of the codes.
func code(codes ...string) func(*evidence) bool {
	return func(e *evidence) bool { return slices.Contains(codes, e.code) }
}

// codeSaying matches if the server gave the code and its sentence matches pattern, in any case of the letters.
func codeSaying(pattern string, codes ...string) func(*evidence) bool {
	p := regexp.MustCompile("(?i)" + pattern)
	return func(e *evidence) bool { return slices.Contains(codes, e.code) && p.MatchString(e.says) }
}

// sqlite matches if SQLite gave one of the primary result codes.
func sqlite(codes ...int) func(*evidence) bool {
	return func(e *evidence) bool { return slices.Contains(codes, e.sqlite) }
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
		var target E
		return errors.As(e.err, &target) && good(target)
	}
}

// text matches if the last attempt's error contains one of the texts: some failures of the drivers have no type.
func text(texts ...string) func(*evidence) bool {
	return func(e *evidence) bool {
		return e.code == "" && slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(e.err.Error(), text) })
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

// plain matches if the address lets the driver go without encryption.
func plain(e *evidence) bool {
	return slices.Contains([]string{"", "disable", "allow", "prefer"}, e.sslmode)
}

// forbidsTLS matches if the address says that nothing is encrypted.
func forbidsTLS(e *evidence) bool { return e.sslmode == "disable" }

// onFile matches if the address is that of a SQLite file.
func onFile(e *evidence) bool { return e.file != "" }

// onServer matches if the address is that of a server.
func onServer(e *evidence) bool { return e.server != "" }

// stopped matches if the user stopped the program, whatever the last attempt was.
func stopped(e *evidence) bool { return errors.Is(e.all, context.Canceled) }
