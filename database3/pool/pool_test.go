package pool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
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
	return newPoolOver(tb, max, (&net.Dialer{}).DialContext)
}

// newPoolOver is newPool with sockets that dial opens.
func newPoolOver(tb testing.TB, max int, dial pgconn.DialFunc) *pool.Pool {
	tb.Helper()
	config, err := pgx.ParseConfig(pgtest.BooksURL(tb))
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

// newSilentPool is newPool, and a switch: once it is on, nothing that is sent over the connections opened until then
// arrives. What would have been sent is kept.
func newSilentPool(t *testing.T, max int) (p *pool.Pool, network *silence) {
	t.Helper()
	network = &silence{}
	p = newPoolOver(t, max, func(ctx context.Context, kind, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
		if err != nil || network.on.Load() {
			return conn, err
		}
		return &silent{conn, network}, nil
	})
	return p, network
}

// silence is a network that swallows what is sent.
type silence struct {
	on atomic.Bool

	mu   sync.Mutex // protects the following
	kept []byte     // the first byte of each message, which says what it is
}

// silent is a connection over it.
type silent struct {
	net.Conn
	network *silence
}

func (s *silent) Write(b []byte) (int, error) {
	if !s.network.on.Load() {
		return s.Conn.Write(b)
	}
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	s.network.kept = append(s.network.kept, b[0])
	return len(b), nil
}

func TestReleaseDoesNotWaitForAFarewellOnADeadNetwork(t *testing.T) {
	t.Parallel()
	p, network := newSilentPool(t, 1)
	conn := acquire(t, p)
	if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil { // so that Release has to close it
		t.Fatal(err)
	}
	network.on.Store(true)
	lent := conn.Conn
	conn.Release()
	select {
	case <-lent.PgConn().CleanupDone():
		t.Error("Release waited until the connection was closed")
	default:
	}
	pgtest.Eventually(t, 5*time.Second, "the pool gave up on the connection", cleaned(lent))
}

func TestOneCallerAloneFindsOutThatTheNetworkIsGone(t *testing.T) {
	t.Parallel()
	p, network := newSilentPool(t, 4)
	var conns []*pool.Conn
	for range 4 {
		conns = append(conns, acquire(t, p))
	}
	for _, conn := range conns {
		conn.Release()
	}
	network.on.Store(true)
	<-time.After(1100 * time.Millisecond) // a connection is trusted for a second
	acquire(t, p).Release()
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			conn, err := p.Acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Release()
			if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Error(err)
			}
		})
	}
	others.Wait()
	network.mu.Lock()
	defer network.mu.Unlock()
	if checks := bytes.Count(network.kept, []byte{'Q'}); checks != 1 {
		t.Errorf("%d connections were checked, want one: the messages sent were %q", checks, network.kept)
	}
}

func TestAPlaceIsFreeOnlyWhenTheServerHasClosedItsEnd(t *testing.T) {
	t.Parallel()
	log := &diary{}
	p := newPoolOver(t, 1, func(ctx context.Context, kind, address string) (net.Conn, error) {
		log.note("dial")
		conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
		return &noted{Conn: conn, diary: log}, err
	})
	first := acquire(t, p)
	if _, err := first.Exec(t.Context(), "BEGIN"); err != nil { // so that Release has to close it
		t.Fatal(err)
	}
	second := make(chan *pool.Conn)
	go func() {
		conn, err := p.Acquire(t.Context())
		if err != nil {
			t.Error(err)
		}
		second <- conn
	}()
	pgtest.Eventually(t, 10*time.Second, "another caller waits for the place", func() bool { return p.Stats().Waits == 1 })
	first.Release()
	(<-second).Release()
	if got, want := log.String(), "dial, the server has closed its end, dial"; got != want {
		t.Errorf("it went %s; want %s", got, want)
	}
}

// diary is what happened, in order.
type diary struct {
	mu      sync.Mutex // protects the following
	entries []string
}

func (d *diary) note(entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.entries, ", ")
}

// noted is a connection to a server that takes a moment to close its end after the farewell. Its end is noted in a diary.
type noted struct {
	net.Conn
	diary    *diary
	farewell atomic.Bool
}

func (n *noted) Write(b []byte) (int, error) {
	if b[0] == 'X' { // PostgreSQL's message Terminate
		n.farewell.Store(true)
	}
	return n.Conn.Write(b)
}

func (n *noted) Read(b []byte) (int, error) {
	if n.farewell.Load() {
		<-time.After(200 * time.Millisecond)
		n.diary.note("the server has closed its end")
		return 0, io.EOF
	}
	return n.Conn.Read(b)
}
