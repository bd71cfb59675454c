package explain

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

const penny = "postgres://penny:s3cret@localhost:5432/penny"

func TestAnErrorOfAnyDriverIsExplainedInOneLine(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("connect: %w", refused), "no server answers at localhost:5432"},
		{&pq.Error{Code: "28P01"}, "the server at localhost:5432 does not accept this password for the user penny"},
		{&pq.Error{Code: "53300", Message: "sorry, too many clients already"}, "the server at localhost:5432 is full: sorry, too many clients already (53300)"},
		{&pq.Error{Code: "3D000"}, "the server at localhost:5432 has no database penny"},
		{&pq.Error{Code: "42P01"}, "the user penny finds no books table in the database penny"},
		{&net.DNSError{Name: "localhost", IsNotFound: true}, "there is no computer called localhost"},
		{pq.ErrSSLNotSupported, "localhost:5432 does not offer encryption, and the settings demand it"},
		{pgconn.ErrReadOnlyConnection, "none of the servers at localhost:5432 takes writes at the moment"},
		{pgconn.ErrStandbyConnection, "none of the servers at localhost:5432 takes writes at the moment"},
		{pgconn.ErrReadWriteConnection, "none of the servers at localhost:5432 is a standby at the moment"},
		{pgconn.ErrPrimaryConnection, "none of the servers at localhost:5432 is a standby at the moment"},
		{context.DeadlineExceeded, "localhost:5432 did not answer in time"},
		{errors.New("connect: write tcp 127.0.0.1:1->127.0.0.1:2: i/o timeout"), "localhost:5432 did not answer in time"},
		{errors.Join(context.DeadlineExceeded, refused), "no server answers at localhost:5432"},
		{fmt.Errorf("connect: all 8 connections are in use: %w", context.DeadlineExceeded), "every connection of the pool is in use, and none came back in time"},
		{io.ErrUnexpectedEOF, "localhost:5432 hung up before it answered"},
		{errors.Join(errors.New("tls error: server refused TLS connection"), io.ErrUnexpectedEOF), "localhost:5432 hung up before it answered"},
		{errors.Join(&pq.Error{Code: "28P01"}, refused), "the server at localhost:5432 does not accept this password for the user penny"},
		{errors.New("a\u009b31m b\u202e c"), "a 31m b c"},
		{&pq.Error{Code: "08P01", Message: "query_wait_timeout"}, "localhost:5432 did not answer in time"},
		{context.Canceled, "stopped before the answer came"},
		{x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}, "the certificate of localhost:5432 cannot be verified: " +
			"x509: certificate is not authorized to sign other certificates"},
		{&net.DNSError{Err: "server misbehaving", Name: "db", IsTemporary: true}, "the name service did not answer: lookup db: server misbehaving"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}, "this computer has no route to localhost:5432: dial tcp: network is unreachable"},
		{&net.OpError{Op: "dial", Net: "unix", Err: syscall.EACCES}, "this computer does not let the program connect to localhost:5432: dial unix: permission denied"},
		{errors.New("a new\n\terror with\x1b[31m the s3cret"), "a new error with [31m the *****"},
	} {
		says, hint := Error(c.err, penny)
		if says != c.want {
			t.Errorf("%v is explained as %q, want %q", c.err, says, c.want)
		}
		if hint == "" {
			t.Errorf("%v has no hint", c.err)
		}
	}
}

// sqliteError is one of modernc.org/sqlite's.
type sqliteError int

func (e sqliteError) Error() string { return fmt.Sprintf("SQLite's error %d", int(e)) }
func (e sqliteError) Code() int     { return int(e) }

func TestAnErrorOfASQLiteFileNamesTheFile(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{sqliteError(13), "the disk is full, and a b.sqlite cannot be written"},
		{&fs.PathError{Op: "write", Path: "a b.sqlite", Err: syscall.ENOSPC}, "the disk is full, and a b.sqlite cannot be written"},
		{sqliteError(8 + 5<<8), "a b.sqlite cannot be written: SQLite's error 1288"},
		{&fs.PathError{Op: "open", Path: "a b.sqlite", Err: syscall.EROFS}, "a b.sqlite cannot be written: open a b.sqlite: read-only file system"},
		{sqliteError(11), "a b.sqlite is damaged: SQLite's error 11"},
		{sqliteError(14), "a b.sqlite cannot be opened: open a b.sqlite: no such file or directory"},
		{sqliteError(10), "the disk reports an error for a b.sqlite: SQLite's error 10"},
		{context.DeadlineExceeded, "a b.sqlite did not answer in time"},
		{sqliteError(19), "SQLite's error 19"},
	} {
		for _, address := range []string{"sqlite:///a b.sqlite", "file:a%20b.sqlite?mode=rw"} {
			says, hint := Error(fmt.Errorf("find books: %w", c.err), address)
			if says != c.want || strings.Contains(hint, "DATABASE_URL") {
				t.Errorf("%v is explained as %q (%s), want %q", c.err, says, hint, c.want)
			}
		}
	}
}

func TestEveryCauseHasANameALineAndAHint(t *testing.T) {
	names := make(map[string]bool)
	for _, c := range Causes {
		if c.Name == "" || c.Says == "" || c.Hint == "" || names[c.Name] {
			t.Errorf("the cause %q is incomplete or in the list twice", c.Name)
		}
		names[c.Name] = true
		if strings.ContainsAny(c.Says+c.Hint, "\n\t") {
			t.Errorf("the cause %q has more than one line", c.Name)
		}
	}
}
