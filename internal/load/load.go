// Package load makes many calls with many workers and measures them.
package load

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Result is what a run measured.
type Result struct {
	Calls   int            // calls that ended, failed ones included
	Workers int            // goroutines that made them
	Elapsed time.Duration  // from the start of the first call to the end of the last
	Errors  map[string]int // failed calls, counted by name
	Err     error          // the first failure of the most frequent kind, nil if no call failed

	// latencies counts the calls that succeeded by their latency in whole microseconds. A histogram library is not worth its
	// download: a million different latencies would take half a million seconds of calls.
	latencies map[time.Duration]int
}

// Options say what Run does.
type Options struct {
	Calls   int                // how many calls to make
	Workers int                // how many goroutines make them; each makes one call after the other
	Name    func(error) string // returns the kind that a failed call counts as
	Done    func(failed bool)  // called after every call, by many goroutines at once; nil for nothing
}

// grace is how long Run waits, after its context has ended, for calls that ignore the context.
const grace = time.Second

// Run makes the calls and waits for them. When ctx ends, it starts no more calls and returns what it has measured. A
// call that fails because ctx ended is not counted.
func Run(ctx context.Context, o Options, call func(context.Context) error) Result {
	type failure struct {
		count int
		first error
	}
	var (
		started  atomic.Int64
		workers  sync.WaitGroup
		mu       sync.Mutex // protects the following
		done     int
		failures = make(map[string]*failure)
		latency  = make(map[time.Duration]int)
		last     time.Time
	)
	begin := time.Now()
	last = begin
	for range o.Workers {
		workers.Go(func() {
			for ctx.Err() == nil && started.Add(1) <= int64(o.Calls) {
				start := time.Now()
				err := call(ctx)
				end := time.Now()
				if err != nil && ctx.Err() != nil {
					return
				}
				mu.Lock()
				done++
				last = end
				if err == nil {
					latency[end.Sub(start).Round(time.Microsecond)]++
				} else if f := failures[o.Name(err)]; f != nil {
					f.count++
				} else {
					failures[o.Name(err)] = &failure{1, err}
				}
				mu.Unlock()
				if o.Done != nil {
					o.Done(err != nil)
				}
			}
		})
	}
	wait(ctx, &workers)

	mu.Lock()
	defer mu.Unlock()
	result := Result{Calls: done, Workers: o.Workers, Elapsed: last.Sub(begin), Errors: make(map[string]int),
		latencies: maps.Clone(latency)} // a call that ignores ctx may still write to the original
	most := 0
	for name, f := range failures {
		result.Errors[name] = f.count
		if f.count > most {
			most, result.Err = f.count, f.first
		}
	}
	return result
}

// wait waits for the workers, but only for grace after ctx has ended: some drivers ignore it.
func wait(ctx context.Context, workers *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(grace):
	}
}

// Add adds the calls, the time and the failures of another run, and keeps the first run's Err. r may be the zero Result.
func (r *Result) Add(part Result) {
	r.Calls += part.Calls
	r.Workers = part.Workers
	r.Elapsed += part.Elapsed
	if r.latencies == nil {
		r.latencies, r.Errors = make(map[time.Duration]int), make(map[string]int)
	}
	for latency, count := range part.latencies {
		r.latencies[latency] += count
	}
	for name, count := range part.Errors {
		r.Errors[name] += count
	}
	if r.Err == nil {
		r.Err = part.Err
	}
}

// Failed returns how many calls failed.
func (r Result) Failed() int {
	failed := 0
	for _, count := range r.Errors {
		failed += count
	}
	return failed
}

// Rate returns how many calls succeeded per second.
func (r Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Calls-r.Failed()) / r.Elapsed.Seconds()
}

// Percentile returns the smallest latency that at least p percent of the successful calls did not exceed (the nearest
// rank), or zero if no call succeeded.
func (r Result) Percentile(p float64) time.Duration {
	rank := int(math.Ceil(p / 100 * float64(r.Calls-r.Failed())))
	sorted := slices.Sorted(maps.Keys(r.latencies))
	for _, latency := range sorted {
		if rank -= r.latencies[latency]; rank <= 0 {
			return latency
		}
	}
	return 0
}

// ErrorCounts returns how many calls failed, by kind and the most frequent first: "23 server full, 1 no answer".
func (r Result) ErrorCounts() string {
	if len(r.Errors) == 0 {
		return "0"
	}
	names := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int {
		return cmp.Or(r.Errors[b]-r.Errors[a], strings.Compare(a, b))
	})
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%d %s", r.Errors[name], name)
	}
	return strings.Join(parts, ", ")
}

// Milliseconds returns d in the form of the timing lines.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}

// Meet lets n callers take a connection of db at once. Each holds its connection until as many callers as db allows have one or
// an error, and then asks a question over it. Meet returns the errors.
func Meet(ctx context.Context, db *sql.DB, n int) (failures []error) {
	together := int32(n)
	if most := db.Stats().MaxOpenConnections; most > 0 {
		together = int32(min(most, n))
	}
	var (
		there atomic.Int32
		met   = make(chan struct{})
		mu    sync.Mutex // protects failures
		all   sync.WaitGroup
	)
	ask := func() error {
		conn, err := db.Conn(ctx)
		if there.Add(1) == together {
			close(met)
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		select {
		case <-met:
			_, err = conn.ExecContext(ctx, "SELECT * FROM books")
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for range n {
		all.Go(func() {
			if err := ask(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, err)
			}
		})
	}
	all.Wait()
	return failures
}
