package pool

import (
	"context"
	"slices"
	"time"
)

const (
	checkAfter   = time.Second            // a connection that was last lent so long ago is checked before it is lent again
	checkTimeout = time.Second            // how long the answer to a check may take
	settle       = 100 * time.Millisecond // if a connection dies, how long the others may take to die of the same
)

// trusts reports whether s can be lent without a check. The caller must hold p.mu.
func (p *Pool) trusts(s *session, now time.Time) bool {
	return s.generation == p.generation && now.Sub(s.used) < checkAfter
}

// now is time.Now at half its cost: it does not ask for the time of day.
func now() time.Time { return start.Add(time.Since(start)) }

var start = time.Now()

// doubt notes that s died. If the server stopped or the network failed, all others die too, so that none is trusted before
// it is checked. If s is of an older generation, that has happened already. The caller must hold p.mu.
func (p *Pool) doubt(s *session) {
	if s.generation == p.generation {
		p.generation++
		p.doubted = time.Now()
	}
}

// settled waits, if a connection died a moment ago, until all that die with it are dead. It returns the generation.
func (p *Pool) settled() int {
	p.mu.Lock()
	generation, until := p.generation, p.doubted.Add(settle)
	p.mu.Unlock()
	pause(p.open, time.Until(until))
	return generation
}

// check reports whether s can be lent. Unless s is trusted, it asks s's server, which costs a round trip.
func (p *Pool) check(s *session) bool {
	p.mu.Lock()
	trusted := p.trusts(s, now())
	p.mu.Unlock()
	if trusted {
		return true
	}
	generation := p.settled()
	ctx, cancel := context.WithTimeout(p.open, checkTimeout)
	defer cancel()
	if s.conn.Ping(ctx) == nil {
		s.generation, s.used = generation, now()
		return true
	}
	go hangUp(s.conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubt(s)
	if ctx.Err() == context.DeadlineExceeded {
		p.drop(s.generation)
	}
	return false
}

// drop closes the idle sessions of a generation and of older ones. It is for a network that is silent: the next caller
// should not wait for a second to find out the same. The caller must hold p.mu.
func (p *Pool) drop(generation int) {
	p.idle = slices.DeleteFunc(p.idle, func(s *session) bool {
		if s.generation > generation {
			return false
		}
		go hangUp(s.conn)
		return true
	})
}

// pause waits for a while. It returns false if ctx ends first.
func pause(ctx context.Context, while time.Duration) bool {
	select {
	case <-time.After(while):
		return true
	case <-ctx.Done():
		return false
	}
}
