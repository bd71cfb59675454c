package pooltest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/relay"
)

// A trial is one promise under test. Its methods panic with a failure if something other than the pool goes wrong.
type trial struct {
	exam *Exam
	mark string // a label on each goroutine that the trial starts, and on those that these start

	mu       sync.Mutex     // protects the following
	calls    map[string]int // calls of the pool's methods that have not returned
	panicked error          // what a method of the pool panicked with
	cleanups []func()
}

type failure struct{ error }

func (t *trial) must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// run holds a pool to a promise and cleans up.
func (t *trial) run(ctx context.Context, p promise) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			err = fmt.Errorf("panic: %v", r)
		}
		t.clean()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.panicked != nil {
			err = t.panicked
		}
	}()
	return p.keep(ctx, t)
}

// clean runs the cleanups, the last one first. A pool's Close may hang: the others run all the same.
func (t *trial) clean() {
	t.mu.Lock()
	cleanups := t.cleanups
	t.cleanups = nil
	t.mu.Unlock()
	for _, cleanup := range slices.Backward(cleanups) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			cleanup()
		}()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
		}
	}
}

func (t *trial) cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// hangs says which of the pool's methods have not returned.
func (t *trial) hangs() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range []string{"Close", "Release", "Acquire", "Read", "Exec", "Rows"} {
		if t.calls[name] > 0 {
			return fmt.Sprintf("%s has not returned", name)
		}
	}
	return "it is not done"
}

// pool returns a pool that is closed when the trial ends.
func (t *trial) pool(url string, max int) Pool {
	p, err := t.exam.New(url, max)
	t.must(err)
	guarded := guard{p, t}
	t.cleanup(guarded.Close)
	return guarded
}

// A guard is a pool whose panics are the trial's failure, and whose calls are counted.
type guard struct {
	pool Pool
	t    *trial
}

// call notes the call of a method, and returns what to defer.
func (t *trial) call(name string, err *error) func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[name]++
	return func() {
		r := recover()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.calls[name]--
		if r == nil {
			return
		}
		t.panicked = fmt.Errorf("%s panicked: %v", name, r)
		if err != nil {
			*err = t.panicked
		}
	}
}

func (g guard) Read(ctx context.Context, sql string) (err error) {
	defer g.t.call("Read", &err)()
	return g.pool.Read(ctx, sql)
}

func (g guard) Acquire(ctx context.Context) (_ Loan, err error) {
	defer g.t.call("Acquire", &err)()
	loan, err := g.pool.Acquire(ctx)
	return guardedLoan{loan, g.t}, err
}

func (g guard) Close() {
	defer g.t.call("Close", nil)()
	g.pool.Close()
}

type guardedLoan struct {
	loan Loan
	t    *trial
}

func (g guardedLoan) Exec(ctx context.Context, sql string) (err error) {
	defer g.t.call("Exec", &err)()
	return g.loan.Exec(ctx, sql)
}

func (g guardedLoan) Rows(ctx context.Context, sql string) (err error) {
	defer g.t.call("Rows", &err)()
	return g.loan.Rows(ctx, sql)
}

func (g guardedLoan) Release() {
	defer g.t.call("Release", nil)()
	g.loan.Release()
}

// breakable returns the server that the promises may break.
func (t *trial) breakable(ctx context.Context) *localpg.Server {
	if t.exam.server == nil {
		server, err := localpg.Start(ctx, localpg.Options{Config: map[string]string{"max_connections": "20"}})
		t.must(err)
		t.exam.server = server
	}
	return t.exam.server
}

// connect returns a connection that is closed when the trial ends.
func (t *trial) connect(url string) *pgx.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	t.must(err)
	// Only the socket: a promise that hangs may still use the connection.
	t.cleanup(func() { conn.PgConn().Conn().Close() })
	return conn
}

// A database is one on the exam's server that is dropped when the trial ends.
type database struct {
	t       *trial
	url     string
	admin   *pgx.Conn // to the server
	watcher *pgx.Conn // to the database
	mu      *sync.Mutex
}

func (t *trial) database() database {
	d := database{t: t, admin: t.connect(t.exam.Admin), mu: &sync.Mutex{}}
	name := "penny_" + strings.ToLower(rand.Text())
	_, err := d.admin.Exec(context.Background(), "CREATE DATABASE "+name+" TEMPLATE template0")
	t.must(err)
	t.cleanup(func() { _, _ = d.admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)") })
	u, err := url.Parse(t.exam.Admin)
	t.must(err)
	u.Path = "/" + name
	d.url = u.String()
	d.watcher = t.connect(d.url)
	return d
}

// others asks for something about the database's connections, except the watcher's.
func (d database) others(what string, into ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.watcher.QueryRow(context.Background(), "SELECT "+what+` FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(into...)
}

// count returns how many connections the server has.
func (d database) count() (n int) {
	if err := d.others("count(*)", &n); err != nil {
		return -1
	}
	return n
}

// killAll has the server end every connection.
func (d database) killAll() {
	var killed int
	d.t.must(d.others("count(pg_terminate_backend(pid))", &killed))
}

// awaitQueries waits until n queries sleep in the database, and returns the process of one of them.
func (d database) awaitQueries(n int) (pid int) {
	d.t.eventually(fmt.Sprintf("%d queries run", n), func() bool {
		found := 0
		d.t.must(d.others("count(*) FILTER (WHERE wait_event = 'PgSleep'), coalesce(max(pid) FILTER (WHERE wait_event = 'PgSleep'), 0)", &found, &pid))
		return found == n
	})
	return pid
}

// bounded does something and reports an error if the server counts more than max connections meanwhile.
func (d database) bounded(max int, do func() error) error {
	done, most := make(chan struct{}), make(chan int)
	go func() {
		seen := 0
		for {
			if n := d.count(); n > seen {
				seen = n
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-done:
				most <- seen
				return
			}
		}
	}()
	err := do()
	close(done)
	if seen := <-most; seen > max {
		return errors.Join(err, fmt.Errorf("the server counted %d connections at once, want %d at most", seen, max))
	}
	return err
}

// eventually waits until cond holds, and fails if it does not in time.
func (t *trial) eventually(what string, cond func() bool) {
	for deadline := time.Now().Add(10 * time.Second); !cond(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic(failure{fmt.Errorf("it took too long until %s", what)})
		}
	}
}

// relay puts a relay before the server at address.
func (t *trial) relay(address string) (*relay.Relay, string) {
	u, err := url.Parse(address)
	t.must(err)
	r, err := relay.Start(u.Host, 0)
	t.must(err)
	t.cleanup(func() { r.Close() })
	u.Host = r.Addr()
	return r, u.String()
}

// freeze stops the process of a server's backend, as if the machine hung, until the trial ends.
func (t *trial) freeze(pid int) {
	if runtime.GOOS == "windows" {
		panic(failure{ErrSkipped}) // Windows cannot suspend a process by a signal
	}
	t.must(signal(pid, stopSignal))
	t.cleanup(func() { _ = signal(pid, continueSignal) })
}

// fill acquires n connections at once and releases them, so that the pool has n idle ones.
func fill(ctx context.Context, p Pool, n int) error {
	var loans []Loan
	defer func() {
		for _, loan := range loans {
			loan.Release()
		}
	}()
	for range n {
		loan, err := p.Acquire(ctx)
		if err != nil {
			return fmt.Errorf("acquire %d connections: %w", n, err)
		}
		loans = append(loans, loan)
		if err := loan.Exec(ctx, "SELECT 1"); err != nil {
			return err
		}
	}
	return nil
}

// A tally counts calls and those that failed.
type tally struct {
	made, failed atomic.Int64
	first        atomic.Pointer[error]
}

func (c *tally) add(err error) int64 {
	if err != nil {
		c.failed.Add(1)
		c.first.CompareAndSwap(nil, &err)
	}
	return c.made.Add(1)
}

func (c *tally) err() error {
	if c.failed.Load() == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d calls failed, the first: %w", c.failed.Load(), c.made.Load(), *c.first.Load())
}

func read(ctx context.Context, p Pool, patience time.Duration, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Read(ctx, sql)
}

// reads makes n reads from each of so many callers at once.
func reads(ctx context.Context, p Pool, callers, n int, patience time.Duration, sql string) error {
	var calls tally
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range n {
				calls.add(read(ctx, p, patience, sql))
			}
		})
	}
	all.Wait()
	return calls.err()
}

// under keeps ten callers reading while something happens, and for a hundred reads more.
func under(ctx context.Context, p Pool, happens func() error) error {
	if err := fill(ctx, p, 8); err != nil {
		return err
	}
	var calls tally
	busy, over := make(chan struct{}), make(chan struct{})
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() {
			for left := 10; left > 0 && ctx.Err() == nil; {
				if calls.add(read(ctx, p, ample, "SELECT 1")) == 100 {
					close(busy)
				}
				<-time.After(2 * time.Millisecond) // else a caller that fails at once would fail a million times
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
	return errors.Join(err, calls.err())
}

// queueing is held by the trial that has a queue: waiting cannot tell one trial's callers from another's.
var queueing sync.Mutex

// queue has n callers wait for a connection, each after the one before it, while all connections are in use. Each sends its
// number when it is served, or -1. It is an error if a caller need not wait.
func queue(ctx context.Context, p Pool, n int) (<-chan int, error) {
	served := make(chan int, n)
	before := waiting() // in pools that hang
	for i := range n {
		go waitInQueue(ctx, p, i, served)
		for looks := 0; looks < 5; { // a caller may be parked for a moment on its way, too
			if looks++; waiting() != before+i+1 {
				looks = 0
			}
			if len(served) > 0 {
				return nil, errors.New("a caller was served though every connection was in use")
			}
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return nil, fmt.Errorf("wait until %d callers are in the queue: %w", i+1, ctx.Err())
			}
		}
	}
	return served, nil
}

// waitInQueue is a function of its own so that waiting can count the goroutines in it.
func waitInQueue(ctx context.Context, p Pool, i int, served chan<- int) {
	loan, err := p.Acquire(ctx)
	if err != nil {
		served <- -1
		return
	}
	served <- i
	loan.Release()
}

// waiting returns how many callers are in a queue and parked there. It asks the runtime, because pools have no common way.
func waiting() (n int) {
	buf := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		state, _, _ := strings.Cut(stack, "\n")
		parked := slices.ContainsFunc([]string{"[select", "[chan receive", "[sync.Cond.Wait", "[semacquire", "[sync.Mutex.Lock"},
			func(s string) bool { return strings.Contains(state, s) })
		noting := strings.Contains(stack, "pooltest.(*trial).call") // on its way to Acquire
		if parked && !noting && strings.Contains(stack, "pooltest.waitInQueue(") {
			n++
		}
	}
	return n
}

// goroutines returns how many goroutines the trial has, its pool's among them. Other trials may run beside it.
func (t *trial) goroutines() (n int) {
	var profile strings.Builder
	t.must(pprof.Lookup("goroutine").WriteTo(&profile, 1))
	for _, alike := range strings.Split(profile.String(), "\n\n") { // each begins with a count, and names the labels
		if strings.Contains(alike, t.mark) {
			count, _, _ := strings.Cut(alike, " @")
			one, err := strconv.Atoi(count[strings.LastIndex(count, "\n")+1:])
			t.must(err)
			n += one
		}
	}
	return n
}
