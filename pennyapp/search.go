package main

import (
	"context"
	"errors"
	"expvar"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"example.com/penny"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/retry"
)

const (
	mostSearches = 256 // at once, those that wait for a pool's connection included
	mostRetries  = 32  // searches at once that wait to ask again
	firstPause   = 100 * time.Millisecond
	lastPause    = 2 * time.Second
)

// errBusy is the error of a search beyond mostSearches.
var errBusy = errors.New("too many searches at once")

// figures are what -debug shows.
var figures = expvar.NewMap("pennyapp")

// A searcher asks the store, within bounds.
type searcher struct {
	store    penny.Store
	patience time.Duration
	running  chan struct{} // has a token for each search; one that the driver does not end keeps its own
	retrying chan struct{} // has a token for each search that waits to ask again
}

func newSearcher(store penny.Store, patience time.Duration) *searcher {
	return &searcher{store, patience, make(chan struct{}, mostSearches), make(chan struct{}, mostRetries)}
}

// find returns at most limit books. It returns after the patience, even if the driver does not, and at once if too many
// searches are running.
func (s *searcher) find(ctx context.Context, author string, limit int) ([]penny.Book, error) {
	select {
	case s.running <- struct{}{}:
	default:
		figures.Add("searches refused", 1)
		return nil, errBusy
	}
	return retry.Within(ctx, s.patience, func(ctx context.Context) (books []penny.Book, err error) {
		defer func() {
			<-s.running
			if p := recover(); p != nil {
				err = &panicError{p, debug.Stack()}
			}
		}()
		return s.ask(ctx, author, limit)
	})
}

// ask asks the store. If the connection dies, it asks once more at once. If the reason passes by itself, such as a server that
// starts, it asks again after a pause: a search changes nothing. The pauses grow, and differ from visitor to visitor, so that
// a server which comes back is not met by all at the same moment. When many wait already, it does not ask again.
func (s *searcher) ask(ctx context.Context, author string, limit int) (books []penny.Book, err error) {
	for pause := firstPause; ; pause *= 2 {
		err = retry.Read(ctx, func() error {
			books, err = s.store.ByAuthor(ctx, author, limit)
			return err
		})
		if err == nil || ctx.Err() != nil || pause > lastPause || !explain.Passes(err) || !s.wait(ctx, pause) {
			return books, err
		}
		figures.Add("retries", 1)
	}
}

// wait waits for about pause, and reports whether the search may ask again.
func (s *searcher) wait(ctx context.Context, pause time.Duration) bool {
	select {
	case s.retrying <- struct{}{}:
		defer func() { <-s.retrying }()
	default:
		return false
	}
	select {
	case <-time.After(pause/2 + rand.N(pause)):
		return true
	case <-ctx.Done():
		return false
	}
}

// A panicError is a panic in the store. It brings the panic's own stack to the goroutine of the request.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return "the store panicked" }

// readiness answers /readyz: whether the app can answer a search.
type readiness struct {
	search   *searcher
	stopping atomic.Bool

	mu      sync.Mutex // protects the fields below; it is held while the database is asked, so that one request asks for all
	checked time.Time
	err     error
}

// errStopping is the error of check when the app stops.
var errStopping = errors.New("the app is stopping")

// check returns why the app cannot answer now, or nil. It asks the database once a second at most, and for a second at most.
func (r *readiness) check() error {
	if r.stopping.Load() {
		return errStopping
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) > time.Second {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, r.err = r.search.find(ctx, "ker", 1)
		r.checked = time.Now()
	}
	return r.err
}

// asked reports whether somebody asked in the last half minute.
func (r *readiness) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.checked) < 30*time.Second
}
