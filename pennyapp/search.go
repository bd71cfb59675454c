package main

import (
	"cmp"
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
	// The number of searches that may run at once, including those that wait for a connection of the pool. A healthy database
	// answers them in a moment; if it is slow, more searches would only take memory until their patience ends.
	mostSearches = 256

	// The number of searches that may wait to ask again: a server that is starting has enough to do.
	mostRetries = 32
	firstPause  = 100 * time.Millisecond
	lastPause   = 2 * time.Second
)

// errBusy is the error of a search beyond mostSearches.
var errBusy = errors.New("too many searches at once")

// figures are what -debug shows.
var figures = expvar.NewMap("pennyapp")

// A searcher asks the store, within bounds.
type searcher struct {
	store    penny.Store
	patience time.Duration
	running  chan struct{} // has a token for each search, until the driver returns
	retrying chan struct{} // has a token for each search that waits to ask again
}

func newSearcher(store penny.Store, patience time.Duration) *searcher {
	return &searcher{store, patience, make(chan struct{}, mostSearches), make(chan struct{}, mostRetries)}
}

// find returns at most limit books. It returns after the patience, even if the driver does not, and at once if too many
// searches are running.
//
// A search changes nothing, so find may ask again: at once if the connection died, and after a pause if the error may pass by
// itself, as when a server is starting. The pauses grow and are random, so that the visitors do not all return to the server at
// the same moment. If many searches wait already, find does not ask again. If the patience ends during a retry, find returns the
// error before it, which says more than "deadline exceeded".
func (s *searcher) find(ctx context.Context, author string, limit int) ([]penny.Book, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var before error
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		books, err := s.ask(ctx, author, limit)
		if err != nil && ctx.Err() != nil {
			return nil, cmp.Or(before, err)
		}
		if err == nil || !explain.Passes(err) || !s.wait(ctx, pause) {
			return books, err
		}
		before = err
		figures.Add("retries", 1)
	}
}

// ask asks the store until ctx ends.
func (s *searcher) ask(ctx context.Context, author string, limit int) ([]penny.Book, error) {
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
		err = retry.Read(ctx, func() error {
			books, err = s.store.ByAuthor(ctx, author, limit)
			return err
		})
		return books, err
	})
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

// readiness knows whether the app can answer a search.
type readiness struct {
	search   *searcher
	stopping atomic.Bool

	mu      sync.Mutex // protects the following; it is held while the database is asked, so that one request asks for all
	checked time.Time
	err     error // why the last check failed
}

// check reports whether the app can answer now. It asks the database once a second at most, and for a second at most.
func (r *readiness) check() bool {
	if r.stopping.Load() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) > time.Second {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, r.err = r.search.find(ctx, "ker", 1)
		r.checked = time.Now()
	}
	return r.err == nil
}

// asked reports whether somebody asked in the last half minute.
func (r *readiness) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.checked) < 30*time.Second
}
