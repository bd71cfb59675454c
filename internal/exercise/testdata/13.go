package insert

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"example.com/penny/internal/exercise/given"
)

// lossy passes connections on to target. It loses the first answer that says that an INSERT was done, and cuts that
// connection.
func lossy(t *testing.T, target string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	var lost atomic.Bool
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				return
			}
			go func() {
				_, _ = io.Copy(server, client)
				server.Close()
			}()
			go func() {
				defer client.Close()
				answer := make([]byte, 64<<10)
				for {
					n, err := server.Read(answer)
					if bytes.Contains(answer[:n], []byte("INSERT 0 1")) && lost.CompareAndSwap(false, true) {
						return
					}
					if _, werr := client.Write(answer[:n]); err != nil || werr != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	given.Exec(t, address, Table)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = lossy(t, u.Host)
	if err := Order(t.Context(), u.String(), "first", "123"); err != nil {
		t.Fatalf("the order arrived, its answer was lost, and the customer reads that it failed: %v", err)
	}
	if n := orders(t, address); n != 1 {
		t.Fatalf("one order was sent, its answer was lost, and the table has %d orders, want 1", n)
	}
	if err := Order(t.Context(), u.String(), "first", "123"); err != nil {
		t.Fatalf("the browser sends the same order again, and Order fails: %v", err)
	}
	if n := orders(t, address); n != 1 {
		t.Fatalf("the browser sent the same order again, and the table has %d orders, want 1", n)
	}
	if err := Order(t.Context(), u.String(), "second", "123"); err != nil {
		t.Fatalf("another customer orders the same book, and Order fails: %v", err)
	}
	if n := orders(t, address); n != 2 {
		t.Fatalf("two customers ordered the same book, and the table has %d orders, want 2", n)
	}
	err = given.During(t, address, `INSERT INTO orders (key, isbn) VALUES ('third', '123')`, func() error {
		return Order(t.Context(), address, "third", "123")
	})
	if err != nil {
		t.Fatalf("the browser sends the same order twice at the same moment, and Order fails: %v", err)
	}
	if n := orders(t, address); n != 3 {
		t.Fatalf("the browser sent the same order twice at the same moment, and the table has both")
	}
	given.Exec(t, address, `ALTER TABLE orders RENAME TO lost`)
	if err := Order(t.Context(), address, "fourth", "123"); err == nil {
		t.Fatal("the table is missing, and Order returns no error")
	}
}

func orders(t *testing.T, address string) (n int) {
	if err := given.Open(t, address).QueryRow(`SELECT count(*) FROM orders WHERE isbn = '123'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
