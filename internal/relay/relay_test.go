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
)

// echo is a server that answers each line with the same line.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// patience is for answers that come; a test that runs well does not wait so long.
const patience = time.Minute

// dial connects to the relay. say says a line and waits for its echo, but not longer than patience.
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

func TestWhatIsSentArrivesAndTakesItsTime(t *testing.T) {
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
		t.Errorf("three round trips of 40 ms took %v", took)
	}
	if r.Accepted() != 1 {
		t.Errorf("%d connections were accepted", r.Accepted())
	}
}

func TestACutEndsTheConnectionsThatAreOpenAndNoOthers(t *testing.T) {
	r := start(t, 0)
	old := dial(t, r)
	if err := old("hello", patience); err != nil {
		t.Fatal(err)
	}
	r.Cut()
	if err := old("hello", patience); err == nil {
		t.Error("a connection outlived the cut")
	}
	if err := dial(t, r)("hello", patience); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestWhatIsSwallowedGetsNoAnswerAndNoEnd(t *testing.T) {
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
