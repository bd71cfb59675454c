package race

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

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

	Sentence string `json:"sentence"` // what it shows
}

// A Lane is a contender's part in a recording: first the calls of a single caller, and then all callers at once, with a pool
// that has no connection yet.
type Lane struct {
	Name   string `json:"name"`
	About  string `json:"about"`
	Pooled bool   `json:"pooled"`
	Solo
	Elapsed   float64        `json:"elapsed_ms"` // from the start of the first call to the end of the last, of all callers
	Calls     []*Call        `json:"calls"`
	Conns     []Conn         `json:"connections"`
	Processes []Sample       `json:"processes"`
	Errors    map[string]int `json:"errors"`
	FaultAt   float64        `json:"fault_at"` // 0 if there was no fault
}

// Solo is what a single caller's calls show, made one after another over a pool that is warm.
type Solo struct {
	RoundTrips  float64 `json:"round_trips_per_call"`
	Connections float64 `json:"connections_per_call"`
	CallMs      float64 `json:"call_ms"`  // the median
	Timeline    []Trip  `json:"timeline"` // of the call that took it, from its start
}

// A Call is one call of a caller.
type Call struct {
	Caller int     `json:"caller"`
	Begin  float64 `json:"begin"`
	End    float64 `json:"end"`
	Error  string  `json:"error"` // the name of the failure; empty for none
}

// A Conn is a connection as the relay saw it.
type Conn struct {
	Open  float64 `json:"open"`
	Close float64 `json:"close"`
	Trips []Trip  `json:"trips"`
}

// A Trip is a round trip; a goodbye has no end. Call is the index of the call that it served, -1 if that is not known.
type Trip struct {
	Phase string  `json:"phase"`
	Begin float64 `json:"begin"`
	End   float64 `json:"end"`
	Call  int     `json:"call"`
}

// A Sample has the processes of the server's clients, as pg_stat_activity lists them, without the one that asks.
type Sample struct {
	At   float64 `json:"at"`
	PIDs []int32 `json:"pids"`
}

// A Fault is something that is done to the server while the calls are made. Do returns how to undo it, nil for nothing.
type Fault struct {
	Name string
	Do   func(context.Context) (undo func(), err error)
}

// ErrEncrypted is the error of Record if the server encrypts its connections.
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
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 1 // it opens another if the connection breaks
	config.ConnConfig.RuntimeParams["application_name"] = Watcher
	watcher, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer watcher.Close()
	if err := watcher.QueryRow(ctx, `SELECT current_setting('max_connections')::int`).Scan(&r.Most); err != nil {
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
		if err := l.crowd(ctx, o, c, watcher, fault); err != nil {
			return nil, err
		}
		r.Lanes = append(r.Lanes, l)
		if o.Progress != nil {
			o.Progress(len(r.Lanes))
		}
	}
	r.Sentence = r.sentence()
	return r, nil
}

// A line is a contender's store behind a relay that watches.
type line struct {
	penny.Store
	relay *relay.Relay
}

func (c Contender) line(o Options, rtt time.Duration) (line, error) {
	r, through, err := Through(o.Address, rtt)
	if err != nil {
		return line{}, err
	}
	r.Watch()
	o.Address = through
	s, err := c.open(o)
	if err != nil {
		r.Close()
		return line{}, err
	}
	return line{s, r}, nil
}

// hangUp closes the store, and the relay once it has seen the last goodbye.
func (l line) hangUp() {
	l.Close()
	l.relay.Shutdown(time.Second)
}

// soloCalls is the number of calls that are made one after another to count round trips.
const soloCalls = 5

// solo makes two calls, after which a pool is warm: pgx's driver for database/sql pings a connection that it uses for the
// second time. Then it makes a few calls one after another and counts.
func (c Contender) solo(ctx context.Context, o Options, rtt time.Duration) (solo Solo, err error) {
	if c.Local {
		return Solo{}, nil // no wire, no round trips
	}
	l, err := c.line(o, rtt)
	if err != nil {
		return solo, err
	}
	defer l.hangUp()
	type span struct{ begin, end time.Time }
	var calls []span
	var trips, conns int
	for i := range 2 + soloCalls {
		if i == 2 {
			trips, conns = l.relay.Trips(), l.relay.Accepted()
		}
		begin := time.Now()
		if err := ask(ctx, l, 100); err != nil {
			return solo, err
		}
		calls = append(calls, span{begin, time.Now()})
	}
	solo.RoundTrips = float64(l.relay.Trips()-trips) / soloCalls
	solo.Connections = float64(l.relay.Accepted()-conns) / soloCalls
	calls = slices.SortedFunc(slices.Values(calls[2:]), func(a, b span) int { return int(a.end.Sub(a.begin) - b.end.Sub(b.begin)) })
	median := calls[len(calls)/2]
	solo.CallMs = since(median.begin, median.end)
	during := func(t time.Time) bool { return !t.Before(median.begin) && t.Before(median.end) }
	l.hangUp()
	for _, conn := range l.relay.Seen() {
		for _, trip := range conn.Trips {
			if during(conn.Opened) || c.Pooled && during(trip.Begin) { // a goodbye may come after the call
				solo.Timeline = append(solo.Timeline, tripOf(trip, median.begin))
			}
		}
	}
	return solo, nil
}

// firstLimit is the limit that the crowd's first call asks with. Each call asks with a limit of its own, which tells its
// question from the others' on the wire.
const firstLimit = 1000

// crowd lets all callers make their calls, each its next one when its last is done.
func (l *Lane) crowd(ctx context.Context, o Options, c Contender, watcher *pgxpool.Pool, fault *Fault) error {
	n := 1
	if !c.Pooled {
		n = o.Workers // each caller has a line of its own, so that we know whose connections they are
	}
	var lines []line
	for range n {
		line, err := c.line(o, o.RTT)
		if err != nil {
			return err
		}
		defer line.hangUp()
		lines = append(lines, line)
	}
	begin := time.Now()
	server := &sampler{pool: watcher, begin: begin}
	until, stop := context.WithCancel(ctx)
	var sampling, callers, closing sync.WaitGroup
	sampling.Go(func() { server.run(until) })
	var started, done atomic.Int64
	var undo func()
	var failed error
	l.Calls = make([]*Call, o.Calls)
	for caller := range o.Workers {
		callers.Go(func() {
			for i := int(started.Add(1)) - 1; i < o.Calls && ctx.Err() == nil; i = int(started.Add(1)) - 1 {
				call := &Call{Caller: caller, Begin: since(begin, time.Now())}
				if err := ask(ctx, lines[caller%n], firstLimit+i); err != nil {
					call.Error = explain.Name(err)
				}
				call.End = since(begin, time.Now())
				l.Calls[i] = call
				if done.Add(1) == int64(max(o.Calls/2, 1)) && fault != nil {
					l.FaultAt = call.End
					undo, failed = fault.Do(ctx)
				}
			}
		})
	}
	callers.Wait()
	if undo != nil {
		undo()
	}
	stop()
	sampling.Wait()
	server.look()
	for _, line := range lines {
		closing.Go(line.hangUp)
	}
	closing.Wait()
	for try := 0; !server.look() && try < 50; try++ { // the server's processes end a little later
		time.Sleep(20 * time.Millisecond)
	}
	l.Processes = server.samples
	if err := errors.Join(ctx.Err(), failed); err != nil {
		return err
	}
	for _, call := range l.Calls {
		if l.Elapsed = max(l.Elapsed, call.End); call.Error != "" {
			l.Errors[call.Error]++
		}
	}
	for i, line := range lines {
		for _, conn := range line.relay.Seen() {
			l.Conns = append(l.Conns, l.conn(conn, i, begin))
		}
	}
	slices.SortFunc(l.Conns, func(a, b Conn) int { return cmp.Compare(a.Open, b.Open) })
	return nil
}

// conn returns a connection with the calls that its round trips served. Without a pool, it belongs to a call of the caller.
func (l *Lane) conn(seen relay.Conn, caller int, begin time.Time) Conn {
	c := Conn{Open: since(begin, seen.Opened), Close: since(begin, seen.Closed)}
	served := -1
	for i, call := range l.Calls {
		if !l.Pooled && call.Caller == caller && call.Begin <= c.Open {
			served = i // the caller's last one so far
		}
	}
	for _, trip := range slices.Backward(seen.Trips) { // the trips before a question belong to its call, too
		t := tripOf(trip, begin)
		if n := callOf(trip.Values); n >= 0 && n < len(l.Calls) {
			served = n
		}
		if served >= 0 && t.Begin >= l.Calls[served].Begin {
			t.Call = served
		}
		c.Trips = append(c.Trips, t)
	}
	slices.Reverse(c.Trips)
	return c
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

// every is how often the server is asked for its processes.
const every = 15 * time.Millisecond

// Watcher is the application name of the connection that asks the server for its processes.
const Watcher = "penny lab"

// A sampler asks the server for the processes of its clients.
type sampler struct {
	pool    *pgxpool.Pool
	begin   time.Time
	samples []Sample
}

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	for tick := time.Tick(every); ctx.Err() == nil; <-tick {
		s.look()
	}
}

// look takes a sample, and reports whether the server has no client. While the server is down it has none.
func (s *sampler) look() (none bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	pids := []int32{}
	err := s.pool.QueryRow(ctx, `SELECT coalesce(array_agg(pid ORDER BY pid), '{}') FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> $1`, Watcher).Scan(&pids)
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		return false // we do not know
	}
	if n := len(s.samples); n == 0 || !slices.Equal(s.samples[n-1].PIDs, pids) {
		s.samples = append(s.samples, Sample{since(s.begin, time.Now()), pids})
	}
	return len(pids) == 0
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
