// Package pooltest holds connection pools to the promises that a program relies on, each on a real PostgreSQL server and
// under a real fault. Penny's pool keeps them all; others are run beside it, with each promise that they do not make
// written down. A pool of your own needs an adapter of some thirty lines, such as those in this
// package's tests.
package pooltest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/relay"
)

// A Pool is what the promises are about.
type Pool interface {
	// Read runs a query that changes nothing, in the way in which the pool's users should: with its one retry, say.
	Read(ctx context.Context, sql string) error
	// Borrow takes a connection out of the pool.
	Borrow(ctx context.Context) (Loan, error)
	// Close closes the pool, and may be called twice.
	Close()
}

// A Loan is a borrowed connection.
type Loan interface {
	// Exec runs SQL and reads its answer to the end.
	Exec(ctx context.Context, sql string) error
	// Rows begins to read the answer to a query and leaves the rest of it unread.
	Rows(ctx context.Context, sql string) error
	// Return gives the connection back.
	Return()
}

// A Subject is a kind of pool to be tested.
type Subject struct {
	// New makes a pool of at most max connections to the server at url.
	New func(url string, max int) (Pool, error)
	// Differs has the promises, by name, that this kind of pool does not make, and why. Such a promise must indeed be
	// broken: a difference that has gone is reported. One whose breach is a matter of luck begins with "sometimes".
	Differs map[string]string
}

// Run holds the subject to every promise.
func Run(t *testing.T, s Subject) {
	t.Helper()
	bench := &bench{}
	names := make(map[string]bool)
	for _, promise := range promises {
		names[promise.name] = true
		t.Run(promise.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			trial := &trial{T: t, new: s.New, bench: bench, mark: rand.Text()}
			var err error
			pprof.Do(ctx, pprof.Labels("trial", trial.mark), func(ctx context.Context) { err = promise.keep(ctx, trial) })
			why, differs := s.Differs[promise.name]
			switch {
			case err != nil && !differs:
				t.Error(err)
			case err == nil && differs && !strings.HasPrefix(why, "sometimes"):
				t.Errorf("the promise is kept, though it is written down as a difference: %s", why)
			case err != nil:
				t.Logf("%s: a known difference: %s: %v", t.Name(), why, err)
			}
		})
	}
	for name := range s.Differs {
		if !names[name] {
			t.Errorf("no promise is called %q", name)
		}
	}
	bench.stop(t)
}

// bench is what the promises of one run share: a small server of their own, to be broken.
type bench struct {
	once   sync.Once
	server *localpg.Server
}

// places is how many connections the bench's server has, three of them for the administrator.
const places = 20

func (b *bench) start(t *testing.T) *localpg.Server {
	t.Helper()
	pgtest.Admin(t) // skips the test if there is no PostgreSQL
	b.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		server, err := localpg.Start(ctx, localpg.Options{Config: map[string]string{"max_connections": fmt.Sprint(places)}})
		if err != nil {
			t.Fatal(err)
		}
		b.server = server
	})
	if b.server == nil {
		t.Fatal("there is no server to break")
	}
	return b.server
}

func (b *bench) stop(t *testing.T) {
	if b.server != nil {
		if err := b.server.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// A trial is one promise under test.
type trial struct {
	*testing.T
	new   func(url string, max int) (Pool, error)
	bench *bench
	mark  string // a label on each goroutine that the trial starts, and on those which these start
}

// pool makes a pool that is closed when the trial ends.
func (t *trial) pool(url string, max int) Pool {
	t.Helper()
	p, err := t.new(url, max)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// database is a database on the shared server, and a count of the connections to it other than the count's own.
func (t *trial) database() (url string, count func() int) {
	t.Helper()
	url = pgtest.URL(t)
	watcher, err := pgx.Connect(context.Background(), url+"&application_name=watcher")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close(context.Background()) })
	var mu sync.Mutex
	return url, func() int {
		mu.Lock()
		defer mu.Unlock()
		var n int
		err := watcher.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&n)
		if err != nil {
			t.Error(err)
		}
		return n
	}
}

// killAll has the server end every connection to the database at url.
func (t *trial) killAll(url string) {
	t.Helper()
	var killed int
	pgtest.Query(t, url, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'watcher'`, &killed)
}

// fill borrows n connections at once and gives them back, so that the pool has n idle ones.
func fill(ctx context.Context, p Pool, n int) error {
	var loans []Loan
	defer func() {
		for _, loan := range loans {
			loan.Return()
		}
	}()
	for range n {
		loan, err := p.Borrow(ctx)
		if err != nil {
			return fmt.Errorf("borrow %d connections: %w", n, err)
		}
		loans = append(loans, loan)
		if err := loan.Exec(ctx, "SELECT 1"); err != nil {
			return err
		}
	}
	return nil
}

// reads makes n reads from each of so many callers at once, each within limit, and tells how many failed.
func reads(ctx context.Context, p Pool, callers, n int, limit time.Duration, sql string) error {
	var (
		failed atomic.Int64
		first  atomic.Pointer[error]
		all    sync.WaitGroup
	)
	for range callers {
		all.Go(func() {
			for range n {
				if err := read(ctx, p, limit, sql); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	return lost(&failed, int64(callers*n), &first)
}

func lost(failed *atomic.Int64, made int64, first *atomic.Pointer[error]) error {
	if failed.Load() == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d calls failed, the first: %w", failed.Load(), made, *first.Load())
}

func read(ctx context.Context, p Pool, limit time.Duration, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return p.Read(ctx, sql)
}

// under keeps ten callers reading while something happens and for a hundred reads more, each within limit.
func under(ctx context.Context, p Pool, limit time.Duration, happens func() error) error {
	if err := fill(ctx, p, 8); err != nil {
		return err
	}
	var (
		failed, made atomic.Int64
		first        atomic.Pointer[error]
		busy, over   = make(chan struct{}), make(chan struct{})
		callers      sync.WaitGroup
	)
	for range 10 {
		callers.Go(func() {
			for left := 10; left > 0; {
				if err := read(ctx, p, limit, "SELECT 1"); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
				<-time.After(2 * time.Millisecond) // callers have other things to do, too; and one that fails at once would fail a million times
				if made.Add(1) == 100 {
					close(busy)
				}
				select {
				case <-over:
					left--
				default:
				}
			}
		})
	}
	select { // the fault comes when the load is on
	case <-busy:
	case <-ctx.Done():
	}
	err := happens()
	close(over)
	callers.Wait()
	return errors.Join(err, lost(&failed, made.Load(), &first))
}

// queueing lets one trial at a time stand in a queue: waiting cannot tell one trial's callers from another's.
var queueing sync.Mutex

// queue has n callers wait for a connection, each after the one before it, while all connections are borrowed. It gives
// back the channel on which each says its number when it is served. It fails where a caller need not wait.
func queue(ctx context.Context, p Pool, n int) (<-chan int, error) {
	queueing.Lock()
	defer queueing.Unlock()
	served := make(chan int, n)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range n {
		go waitInQueue(ctx, p, i, served)
		for waiting() != i+1 {
			if len(served) > 0 {
				return nil, errors.New("a caller was served though every connection was borrowed")
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for %d callers to stand in the queue: %w", i+1, ctx.Err())
			}
		}
	}
	return served, nil
}

// waitInQueue is a function of its own so that waiting can count the goroutines in it.
func waitInQueue(ctx context.Context, p Pool, i int, served chan<- int) {
	loan, err := p.Borrow(ctx)
	if err != nil {
		served <- -1
		return
	}
	served <- i
	loan.Return()
}

// waiting is how many callers stand in a queue and are parked there, as the runtime tells: pools have no common way.
func waiting() int {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	n := 0
	for _, stack := range stacks {
		if !strings.Contains(stack, "pooltest.waitInQueue(") {
			continue
		}
		for _, parked := range []string{"[select", "[chan receive", "[sync.Cond.Wait", "[semacquire", "[sync.Mutex.Lock"} {
			if state, _, _ := strings.Cut(stack, "\n"); strings.Contains(state, parked) {
				n++
				break
			}
		}
	}
	return n
}

// goroutines is how many goroutines the trial has, its pool's among them: other trials may run beside it.
func (t *trial) goroutines() int {
	var profile strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, alike := range strings.Split(profile.String(), "\n\n") { // each begins with a count, and names the labels
		if strings.Contains(alike, t.mark) {
			count, _, _ := strings.Cut(alike, " @")
			one, err := strconv.Atoi(count[strings.LastIndex(count, "\n")+1:])
			if err != nil {
				t.Fatal(err)
			}
			n += one
		}
	}
	return n
}

// freeze stops the process of a server's backend, as if the machine hung, until the trial ends.
func (t *trial) freeze(pid int) error {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot suspend a process by a signal")
	}
	if err := signal(pid, stopSignal); err != nil {
		return err
	}
	t.Cleanup(func() { _ = signal(pid, continueSignal) })
	return nil
}

func (t *trial) relay(address string) (*relay.Relay, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	r, err := relay.Start(u.Host, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	u.Host = r.Addr()
	return r, u.String()
}
