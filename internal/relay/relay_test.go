package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"example.com/penny/internal/pgtest"
)

// echo is a server that answers each line with the same line.
func echo(t *testing.T) string {
	t.Helper()
	return pgtest.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	})
}

// patience is how long a test waits for an answer that should come.
const patience = time.Minute

// dial connects to the relay. say sends a line and waits for its echo, at most for patience.
func dial(t *testing.T, r *Relay) (say func(line string, patience time.Duration) error) {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	lines := bufio.NewReader(conn)
	return func(line string, patience time.Duration) error {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(conn, line); err != nil {
			return err
		}
		got, err := lines.ReadString('\n')
		if err == nil && got != line+"\n" {
			return fmt.Errorf("got %q, want %q", got, line)
		}
		return err
	}
}

func start(t *testing.T, roundTrip time.Duration) *Relay {
	t.Helper()
	r, err := Start(echo(t), roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestDataArrivesAfterTheDelay(t *testing.T) {
	t.Parallel()
	r := start(t, 40*time.Millisecond)
	say := dial(t, r)
	if err := say("hello", patience); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range 3 {
		if err := say("again", patience); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took < 3*40*time.Millisecond {
		t.Errorf("three round trips of 40 ms took %v, want at least 120ms", took)
	}
	if r.Accepted() != 1 {
		t.Errorf("%d connections were accepted, want 1", r.Accepted())
	}
}

func TestCutEndsTheOpenConnectionsAndNoOthers(t *testing.T) {
	t.Parallel()
	r := start(t, 0)
	old := dial(t, r)
	if err := old("hello", patience); err != nil {
		t.Fatal(err)
	}
	r.Cut()
	if err := old("hello", patience); err == nil {
		t.Error("no error on an open connection after Cut")
	}
	if err := dial(t, r)("hello", patience); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestAfterSwallowAnOpenConnectionHangs(t *testing.T) {
	t.Parallel()
	r := start(t, 0)
	old := dial(t, r)
	if err := old("hello", patience); err != nil {
		t.Fatal(err)
	}
	r.Swallow()
	if err := old("hello", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want no answer until the deadline", err)
	}
	if err := dial(t, r)("hello", patience); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}
