// Package relay passes connections on to a server and does what networks do: it delays, it cuts, and it loses what is sent.
// It can also watch: it records the round trips that a client of PostgreSQL makes.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Relay passes connections on to a server. Start starts one.
type Relay struct {
	listener net.Listener
	target   string
	delay    time.Duration // each way

	mu       sync.Mutex // protects the following
	pairs    map[*pair]bool
	ended    bool
	accepted int
	watching bool
	seen     []*Conn

	work sync.WaitGroup
}

// A pair is a client's connection and the connection to the server that belongs to it.
type pair struct {
	client, server net.Conn
	swallow        atomic.Bool // nothing passes any more
}

// Start starts a relay to target at a free port of 127.0.0.1. The target is a host and port, or the path of a Unix socket.
// What a client sends reaches the server after half of roundTrip, and the answer takes the other half.
func Start(target string, roundTrip time.Duration) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a relay to %s: %w", target, err)
	}
	r := &Relay{listener: listener, target: target, delay: roundTrip / 2, pairs: make(map[*pair]bool)}
	r.work.Go(r.accept)
	return r, nil
}

// Before starts a relay to the host of a server's URL, and returns it with the URL that leads through it.
func Before(address string, roundTrip time.Duration) (*Relay, string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, "", errors.New("start a relay: the address does not parse") // the parser's own error shows the password
	}
	r, err := Start(u.Host, roundTrip)
	if err != nil {
		return nil, "", err
	}
	u.Host = r.Addr()
	return r, u.String(), nil
}

// Addr returns the host and port where the relay listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Accepted returns the number of connections that clients have opened so far.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Cut closes all connections that are open now. New ones pass.
func (r *Relay) Cut() {
	r.each(func(p *pair) {
		p.client.Close()
		p.server.Close()
	})
}

// Swallow loses everything that is sent from now on over the connections that are open now, and keeps them open. New
// ones pass.
func (r *Relay) Swallow() {
	r.each(func(p *pair) { p.swallow.Store(true) })
}

// Close closes the relay and all its connections, and waits until they are gone.
func (r *Relay) Close() error { return r.Shutdown(0) }

// Shutdown stops listening and waits until the clients have closed their connections. After patience it cuts the rest.
func (r *Relay) Shutdown(patience time.Duration) error {
	err := r.listener.Close()
	defer time.AfterFunc(patience, func() {
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		r.Cut()
	}).Stop()
	r.work.Wait()
	return err
}

func (r *Relay) each(do func(*pair)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pairs {
		do(p)
	}
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		w := r.welcome()
		r.work.Go(func() { r.pass(client, w) })
	}
}

// pass connects a client to the server and passes both ways until either side ends.
func (r *Relay) pass(client net.Conn, w *watcher) {
	defer w.ended()
	defer client.Close()
	// The kernel accepts a client at once. On a real network that takes a round trip.
	time.Sleep(2 * r.delay)
	network := "tcp"
	if strings.HasPrefix(r.target, "/") {
		network = "unix"
	}
	server, err := net.Dial(network, r.target)
	if err != nil {
		return
	}
	defer server.Close()
	w.opened()
	p := &pair{client: client, server: server}
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		return
	}
	r.pairs[p] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.pairs, p)
		r.mu.Unlock()
	}()
	nothing := func([]byte) {}
	var both sync.WaitGroup
	for _, way := range []struct {
		from, to           net.Conn
		arrived, delivered func([]byte) // all times are taken at the client's side
	}{{client, server, w.sent, nothing}, {server, client, nothing, w.answered}} {
		both.Go(func() {
			r.copy(way.to, way.from, &p.swallow, way.arrived, way.delivered)
			w.ended()
			if !p.swallow.Load() {
				way.to.Close()
			}
		})
	}
	both.Wait()
}

// A parcel is data that the relay holds until it is due.
type parcel struct {
	data []byte
	due  time.Time
}

// copy passes on what from sends, each part when it is due, and calls arrived and delivered for it; arrived gets nil at the end.
// Many parts can be on their way at once: the relay adds latency, and does not limit bandwidth.
func (r *Relay) copy(to io.Writer, from io.Reader, swallow *atomic.Bool, arrived, delivered func([]byte)) {
	way := make(chan parcel, 1024)
	r.work.Go(func() {
		defer close(way)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			if n > 0 {
				arrived(data[:n])
				way <- parcel{data[:n], time.Now().Add(r.delay)}
			}
			if err != nil {
				arrived(nil)
				return
			}
		}
	})
	failed := false
	for p := range way {
		if r.delay > 0 {
			time.Sleep(time.Until(p.due))
		}
		if !failed && !swallow.Load() {
			delivered(p.data)
			_, err := to.Write(p.data)
			failed = err != nil
		}
	}
}
