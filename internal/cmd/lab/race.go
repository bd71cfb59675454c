package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	database2 "example.com/penny/database2/books"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/relay"
	"example.com/penny/internal/scratch"
)

const raceAbout = `Has the stages answer the same question side by side, on the PostgreSQL at DATABASE_URL (database1 on a SQLite file of its
own), and shows what each took. Besides the four stages run three controls, so that between neighbours one thing changes
at a time. The calls are made in rounds, each contender in turn, so that a busy computer wrongs nobody.`

// rounds is into how many turns each contender's calls are cut; a race that people watch has more, to keep moving.
const rounds, watchedRounds = 5, 10

// A racer is a store that reports how many connections it has opened.
type racer struct {
	penny.Store
	opened func() int64
}

// A contender is a way to the books. Its form puts the address into the words of its driver.
type contender struct {
	name, about string
	sqlite      bool
	form        func(address string) (string, error)
	open        func(ctx context.Context, url string, size int) (racer, error)
}

var contenders = []contender{
	{"database1", "SQLite, database/sql's pool", true, dburl.SQLite, func(_ context.Context, url string, _ int) (racer, error) {
		s, err := database1.Open(url)
		return racer{s, func() int64 { return demo.Opened(s.Stats()) }}, err
	}},
	{"database2", "lib/pq, a connection for every call", false, dburl.PQ, func(_ context.Context, url string, _ int) (racer, error) {
		s, err := database2.Open(url)
		return racer{s, func() int64 { return demo.Opened(s.Stats()) }}, err
	}},
	{"pgx-per-call", "pgx, a connection for every call", false, dburl.PGX, openPgxPerCall},
	{"database3", "pgx, Penny's pool", false, dburl.PGX, func(_ context.Context, url string, size int) (racer, error) {
		s, err := database3.Open(url, size)
		return racer{s, func() int64 { return s.Stats().Dials }}, err
	}},
	{"pgxpool", "pgx, its own pool", false, dburl.PGX, openPgxpool},
	{"sql.DB", "lib/pq, database/sql's pool", false, dburl.PQ, openSQL},
	{"database4", "GORM over pgx, database/sql's pool", false, dburl.GORM, func(_ context.Context, url string, size int) (racer, error) {
		s, err := database4.Open(url, size)
		return racer{s, func() int64 { return demo.Opened(s.Stats()) }}, err
	}},
}

// An entrant is a contender's part in one race.
type entrant struct {
	Name        string         `json:"name"`
	About       string         `json:"about"`
	Calls       int            `json:"calls"`
	Errors      map[string]int `json:"errors"`
	CallsPerSec float64        `json:"calls_per_second"`
	P50         float64        `json:"p50_ms"`
	P95         float64        `json:"p95_ms"`
	P99         float64        `json:"p99_ms"`
	Opened      int64          `json:"connections_opened"`

	open      func() (racer, error)
	total     load.Result // of all turns so far
	succeeded int
}

// A result is a race.
type result struct {
	Date     string        `json:"date"`
	Calls    int           `json:"calls"`
	Workers  int           `json:"workers"`
	Pool     int           `json:"pool"`
	RTT      time.Duration `json:"-"`
	RTTms    float64       `json:"rtt_ms"`
	Entrants []*entrant    `json:"contenders"`

	rounds int
	turned func(context.Context) error // called after every turn, by the goroutine that runs the race
}

func runRace(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "race", raceAbout)
	calls := f.Int("n", 300, "make `CALLS` calls with each contender")
	workers := f.Int("c", 8, "make them from `WORKERS` goroutines at once")
	size := f.Int("pool", 8, "let the pools hold `SIZE` connections")
	only := f.String("only", "", "race only these `NAMES`, with commas between them: "+names())
	rtt := f.Duration("rtt", 0, "put a `DELAY` such as 30ms between the program and the server, for there and back")
	svg := f.String("svg", "", "draw the chart into `FILE` too")
	asJSON := f.Bool("json", false, "print the result as JSON")
	web := f.Bool("web", false, "show the race live in a browser, on this computer alone")
	if err := parse(f, args); err != nil {
		return err
	}
	switch {
	case *calls < 1:
		return wrong(f, "-n must be at least 1")
	case *workers < 1:
		return wrong(f, "-c must be at least 1")
	case *size < 1:
		return wrong(f, "-pool must be at least 1")
	case *rtt < 0 || *rtt > 10*time.Second:
		return wrong(f, "-rtt must be between 0 and 10s")
	}
	chosen, err := choose(*only)
	if err != nil {
		return wrong(f, "%v", err)
	}
	if *web {
		return runWeb(ctx, env)
	}
	r := &result{rounds: rounds, Date: time.Now().Format(time.DateOnly), Calls: *calls, Workers: *workers, Pool: *size, RTT: *rtt,
		RTTms: float64(rtt.Microseconds()) / 1000}
	if err := r.run(ctx, env, chosen); err != nil {
		return err
	}
	if *asJSON {
		encoder := json.NewEncoder(env.stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return err
		}
	} else {
		r.print(env)
	}
	if *svg != "" {
		if err := r.draw(*svg); err != nil {
			return fmt.Errorf("draw %s: %w", *svg, err)
		}
	}
	return nil
}

func names() string {
	var all []string
	for _, c := range contenders {
		all = append(all, c.name)
	}
	return strings.Join(all, ",")
}

// choose finds the contenders with the names, in the table's order, all of them for none.
func choose(only string) ([]contender, error) {
	if only == "" {
		return contenders, nil
	}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(contenders, func(c contender) bool { return c.name == strings.TrimSpace(name) }) {
			return nil, fmt.Errorf("nobody in the race is called %q; there are %s", name, names())
		}
	}
	return slices.DeleteFunc(slices.Clone(contenders), func(c contender) bool {
		return !slices.ContainsFunc(wanted, func(name string) bool { return strings.TrimSpace(name) == c.name })
	}), nil
}

// run lets the contenders race. What stops it half-way leaves no result.
func (r *result) run(ctx context.Context, env *environment, chosen []contender) error {
	address := ""
	if slices.ContainsFunc(chosen, func(c contender) bool { return !c.sqlite }) {
		var err error
		if address, err = dburl.Get(dburl.Clean); err != nil {
			return err
		}
		if dburl.IsSQLite(address) {
			_, err := dburl.PGX(address) // it says that this needs PostgreSQL
			return err
		}
		if r.RTT > 0 {
			delayed, stop, err := delay(address, r.RTT)
			if err != nil {
				return err
			}
			defer stop()
			address = delayed
		}
	}
	folder, err := scratch.New("", "race")
	if err != nil {
		return err
	}
	defer folder.Remove()
	file := filepath.Join(folder.Path, "penny.sqlite")
	if err := database1.Create(file); err != nil {
		return err
	}
	for _, c := range chosen {
		at := address
		if c.sqlite {
			at = "sqlite:///" + filepath.ToSlash(file)
		}
		url, err := c.form(at)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		e := &entrant{Name: c.name, About: c.about, open: func() (racer, error) { return c.open(ctx, url, r.Pool) }}
		if err := e.turn(ctx, 1, func(racer) {}); err != nil { // who cannot answer at all does not start
			return fmt.Errorf("%s: %w", c.name, err)
		}
		r.Entrants = append(r.Entrants, e)
	}
	bar := progress(env, int64(r.Calls*len(r.Entrants)), "race")
	for round := range r.rounds {
		n := r.Calls/r.rounds + min(1, max(0, r.Calls%r.rounds-round))
		for i := range r.Entrants {
			// Each round begins with another contender: nobody always runs after the same neighbour.
			e := r.Entrants[(i+round)%len(r.Entrants)]
			if n == 0 {
				continue
			}
			if err := e.turn(ctx, r.Workers, func(s racer) {
				e.total.Add(load.Run(ctx, load.Options{Calls: n, Workers: r.Workers, Name: explain.Name, Done: func(bool) { _ = bar.Add(1) }},
					func(ctx context.Context) error { return ask(ctx, s) }))
			}); err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
			if ctx.Err() != nil {
				_ = bar.Finish()
				return ctx.Err()
			}
			e.sum()
			if r.turned != nil {
				if err := r.turned(ctx); err != nil {
					return err
				}
			}
		}
	}
	_ = bar.Finish()
	return nil
}

// turn opens the contender's store for one turn, and closes it after that: the pools of those who wait would take the
// places of a small server. Each worker makes a call before the turn, so that a pool begins with its connections open.
func (e *entrant) turn(ctx context.Context, workers int, run func(racer)) error {
	s, err := e.open()
	if err != nil {
		return err
	}
	defer s.Close()
	warm := load.Run(ctx, load.Options{Calls: workers, Workers: workers, Name: explain.Name},
		func(ctx context.Context) error { return ask(ctx, s) })
	if warm.Failed() == warm.Calls && warm.Calls > 0 {
		return warm.Err
	}
	before := s.opened()
	run(s)
	e.Opened += s.opened() - before
	return nil
}

func ask(ctx context.Context, s racer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := s.ByAuthor(ctx, "ker", 100)
	return err
}

// sum works out the figures of all turns so far.
func (e *entrant) sum() {
	e.Calls, e.Errors, e.succeeded = e.total.Calls, maps.Clone(e.total.Errors), e.total.Calls-e.total.Failed()
	e.CallsPerSec = e.total.Rate()
	percentile := func(p float64) float64 { return float64(e.total.Percentile(p).Microseconds()) / 1000 }
	e.P50, e.P95, e.P99 = percentile(50), percentile(95), percentile(99)
}

// delay puts a relay that takes its time between the program and the server.
func delay(address string, rtt time.Duration) (delayed string, stop func(), err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", nil, errors.New("the address does not parse")
	}
	if u.Host == "" { // dburl writes several hosts, and a socket's folder, as a setting
		return "", nil, &hinted{errors.New("-rtt needs an address with one host and port"), "leave -rtt out, or name one host in DATABASE_URL"}
	}
	r, err := relay.Start(net.JoinHostPort(cmp.Or(u.Hostname(), "localhost"), cmp.Or(u.Port(), "5432")), rtt)
	if err != nil {
		return "", nil, err
	}
	u.Host = r.Addr()
	return u.String(), func() { r.Close() }, nil
}

// barWidth is how wide the longest bar in the terminal is.
const barWidth = 40

// print shows the race as a table and, under it, a bar for each contender.
func (r *result) print(env *environment) {
	fmt.Fprintf(env.stdout, "%d calls each, %d workers, pools of %d", r.Calls, r.Workers, r.Pool)
	if r.RTT > 0 {
		fmt.Fprintf(env.stdout, ", %v between program and server", r.RTT)
	}
	fmt.Fprint(env.stdout, "\n\n")
	base := r.base()
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tcalls/s\tp50 ms\tp95 ms\tp99 ms\terrors\tnew connections\ttimes no pool\t")
	for _, e := range r.Entrants {
		times := "-"
		if base > 0 {
			times = fmt.Sprintf("%.1f", e.CallsPerSec/base)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%s\t%d\t%s\t\n", e.Name, e.CallsPerSec, e.P50, e.P95, e.P99,
			e.total.ErrorCounts(), e.Opened, times)
	}
	w.Flush()
	fmt.Fprintln(env.stdout, "\ncalls/s")
	fastest := 0.0
	for _, e := range r.Entrants {
		fastest = max(fastest, e.CallsPerSec)
	}
	for _, e := range r.Entrants {
		n := int(e.CallsPerSec / max(fastest, 1e-9) * barWidth)
		fmt.Fprintf(env.stdout, "%12s %s %.0f  (%s)\n", e.Name, strings.Repeat("█", max(n, 1)), e.CallsPerSec, e.About)
	}
}

// base is the rate of no pool: database2's, else 0.
func (r *result) base() float64 {
	for _, e := range r.Entrants {
		if e.Name == "database2" {
			return e.CallsPerSec
		}
	}
	return 0
}

const byAuthor = `SELECT isbn, author, COALESCE(title, '') FROM books WHERE author ILIKE $1 ESCAPE '\' ORDER BY isbn COLLATE "C" LIMIT $2`

// A control is a contender that is no stage.
type control struct {
	ask   func(ctx context.Context, pattern string, limit int) error
	close func() error
}

func (c *control) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	return nil, c.ask(ctx, penny.Prefix(prefix), limit)
}
func (c *control) Close() error { return c.close() }
