package race

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	database1 "example.com/penny/database1/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/relay"
	"example.com/penny/internal/scratch"
)

// Options say what is measured or recorded, and where.
type Options struct {
	Address    string // of a PostgreSQL with the books, as dburl.Clean returns it
	Contenders []Contender
	Calls      int            // of each contender
	Workers    int            // goroutines that make the calls
	Pool       int            // connections that a pool may hold
	RTT        time.Duration  // put between the program and the server, there and back
	Progress   func(done int) // called with the calls, or the lanes, that are done

	file string // of the SQLite database
}

// Conditions are what a result depends on.
type Conditions struct {
	Date    string  `json:"date"`
	Machine string  `json:"machine"`
	Server  string  `json:"server"`
	Calls   int     `json:"calls"`
	Workers int     `json:"workers"`
	Pool    int     `json:"pool"`
	RTTms   float64 `json:"rtt_ms"`
}

// A Result is what a race measured.
type Result struct {
	Conditions
	Entrants []*Entrant `json:"contenders"`
}

// An Entrant is a contender's part in a race. Its counts are exact; its times are this computer's.
type Entrant struct {
	Name        string         `json:"name"`
	About       string         `json:"about"`
	Pooled      bool           `json:"pooled"`
	RoundTrips  *float64       `json:"round_trips_per_call"` // null if the relay could not count
	Connections *float64       `json:"connections_per_call"` // the same
	TimesNoPool float64        `json:"times_no_pool"`        // calls a second, as a multiple of database2's; 0 if unknown
	Calls       int            `json:"calls"`
	Errors      map[string]int `json:"errors"`
	CallsPerSec float64        `json:"calls_per_second"`
	P50         float64        `json:"p50_ms"`
	P95         float64        `json:"p95_ms"`
	P99         float64        `json:"p99_ms"`

	contender Contender
	total     load.Result // of all turns so far
}

// rounds is the number of turns in which each contender makes its calls.
const rounds = 5

// Run counts the round trips of a call of each contender, and then lets them race. When ctx ends, Run returns what it has
// measured by then together with ctx's error.
func Run(ctx context.Context, o Options) (*Result, error) {
	r := &Result{Conditions: o.conditions(ctx)}
	folder, err := scratch.New("", "race")
	if err != nil {
		return r, err
	}
	defer folder.Remove()
	o.file = filepath.Join(folder.Path, "penny.sqlite")
	if err := database1.Create(o.file); err != nil {
		return r, err
	}
	for _, c := range o.Contenders {
		e := &Entrant{Name: c.Name, About: c.About, Pooled: c.Pooled, contender: c}
		// If a contender cannot answer at all, its first turn says why.
		if s, err := c.solo(ctx, o, 0); err == nil {
			e.RoundTrips, e.Connections = &s.RoundTrips, &s.Connections
		}
		r.Entrants = append(r.Entrants, e)
	}
	if o.RTT > 0 {
		relay, through, err := Through(o.Address, o.RTT)
		if err != nil {
			return r, err
		}
		defer relay.Close()
		o.Address = through
	}
	done := 0
	for round := range rounds {
		n := o.Calls/rounds + min(1, max(0, o.Calls%rounds-round))
		for i := range r.Entrants {
			// Each round begins with another contender, so that the same one is not always first.
			err := r.Entrants[(i+round)%len(r.Entrants)].turn(ctx, o, n)
			r.sum()
			if err != nil {
				return r, err
			}
			if done += n; o.Progress != nil {
				o.Progress(done)
			}
		}
	}
	return r, nil
}

// conditions returns what the result will depend on. The server's version is empty if it does not answer.
func (o Options) conditions(ctx context.Context) Conditions {
	c := Conditions{Date: time.Now().Format(time.DateOnly), Calls: o.Calls, Workers: o.Workers, Pool: o.Pool,
		Machine: fmt.Sprintf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
		RTTms:   milliseconds(o.RTT)}
	if dsn, err := dburl.PGX(o.Address); err == nil {
		brief, cancel := context.WithTimeout(ctx, 2*time.Second+2*o.RTT) // the race goes on without the version
		defer cancel()
		if conn, err := pgx.Connect(brief, dsn); err == nil {
			defer conn.Close(ctx)
			version, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), " ")
			c.Server = "PostgreSQL " + version
		}
	}
	return c
}

// turn opens the contender's store for one turn and closes it afterwards: idle pools would fill a small server. As many
// calls as there are workers come before the clock starts, so that a pool begins with its connections open.
func (e *Entrant) turn(ctx context.Context, o Options, calls int) error {
	s, err := e.contender.open(o)
	if err != nil {
		return err
	}
	defer s.Close()
	run := func(calls int) load.Result {
		return load.Run(ctx, load.Options{Calls: calls, Workers: o.Workers, Name: explain.Name},
			func(ctx context.Context) error { return ask(ctx, s, 100) })
	}
	if warm := run(o.Workers); warm.Failed() == warm.Calls && warm.Calls > 0 {
		return fmt.Errorf("%s: %w", e.Name, warm.Err)
	}
	e.total.Add(run(calls))
	return ctx.Err()
}

// sum works out the figures of all turns so far.
func (r *Result) sum() {
	base := 0.0
	for _, e := range r.Entrants {
		if e.total.Calls == 0 {
			continue
		}
		e.Calls, e.Errors, e.CallsPerSec = e.total.Calls, maps.Clone(e.total.Errors), e.total.Rate()
		e.P50, e.P95, e.P99 = milliseconds(e.total.Percentile(50)), milliseconds(e.total.Percentile(95)), milliseconds(e.total.Percentile(99))
		if e.Name == NoPool {
			base = e.CallsPerSec
		}
	}
	for _, e := range r.Entrants {
		if base > 0 && !r.apart(e) {
			e.TimesNoPool = e.CallsPerSec / base
		}
	}
}

// apart reports whether an entrant runs under other conditions than the rest: a file is not as far away as the server.
func (r *Result) apart(e *Entrant) bool { return r.RTTms > 0 && e.contender.Local }

// ErrSeveralHosts is the error of Through if the address has several hosts.
var ErrSeveralHosts = errors.New("DATABASE_URL names several hosts, and a relay passes connections on to one only")

// Through starts a relay to the server at address, and returns it with the address that leads through it. The caller closes
// the relay.
func Through(address string, rtt time.Duration) (*relay.Relay, string, error) {
	t, err := dburl.Parse(address)
	if err != nil {
		return nil, "", err
	}
	if len(t.Hosts) != 1 {
		return nil, "", ErrSeveralHosts
	}
	_, target := t.Hosts[0].Network()
	r, err := relay.Start(target, rtt)
	if err != nil {
		return nil, "", err
	}
	host, port, _ := net.SplitHostPort(r.Addr()) // net made the address
	t.Hosts = []dburl.Host{{Name: host, Port: port}}
	if t.Settings["sslmode"] == "verify-full" && t.Settings["sslrootcert"] != "system" {
		t.Settings["sslmode"] = "verify-ca" // the certificate does not name the relay
	}
	return r, t.String(), nil
}

// barWidth is the width of the longest bar in the terminal.
const barWidth = 40

// Print prints the result as a table of at most 80 columns, and below it a bar for each entrant.
func (r *Result) Print(w io.Writer) error {
	var out, notes strings.Builder
	fmt.Fprintf(&out, "%d calls each, %d workers, pools of %d", r.Calls, r.Workers, r.Pool)
	if r.RTTms > 0 {
		fmt.Fprintf(&out, ", %g ms between program and server", r.RTTms)
	}
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "\n\n\tround\tN× no\tconnec-\t\n\ttrips\tpool\ttions\tcalls/s\tp50 ms\tp95 ms\tp99 ms\terrors\t\n")
	fastest := 1e-9
	for _, e := range r.Entrants {
		times := "-"
		if e.TimesNoPool > 0 {
			times = fmt.Sprintf("%.1f×", e.TimesNoPool)
		}
		count := func(n *float64) string {
			if n == nil {
				return "?"
			}
			return fmt.Sprintf("%.3g", *n)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%d\t\n", e.Name, count(e.RoundTrips), times, count(e.Connections),
			e.CallsPerSec, ms(e.P50), ms(e.P95), ms(e.P99), e.total.Failed())
		switch {
		case len(e.Errors) > 0:
			fmt.Fprintf(&notes, "%s: %s\n", e.Name, e.total.ErrorCounts())
		case e.RoundTrips == nil:
			fmt.Fprintf(&notes, "%s: a relay in front of this server could not count round trips\n", e.Name)
		}
		if e.Calls < r.Calls {
			fmt.Fprintf(&notes, "%s: stopped early, after %d of %d calls\n", e.Name, e.Calls, r.Calls)
		}
		if r.apart(e) {
			fmt.Fprintf(&notes, "%s: apart, because its file is on this computer, with no delay\n", e.Name)
		} else {
			fastest = max(fastest, e.CallsPerSec)
		}
	}
	table.Flush()
	fmt.Fprintln(&out, "\ncalls/s")
	for _, e := range r.Entrants {
		if !r.apart(e) {
			fmt.Fprintf(&out, "%12s %s %.0f\n", e.Name, strings.Repeat("█", max(1, int(e.CallsPerSec/fastest*barWidth))), e.CallsPerSec)
		}
	}
	_, err := io.WriteString(w, out.String()+notes.String())
	return err
}

// ms returns a time in milliseconds as the table shows it. A slow call needs no decimals, and the column has no room for them.
func ms(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
