package edge

import (
	"bytes"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Listener has a bound on connections, and sees what net/http answers before a handler sees the request.
type Listener struct {
	net.Listener
	Most     int64                                   // connections that may be open at once
	Answered func(client net.Addr, status, size int) // called for each answer of net/http's own, such as 400 and 431
	Refused  func()                                  // called for each connection beyond Most

	open atomic.Int64
}

const full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// Accept returns the next connection. It answers one beyond the bound with a 503 itself: a file is needed for each.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.Most {
			return &bounded{Conn: conn, listener: l}, nil
		}
		l.open.Add(-1)
		l.Refused()
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(full)) // it fits into the socket's buffer
		_ = conn.Close()
	}
}

type bounded struct {
	net.Conn
	listener *Listener
	closed   sync.Once
}

func (c *bounded) Close() error {
	c.closed.Do(func() { c.listener.open.Add(-1) })
	return c.Conn.Close()
}

// CloseWrite closes the sending half. net/http does so after an answer of its own, so that the client gets to read it.
func (c *bounded) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Write looks for an answer of net/http's own: for what is not HTTP, or for too long a header. It has no date, which all answers
// of a handler have.
func (c *bounded) Write(b []byte) (int, error) {
	if head, _, _ := bytes.Cut(b, []byte("\r\n\r\n")); len(b) > 12 && bytes.HasPrefix(b, []byte("HTTP/1.1 4")) && !bytes.Contains(head, []byte("\r\nDate: ")) {
		if status, err := strconv.Atoi(string(b[9:12])); err == nil {
			c.listener.Answered(c.RemoteAddr(), status, len(b))
		}
	}
	return c.Conn.Write(b)
}

// Host returns an address without its port.
func Host(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}
