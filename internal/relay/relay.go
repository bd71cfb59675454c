// Package relay stands between a program and its server, and does what networks do: it takes time, it cuts connections,
// and it swallows what is sent.
package relay

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A Relay passes connections on to a server. Start starts one.
type Relay struct {
	listener net.Listener
	target   string
	delay    time.Duration

	mu    sync.Mutex // protects the following
	pairs map[*pair]bool
	ended bool
	count int

	work sync.WaitGroup
}

// A pair is a client's connection and the one to the server that belongs to it.
type pair struct {
	client, server net.Conn
	swallow        chan struct{} // closed when nothing is to pass any more
}

// Start starts a relay to target, a host and port, at a free port of 127.0.0.1. What a client sends reaches the server,
// and the answer the client, after half of roundTrip each.
func Start(target string, roundTrip time.Duration) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a relay to %s: %w", target, err)
	}
	r := &Relay{listener: listener, target: target, delay: roundTrip / 2, pairs: make(map[*pair]bool)}
	r.work.Go(r.accept)
	return r, nil
}

// Addr is where the relay listens, a host and port.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Accepted is how many connections clients have opened so far.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// Cut closes all connections that are open now. New ones pass.
func (r *Relay) Cut() {
	r.each(func(p *pair) {
		p.client.Close()
		p.server.Close()
	})
}

// Swallow lets nothing pass any more on the connections that are open now, and leaves them open. New ones pass.
func (r *Relay) Swallow() {
	r.each(func(p *pair) {
		select {
		case <-p.swallow:
		default:
			close(p.swallow)
		}
	})
}

// Close ends the relay and all connections, and waits until they are gone.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	err := r.listener.Close()
	r.Cut()
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
		r.mu.Lock()
		r.count++
		r.mu.Unlock()
		r.work.Go(func() { r.pass(client) })
	}
}

// pass opens the server's side for a client and passes both ways until either ends.
func (r *Relay) pass(client net.Conn) {
	defer client.Close()
	// The client's first packet and its answer take a round trip before anything is sent.
	time.Sleep(2 * r.delay)
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	p := &pair{client, server, make(chan struct{})}
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
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			r.copy(way[1], way[0], p.swallow)
			// Who hears that the other side has hung up hangs up too; where all is swallowed, nobody hears anything.
			select {
			case <-p.swallow:
			default:
				way[1].Close()
			}
		})
	}
	both.Wait()
}

// A parcel is something on its way.
type parcel struct {
	data []byte
	due  time.Time
}

// copy passes on what from sends, each part when its time has come. Parts are on their way side by side: the relay makes
// an answer late, not the line narrow.
func (r *Relay) copy(to io.Writer, from io.Reader, swallow <-chan struct{}) {
	way := make(chan parcel, 1024)
	r.work.Go(func() {
		defer close(way)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			if n > 0 {
				way <- parcel{data[:n], time.Now().Add(r.delay)}
			}
			if err != nil {
				return
			}
		}
	})
	failed := false
	for p := range way {
		if r.delay > 0 {
			time.Sleep(time.Until(p.due))
		}
		select {
		case <-swallow:
		default:
			if !failed {
				_, err := to.Write(p.data)
				failed = err != nil
			}
		}
	}
}
