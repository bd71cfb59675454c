package pooltest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// ample is a deadline that leaves time to recover from each of the faults.
const ample = 20 * time.Second

// promises are what a program relies on. Each is kept if its function returns nil.
var promises = []struct {
	name string
	keep func(context.Context, *trial) error
}{
	{"a connection is used again", func(ctx context.Context, t *trial) error {
		url, count := t.database()
		p := t.pool(url, 4)
		for range 20 {
			if err := p.Read(ctx, "SELECT 1"); err != nil {
				return err
			}
		}
		if n := count(); n != 1 {
			return fmt.Errorf("after 20 reads in a row the server counts %d connections, want 1", n)
		}
		return nil
	}},
	{"a herd on a cold pool opens no more than max connections", func(ctx context.Context, t *trial) error {
		url, count := t.database()
		p := t.pool(url, 4)
		return t.bounded(count, 4, func() error { return reads(ctx, p, 100, 5, ample, "SELECT 1") })
	}},
	{"a connection that died among the idle never makes the server count more than max", func(ctx context.Context, t *trial) error {
		url, count := t.database()
		p := t.pool(url, 6)
		if err := fill(ctx, p, 6); err != nil {
			return err
		}
		pgtest.Exec(t, url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid() AND application_name <> 'watcher' ORDER BY backend_start DESC LIMIT 1`)
		pgtest.Eventually(t, 10*time.Second, "the killed connection is gone", func() bool { return count() == 5 })
		<-time.After(1100 * time.Millisecond) // as long as it takes until the pools take care
		return t.bounded(count, 6, func() error { return reads(ctx, p, 12, 3, ample, "SELECT pg_sleep(0.02)") })
	}},
	{"callers that are cancelled never make the server count more than max", func(ctx context.Context, t *trial) error {
		url, count := t.database()
		p := t.pool(url, 4)
		most := 0
		for range 5 {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			_ = reads(short, p, 8, 1, ample, "SELECT pg_sleep(0.5)") // each of them fails, as it should
			cancel()
			_ = reads(ctx, p, 4, 1, ample, "SELECT 1")
			most = max(most, count())
		}
		if most > 4 {
			return fmt.Errorf("the server counted %d connections at once, want 4 at most", most)
		}
		return reads(ctx, p, 8, 2, ample, "SELECT 1")
	}},
	{"callers are served in the order in which they come", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 1)
		loan, err := p.Borrow(ctx)
		if err != nil {
			return err
		}
		served, err := queue(ctx, p, 40)
		loan.Return()
		if err != nil {
			return err
		}
		var order []int
		for range 40 {
			order = append(order, <-served)
		}
		if !slices.IsSorted(order) || order[0] != 0 {
			return fmt.Errorf("served in the order %v", order)
		}
		return nil
	}},
	{"a caller that stops waiting gets its error at once and leaves no gap", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 1)
		loan, err := p.Borrow(ctx)
		if err != nil {
			return err
		}
		impatient, cancel := context.WithCancel(ctx)
		failed := make(chan error)
		go func() {
			_, err := p.Borrow(impatient)
			failed <- err
		}()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("cancelled while waiting: %v", err)
		}
		loan.Return()
		return read(ctx, p, ample, "SELECT 1")
	}},
	{"a query that is cancelled costs the others nothing", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 2)
		if err := fill(ctx, p, 1); err != nil { // else the deadline could pass while the pool still connects
			return err
		}
		if err := read(ctx, p, 50*time.Millisecond, "SELECT pg_sleep(10)"); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a query past its deadline: %v", err)
		}
		return reads(ctx, p, 8, 5, ample, "SELECT 1")
	}},
	{"idle connections that were killed cost no read at once", func(ctx context.Context, t *trial) error {
		return t.afterKilling(ctx, 0)
	}},
	{"idle connections that were killed cost no read two seconds later", func(ctx context.Context, t *trial) error {
		return t.afterKilling(ctx, 2*time.Second)
	}},
	{"a connection that is killed in the middle of a query costs no read", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 4)
		// Each read that is killed is tried once more, and then nobody kills it.
		result := make(chan error)
		go func() { result <- reads(ctx, p, 4, 1, ample, "SELECT pg_sleep(1)") }()
		t.awaitQueries(url, 4)
		t.killAll(url)
		return <-result
	}},
	{"a network that is cut in the middle of a query costs no read", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		relay, relayed := t.relay(url)
		p := t.pool(relayed, 4)
		result := make(chan error)
		go func() { result <- reads(ctx, p, 4, 1, ample, "SELECT pg_sleep(1)") }()
		t.awaitQueries(url, 4)
		relay.Cut()
		return <-result
	}},
	{"idle connections that the network cut cost no read at once", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		relay, relayed := t.relay(url)
		p := t.pool(relayed, 8)
		if err := fill(ctx, p, 8); err != nil {
			return err
		}
		relay.Cut()
		return read(ctx, p, ample, "SELECT 1")
	}},
	{"a network that forgets idle connections costs no read that has time", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		relay, relayed := t.relay(url)
		p := t.pool(relayed, 8)
		if err := fill(ctx, p, 8); err != nil {
			return err
		}
		relay.Swallow()
		defer relay.Cut()                     // else a pool's Close waits for an answer, too
		<-time.After(1100 * time.Millisecond) // as long as it takes until the pools take care
		// Who comes first finds out, which takes two seconds at most, and the others one.
		if err := read(ctx, p, 4*time.Second, "SELECT 1"); err != nil {
			return err
		}
		return reads(ctx, p, 16, 1, 4*time.Second, "SELECT 1")
	}},
	{"a process of the server that hangs holds up its own caller alone, and that one only until its deadline", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 2)
		hung := make(chan error)
		limit := 3 * time.Second
		start := time.Now()
		go func() { hung <- read(ctx, p, limit, "SELECT pg_sleep(2)") }()
		pid := t.awaitQueries(url, 1)
		if err := t.freeze(pid); err != nil {
			return err
		}
		if err := reads(ctx, p, 4, 10, 2*time.Second, "SELECT 1"); err != nil {
			return fmt.Errorf("the others: %w", err)
		}
		if err := <-hung; err == nil {
			return errors.New("the read on a hung process succeeded")
		}
		if took := time.Since(start); took > limit+5*time.Second {
			return fmt.Errorf("the read on a hung process came back after %v, its deadline was %v", took, limit)
		}
		return nil
	}},
	{"a server that restarts in order costs no read", func(ctx context.Context, t *trial) error {
		server := t.bench.start(t.T)
		p := t.pool(server.URL("postgres"), 8)
		return under(ctx, p, ample, func() error { return server.Restart(ctx, localpg.Fast) })
	}},
	{"a server that crashes and starts again costs no read", func(ctx context.Context, t *trial) error {
		server := t.bench.start(t.T)
		p := t.pool(server.URL("postgres"), 8)
		return under(ctx, p, ample, func() error { return server.Restart(ctx, localpg.Immediate) })
	}},
	{"a server that is gone for a while costs no read that has time", func(ctx context.Context, t *trial) error {
		server := t.bench.start(t.T)
		p := t.pool(server.URL("postgres"), 8)
		return under(ctx, p, ample, func() error {
			server.Halt(localpg.Fast)
			<-time.After(time.Second) // the outage
			return server.Resume(ctx)
		})
	}},
	{"two hundred callers on a server with twenty places lose no read", func(ctx context.Context, t *trial) error {
		server := t.bench.start(t.T)
		p := t.pool(server.URL("postgres"), 10)
		return reads(ctx, p, 200, 3, ample, "SELECT 1")
	}},
	{"a server that others have filled costs no read that has time", func(ctx context.Context, t *trial) error {
		address, _ := t.database()
		role := "penny_crowd_" + strings.ToLower(rand.Text())
		pgtest.Exec(t, address, "CREATE ROLE "+role+" LOGIN PASSWORD 'crowd' CONNECTION LIMIT 4")
		t.Cleanup(func() { pgtest.Exec(t, pgtest.Admin(t), "DROP ROLE "+role) })
		u, err := url.Parse(address)
		if err != nil {
			return errors.New("the address does not parse")
		}
		u.User = url.UserPassword(role, "crowd")
		others := t.pool(u.String(), 4)
		var loans []Loan
		for range 4 {
			loan, err := others.Borrow(ctx)
			if err != nil {
				return err
			}
			if err := loan.Exec(ctx, "SELECT 1"); err != nil {
				return err
			}
			loans = append(loans, loan)
		}
		p := t.pool(u.String(), 4)
		result := make(chan error)
		go func() { result <- reads(ctx, p, 20, 1, ample, "SELECT 1") }()
		<-time.After(500 * time.Millisecond) // the others take their time
		for _, loan := range loans {
			loan.Return()
		}
		others.Close()
		return <-result
	}},
	{"a failover to the standby costs no read that has time", func(ctx context.Context, t *trial) error {
		primary := t.bench.start(t.T)
		standby, err := primary.Standby(ctx)
		if err != nil {
			return err
		}
		t.Cleanup(func() { standby.Stop() })
		u, err := url.Parse(primary.URL("postgres"))
		if err != nil {
			return errors.New("the address does not parse")
		}
		u.Host = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", primary.Port(), standby.Port())
		u.RawQuery += "&target_session_attrs=read-write"
		p := t.pool(u.String(), 8)
		defer primary.Resume(context.Background()) // for the other promises
		return under(ctx, p, ample, func() error {
			primary.Halt(localpg.Immediate)
			return standby.Promote(ctx)
		})
	}},
	{"a wrong password is reported and not tried again", func(ctx context.Context, t *trial) error {
		address, _ := t.database()
		relay, relayed := t.relay(address)
		u, err := url.Parse(relayed)
		if err != nil {
			return errors.New("the address does not parse")
		}
		u.User = url.UserPassword(u.User.Username(), "wrong")
		p := t.pool(u.String(), 2)
		if err := read(ctx, p, ample, "SELECT 1"); err == nil || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("with a wrong password: %v", err)
		}
		if n := relay.Accepted(); n != 1 {
			return fmt.Errorf("the password was tried %d times", n)
		}
		return nil
	}},
	{"a failed transaction that is given back spoils nobody's query", func(ctx context.Context, t *trial) error {
		return t.spoiled(ctx, "BEGIN; SELECT 1/0")
	}},
	{"an open transaction that is given back spoils nobody's query", func(ctx context.Context, t *trial) error {
		return t.spoiled(ctx, "BEGIN; SET LOCAL statement_timeout = 1")
	}},
	{"unread rows that are given back spoil nobody's query", func(ctx context.Context, t *trial) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		url, _ := t.database()
		p := t.pool(url, 1)
		loan, err := p.Borrow(ctx)
		if err != nil {
			return err
		}
		if err := loan.Rows(ctx, "SELECT generate_series(1, 100000)"); err != nil {
			return err
		}
		loan.Return()
		return reads(ctx, p, 4, 2, 5*time.Second, "SELECT 1")
	}},
	{"a caller that panics while it holds a connection costs the others nothing", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 1)
		func() {
			defer func() { _ = recover() }()
			loan, err := p.Borrow(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer loan.Return()
			panic("in the middle of something")
		}()
		return reads(ctx, p, 4, 2, 5*time.Second, "SELECT 1")
	}},
	{"Close wakes who waits", func(ctx context.Context, t *trial) error {
		url, _ := t.database()
		p := t.pool(url, 1)
		loan, err := p.Borrow(ctx)
		if err != nil {
			return err
		}
		defer loan.Return()
		served, err := queue(ctx, p, 5)
		if err != nil {
			return err
		}
		go p.Close()
		for range 5 {
			select {
			case i := <-served:
				if i != -1 {
					return fmt.Errorf("caller %d was served by a closed pool", i)
				}
			case <-time.After(2 * time.Second):
				return errors.New("a caller still waits, two seconds after Close")
			}
		}
		return nil
	}},
	{"after Close nothing is lent, the server counts no connection, and no goroutine is left", func(ctx context.Context, t *trial) error {
		url, count := t.database()
		before := t.goroutines()
		p := t.pool(url, 4)
		if err := fill(ctx, p, 4); err != nil {
			return err
		}
		p.Close()
		p.Close() // twice is fine
		if _, err := p.Borrow(ctx); err == nil {
			return errors.New("a closed pool lends a connection")
		}
		pgtest.Eventually(t, 5*time.Second, "the server counts no connection", func() bool { return count() == 0 })
		pgtest.Eventually(t, 5*time.Second, "the goroutines are gone", func() bool { return t.goroutines() <= before })
		return nil
	}},
}

// bounded does something and watches meanwhile that the server never counts more than max connections.
func (t *trial) bounded(count func() int, max int, do func() error) error {
	done, most := make(chan struct{}), make(chan int)
	go func() {
		seen := 0
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			if n := count(); n > seen {
				seen = n
			}
			select {
			case <-tick.C:
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

// afterKilling fills a pool, has the server kill its idle connections, and reads.
func (t *trial) afterKilling(ctx context.Context, wait time.Duration) error {
	url, count := t.database()
	p := t.pool(url, 10)
	if err := fill(ctx, p, 10); err != nil {
		return err
	}
	t.killAll(url)
	pgtest.Eventually(t, 10*time.Second, "the killed connections are gone", func() bool { return count() == 0 })
	if wait > 0 {
		<-time.After(wait) // the pools' own limits for what has lain idle are a second
	}
	return reads(ctx, p, 20, 5, ample, "SELECT 1")
}

// spoiled gives a connection back after sql has been run on it, and reads.
func (t *trial) spoiled(ctx context.Context, sql string) error {
	url, _ := t.database()
	p := t.pool(url, 1)
	loan, err := p.Borrow(ctx)
	if err != nil {
		return err
	}
	for _, statement := range strings.Split(sql, "; ") {
		_ = loan.Exec(ctx, statement) // it may be meant to fail
	}
	loan.Return()
	return reads(ctx, p, 4, 2, 5*time.Second, "SELECT pg_sleep(0.01)")
}

// awaitQueries waits until n queries sleep in the database at url, and gives back the process of one of them.
func (t *trial) awaitQueries(url string, n int) (pid int) {
	t.Helper()
	pgtest.Eventually(t, 20*time.Second, fmt.Sprintf("%d queries run", n), func() bool {
		found := 0
		pgtest.Query(t, url, `SELECT count(*), coalesce(max(pid), 0) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event = 'PgSleep'`, &found, &pid)
		return found == n
	})
	return pid
}
