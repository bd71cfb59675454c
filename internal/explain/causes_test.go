package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/lib/pq"
)

const penny = "postgres://penny:s3cret@localhost:5432/penny"

func TestAnErrorIsExplainedInOneLineWhateverDriverItComesFrom(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("connect: %w", refused), "no server answers at localhost:5432"},
		{&pq.Error{Code: "28P01"}, "the server at localhost:5432 does not accept this password for the user penny"},
		{&pq.Error{Code: "53300", Message: "sorry, too many clients already"}, "the server at localhost:5432 is full: sorry, too many clients already (53300)"},
		{&pq.Error{Code: "3D000"}, "the server at localhost:5432 has no database penny"},
		{&pq.Error{Code: "42P01"}, "the database penny has no books table"},
		{&net.DNSError{Name: "localhost", IsNotFound: true}, "there is no computer called localhost:5432"},
		{pq.ErrSSLNotSupported, "localhost:5432 does not offer encryption, and DATABASE_URL demands it"},
		{context.DeadlineExceeded, "localhost:5432 did not answer in time"},
		{errors.New("connect: write tcp 127.0.0.1:1->127.0.0.1:2: i/o timeout"), "localhost:5432 did not answer in time"},
		{errors.Join(context.DeadlineExceeded, refused), "no server answers at localhost:5432"},
		{fmt.Errorf("connect: all 8 connections are in use: %w", context.DeadlineExceeded), "every connection of the pool is in use, and none came back in time"},
		{io.ErrUnexpectedEOF, "localhost:5432 hung up before it answered"},
		{errors.Join(errors.New("tls error: server refused TLS connection"), io.ErrUnexpectedEOF), "localhost:5432 hung up before it answered"},
		{context.Canceled, "stopped before the answer came"},
		{errors.New("a new\n\terror with\x1b[31m the s3cret"), "a new error with [31m the *****"},
	} {
		says, hint := Error(c.err, penny)
		if says != c.want {
			t.Errorf("%v is explained as %q, want %q", c.err, says, c.want)
		}
		if hint == "" {
			t.Errorf("%v has the hint %q", c.err, hint)
		}
	}
}

func TestEveryCauseHasANameALineAReasonAndAHint(t *testing.T) {
	names := make(map[string]bool)
	for _, c := range Causes {
		if c.Name == "" || c.Says == "" || c.Why == "" || c.Hint == "" || names[c.Name] {
			t.Errorf("the cause %q is incomplete or there twice", c.Name)
		}
		names[c.Name] = true
		if strings.ContainsAny(c.Says+c.Hint, "\n\t") {
			t.Errorf("the cause %q does not fit a line", c.Name)
		}
	}
}
