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

// The promises that any pool can be held to are tested in pooltest. Here are those that are this pool's own.

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

func TestAPoolWithoutRoomPanics(t *testing.T) {
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
		t.Errorf("Acquire on a closed pool: %v", err)
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
		t.Error(err)
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

func TestALoanCostsOneSmallAllocation(t *testing.T) {
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
		t.Errorf("%v allocations, want one", n)
	}
}

// refused is what dialling a port that nobody listens at gives.
var refused = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

func TestConnectingIsTriedAgainOnlyWhereWaitingCanHelp(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		again bool
	}{
		{"no server", refused, true},
		{"the server is full", &pgconn.PgError{Code: "53300"}, true},
		{"the server is starting", &pgconn.PgError{Code: "57P03"}, true},
		{"the server ends its sessions", &pgconn.PgError{Code: "57P01"}, true},
		{"a wrong password", &pgconn.PgError{Code: "28P01"}, false},
		{"an unknown database", &pgconn.PgError{Code: "3D000"}, false},
		{"an unknown host", &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, false},
		{"something else", errors.New("something else"), false},
		{"PgBouncer is full", &pgconn.PgError{Code: "08P01", Message: "no more connections allowed (max_client_conn)"}, true},
		{"PgBouncer knows no such user", &pgconn.PgError{Code: "08P01", Message: "no such user"}, false},
		{"all hosts are standbys", pgconn.ErrReadOnlyConnection, true},
		{"the server hung up", io.ErrUnexpectedEOF, true},
		{"a certificate is wrong", &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, false},
		{"one host is silent", errors.Join(context.DeadlineExceeded), true},
		{"one host is full, another refuses the password", errors.Join(&pgconn.PgError{Code: "53300"}, &pgconn.PgError{Code: "28P01"}), false},
		{"full with TLS, not allowed without", errors.Join(&pgconn.PgError{Code: "53300"}, &pgconn.PgError{Code: "28000"}), true},
		{"one host is down, another full", errors.Join(refused, &pgconn.PgError{Code: "53300"}), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials := 0
				p := pool.New(1, func(context.Context) (*pgx.Conn, error) {
					dials++
					return nil, fmt.Errorf("dial: %w", c.err)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				_, err := p.Acquire(ctx)
				if !errors.Is(err, c.err) {
					t.Errorf("the error %v does not tell the reason %v", err, c.err)
				}
				if again := dials > 1; again != c.again {
					t.Errorf("dialled %d times", dials)
				}
				if c.again && (!errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second || dials < 40 || dials > 60) {
					t.Errorf("dialled %d times in %v, then %v", dials, time.Since(start), err)
				}
				dials = 0
				if _, err := p.Acquire(context.Background()); dials != 1 || !errors.Is(err, c.err) {
					t.Errorf("without a deadline: dialled %d times, %v", dials, err)
				}
				p.Close()
			})
		})
	}
}

func TestWhereTheServerIsFullAConnectionThatIsReleasedServesWhoTriesToConnect(t *testing.T) {
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
		t.Error(err)
	}
}

func TestADialThatIsCutShortDoesNotHideWhyThoseBeforeItFailed(t *testing.T) {
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
			t.Errorf("got %v, want that the time was up and the server full", err)
		}
		p.Close()
	})
}

func TestADialThatNeverAnswersEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New(1, func(ctx context.Context) (*pgx.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := p.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		ended := make(chan error)
		go func() {
			_, err := p.Acquire(context.Background())
			ended <- err
		}()
		synctest.Wait()
		p.Close()
		if err := <-ended; !errors.Is(err, pool.ErrClosed) {
			t.Errorf("Close ended the dial with %v", err)
		}
	})
}

func TestADialThatFailsGivesItsPlaceBack(t *testing.T) {
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

func TestACallerThatHasEndedGetsNothingThoughThereIsAConnection(t *testing.T) {
	p := newPool(t, 1)
	acquire(t, p).Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := p.Stats(); got.InUse != 0 || got.Idle != 1 {
		t.Errorf("the pool is %+v", got)
	}
}

// watch returns a count of the connections to p's database that the server has, and its way to end them.
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
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			_, _ = c.Exec(short, "SELECT pg_sleep(10)")
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

func TestOneThatIsFoundDeadLateCostsNoOtherConnection(t *testing.T) {
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
			t.Fatal("the connection lives")
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
		t.Errorf("the new owner: %v", err)
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

func TestTheErrorTellsAPoolInUseFromAServerOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 2)
		first, second := acquire(t, p), acquire(t, p)
		if _, err := p.Acquire(within(t, time.Second)); err == nil || !strings.Contains(err.Error(), "all 2 connections are in use") {
			t.Errorf("all in use: %v", err)
		}
		first.Release()
		second.Release()
		p = poolOver(t, 1, func(context.Context) (*pgx.Conn, error) { return nil, refused })
		go func() { _, _ = p.Acquire(within(t, 2*time.Second)) }()
		synctest.Wait()
		if _, err := p.Acquire(within(t, time.Second)); err == nil || strings.Contains(err.Error(), "in use") {
			t.Errorf("none in use: %v", err)
		}
	})
}

// What a session keeps. Chapter 7 says so.
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

// resetSession is chapter 7's: what undoes all that without pgx's prepared statements, which DISCARD ALL would drop.
const resetSession = "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP"

func TestAfterAColumnsTypeChangedEachConnectionFailsOnce(t *testing.T) {
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
		t.Errorf("the first query after the change: %v", err)
	}
	if err := read(); err != nil {
		t.Errorf("the second: %v", err)
	}
}
