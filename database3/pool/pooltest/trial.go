package pooltest

import (
	"cmp"
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
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/relay"
)

// A trial is one promise under test. Its methods panic with a failure if the promise is not kept, or cannot be tested.
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

func (t *trial) fail(format string, args ...any) { t.must(fmt.Errorf(format, args...)) }

// run tests whether a pool keeps a promise, and cleans up.
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
	p.keep(ctx, t)
	return nil
}

func (t *trial) cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
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

// pool returns a pool that is closed when the trial ends.
func (t *trial) pool(url string, max int) Pool {
	p, err := t.exam.New(url, max)
	t.must(err)
	p = t.guard(p)
	t.cleanup(p.Close)
	return p
}

// acquire acquires a connection.
func (t *trial) acquire(ctx context.Context, p Pool) Loan {
	loan, err := p.Acquire(ctx)
	t.must(err)
	return loan
}

// fill acquires n connections at once and releases them, so that the pool has n idle ones.
func (t *trial) fill(ctx context.Context, p Pool, n int) {
	for range n {
		loan := t.acquire(ctx, p)
		defer loan.Release()
		t.must(loan.Exec(ctx, "SELECT 1"))
	}
}

// call calls a method of the pool, notes that it has not returned, and turns its panic into the trial's failure.
func (t *trial) call(name string, method func() error) (err error) {
	t.note(name, 1, nil)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s panicked: %v", name, r)
			t.note(name, -1, err)
			return
		}
		t.note(name, -1, nil)
	}()
	return method()
}

func (t *trial) note(name string, more int, panicked error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[name] += more
	if panicked != nil {
		t.panicked = panicked
	}
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

// guard returns a Pool whose methods go through call.
func (t *trial) guard(p Pool) Pool {
	return Pool{
		Read: func(ctx context.Context, sql string) error {
			return t.call("Read", func() error { return p.Read(ctx, sql) })
		},
		Acquire: func(ctx context.Context) (loan Loan, err error) {
			err = t.call("Acquire", func() (err error) {
				loan, err = p.Acquire(ctx)
				return err
			})
			return t.guardLoan(loan), err
		},
		Close: func() { _ = t.call("Close", func() error { p.Close(); return nil }) },
	}
}

func (t *trial) guardLoan(l Loan) Loan {
	return Loan{
		Exec: func(ctx context.Context, sql string) error {
			return t.call("Exec", func() error { return l.Exec(ctx, sql) })
		},
		Rows: func(ctx context.Context, sql string) error {
			return t.call("Rows", func() error { return l.Rows(ctx, sql) })
		},
		Release: func() { _ = t.call("Release", func() error { l.Release(); return nil }) },
	}
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

// as returns an address with another user, or the same if role is empty, and another password.
func (t *trial) as(address, role, password string) string {
	u, err := url.Parse(address)
	t.must(err)
	if role == "" {
		role = u.User.Username()
	}
	u.User = url.UserPassword(role, password)
	return u.String()
}

// A database is one on the exam's server that is dropped when the trial ends.
type database struct {
	t       *trial
	url     string
	admin   *pgx.Conn // to the server
	watcher *pgx.Conn // to the database
}

func (t *trial) database() database {
	admin := t.connect(t.exam.Admin)
	name := "penny_" + strings.ToLower(rand.Text())
	_, err := admin.Exec(context.Background(), "CREATE DATABASE "+name+" TEMPLATE template0")
	t.must(err)
	t.cleanup(func() { _, _ = admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)") })
	u, err := url.Parse(t.exam.Admin)
	t.must(err)
	u.Path = "/" + name
	return database{t, u.String(), admin, t.connect(u.String())}
}

// others selects what from pg_stat_activity, for the database's connections except the watcher's.
func (d database) others(what string, into ...any) {
	d.t.must(d.watcher.QueryRow(context.Background(), "SELECT "+what+` FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(into...))
}

// count returns how many connections the server has.
func (d database) count() (n int) {
	d.others("count(*)", &n)
	return n
}

// killAll has the server end every connection.
func (d database) killAll() {
	var killed int
	d.others("count(pg_terminate_backend(pid))", &killed)
}

// awaitQueries waits until n queries sleep in the database, and returns the process of one of them.
func (d database) awaitQueries(n int) (pid int) {
	d.t.eventually(fmt.Sprintf("%d queries run", n), func() bool {
		found := 0
		d.others("count(*) FILTER (WHERE wait_event = 'PgSleep'), coalesce(max(pid) FILTER (WHERE wait_event = 'PgSleep'), 0)", &found, &pid)
		return found == n
	})
	return pid
}

// bounded calls do, and fails if the server counts more than max connections meanwhile.
func (d database) bounded(max int, do func() error) {
	result, most := make(chan error, 1), 0
	go func() { result <- do() }()
	for {
		if n := d.count(); n > most {
			most = n
		}
		select {
		case <-time.After(2 * time.Millisecond):
			continue
		case err := <-result:
			if most > max {
				err = errors.Join(err, fmt.Errorf("the server counted %d connections at once, want %d at most", most, max))
			}
			d.t.must(err)
			return
		}
	}
}

// eventually waits until cond holds. If cond does not hold in time, the trial fails.
func (t *trial) eventually(what string, cond func() bool) {
	for deadline := time.Now().Add(10 * time.Second); !cond(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.fail("after 10 s it is still not true that %s", what)
		}
	}
}

// relay puts a relay before the server at address.
func (t *trial) relay(address string) (*relay.Relay, string) {
	r, through, err := relay.Before(address, 0)
	t.must(err)
	t.cleanup(func() { r.Close() })
	return r, through
}

// freeze stops a process of the server, as if the machine hung, until the trial ends.
func (t *trial) freeze(pid int) {
	if runtime.GOOS == "windows" {
		t.must(ErrSkipped) // Windows cannot suspend a process by a signal
	}
	t.must(signal(pid, stopSignal))
	t.cleanup(func() { _ = signal(pid, continueSignal) })
}

// A tally counts calls and those that failed.
type tally struct {
	mu           sync.Mutex
	made, failed int
	first        error
}

// add counts a call, and returns how many there were.
func (c *tally) add(err error) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed++
		c.first = cmp.Or(c.first, err)
	}
	c.made++
	return c.made
}

func (c *tally) err() error {
	if c.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d calls failed, the first: %w", c.failed, c.made, c.first)
}

func read(ctx context.Context, p Pool, patience time.Duration, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Read(ctx, sql)
}

// reads makes n reads from each of the callers at once.
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

// under keeps ten callers reading while something happens to the server at url, and for a hundred reads more.
func (t *trial) under(ctx context.Context, url string, happens func() error) {
	p := t.pool(url, 8)
	t.fill(ctx, p, 8)
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
	t.must(errors.Join(err, calls.err()))
}

// queueing is held by the trial that has a queue: waiting cannot tell one trial's callers from another's.
var queueing sync.Mutex

// queue has n callers wait for a connection, each after the one before it, while all connections are in use. Each sends its
// number when it is served, or -1. It is an error if a caller need not wait.
func queue(ctx context.Context, p Pool, n int) (<-chan int, error) {
	served := make(chan int, n)
	before := waiting() // the callers of pools that hang
	for i := range n {
		go waitInQueue(ctx, p, i, served)
		for looks := 0; looks < 5; { // a caller may also be parked for a moment on its way
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

// waiting returns how many callers are in a queue and parked there. It asks the runtime, because not every pool tells.
func waiting() (n int) {
	buf := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		state, _, _ := strings.Cut(stack, "\n")
		parked := slices.ContainsFunc([]string{"[select", "[chan receive", "[sync.Cond.Wait", "[semacquire", "[sync.Mutex.Lock"},
			func(s string) bool { return strings.Contains(state, s) })
		noting := strings.Contains(stack, "pooltest.(*trial).note") // it has not called Acquire yet
		if parked && !noting && strings.Contains(stack, "pooltest.waitInQueue(") {
			n++
		}
	}
	return n
}

// goroutines returns how many goroutines the trial has, its pool's among them. Other trials may run at the same time.
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
