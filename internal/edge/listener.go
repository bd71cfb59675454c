package edge

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Listener has a bound on connections, and sees what net/http answers before a handler sees the request.
type Listener struct {
	*net.TCPListener
	Most     int64                                   // connections that may be open at once
	Answered func(client net.Addr, status, size int) // called for each answer of net/http's own, such as 400 and 431
	Refused  func()                                  // called for each connection beyond Most

	open, refusing atomic.Int64
}

// mostRefusing is how many refused connections are read at the same time: each is a file.
const mostRefusing = 32

const full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// Accept returns the next connection. If Most are open, Accept answers with a 503 itself, because each needs a file.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.Most {
			return &bounded{TCPConn: conn, listener: l}, nil
		}
		l.open.Add(-1)
		l.Refused()
		l.refuse(conn)
	}
}

// refuse answers with a 503, and then reads what the visitor has sent, for a second at most. If a connection is closed before
// all is read, the system sends a reset, and the visitor does not see the answer.
func (l *Listener) refuse(conn *net.TCPConn) {
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(full)) // it fits into the socket's buffer
	if l.refusing.Add(1) > mostRefusing {
		l.refusing.Add(-1)
		_ = conn.Close()
		return
	}
	go func() {
		defer l.refusing.Add(-1)
		defer conn.Close()
		_ = conn.CloseWrite()
		_, _ = io.CopyN(io.Discard, conn, 64<<10)
	}()
}

// bounded embeds a *net.TCPConn and not a net.Conn, so that net/http finds the method CloseWrite. After an answer of its own,
// net/http closes only the sending half with it, so that the client can read the answer.
type bounded struct {
	*net.TCPConn
	listener *Listener
	closed   sync.Once
}

func (c *bounded) Close() error {
	c.closed.Do(func() { c.listener.open.Add(-1) })
	return c.TCPConn.Close()
}

// Write looks for an answer of net/http's own, such as 400. It has no date, and every answer of a handler has one.
func (c *bounded) Write(b []byte) (int, error) {
	if len(b) > 12 && bytes.HasPrefix(b, []byte("HTTP/1.1 ")) && b[9] >= '4' && !bytes.Contains(b, []byte("\r\nDate: ")) {
		status, _ := strconv.Atoi(string(b[9:12])) // net/http writes a number
		c.listener.Answered(c.RemoteAddr(), status, len(b))
	}
	return c.TCPConn.Write(b)
}

// Host returns an address without its port.
func Host(address string) string {
	host, _, _ := net.SplitHostPort(address) // net made the address
	return host
}
