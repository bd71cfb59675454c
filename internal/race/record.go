package race

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/relay"
)

// A Recording shows what a few calls of each contender look like on the wire. All times are in milliseconds.
type Recording struct {
	Conditions
	Fault string  `json:"fault"` // what was done to the server half-way; empty for nothing
	Most  int     `json:"max_connections"`
	Lanes []*Lane `json:"lanes"`
}

// A Lane is a contender's part in a recording: first the calls of a single caller, and then all callers at once, with a pool
// that has no connection yet.
type Lane struct {
	Name   string `json:"name"`
	About  string `json:"about"`
	Pooled bool   `json:"pooled"`
	Solo
	Elapsed   float64        `json:"elapsed_ms"` // from the first call's begin to the last one's end, of all callers
	Calls     []*Call        `json:"calls"`
	Conns     []Conn         `json:"connections"`
	Processes []Sample       `json:"processes"`
	Errors    map[string]int `json:"errors"`
	FaultAt   float64        `json:"fault_at"` // 0 if there was no fault
}

// Solo is what a single caller's calls over a warm pool, one after another, have shown.
type Solo struct {
	RoundTrips  float64 `json:"round_trips_per_call"`
	Connections float64 `json:"connections_per_call"`
	CallMs      float64 `json:"call_ms"`  // the median
	Timeline    []Trip  `json:"timeline"` // of the call that took it, from its begin
}

// A Call is one call of a caller.
type Call struct {
	Caller int     `json:"caller"`
	Begin  float64 `json:"begin"`
	End    float64 `json:"end"`
	Error  string  `json:"error"` // the name of the failure; empty for none
}

// A Conn is a connection as the relay saw it. Call is the index of the first call that asked over it or, without a pool, that
// opened it; -1 if there is none.
type Conn struct {
	Open  float64 `json:"open"`
	Close float64 `json:"close"`
	Call  int     `json:"call"`
	Trips []Trip  `json:"trips"`
}

// A Trip is a round trip; a goodbye has no end. Call is the index of the call that it served, -1 if that is not known.
type Trip struct {
	Phase string  `json:"phase"`
	Begin float64 `json:"begin"`
	End   float64 `json:"end"`
	Call  int     `json:"call"`
}

// A Sample is what pg_stat_activity said: the process numbers of the server's clients, without the one that asks.
type Sample struct {
	At   float64 `json:"at"`
	PIDs []int32 `json:"pids"`
}

// A Fault is something that is done to the server while the calls are made. Do returns how to undo it, nil for nothing.
type Fault struct {
	Name string
	Do   func(context.Context) (undo func(), err error)
}

// ErrEncrypted is what Record returns if the server encrypts its connections.
var ErrEncrypted = errors.New("the connection is encrypted: its round trips can be counted, but not told apart; " +
	"go tool lab demo without -url shows them on a server of its own")

// Record records a few calls of each contender that asks a server.
func Record(ctx context.Context, o Options, fault *Fault) (*Recording, error) {
	r := &Recording{Conditions: o.conditions(ctx)}
	if fault != nil {
		r.Fault = fault.Name
	}
	dsn, err := dburl.PGX(o.Address)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, `SELECT current_setting('max_connections')::int`).Scan(&r.Most)
	conn.Close(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range o.Contenders {
		if c.Local {
			continue
		}
		l := &Lane{Name: c.Name, About: c.About, Pooled: c.Pooled, Errors: make(map[string]int)}
		if l.Solo, err = c.solo(ctx, o, o.RTT); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(l.Timeline, func(t Trip) bool { return t.Phase == relay.Encrypted }) {
			return nil, ErrEncrypted
		}
		if err := l.crowd(ctx, o, c, dsn, fault); err != nil {
			return nil, err
		}
		r.Lanes = append(r.Lanes, l)
		if o.Progress != nil {
			o.Progress(len(r.Lanes))
		}
	}
	return r, nil
}

// watched opens the contender's store behind a relay that watches. The caller closes both.
func (c Contender) watched(o Options, rtt time.Duration) (penny.Store, *relay.Relay, error) {
	r, through, err := Through(o.Address, rtt)
	if err != nil {
		return nil, nil, err
	}
	r.Watch()
	s, err := c.openAt(through, o.Pool)
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return s, r, nil
}

// soloCalls is the number of calls that are made one after another to count round trips.
const soloCalls = 5

// solo makes two calls, after which a pool is warm: pgx's driver for database/sql pings a connection that it uses for the
// second time. Then it makes a few calls one after another and counts.
func (c Contender) solo(ctx context.Context, o Options, rtt time.Duration) (solo Solo, err error) {
	if c.Local {
		return Solo{}, nil // no wire, no round trips
	}
	s, r, err := c.watched(o, rtt)
	if err != nil {
		return solo, err
	}
	defer r.Close()
	defer s.Close()
	type span struct{ begin, end time.Time }
	var calls []span
	var trips, conns int
	for i := range 2 + soloCalls {
		if i == 2 {
			trips, conns = r.Trips(), r.Accepted()
		}
		begin := time.Now()
		if err := ask(ctx, s, 100); err != nil {
			return solo, err
		}
		calls = append(calls, span{begin, time.Now()})
	}
	solo.RoundTrips, solo.Connections = float64(r.Trips()-trips)/soloCalls, float64(r.Accepted()-conns)/soloCalls
	calls = slices.SortedFunc(slices.Values(calls[2:]), func(a, b span) int { return int(a.end.Sub(a.begin) - b.end.Sub(b.begin)) })
	middle := calls[len(calls)/2]
	solo.CallMs = since(middle.begin, middle.end)
	for _, conn := range r.Seen() {
		served := false
		for _, trip := range conn.Trips {
			goodbye := trip.Phase == relay.Goodbye // it may still be on its way when the call is over
			if !goodbye && !trip.Begin.Before(middle.begin) && trip.Begin.Before(middle.end) || goodbye && served && !c.Pooled {
				solo.Timeline = append(solo.Timeline, tripOf(trip, middle.begin))
				served = true
			}
		}
	}
	return solo, nil
}

// firstLimit is the limit that the crowd's first call asks with. Each call has a limit of its own, by which the relay's record
// tells one call's question from another's.
const firstLimit = 1000

// crowd lets all callers make their calls, each its next one when its last is done.
func (l *Lane) crowd(ctx context.Context, o Options, c Contender, dsn string, fault *Fault) error {
	s, r, err := c.watched(o, o.RTT)
	if err != nil {
		return err
	}
	defer r.Close()
	server := &sampler{dsn: dsn}
	defer server.close()
	server.look() // it has its connection before the server is full
	begin := time.Now()
	server.begin, server.samples = begin, nil
	until, stop := context.WithCancel(context.Background())
	var sampling sync.WaitGroup
	sampling.Go(func() { server.run(until) })
	var started, done atomic.Int64
	var callers sync.WaitGroup
	var mu sync.Mutex // protects the lane
	var undo func()
	var failed error
	l.Calls = make([]*Call, o.Calls)
	for caller := range o.Workers {
		callers.Go(func() {
			for i := int(started.Add(1)) - 1; i < o.Calls && ctx.Err() == nil; i = int(started.Add(1)) - 1 {
				call := &Call{Caller: caller, Begin: since(begin, time.Now())}
				err := ask(ctx, s, firstLimit+i)
				call.End = since(begin, time.Now())
				mu.Lock()
				if l.Calls[i] = call; err != nil {
					call.Error = explain.Name(err)
					l.Errors[call.Error]++
				}
				l.Elapsed = max(l.Elapsed, call.End)
				mu.Unlock()
				if done.Add(1) == int64(o.Calls/2) && fault != nil {
					l.FaultAt = since(begin, time.Now())
					undo, failed = fault.Do(ctx)
				}
			}
		})
	}
	callers.Wait()
	if undo != nil {
		undo()
	}
	server.look()
	s.Close()
	for try := 0; !server.look() && try < 50; try++ { // until the server has let go of the connections, a second at most
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	sampling.Wait()
	l.Processes = server.samples
	if err := errors.Join(ctx.Err(), failed); err != nil {
		return err
	}
	l.match(r.Seen(), begin)
	return nil
}

// callOf returns which call asked with these values, -1 if it cannot be told. The limit comes last, as text or in binary.
func callOf(values [][]byte) int {
	if len(values) == 0 {
		return -1
	}
	last := values[len(values)-1]
	if n, err := strconv.Atoi(string(last)); err == nil {
		return n - firstLimit
	}
	if len(last) == 8 {
		return int(binary.BigEndian.Uint64(last)) - firstLimit
	}
	return -1
}

// match brings together what the relay saw and what the callers saw.
func (l *Lane) match(seen []relay.Conn, begin time.Time) {
	for _, conn := range seen {
		c := Conn{Open: since(begin, conn.Opened), Close: since(begin, conn.Closed), Call: -1}
		if conn.Closed.IsZero() {
			c.Close = since(begin, time.Now())
		}
		for _, trip := range slices.Backward(conn.Trips) { // what leads to a question belongs to its call
			t := tripOf(trip, begin)
			if n := callOf(trip.Values); n >= 0 && n < len(l.Calls) {
				c.Call = n
			}
			if c.Call >= 0 && t.Begin >= l.Calls[c.Call].Begin {
				t.Call = c.Call
			}
			c.Trips = append(c.Trips, t)
		}
		slices.Reverse(c.Trips)
		l.Conns = append(l.Conns, c)
	}
	if l.Pooled {
		return // here a connection that never answered belongs to the pool
	}
	// Without a pool it belongs to a call that failed and has no other, else to the call that had begun, or lost its last
	// connection, just before.
	idle, lacks := make([]float64, len(l.Calls)), make([]bool, len(l.Calls))
	for i, call := range l.Calls {
		idle[i], lacks[i] = call.Begin, call.Error != ""
	}
	for k := range l.Conns {
		c := &l.Conns[k]
		if c.Call < 0 {
			for i, call := range l.Calls {
				if idle[i] <= c.Open && c.Open <= call.End && (c.Call < 0 || lacks[i] && !lacks[c.Call] || lacks[i] == lacks[c.Call] && idle[i] > idle[c.Call]) {
					c.Call = i
				}
			}
		}
		if c.Call >= 0 {
			idle[c.Call], lacks[c.Call] = c.Close, false
		}
	}
}

// every is how often the server is asked for its processes.
const every = 15 * time.Millisecond

// Watcher is the application name of the connection that asks the server for its processes.
const Watcher = "penny lab"

// A sampler asks the server for the processes of its clients. If its connection breaks, it opens another.
type sampler struct {
	dsn   string
	begin time.Time

	mu      sync.Mutex // protects the following
	conn    *pgx.Conn
	samples []Sample
}

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	for tick := time.Tick(every); ctx.Err() == nil; <-tick {
		s.look()
	}
}

// look takes a sample, and reports whether the server has no client any more. While the server is down it has none.
func (s *sampler) look() (none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	pids, err := s.ask(ctx)
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		return false // it is not known
	}
	if n := len(s.samples); n == 0 || !slices.Equal(s.samples[n-1].PIDs, pids) {
		s.samples = append(s.samples, Sample{since(s.begin, time.Now()), pids})
	}
	return len(pids) == 0
}

func (s *sampler) ask(ctx context.Context) (pids []int32, err error) {
	if s.conn == nil {
		config, err := pgx.ParseConfig(s.dsn)
		if err != nil {
			return nil, err
		}
		config.RuntimeParams["application_name"] = Watcher
		if s.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			return []int32{}, err
		}
	}
	err = s.conn.QueryRow(ctx, `SELECT coalesce(array_agg(pid ORDER BY pid), '{}') FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> $1`, Watcher).Scan(&pids)
	if err != nil {
		s.close()
	}
	return pids, err
}

func (s *sampler) close() {
	if s.conn != nil {
		s.conn.Close(context.Background())
		s.conn = nil
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func since(begin, t time.Time) float64 { return milliseconds(t.Sub(begin)) }

func tripOf(t relay.Trip, begin time.Time) Trip {
	trip := Trip{Phase: t.Phase, Begin: since(begin, t.Begin), Call: -1}
	if !t.End.IsZero() {
		trip.End = since(begin, t.End)
	}
	return trip
}
