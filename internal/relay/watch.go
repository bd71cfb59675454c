package relay

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The phases of a connection. Each round trip belongs to one, by what the client asked for in it.
const (
	Socket    = "socket"    // open a TCP connection
	TLS       = "TLS"       // agree on encryption, or hear that the server has none
	Login     = "login"     // name a user and prove the password
	Prepare   = "prepare"   // have the server parse the question
	Question  = "question"  // ask, and get the rows
	Ping      = "ping"      // ask whether the connection is alive, as pgx does
	Goodbye   = "goodbye"   // hang up; no answer comes
	Encrypted = "encrypted" // TLS hides what it is
)

// A Trip is a round trip: the client sends, and the server answers. The times are those at the client's side.
type Trip struct {
	Phase  string
	Begin  time.Time
	End    time.Time // when the first byte of the answer came; zero if none has come
	Values [][]byte  // the parameters that the question was asked with
}

// A Conn is what a relay saw of one connection.
type Conn struct {
	Opened time.Time // when the client began to connect
	Closed time.Time // when either side ended it; zero while it is open
	Trips  []Trip
}

// Watch makes the relay record all connections that clients open from now on. Recording needs memory for every round trip.
func (r *Relay) Watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watching = true
}

// Seen returns what the relay has recorded so far, in the order in which clients connected.
func (r *Relay) Seen() []Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	var seen []Conn
	for _, c := range r.seen {
		seen = append(seen, Conn{c.Opened, c.Closed, slices.Clone(c.Trips)})
	}
	return seen
}

// Trips returns the number of round trips that the relay has recorded so far.
func (r *Relay) Trips() int {
	n := 0
	for _, c := range r.Seen() {
		for _, t := range c.Trips {
			if !t.End.IsZero() {
				n++
			}
		}
	}
	return n
}

// A watcher records one connection. A nil watcher records nothing.
//
// It counts changes of direction: a round trip begins when the client sends after an answer, and ends when the next answer
// begins to come. Under TLS, too, this is exact.
type watcher struct {
	relay   *Relay // its mu protects the following
	conn    *Conn
	pending []byte // the beginning of a message whose end has not come
	started bool   // the startup message is over: messages have types now
	hidden  bool   // the connection is encrypted, or its client does not speak PostgreSQL's protocol
}

// welcome counts a connection that has just come, and returns its watcher.
func (r *Relay) welcome() *watcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted++
	if !r.watching {
		return nil
	}
	now := time.Now()
	c := &Conn{Opened: now, Trips: []Trip{{Phase: Socket, Begin: now}}}
	r.seen = append(r.seen, c)
	return &watcher{relay: r, conn: c}
}

func (w *watcher) opened() { w.answered(nil) }

// sent records what the client sends; nil when it hangs up.
func (w *watcher) sent(data []byte) {
	if w == nil {
		return
	}
	if data == nil {
		w.ended()
		return
	}
	w.relay.mu.Lock()
	defer w.relay.mu.Unlock()
	c := w.conn
	if last := c.Trips[len(c.Trips)-1]; !last.End.IsZero() {
		c.Trips = append(c.Trips, Trip{Begin: time.Now()})
	}
	w.read(&c.Trips[len(c.Trips)-1], data)
}

// answered records what reaches the client.
func (w *watcher) answered(data []byte) {
	if w == nil {
		return
	}
	w.relay.mu.Lock()
	defer w.relay.mu.Unlock()
	last := &w.conn.Trips[len(w.conn.Trips)-1]
	if last.End.IsZero() && last.Phase != Goodbye && !(w.hidden && farewell(data)) {
		last.End = time.Now()
		if last.Phase == TLS && len(data) == 1 && data[0] == 'S' {
			w.hidden = true
		}
	}
}

// farewell reports whether what a server sends under TLS only closes the connection: a plain alert, or an encrypted one (2 bytes,
// their type and a 16-byte tag), which is shorter than any message of PostgreSQL's.
func farewell(data []byte) bool {
	return data[0] == 0x15 || len(data) == 24 && bytes.HasPrefix(data, []byte{0x17, 3, 3, 0, 19})
}

// ended records that either side has closed the connection.
func (w *watcher) ended() {
	if w == nil {
		return
	}
	w.relay.mu.Lock()
	defer w.relay.mu.Unlock()
	if w.conn.Closed.IsZero() {
		w.conn.Closed = time.Now()
	}
}

// longest is the length of the longest message that is read. What claims to be longer is not PostgreSQL's protocol.
const longest = 1 << 20

// read finds out what the client asks for in a round trip.
func (w *watcher) read(trip *Trip, data []byte) {
	w.pending = append(w.pending, data...)
	for !w.hidden {
		header, shortest := 1, 4 // the type stands before the length, which counts itself
		if !w.started {
			header, shortest = 0, 8
		}
		if len(w.pending) < header+4 {
			return
		}
		length := int(binary.BigEndian.Uint32(w.pending[header:]))
		if length < shortest || length > longest {
			w.hidden = true
			break
		}
		if len(w.pending) < header+length {
			return
		}
		message := w.pending[:header+length]
		w.pending = w.pending[header+length:]
		w.message(trip, message)
	}
	w.pending = nil
	if trip.Phase == "" || trip.Phase == TLS {
		trip.Phase = Encrypted
		if record := data[0]; record == 0x14 || record == 0x16 { // TLS's own numbers for what belongs to its handshake
			trip.Phase = TLS
		}
	}
}

// message adds one message of the client to a round trip.
func (w *watcher) message(trip *Trip, message []byte) {
	if !w.started {
		const encrypt, encryptGSS = 80877103, 80877104 // the codes of SSLRequest and GSSENCRequest
		switch binary.BigEndian.Uint32(message[4:]) {
		case encrypt, encryptGSS:
			trip.Phase = TLS
		default:
			trip.Phase, w.started = Login, true
		}
		return
	}
	switch kind := message[0]; {
	case kind == 'X':
		trip.Phase = Goodbye
	case kind == 'p':
		trip.Phase = Login
	case kind == 'Q' && bytes.HasPrefix(message[5:], []byte("-- ping")):
		trip.Phase = Ping
	case kind == 'E' || kind == 'Q':
		trip.Phase = Question
	case kind == 'B':
		var bind pgproto3.Bind
		if bind.Decode(message[5:]) == nil {
			trip.Values = bind.Parameters
		}
	case trip.Phase == "":
		trip.Phase = Prepare
	}
}
