package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/penny/database3/pool"
)

// The tests in this file are about time. Each runs in a bubble of testing/synctest, whose clock moves only when all
// goroutines wait, so that durations are exact. Their server speaks enough of PostgreSQL's protocol for that, over net.Pipe.

// A fakeServer answers SELECT 1 and the like. Its fields may be changed while no connection is in use.
type fakeServer struct {
	mu       sync.Mutex // protects the following
	open     int        // connections that the server has
	most     int        // the highest value of open
	queries  int
	cancels  int
	silent   bool          // it answers nothing on the connections that are open
	ends     bool          // it ends a connection with an error instead of answering
	takes    time.Duration // how long it takes to accept a connection
	thinks   time.Duration // how long it takes to answer
	farewell time.Duration // how long it takes to close a connection
}

func (f *fakeServer) set(change func(*fakeServer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeServer) get() fakeServer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeServer{open: f.open, most: f.most, queries: f.queries, cancels: f.cancels, silent: f.silent, ends: f.ends, takes: f.takes, thinks: f.thinks, farewell: f.farewell}
}

// pool returns a pool of connections to the server.
func (f *fakeServer) pool(t *testing.T, max int) *pool.Pool {
	t.Helper()
	return poolOver(t, max, f.dial)
}

// poolOver returns a pool that is closed at the end of the bubble.
func poolOver(t *testing.T, max int, dial func(context.Context) (*pgx.Conn, error)) *pool.Pool {
	t.Helper()
	p := pool.New(max, dial)
	t.Cleanup(func() {
		p.Close()
		time.Sleep(2 * time.Hour) // longer than the server ever sleeps
	})
	return p
}

func (f *fakeServer) dial(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig("postgres://penny@fake/penny?sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"fake"}, nil }
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go f.serve(server)
		return client, nil
	}
	return pgx.ConnectConfig(ctx, config)
}

func (f *fakeServer) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	startup, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if _, cancel := startup.(*pgproto3.CancelRequest); cancel {
		f.set(func(f *fakeServer) { f.cancels++ })
		return
	}
	f.set(func(f *fakeServer) {
		f.open++
		f.most = max(f.most, f.open)
	})
	defer f.set(func(f *fakeServer) { f.open-- })
	time.Sleep(f.get().takes)
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	backend.Send(ready)
	for backend.Flush() == nil {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		now := f.get()
		switch message := message.(type) {
		case *pgproto3.Terminate:
			time.Sleep(now.farewell)
			return
		case *pgproto3.Query:
			f.set(func(f *fakeServer) { f.queries++ })
			time.Sleep(now.thinks)
			switch {
			case now.silent:
				for { // nothing is answered until the client hangs up
					if message, err := backend.Receive(); err != nil {
						return
					} else if _, bye := message.(*pgproto3.Terminate); bye {
						time.Sleep(now.farewell)
						return
					}
				}
			case now.ends:
				backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01"})
				_ = backend.Flush()
				return
			case message.String == "BEGIN":
				ready.TxStatus = 'T'
			}
			backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			backend.Send(ready)
		}
	}
}

// fill opens n connections, so that they are idle.
func fill(t *testing.T, p *pool.Pool, n int) {
	t.Helper()
	var loans []*pool.Conn
	for range n {
		loans = append(loans, acquire(t, p))
	}
	for _, loan := range loans {
		loan.Release()
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// took reports an error unless do takes exactly as long as want.
func took(t *testing.T, want time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

func ask(ctx context.Context, p *pool.Pool) error {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

func TestADialOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{takes: 276 * time.Millisecond}
		p := server.pool(t, 2)
		served := 0
		for range 20 {
			took := time.Now()
			if ask(within(t, 250*time.Millisecond), p) == nil {
				served++
			} else if time.Since(took) != 250*time.Millisecond {
				t.Errorf("a caller gave up after %v, want 250ms", time.Since(took))
			}
		}
		if served != 18 { // the first two gave up while their dials went on
			t.Errorf("%d of 20 callers were served, want 18", served)
		}
		time.Sleep(time.Second)
		if got := p.Stats(); got.Dials != 2 || got.InUse != 0 || got.Idle != 2 {
			t.Errorf("the pool is %+v, want two idle connections", got)
		}
	})
}

func TestCallersThatGiveUpOpenNoMoreThanMaxConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{takes: 2 * time.Second}
		p := server.pool(t, 2)
		for range 30 {
			_ = ask(within(t, 50*time.Millisecond), p)
		}
		if n := server.get().most; n != 2 {
			t.Errorf("the server had %d connections at once, want 2", n)
		}
		time.Sleep(time.Second)
		took(t, 0, func() {
			if err := ask(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestADialThatTheServerNeverAnswersFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{takes: time.Hour}
		p := server.pool(t, 1)
		took(t, time.Second, func() { _ = ask(within(t, time.Second), p) })
		server.set(func(f *fakeServer) { f.takes = 0 })
		took(t, 9*time.Second, func() { // a dial may take 10 s, and one has passed
			if err := ask(within(t, time.Minute), p); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestASilentHostDoesNotEndTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		p := poolOver(t, 1, func(ctx context.Context) (*pgx.Conn, error) {
			if tries++; tries == 1 {
				return nil, fmt.Errorf("failed to connect: %w", errors.Join(context.DeadlineExceeded)) // as pgx, after connect_timeout
			}
			return (&fakeServer{}).dial(ctx)
		})
		if err := ask(within(t, time.Minute), p); err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectionThatWasIdleForASecondIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 1)
		fill(t, p, 1)
		for _, c := range []struct {
			idle   time.Duration
			checks int
		}{{0, 0}, {600 * time.Millisecond, 0}, {999 * time.Millisecond, 0}, {time.Second, 1}, {time.Minute, 1}} {
			time.Sleep(c.idle)
			before := server.get().queries
			acquire(t, p).Release()
			if got := server.get().queries - before; got != c.checks {
				t.Errorf("after %v there were %d checks, want %d", c.idle, got, c.checks)
			}
		}
		if got := p.Stats().Dials; got != 1 {
			t.Errorf("%d connections were opened, want 1", got)
		}
	})
}

func TestACallerReturnsWhenItsContextEndsThoughACheckGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 2)
		fill(t, p, 1)
		time.Sleep(time.Second)
		server.set(func(f *fakeServer) { f.silent = true })
		took(t, 100*time.Millisecond, func() {
			if err := ask(within(t, 100*time.Millisecond), p); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want DeadlineExceeded", err)
			}
		})
	})
}

func TestIfACallerGivesUpDuringACheckTheNextOneGetsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 1)
		fill(t, p, 1)
		time.Sleep(time.Second)
		server.set(func(f *fakeServer) { f.thinks = 200 * time.Millisecond })
		if _, err := p.Acquire(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		took(t, 150*time.Millisecond, func() { fill(t, p, 1) })
		if got := server.get().queries; got != 1 {
			t.Errorf("%d checks, want one", got)
		}
		if got := p.Stats(); got.Dials != 1 || got.Idle != 1 {
			t.Errorf("the pool is %+v, want its one connection idle", got)
		}
	})
}

func TestOnlyOneCallerWaitsForASilentNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{farewell: time.Hour}
		p := server.pool(t, 4)
		fill(t, p, 4)
		time.Sleep(time.Second)
		server.set(func(f *fakeServer) { f.silent = true })
		before := server.get().queries
		first := make(chan error)
		go func() { first <- ask(within(t, time.Minute), p) }()
		time.Sleep(999 * time.Millisecond)
		server.set(func(f *fakeServer) { f.silent = false }) // for the connections that are opened now
		took(t, 101*time.Millisecond, func() {               // a check may take a second, and then the pool waits 100 ms
			if err := <-first; err != nil {
				t.Error(err)
			}
		})
		if got := server.get().queries - before; got != 2 {
			t.Errorf("got %d queries, want 2: the check and the caller's", got)
		}
		took(t, 0, func() { fill(t, p, 4) })
	})
}

func TestAConnectionOpenedAfterASilentNetworkIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 3)
		fill(t, p, 2)
		time.Sleep(time.Second)
		server.set(func(f *fakeServer) { f.silent = true })
		var callers sync.WaitGroup
		for range 2 { // the checks end one after the other
			callers.Go(func() {
				if err := ask(within(t, time.Minute), p); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(500 * time.Millisecond)
		}
		server.set(func(f *fakeServer) { f.silent = false })
		callers.Wait()
		if got := p.Stats().Dials; got != 3 {
			t.Errorf("%d connections were opened, want 3: the first two, and one that serves both callers", got)
		}
	})
}

func TestAfterOneConnectionDiesTheOthersAreCheckedAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 4)
		fill(t, p, 4)
		server.set(func(f *fakeServer) { f.ends = true })
		if err := ask(t.Context(), p); err == nil {
			t.Fatal("no error for a query on a connection that the server ends")
		}
		// A server ends its connections one after the other: it still answers on those that it has not ended yet.
		server.set(func(f *fakeServer) { f.ends = false })
		go func() {
			time.Sleep(50 * time.Millisecond)
			server.set(func(f *fakeServer) { f.ends = true })
			time.Sleep(100 * time.Millisecond)
			server.set(func(f *fakeServer) { f.ends = false })
		}()
		before := server.get().queries
		took(t, 100*time.Millisecond, func() {
			conn := acquire(t, p)
			defer conn.Release()
			if got := server.get().queries - before; got != 3 {
				t.Errorf("%d connections were checked, want the three others", got)
			}
		})
		if got := p.Stats(); got.Dials != 5 || got.Idle != 1 {
			t.Errorf("the pool is %+v, want one new connection", got)
		}
	})
}

func TestAConnectionThatDiesCostsOneDialAndAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 4)
		fill(t, p, 4)
		server.set(func(f *fakeServer) { f.ends = true })
		_ = ask(t.Context(), p)
		server.set(func(f *fakeServer) { f.ends = false })
		took(t, 100*time.Millisecond, func() { fill(t, p, 4) })
		if got := p.Stats().Dials; got != 5 {
			t.Errorf("%d connections were opened, want 4 and one more", got)
		}
	})
}

func TestAConnectionThatWasBeingOpenedWhenAnotherDiedIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 2)
		first := acquire(t, p)
		server.set(func(f *fakeServer) { f.takes = time.Second })
		opened := make(chan *pool.Conn)
		go func() { opened <- acquire(t, p) }()
		time.Sleep(500 * time.Millisecond)
		server.set(func(f *fakeServer) { f.ends = true })
		_, _ = first.Exec(t.Context(), "SELECT 1")
		first.Release()
		server.set(func(f *fakeServer) { f.ends = false })
		before := server.get().queries
		(<-opened).Release()
		if got := server.get().queries - before; got != 1 {
			t.Errorf("%d checks, want one", got)
		}
	})
}

func TestAQueryThatItsCallerEndsCausesNoChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 4)
		fill(t, p, 4)
		server.set(func(f *fakeServer) { f.silent = true })
		if err := ask(within(t, 50*time.Millisecond), p); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		server.set(func(f *fakeServer) { f.silent = false })
		before := server.get().queries
		took(t, 0, func() { fill(t, p, 3) })
		if got := server.get().queries - before; got != 0 {
			t.Errorf("%d connections were checked, want none", got)
		}
	})
}

func TestReleaseReturnsAtOnceButFreesThePlaceWhenTheServerHasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{farewell: 300 * time.Millisecond}
		p := server.pool(t, 1)
		conn := acquire(t, p)
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil { // so that the pool has to close it
			t.Fatal(err)
		}
		took(t, 0, conn.Release)
		took(t, 300*time.Millisecond, func() { acquire(t, p).Release() })
		if got := server.get(); got.most != 1 || got.cancels != 0 {
			t.Errorf("the server had %d connections at once, want 1, and %d requests to cancel, want none", got.most, got.cancels)
		}
	})
}

func TestThePlaceOfACancelledQueryIsFreeWhenTheServerHasClosedItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{farewell: 300 * time.Millisecond}
		p := server.pool(t, 1)
		fill(t, p, 1)
		server.set(func(f *fakeServer) { f.silent = true })
		took(t, 50*time.Millisecond, func() {
			if err := ask(within(t, 50*time.Millisecond), p); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want DeadlineExceeded", err)
			}
		})
		server.set(func(f *fakeServer) { f.silent = false })
		took(t, 300*time.Millisecond, func() { acquire(t, p).Release() })
		if got := server.get().most; got != 1 {
			t.Errorf("the server had %d connections at once, want 1", got)
		}
	})
}

func TestThePoolWaitsASecondForAServerThatDoesNotCloseAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 1)
		conn := acquire(t, p)
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		server.set(func(f *fakeServer) { f.farewell = time.Hour })
		conn.Release()
		took(t, time.Second, func() { acquire(t, p).Release() })
		took(t, time.Second, func() { p.Close() })
		synctest.Wait()
	})
}

func TestCloseClosesAllConnectionsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{farewell: 300 * time.Millisecond}
		p := server.pool(t, 4)
		fill(t, p, 4)
		took(t, 300*time.Millisecond, func() { p.Close() })
		if got := server.get().open; got != 0 {
			t.Errorf("the server has %d connections, want none", got)
		}
	})
}

func TestNothingIsLentWhileCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{farewell: 300 * time.Millisecond}
		p := server.pool(t, 2)
		fill(t, p, 1)
		go p.Close()
		synctest.Wait()
		if err := ask(t.Context(), p); !errors.Is(err, pool.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

func TestNothingIsLentAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{takes: 100 * time.Millisecond}
		p := server.pool(t, 2)
		done := make(chan error)
		go func() { done <- ask(t.Context(), p) }()
		synctest.Wait()
		p.Close()
		if err := <-done; !errors.Is(err, pool.ErrClosed) {
			t.Errorf("a caller whose connection was being opened got %v, want ErrClosed", err)
		}
		time.Sleep(10 * time.Second)
		if got := server.get().open; got != 0 {
			t.Errorf("the server has %d connections, want none", got)
		}
		if got := p.Stats(); got.Idle != 0 || got.InUse != 0 {
			t.Errorf("the pool is %+v, want no connection", got)
		}
	})
}

func TestAConnectionOfADialThatIgnoresCloseIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{takes: 100 * time.Millisecond}
		p := poolOver(t, 2, func(ctx context.Context) (*pgx.Conn, error) { return server.dial(context.WithoutCancel(ctx)) })
		done := make(chan error)
		go func() { done <- ask(t.Context(), p) }()
		synctest.Wait()
		p.Close()
		if err := <-done; !errors.Is(err, pool.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		synctest.Wait()
		if got := server.get().open; got != 0 || p.Stats().Idle != 0 {
			t.Errorf("the server has %d connections and the pool is %+v, want no connection", got, p.Stats())
		}
	})
}

func TestCloseEndsACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 1)
		fill(t, p, 1)
		time.Sleep(time.Second)
		server.set(func(f *fakeServer) { f.silent = true })
		done := make(chan error)
		go func() { done <- ask(t.Context(), p) }()
		synctest.Wait()
		took(t, 100*time.Millisecond, func() { // the check fails, and after a failed check the pool waits
			p.Close()
			if err := <-done; !errors.Is(err, pool.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		})
	})
}

func TestOnlyTheConnectionThatFailsItsCheckIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 4)
		fill(t, p, 4)
		time.Sleep(time.Second)
		server.set(func(f *fakeServer) { f.ends = true })
		go func() {
			time.Sleep(50 * time.Millisecond) // the others are checked later
			server.set(func(f *fakeServer) { f.ends = false })
		}()
		fill(t, p, 4)
		if got := p.Stats().Dials; got != 5 {
			t.Errorf("%d connections were opened, want 4 and one more", got)
		}
	})
}

func TestReleaseInATransactionCausesNoChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{}
		p := server.pool(t, 4)
		fill(t, p, 4)
		conn := acquire(t, p)
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		before := server.get().queries
		conn.Release()
		took(t, 0, func() { fill(t, p, 3) })
		if got := server.get().queries - before; got != 0 {
			t.Errorf("%d connections were checked, want none", got)
		}
	})
}

func TestAQueryWhoseContextEndsDuringTheCloseStillHoldsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{farewell: 300 * time.Millisecond, silent: true}
		p := server.pool(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		conn := acquire(t, p)
		conn.PgConn().Exec(ctx, "SELECT 1")
		conn.Release()
		time.AfterFunc(100*time.Millisecond, cancel)
		took(t, 300*time.Millisecond, func() { acquire(t, p).Release() })
		if got := server.get(); got.most != 1 || got.cancels != 1 {
			t.Errorf("the server had %d connections at once and %d requests to cancel, want one of each", got.most, got.cancels)
		}
	})
}
