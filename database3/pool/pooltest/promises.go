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
)

// ample is a deadline that leaves time to recover from each of the faults.
const ample = 15 * time.Second

// idle is how long the pools trust an idle connection, and a little more.
const idle = 1100 * time.Millisecond

// A promise is something that a program relies on.
type promise struct {
	name   string
	wrong  string // what is probably wrong with a pool that does not keep it
	breaks bool   // it breaks the exam's own server
	queues bool   // it has a queue of callers
	keep   func(context.Context, *trial)
}

// promises begins with the easiest.
var promises = []promise{
	{name: "a connection is used again", wrong: "Release does not keep the connection, or Acquire ignores it",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			t.must(reads(ctx, t.pool(db.url, 4), 1, 20, ample, "SELECT 1"))
			if n := db.count(); n != 1 {
				t.fail("after 20 reads in a row the server counts %d connections, want 1", n)
			}
		}},
	{name: "a caller that panics while it has a connection costs the others nothing", wrong: "a deferred Release does not free the place",
		keep: func(ctx context.Context, t *trial) {
			p := t.pool(t.database().url, 1)
			func() {
				defer func() { _ = recover() }()
				defer t.acquire(ctx, p).Release()
				panic("in the middle of something")
			}()
			t.must(reads(ctx, p, 4, 2, 5*time.Second, "SELECT 1"))
		}},
	{name: "a failed transaction does not break the next query", wrong: "Release keeps a connection that is in a transaction",
		keep: func(ctx context.Context, t *trial) { t.readAfter(ctx, "BEGIN", "SELECT 1/0") }},
	{name: "an open transaction does not break the next query", wrong: "Release keeps a connection that is in a transaction",
		keep: func(ctx context.Context, t *trial) { t.readAfter(ctx, "BEGIN", "SET LOCAL statement_timeout = 1") }},
	{name: "unread rows do not break the next query", wrong: "Release keeps a connection whose rows were not read, or waits for them",
		keep: func(ctx context.Context, t *trial) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			p := t.pool(t.database().url, 1)
			loan := t.acquire(ctx, p)
			t.must(loan.Rows(ctx, "SELECT generate_series(1, 100000)"))
			loan.Release()
			t.must(reads(ctx, p, 4, 2, 5*time.Second, "SELECT 1"))
		}},
	{name: "a second Release does nothing", wrong: "Release gives the same connection back twice, so that two callers get it",
		keep: func(ctx context.Context, t *trial) {
			p := t.pool(t.database().url, 2)
			loan := t.acquire(ctx, p)
			loan.Release()
			loan.Release()
			t.must(reads(ctx, p, 2, 10, ample, "SELECT pg_sleep(0.01)"))
		}},
	{name: "a herd on a cold pool opens no more than max connections", wrong: "nothing bounds the connections",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			p := t.pool(db.url, 4)
			db.bounded(4, func() error { return reads(ctx, p, 100, 5, ample, "SELECT 1") })
		}},
	{name: "two hundred callers on a server with twenty places lose no read", wrong: "nothing bounds the connections", breaks: true,
		keep: func(ctx context.Context, t *trial) {
			t.must(reads(ctx, t.pool(t.exam.server.URL("postgres"), 10), 200, 3, ample, "SELECT 1"))
		}},
	{name: "a caller that stops waiting gets its error at once and leaves no gap", wrong: "Acquire ignores its context, or loses a place when it ends",
		keep: func(ctx context.Context, t *trial) {
			p := t.pool(t.database().url, 1)
			loan := t.acquire(ctx, p)
			impatient, cancel := context.WithCancel(ctx)
			failed := make(chan error, 1)
			go func() {
				_, err := p.Acquire(impatient)
				failed <- err
			}()
			cancel()
			var err error
			select {
			case err = <-failed:
			case <-time.After(5 * time.Second):
				err = errors.New("nothing for 5 s")
			}
			loan.Release()
			if !errors.Is(err, context.Canceled) {
				t.fail("a caller that was cancelled while it waited got %v, want context.Canceled", err)
			}
			t.must(read(ctx, p, ample, "SELECT 1"))
		}},
	{name: "callers are served in the order in which they come", wrong: "the callers that wait have no order", queues: true,
		keep: func(ctx context.Context, t *trial) {
			p := t.pool(t.database().url, 1)
			loan := t.acquire(ctx, p)
			served, err := queue(ctx, p, 40)
			loan.Release()
			t.must(err)
			var order []int
			for range 40 {
				order = append(order, <-served)
			}
			if !slices.IsSorted(order) || order[0] != 0 {
				t.fail("served in the order %v", order)
			}
		}},
	{name: "Close wakes the callers that wait", wrong: "Close does not tell the callers that wait, or waits for the connections in use", queues: true,
		keep: func(ctx context.Context, t *trial) {
			p := t.pool(t.database().url, 1)
			defer t.acquire(ctx, p).Release()
			served, err := queue(ctx, p, 5)
			t.must(err)
			go p.Close()
			for range 5 {
				select {
				case i := <-served:
					if i != -1 {
						t.fail("caller %d was served by a closed pool", i)
					}
				case <-time.After(2 * time.Second):
					t.fail("a caller still waits, two seconds after Close")
				}
			}
		}},
	{name: "after Close nothing is lent, the server counts no connection, and no goroutine is left", wrong: "Close does not close all that the pool has",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			before := t.goroutines()
			p := t.pool(db.url, 4)
			t.fill(ctx, p, 4)
			p.Close()
			p.Close() // twice is fine
			if _, err := p.Acquire(ctx); err == nil {
				t.fail("a closed pool lends a connection")
			}
			t.eventually("the server counts no connection", func() bool { return db.count() == 0 })
			t.eventually("the goroutines are gone", func() bool { return t.goroutines() <= before })
		}},
	{name: "a wrong password is reported and not tried again", wrong: "Acquire tries again though waiting does not help",
		keep: func(ctx context.Context, t *trial) {
			relay, relayed := t.relay(t.database().url)
			p := t.pool(t.as(relayed, "", "wrong"), 2)
			if err := read(ctx, p, ample, "SELECT 1"); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.fail("with a wrong password: got %v, want the server's error", err)
			}
			if n := relay.Accepted(); n != 1 {
				t.fail("the password was tried %d times, want once", n)
			}
		}},
	{name: "a query that is cancelled costs the others nothing", wrong: "a connection that a context closed is lent again",
		keep: func(ctx context.Context, t *trial) {
			p := t.pool(t.database().url, 2)
			t.fill(ctx, p, 1) // else the deadline could pass while the pool still connects
			if err := read(ctx, p, 50*time.Millisecond, "SELECT pg_sleep(10)"); !errors.Is(err, context.DeadlineExceeded) {
				t.fail("a query past its deadline: got %v, want context.DeadlineExceeded", err)
			}
			t.must(reads(ctx, p, 8, 5, ample, "SELECT 1"))
		}},
	{name: "callers that are cancelled never make the server count more than max", wrong: "a place is free before the server has closed its connection",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			p := t.pool(db.url, 4)
			most := 0
			for range 5 {
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				_ = reads(short, p, 8, 1, ample, "SELECT pg_sleep(0.5)") // each of them fails, as it should
				cancel()
				_ = reads(ctx, p, 4, 1, ample, "SELECT 1")
				most = max(most, db.count())
			}
			if most > 4 {
				t.fail("the server counted %d connections at once, want 4 at most", most)
			}
			t.must(reads(ctx, p, 8, 2, ample, "SELECT 1"))
		}},
	{name: "idle connections that were killed cost no read two seconds later", wrong: "a connection that was idle for a long time is lent without a check",
		keep: func(ctx context.Context, t *trial) { t.afterKilling(ctx, 2*time.Second) }},
	{name: "idle connections that were killed cost no read at once", wrong: "after one connection died, the others are lent without a check",
		keep: func(ctx context.Context, t *trial) { t.afterKilling(ctx, 0) }},
	{name: "an idle connection that died never makes the server count more than max", wrong: "a dead connection's place is counted twice",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			p := t.pool(db.url, 6)
			t.fill(ctx, p, 6)
			var killed int
			db.others("count(pg_terminate_backend(pid)) FILTER (WHERE pid = (SELECT max(pid) FROM pg_stat_activity"+
				" WHERE datname = current_database() AND pid <> pg_backend_pid()))", &killed)
			t.eventually("the killed connection is gone", func() bool { return db.count() == 5 })
			<-time.After(idle)
			db.bounded(6, func() error { return reads(ctx, p, 12, 3, ample, "SELECT pg_sleep(0.02)") })
		}},
	{name: "a connection that is killed in the middle of a query costs no read", wrong: "the second try gets a dead connection, too",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			p := t.pool(db.url, 4)
			t.during(ctx, db, p, db.killAll)
		}},
	{name: "a network that is cut in the middle of a query costs no read", wrong: "the second try gets a dead connection, too",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			relay, relayed := t.relay(db.url)
			t.during(ctx, db, t.pool(relayed, 4), relay.Cut)
		}},
	{name: "idle connections that the network cut cost no read at once", wrong: "after one connection died, the others are lent without a check",
		keep: func(ctx context.Context, t *trial) {
			relay, relayed := t.relay(t.database().url)
			p := t.pool(relayed, 8)
			t.fill(ctx, p, 8)
			relay.Cut()
			t.must(reads(ctx, p, 1, 8, ample, "SELECT 1"))
		}},
	{name: "a network that forgets idle connections costs no read that has time", wrong: "the check of an idle connection has no time limit of its own",
		keep: func(ctx context.Context, t *trial) {
			relay, relayed := t.relay(t.database().url)
			p := t.pool(relayed, 8)
			t.fill(ctx, p, 8)
			relay.Swallow()
			defer relay.Cut() // else a pool's Close waits for an answer, too
			<-time.After(idle)
			t.must(read(ctx, p, 4*time.Second, "SELECT 1"))
			t.must(reads(ctx, p, 16, 1, 4*time.Second, "SELECT 1"))
		}},
	{name: "a process of the server that hangs holds up its own caller, until its deadline, and nobody else",
		wrong: "a lock is held during a query, or while a connection is closed",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			p := t.pool(db.url, 2)
			const patience = 3 * time.Second
			hung := make(chan error, 1)
			start := time.Now()
			go func() { hung <- read(ctx, p, patience, "SELECT pg_sleep(2)") }()
			t.freeze(db.awaitQueries(1))
			if err := reads(ctx, p, 4, 10, 2*time.Second, "SELECT 1"); err != nil {
				t.fail("the other callers: %w", err)
			}
			if err := <-hung; err == nil {
				t.fail("no error for the read on a hung process")
			}
			if took := time.Since(start); took > patience+5*time.Second {
				t.fail("the read on a hung process returned after %v, its deadline was %v", took, patience)
			}
		}},
	{name: "a server that others have filled costs no read that has time", wrong: "Acquire does not try again when the server is full",
		keep: func(ctx context.Context, t *trial) {
			db := t.database()
			role := "penny_crowd_" + strings.ToLower(rand.Text())
			_, err := db.admin.Exec(ctx, "CREATE ROLE "+role+" LOGIN PASSWORD 'crowd' CONNECTION LIMIT 4")
			t.must(err)
			t.cleanup(func() { _, _ = db.admin.Exec(context.Background(), "DROP ROLE "+role) })
			crowded := t.as(db.url, role, "crowd")
			var others []func(context.Context) error
			for range 4 {
				others = append(others, t.connect(crowded).Close)
			}
			p := t.pool(crowded, 4)
			result := make(chan error, 1)
			go func() { result <- reads(ctx, p, 20, 1, ample, "SELECT 1") }()
			<-time.After(500 * time.Millisecond) // the others take their time
			for _, leave := range others {
				t.must(leave(ctx))
			}
			t.must(<-result)
		}},
	{name: "a server that restarts costs no read", wrong: "dead connections are lent again, or Acquire does not try again to connect", breaks: true,
		keep: func(ctx context.Context, t *trial) {
			server := t.exam.server
			t.under(ctx, server.URL("postgres"), func() error { return server.Restart(ctx, localpg.Fast) })
		}},
	{name: "a server that crashes and starts again costs no read", wrong: "dead connections are lent again, or Acquire does not try again to connect", breaks: true,
		keep: func(ctx context.Context, t *trial) {
			server := t.exam.server
			t.under(ctx, server.URL("postgres"), func() error { return server.Restart(ctx, localpg.Immediate) })
		}},
	{name: "a server that is gone for a while costs no read that has time", wrong: "Acquire does not try again to connect until its deadline", breaks: true,
		keep: func(ctx context.Context, t *trial) {
			server := t.exam.server
			t.under(ctx, server.URL("postgres"), func() error {
				server.Halt(localpg.Fast)
				<-time.After(time.Second) // the outage
				return server.Resume(ctx)
			})
		}},
	{name: "a failover to the standby costs no read that has time", wrong: "Acquire does not try again while all hosts are standbys", breaks: true,
		keep: func(ctx context.Context, t *trial) {
			primary := t.exam.server
			standby, err := primary.Standby(ctx)
			t.must(err)
			t.cleanup(func() { standby.Stop() })
			u, err := url.Parse(primary.URL("postgres"))
			t.must(err)
			u.Host = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", primary.Port(), standby.Port())
			u.RawQuery += "&target_session_attrs=read-write"
			t.under(ctx, u.String(), func() error {
				primary.Halt(localpg.Immediate)
				return standby.Promote(ctx)
			})
		}},
}

// afterKilling fills a pool, has the server kill its idle connections, and reads.
func (t *trial) afterKilling(ctx context.Context, wait time.Duration) {
	db := t.database()
	p := t.pool(db.url, 10)
	t.fill(ctx, p, 10)
	db.killAll()
	t.eventually("the killed connections are gone", func() bool { return db.count() == 0 })
	<-time.After(wait)
	t.must(reads(ctx, p, 20, 5, ample, "SELECT 1"))
}

// readAfter runs statements on a connection, releases it, and reads.
func (t *trial) readAfter(ctx context.Context, statements ...string) {
	p := t.pool(t.database().url, 1)
	loan := t.acquire(ctx, p)
	for _, statement := range statements {
		_ = loan.Exec(ctx, statement) // it may be meant to fail
	}
	loan.Release()
	t.must(reads(ctx, p, 4, 2, 5*time.Second, "SELECT pg_sleep(0.01)"))
}

// during makes four reads, and calls do in the middle of them.
func (t *trial) during(ctx context.Context, db database, p Pool, do func()) {
	result := make(chan error, 1)
	go func() { result <- reads(ctx, p, 4, 1, ample, "SELECT pg_sleep(2)") }()
	db.awaitQueries(4)
	do()
	t.must(<-result)
}
