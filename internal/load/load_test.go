package load

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func name(err error) string { return err.Error() }

func TestARunMakesAllItsCallsAndMeasuresThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, most, now atomic.Int64
		result := Run(t.Context(), Options{Calls: 100, Workers: 4, Name: name}, func(context.Context) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			n := calls.Add(1)
			time.Sleep(time.Duration(n) * time.Millisecond)
			return nil
		})
		if result.Calls != 100 || result.Workers != 4 || most.Load() != 4 || result.Failed() != 0 || result.ErrorCounts() != "0" {
			t.Errorf("got %+v and %d calls at once, want 100 calls, 4 at once, without errors", result, most.Load())
		}
		// The calls took 1 to 100 milliseconds.
		for p, want := range map[float64]time.Duration{0: 1, 0.5: 1, 50: 50, 50.1: 51, 95: 95, 99: 99, 100: 100} {
			if want *= time.Millisecond; result.Percentile(p) != want {
				got := result.Percentile(p)
				t.Errorf("p%v is %v, want %v", p, got, want)
			}
		}
		if rate := result.Rate(); rate < 70 || rate > 82 { // 5050 ms of calls, four at a time
			t.Errorf("got %v calls/s, want 70 to 82", rate)
		}
	})
}

func TestFailuresAreCountedByNameAndNotTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		result := Run(t.Context(), Options{Calls: 10, Workers: 1, Name: name}, func(context.Context) error {
			switch n := calls.Add(1); {
			case n <= 3:
				time.Sleep(time.Hour)
				return errors.New("full")
			case n == 4:
				return errors.New("gone")
			}
			time.Sleep(time.Millisecond)
			return nil
		})
		if got := result.ErrorCounts(); got != "3 full, 1 gone" || result.Failed() != 4 || result.Err.Error() != "full" {
			t.Errorf("got %s, the first %v; want 3 full, 1 gone, the first full", got, result.Err)
		}
		if result.Percentile(100) != time.Millisecond {
			t.Errorf("the slowest of the calls that succeeded took %v, want 1ms", result.Percentile(100))
		}
	})
}

func TestARunThatIsStoppedEndsSoonEvenIfACallIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		stuck := make(chan struct{})
		var calls atomic.Int64
		start := time.Now()
		result := Run(ctx, Options{Calls: 100, Workers: 2, Name: name}, func(context.Context) error {
			if calls.Add(1) > 6 {
				<-stuck
				return nil
			}
			time.Sleep(time.Millisecond)
			return nil
		})
		if took := time.Since(start); took > 2*time.Second || result.Calls != 6 || result.Failed() != 0 {
			t.Errorf("it ended after %v with %+v, want 6 calls and no error within 2s", took, result)
		}
		close(stuck)
		synctest.Wait()
	})
}

func TestTheResultsOfSeveralRunsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("full")
		run := func(took time.Duration, err error) Result {
			return Run(t.Context(), Options{Calls: 10, Workers: 2, Name: name}, func(context.Context) error {
				time.Sleep(took)
				return err
			})
		}
		var total Result
		for _, part := range []Result{run(time.Millisecond, nil), run(3*time.Millisecond, nil), run(time.Millisecond, full)} {
			total.Add(part)
		}
		if total.Calls != 30 || total.Workers != 2 || total.Elapsed != 25*time.Millisecond || total.ErrorCounts() != "10 full" || total.Err != full {
			t.Errorf("got %+v, want 30 calls by 2 workers in 25ms, 10 of them full", total)
		}
		if p50, p99 := total.Percentile(50), total.Percentile(99); p50 != time.Millisecond || p99 != 3*time.Millisecond {
			t.Errorf("got p50 %v and p99 %v, want 1ms and 3ms", p50, p99)
		}
	})
}
