// Package load makes many calls with many workers and measures them.
package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Result is what a run measured, of the calls that were done.
type Result struct {
	Calls   int            // calls done, failed ones among them
	Workers int            // goroutines that made them
	Elapsed time.Duration  // from the start of the first call to the end of the last
	Errors  map[string]int // failed calls, counted by name
	Err     error          // the first failure of the most frequent kind, nil where none failed

	latencies *hdrhistogram.Histogram // of the calls that succeeded, in microseconds
}

// Options say what Run does.
type Options struct {
	Calls   int                // how many calls to make
	Workers int                // how many goroutines make them; each makes its next call when its last is done
	Name    func(error) string // the kind that a failed call counts as
	Done    func(failed bool)  // called after every call, by many goroutines at once; nil for nothing
}

// grace is how long Run waits, once it is told to stop, for calls that do not heed their context.
const grace = time.Second

// Run makes the calls and waits for them. When ctx ends it starts no more, and gives back what it has by then: a call
// that ctx ended is not counted.
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
		merged   = newHistogram()
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
					// A latency beyond the histogram's hour is recorded as an hour.
					_ = merged.RecordValue(min(end.Sub(start).Microseconds(), merged.HighestTrackableValue()))
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
		latencies: hdrhistogram.Import(merged.Export())}
	most := 0
	for name, f := range failures {
		result.Errors[name] = f.count
		if f.count > most {
			most, result.Err = f.count, f.first
		}
	}
	return result
}

// wait waits for the workers, and once ctx has ended only for a moment longer: a driver may be deaf to it.
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

// newHistogram holds latencies from a microsecond to an hour, each within 0.1 percent.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Hour.Microseconds(), 3)
}

// Add adds what another run measured: its calls, its time and its failures. r may be the zero Result.
func (r *Result) Add(part Result) {
	r.Calls += part.Calls
	r.Workers = part.Workers
	r.Elapsed += part.Elapsed
	if r.latencies == nil {
		r.latencies, r.Errors = newHistogram(), make(map[string]int)
	}
	r.latencies.Merge(part.latencies)
	for name, count := range part.Errors {
		r.Errors[name] += count
	}
	if r.Err == nil {
		r.Err = part.Err
	}
}

// Failed is how many calls failed.
func (r Result) Failed() int {
	failed := 0
	for _, count := range r.Errors {
		failed += count
	}
	return failed
}

// Rate is how many calls succeeded in a second.
func (r Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Calls-r.Failed()) / r.Elapsed.Seconds()
}

// Percentile is the latency that p percent of the calls that succeeded did not exceed; zero where none did.
func (r Result) Percentile(p float64) time.Duration {
	return time.Duration(r.latencies.ValueAtQuantile(p)) * time.Microsecond
}

// ErrorCounts says how many calls failed of which kind, the most frequent first: "23 server full, 1 no answer".
func (r Result) ErrorCounts() string {
	if len(r.Errors) == 0 {
		return "0"
	}
	names := make([]string, 0, len(r.Errors))
	for name := range r.Errors {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if r.Errors[a] != r.Errors[b] {
			return r.Errors[b] - r.Errors[a]
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%d %s", r.Errors[name], name)
	}
	return strings.Join(parts, ", ")
}

// Milliseconds is d as the timing lines show it.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
