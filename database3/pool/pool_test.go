package pool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny/database3/pool"
	"example.com/penny/internal/pgtest"
)

// Package pooltest tests the promises that every pool should keep. The tests here check what only this pool promises.

func newPool(tb testing.TB, max int) *pool.Pool {
	tb.Helper()
	return newPoolAt(tb, pgtest.BooksURL(tb), max, (&net.Dialer{}).DialContext)
}

// newPoolAt returns a pool of connections to the server at url, over sockets that dial opens.
func newPoolAt(tb testing.TB, url string, max int, dial pgconn.DialFunc) *pool.Pool {
	tb.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		tb.Fatal("the address does not parse")
	}
	config.DialFunc = dial
	p := pool.New(max, func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, config.Copy()) })
	tb.Cleanup(func() { p.Close() })
	return p
}

func acquire(tb testing.TB, p *pool.Pool) *pool.Conn {
	tb.Helper()
	conn, err := p.Acquire(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

// cleaned returns a function that reports whether pgx is done with a connection.
func cleaned(conn *pgx.Conn) func() bool {
	return func() bool {
		select {
		case <-conn.PgConn().CleanupDone():
			return true
		default:
			return false
		}
	}
}

func panics(do func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	do()
	return false
}

func TestNewPanicsIfMaxIsLessThanOne(t *testing.T) {
	for _, max := range []int{0, -1} {
		if !panics(func() { pool.New(max, nil) }) {
			t.Errorf("New(%d) did not panic", max)
		}
	}
}

func TestTheLastConnectionReleasedIsTheNextOneLent(t *testing.T) {
	p := newPool(t, 3)
	loans := []*pool.Conn{acquire(t, p), acquire(t, p), acquire(t, p)}
	released := []*pgx.Conn{loans[0].Conn, loans[2].Conn, loans[1].Conn}
	loans[0].Release()
	loans[2].Release()
	loans[1].Release()
	for _, want := range slices.Backward(released) {
		if acquire(t, p).Conn != want {
			t.Error("Acquire did not lend the connection that was released last")
		}
	}
}

func TestAConnectionReleasedAfterCloseIsClosed(t *testing.T) {
	p := newPool(t, 2)
	conn := acquire(t, p)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	lent := conn.Conn
	if lent.IsClosed() {
		t.Error("Close closed a connection that was in use")
	}
	conn.Release()
	pgtest.Eventually(t, 10*time.Second, "the connection is closed", cleaned(lent))
	if _, err := p.Acquire(t.Context()); !errors.Is(err, pool.ErrClosed) {
		t.Errorf("Acquire on a closed pool: got %v, want ErrClosed", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatsCountWhatHappens(t *testing.T) {
	p := newPool(t, 2)
	first, second := acquire(t, p), acquire(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := p.Acquire(ctx)
		waiting <- err
	}()
	pgtest.Eventually(t, 10*time.Second, "a caller waits", func() bool { return p.Stats().Waits == 1 })
	if got, want := p.Stats(), (pool.Stats{Max: 2, InUse: 2, Dials: 2, Waits: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that waited got %v, want context.Canceled", err)
	}
	first.Release()
	if _, err := second.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	second.Release()
	if got, want := p.Stats(), (pool.Stats{Max: 2, Idle: 1, Dials: 2, Waits: 1}); got != want {
		t.Errorf("after one came back clean and one in a transaction: got %+v, want %+v", got, want)
	}
}

func TestAcquireAndReleaseAllocateAtMostOnce(t *testing.T) {
	p := newPool(t, 4)
	acquire(t, p).Release()
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		conn, err := p.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
	}); n > 1 {
		t.Errorf("got %v allocations, want at most 1", n)
	}
}

// refused is the error of dialling a port at which no program listens.
var refused = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

func TestAcquireDialsAgainOnlyIfWaitingCanHelp(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		again bool
	}{
		{"no server", refused, true},
		{"the server is full", &pgconn.PgError{Code: "53300"}, true},
		{"the server is starting", &pgconn.PgError{Code: "57P03"}, true},
		{"the server ends its sessions", &pgconn.PgError{Code: "57P01"}, true},
		{"the server crashed", &pgconn.PgError{Code: "57P02"}, true},
		{"a wrong password", &pgconn.PgError{Code: "28P01"}, false},
		{"an unknown database", &pgconn.PgError{Code: "3D000"}, false},
		{"an unknown host", &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, false},
		{"a name server that is down", &net.DNSError{IsTemporary: true}, true},
		{"a name server that is silent", &net.DNSError{IsTimeout: true}, true},
		{"reading from the server failed", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, true},
		{"writing to the server failed", &net.OpError{Op: "write", Err: syscall.EPIPE}, true},
		{"an unknown error", errors.New("something else"), false},
		{"PgBouncer is full", &pgconn.PgError{Code: "08P01", Message: "no more connections allowed (max_client_conn)"}, true},
		{"Supavisor is full", &pgconn.PgError{Code: "XX000", Message: "(EMAXCONN) max client connections reached, limit: 200"}, true},
		{"PgBouncer knows no such user", &pgconn.PgError{Code: "08P01", Message: "no such user"}, false},
		{"all hosts are read-only", pgconn.ErrReadOnlyConnection, true},
		{"all hosts are standbys", pgconn.ErrStandbyConnection, true},
		{"no host is a standby", pgconn.ErrPrimaryConnection, true},
		{"the server hung up", io.EOF, true},
		{"the server hung up in the middle of a message", io.ErrUnexpectedEOF, true},
		{"a certificate is wrong", &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, false},
		{"one host is silent", errors.Join(context.DeadlineExceeded), true},
		{"one host is full, another refuses the password", errors.Join(&pgconn.PgError{Code: "53300"}, &pgconn.PgError{Code: "28P01"}), false},
		{"one host is full, another does not know the database", errors.Join(&pgconn.PgError{Code: "53300"}, &pgconn.PgError{Code: "3D000"}), false},
		{"one host is full, another refuses the user", errors.Join(&pgconn.PgError{Code: "53300"}, &pgconn.PgError{Code: "42501"}), false},
		{"one host refuses the password, another is full", errors.Join(&pgconn.PgError{Code: "28P01"}, &pgconn.PgError{Code: "53300"}), false},
		{"one host is down, another fails with an unknown error", errors.Join(refused, errors.New("something else")), true},
		{"full with TLS, not allowed without", errors.Join(&pgconn.PgError{Code: "53300"}, &pgconn.PgError{Code: "28000"}), true},
		{"one host is down, another full", errors.Join(refused, &pgconn.PgError{Code: "53300"}), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials, start := 0, time.Now()
				p := pool.New(1, func(context.Context) (*pgx.Conn, error) {
					if dials++; dials == 2 && time.Since(start) > 10*time.Millisecond {
						t.Errorf("the second dial came after %v, want at most 10 ms", time.Since(start))
					}
					return nil, fmt.Errorf("dial: %w", c.err)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := p.Acquire(ctx)
				if !errors.Is(err, c.err) {
					t.Errorf("got error %v, want one that wraps %v", err, c.err)
				}
				if again := dials > 1; again != c.again {
					t.Errorf("dialled %d times, want %s", dials, map[bool]string{false: "once", true: "more than once"}[c.again])
				}
				if c.again && (!errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second || dials < 40 || dials > 60) {
					t.Errorf("dialled %d times in %v, then got %v; want 40 to 60 times in 10s, then the deadline's error",
						dials, time.Since(start), err)
				}
				dials = 0
				if _, err := p.Acquire(context.Background()); dials != 1 || !errors.Is(err, c.err) {
					t.Errorf("without a deadline: dialled %d times and got %v, want once and %v", dials, err, c.err)
				}
				p.Close()
			})
		})
	}
}

func TestIfTheServerIsFullAReleasedConnectionServesTheCallerThatDials(t *testing.T) {
	url := pgtest.BooksURL(t)
	var dials atomic.Int64
	p := pool.New(2, func(ctx context.Context) (*pgx.Conn, error) {
		if dials.Add(1) > 1 {
			return nil, &pgconn.PgError{Code: "53300"}
		}
		return pgx.Connect(ctx, url)
	})
	t.Cleanup(func() { p.Close() })
	only := acquire(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	served := make(chan error)
	go func() {
		conn, err := p.Acquire(ctx)
		if err == nil {
			conn.Release()
		}
		served <- err
	}()
	pgtest.Eventually(t, 10*time.Second, "the other caller was refused", func() bool { return dials.Load() > 1 })
	only.Release()
	if err := <-served; err != nil {
		t.Errorf("the other caller got %v, want the released connection", err)
	}
}

func TestADialThatIsCutShortDoesNotHideWhyEarlierDialsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := &pgconn.PgError{Code: "53300"}
		dials := 0
		p := pool.New(1, func(ctx context.Context) (*pgx.Conn, error) {
			if dials++; dials < 3 {
				return nil, full
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := p.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, full) {
			t.Errorf("got %v, want an error that wraps DeadlineExceeded and %v", err, full)
		}
		p.Close()
	})
}

func TestAcquireEndsAtItsDeadlineOrAtCloseThoughTheDialHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New(1, func(ctx context.Context) (*pgx.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := p.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v, want DeadlineExceeded after 3s", err, time.Since(start))
		}
		ended := make(chan error)
		go func() {
			_, err := p.Acquire(context.Background())
			ended <- err
		}()
		synctest.Wait()
		p.Close()
		if err := <-ended; !errors.Is(err, pool.ErrClosed) {
			t.Errorf("after Close: got %v, want ErrClosed", err)
		}
	})
}

func TestADialThatFailsFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := errors.New("wrong")
		p := pool.New(1, func(context.Context) (*pgx.Conn, error) { return nil, wrong })
		for range 3 {
			if _, err := p.Acquire(t.Context()); !errors.Is(err, wrong) {
				t.Fatal(err)
			}
		}
		p.Close()
	})
}

func TestACallerWhoseContextHasEndedGetsNoConnection(t *testing.T) {
	p := newPool(t, 1)
	acquire(t, p).Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := p.Stats(); got.InUse != 0 || got.Idle != 1 {
		t.Errorf("the pool is %+v, want its one connection idle", got)
	}
}

// watch returns a function that counts the connections to the database at url, and one that ends them.
func watch(t *testing.T, url string) (count func() int, end func()) {
	t.Helper()
	watcher, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close(context.Background()) })
	ask := func(what string) (n int) {
		err := watcher.QueryRow(context.Background(), "SELECT count("+what+") FROM pg_stat_activity"+
			" WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()").Scan(&n)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	return func() int { return ask("*") }, func() { ask("pg_terminate_backend(pid)") }
}

func TestAConnectionThatIsGoneCostsOneDial(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(context.Context, *pool.Conn)
	}{
		{"its caller closed it", func(ctx context.Context, c *pool.Conn) { c.Close(ctx) }},
		{"a query was cancelled", func(ctx context.Context, c *pool.Conn) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			if rows, err := c.Query(ctx, "SELECT repeat('x', 100000) FROM generate_series(1, 2) UNION ALL SELECT pg_sleep(60)::text"); err == nil {
				rows.Next() // the first row has come, and the server is at work
				cancel()
				rows.Close()
			}
		}},
		{"a transaction's context ended", func(ctx context.Context, c *pool.Conn) {
			if tx, err := c.Begin(ctx); err == nil {
				ended, cancel := context.WithCancel(ctx)
				cancel()
				_ = tx.Rollback(ended)
			}
		}},
		{"it was killed", func(ctx context.Context, c *pool.Conn) {
			_, _ = c.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, 8)
			fill(t, p, 8)
			conn := acquire(t, p)
			c.end(t.Context(), conn)
			if !conn.IsClosed() {
				t.Fatal("the connection is still open")
			}
			conn.Release()
			fill(t, p, 8)
			if got := p.Stats().Dials; got != 9 {
				t.Errorf("%d connections were opened, want 8 and one more", got)
			}
		})
	}
}

func TestAConnectionThatIsFoundDeadLaterIsReplacedAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.BooksURL(t)
	p := newPoolAt(t, url, 8, (&net.Dialer{}).DialContext)
	_, end := watch(t, url)
	var dead []*pool.Conn
	for range 4 {
		dead = append(dead, acquire(t, p))
	}
	end()
	for _, conn := range dead {
		if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Fatal("no error for a query on a connection that was killed")
		}
		conn.Release()
		fill(t, p, 4)
	}
	if got := p.Stats().Dials; got != 8 {
		t.Errorf("%d connections were opened, want 4 and another 4", got)
	}
}

func TestThePlaceOfASlowQueryIsFreeWhenTheServerHasEndedIt(t *testing.T) {
	t.Parallel()
	url := pgtest.BooksURL(t)
	p := newPoolAt(t, url, 1, (&net.Dialer{}).DialContext)
	count, _ := watch(t, url)
	for _, ended := range []bool{false, true, false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := p.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// Many rows come at once, the last one after ten minutes.
		if _, err := conn.Query(ctx, "SELECT repeat('x', 100), pg_sleep(n / 2000 * 600) FROM generate_series(1, 2000) AS n"); err != nil {
			t.Fatal(err)
		}
		conn.Release()
		if ended {
			cancel() // as a handler's deferred cancel does
		}
		acquire(t, p).Release()
		if n := count(); n != 1 {
			t.Errorf("the server has %d connections, want 1", n)
		}
		cancel()
	}
}

func TestAReleasedLoanCannotTouchTheNext(t *testing.T) {
	p := newPool(t, 1)
	first := acquire(t, p)
	first.Release()
	second := acquire(t, p)
	first.Release()
	if got := p.Stats(); got.InUse != 1 || got.Idle != 0 {
		t.Errorf("after a second Release the pool is %+v, want one connection in use", got)
	}
	if !panics(func() { _, _ = first.Exec(t.Context(), "SELECT 1") }) {
		t.Error("a loan that was released still works")
	}
	if _, err := second.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
	second.Release()
}

func TestAConnectionThatWasHijackedIsLeftAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.BooksURL(t)
	p := newPoolAt(t, url, 1, (&net.Dialer{}).DialContext)
	count, _ := watch(t, url)
	conn := acquire(t, p)
	taken, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	conn.Release()
	acquire(t, p).Release() // its place is free
	p.Close()
	mine, err := pgconn.Construct(taken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
		t.Errorf("the new owner's query: %v", err)
	}
	pgtest.Eventually(t, 10*time.Second, "the server has the new owner's connection only", func() bool { return count() == 1 })
	mine.Close(t.Context())
}

func TestADialThatReturnsNothingIsAnError(t *testing.T) {
	p := pool.New(1, func(context.Context) (*pgx.Conn, error) { return nil, nil })
	if conn, err := p.Acquire(t.Context()); conn != nil || err == nil {
		t.Errorf("got %v and %v, want an error", conn, err)
	}
}

func TestTheErrorSaysWhetherAllConnectionsAreInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 2)
		first, second := acquire(t, p), acquire(t, p)
		if _, err := p.Acquire(within(t, time.Second)); err == nil || !strings.Contains(err.Error(), "all 2 connections are in use") {
			t.Errorf("all connections are in use: got error %v, want one that says so", err)
		}
		first.Release()
		second.Release()
		p = poolOver(t, 1, func(context.Context) (*pgx.Conn, error) { return nil, refused })
		go func() { _, _ = p.Acquire(within(t, 2*time.Second)) }()
		synctest.Wait()
		if _, err := p.Acquire(within(t, time.Second)); err == nil || strings.Contains(err.Error(), "in use") {
			t.Errorf("no connection is in use: got error %v, want one that does not say so", err)
		}
	})
}

// Chapter 7 says what a session keeps.
func TestASessionKeepsWhatItsCallersDidToIt(t *testing.T) {
	t.Parallel()
	p := newPool(t, 1)
	left := func() (found string) {
		conn := acquire(t, p)
		defer conn.Release()
		err := conn.QueryRow(t.Context(), `SELECT current_setting('work_mem') || ' ' || current_setting('search_path') || ' ' || current_user || ' ' ||
			(SELECT count(*) FROM pg_listening_channels()) || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) ||
			(SELECT count(*) FROM pg_class WHERE relpersistence = 't')`).Scan(&found)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	clean := left()
	for _, reset := range []bool{false, true} {
		conn := acquire(t, p)
		if _, err := conn.Exec(t.Context(), `SET work_mem = '1MB'; SET search_path = pg_catalog; SET ROLE pg_monitor; LISTEN news;
			SELECT pg_advisory_lock(1); CREATE TEMPORARY TABLE scratch (n int)`); err != nil && !reset {
			t.Fatal(err)
		}
		if reset {
			if _, err := conn.Exec(t.Context(), resetSession); err != nil {
				t.Fatal(err)
			}
		}
		conn.Release()
		if got := left(); (got == clean) != reset {
			t.Errorf("reset %v: the next caller finds %q, a clean session has %q", reset, got, clean)
		}
	}
}

// resetSession is from chapter 7. It undoes all that, but keeps pgx's prepared statements, which DISCARD ALL would drop.
const resetSession = "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP"

func TestAfterAColumnsTypeChangesEachConnectionFailsOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.BooksURL(t)
	p := newPoolAt(t, url, 1, (&net.Dialer{}).DialContext)
	read := func() error {
		conn := acquire(t, p)
		defer conn.Release()
		rows, err := conn.Query(t.Context(), "SELECT title FROM books WHERE author LIKE $1", "%")
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "ALTER TABLE books ALTER title TYPE varchar")
	var server *pgconn.PgError
	if err := read(); !errors.As(err, &server) || server.Code != "0A000" {
		t.Errorf("the first query after the change: got %v, want error 0A000", err)
	}
	if err := read(); err != nil {
		t.Errorf("the second query after the change: %v", err)
	}
}
