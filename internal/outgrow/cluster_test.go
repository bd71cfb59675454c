//go:build linux

package outgrow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
	"example.com/penny/internal/skip"
)

const (
	patience = 40 * time.Second // how long a reader asks again
	oneTry   = 3 * time.Second  // how long a reader waits for one answer
)

// passing are the causes that a fault of the cluster may have. Each passes by itself.
var passing = []string{"no primary", "server starting", "session ended", "connection lost", "no server", "no answer", "conflict"}

// TestCluster runs every layer on a cluster while it breaks. It does not cut the network between the nodes, which takes
// network namespaces and so root; a frozen node looks the same from outside.
func TestCluster(t *testing.T) {
	if !*record {
		skip.Long(t)
	}
	t.Parallel()
	c := startCluster(t)
	pgtest.Exec(t, c.url("primary"), "CREATE TABLE writes (id bigint PRIMARY KEY)")
	crew := newCrew(t, c)
	faults := []struct {
		name        string
		synchronous bool
		strike      func(t *testing.T, primary *node)
	}{
		{"the primary's Patroni is killed, without synchronous_mode", false, crew.killPatroni},
		{"the primary's Patroni is killed", true, crew.killPatroni},
		{"the primary's postgres is killed", true, func(t *testing.T, primary *node) { killAll(primary.postgres()) }},
		{"the primary's whole node is killed, and comes back", true, func(t *testing.T, primary *node) {
			primary.kill()
			crew.untilAnotherLeads(t, primary)
			primary.startEtcd(t)
			primary.startPatroni(t)
		}},
		{"a planned switchover", true, func(t *testing.T, primary *node) {
			primary.tell(t, "POST", "/switchover", fmt.Sprintf(`{"leader": %q}`, primary.name))
		}},
		{"a rolling restart", true, func(t *testing.T, primary *node) {
			for _, n := range append(slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == primary }), primary) {
				n.tell(t, "POST", "/restart", "{}")
				c.settle(t)
			}
		}},
		{"an etcd is killed, and comes back", true, func(t *testing.T, primary *node) {
			primary.etcd.kill()
			crew.untilAcknowledged(t, 40)
			primary.startEtcd(t)
		}},
		// It is switched off before it comes back: Patroni 3.0.2 takes the lease again if it thaws.
		{"the primary's whole node freezes, is switched off and back on", true, func(t *testing.T, primary *node) {
			primary.freeze()
			crew.untilAnotherLeads(t, primary)
			primary.kill()
			primary.startEtcd(t)
			primary.startPatroni(t)
		}},
	}
	var report strings.Builder
	fmt.Fprintf(&report, "%-64s%7s%17s%24s%13s%7s\n%-64s%7s%17s%24s%13s%7s\n", "", "writes", "writes lost by", "slowest read of layer", "slowest of", "503",
		"", "stop", "HAProxy / hosts", "2 /      3 /      4", "any node", "pages")
	var details strings.Builder
	for _, fault := range faults {
		if fault.synchronous && !c.synchronous {
			c.primary(nil).tell(t, "PATCH", "/config", `{"synchronous_mode": true}`)
			c.synchronous = true
			c.settle(t)
		}
		if !t.Run(fault.name, func(t *testing.T) {
			begin := time.Now()
			crew.start(t)
			primary := c.primary(nil)
			fault.strike(t, primary)
			c.settle(t)
			crew.untilAllAreServed(t)
			crew.stop()
			took := time.Since(begin)
			line, detail := crew.report(t, c.synchronous)
			fmt.Fprintf(&report, "%-64s%s\n", fault.name, line)
			fmt.Fprintf(&details, "\n%s\n%s", fault.name, detail)
			t.Logf("%.1f s\n%s", took.Seconds(), detail)
		}) {
			break // a cluster that is not whole would fail the rest
		}
	}
	if *record && !t.Failed() {
		text := "# " + time.Now().Format(time.DateOnly) + ", go test ./internal/outgrow -run TestCluster -record\n\n" + report.String() + details.String()
		if err := os.WriteFile("../../docs/race/cluster.txt", []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// A visitor asks five times a second, and counts what it gets.
type visitor struct {
	name string
	way  string                          // into the cluster, for a reader
	ask  func(ctx context.Context) error // nil if the answer came, perhaps after some tries, whose errors go to again

	mu      sync.Mutex
	calls   int
	failed  map[string]int // first tries that failed, by cause
	first   error          // one of them
	unknown error          // a failure with a cause that no fault has
	lost    int            // calls that got no answer within the patience
	slowest time.Duration
}

// fail counts a first try that failed.
func (v *visitor) fail(cause string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed[cause]++
	if v.first == nil {
		v.first = err
	}
	if !slices.Contains(passing, cause) && !strings.HasPrefix(cause, "503") {
		v.unknown = err
	}
}

func (v *visitor) run(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		begin := time.Now()
		err := v.ask(context.WithoutCancel(ctx)) // what has begun ends
		v.mu.Lock()
		v.calls++
		v.slowest = max(v.slowest, time.Since(begin))
		if err != nil {
			v.lost++
		}
		v.mu.Unlock()
		<-tick.C
	}
}

// reader returns a visitor that reads from a layer, and asks again for as long as its patience lasts.
func reader(t *testing.T, name, way, address string) *visitor {
	s := open(t, name, address)
	v := &visitor{name: fmt.Sprintf("%-10s %s", name, way), way: way}
	v.ask = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for try := 0; ; try++ {
			books, err := retry.Within(ctx, oneTry, func(ctx context.Context) (books []penny.Book, err error) {
				err = retry.Read(ctx, func() error {
					books, err = s.ByAuthor(ctx, "ker", 10)
					return err
				})
				return books, err
			})
			if err == nil && len(books) != 2 {
				err = fmt.Errorf("found %d books", len(books))
			}
			if err != nil && (try == 0 || !slices.Contains(passing, explain.Name(err))) {
				v.fail(explain.Name(err), err)
			}
			if err == nil || ctx.Err() != nil {
				return err
			}
			select {
			case <-time.After(100 * time.Millisecond): // else a failure that comes at once is a load of its own
			case <-ctx.Done():
			}
		}
	}
	return v
}

// page returns a visitor of pennyapp's page. It takes a 503 for an answer if that says when to come back.
func page(name, base string) *visitor {
	v := &visitor{name: name}
	v.ask = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, "GET", base+"/searchresults?author=ker", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		switch {
		case response.StatusCode == 200:
			return nil
		case response.StatusCode == 503 && response.Header.Get("Retry-After") != "":
			v.fail("503", errors.New(response.Status))
			return nil
		}
		return errors.New(response.Status)
	}
	return v
}

// A writer writes rows one after the other, and remembers those that the server has acknowledged.
type writer struct {
	way, address string

	mu     sync.Mutex
	acked  []int64
	failed int
	gap    time.Duration // the longest time between two acknowledged rows
	last   time.Time
}

func (w *writer) run(ctx context.Context, next *atomic.Int64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var conn *pgx.Conn
	for ; ctx.Err() == nil; <-tick.C {
		id := next.Add(1)
		err := func() (err error) {
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), oneTry)
			defer cancel()
			if conn == nil || conn.IsClosed() {
				if conn, err = pgx.Connect(limit, w.address+"&connect_timeout=1"); err != nil {
					return err
				}
			}
			_, err = conn.Exec(limit, "INSERT INTO writes VALUES ($1)", id)
			return err
		}()
		w.mu.Lock()
		if err == nil {
			w.acked = append(w.acked, id)
			w.gap = max(w.gap, time.Since(w.last))
			w.last = time.Now()
		} else {
			w.failed++
			if conn != nil {
				conn.Close(context.WithoutCancel(ctx))
			}
		}
		w.mu.Unlock()
	}
	if conn != nil {
		conn.Close(context.WithoutCancel(ctx))
	}
}

// A crew is all who use the cluster while it breaks.
type crew struct {
	c        *cluster
	visitors []*visitor
	writers  []*writer
	next     atomic.Int64 // the next row
	working  sync.WaitGroup
	cancel   context.CancelFunc
}

func newCrew(t *testing.T, c *cluster) *crew {
	w := &crew{c: c, cancel: func() {}}
	t.Cleanup(func() { w.cancel(); w.working.Wait() })
	ways := []string{"primary", "read-write", "any", "prefer-standby"}
	for _, way := range ways {
		for _, layer := range slices.Sorted(maps.Keys(layers)) {
			w.visitors = append(w.visitors, reader(t, layer, way, c.url(way)))
		}
	}
	program := filepath.Join(t.TempDir(), "pennyapp")
	if out, err := exec.Command("go", "build", "-o", program, "../../pennyapp").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, layer := range slices.Sorted(maps.Keys(layers)) {
		base := app(t, program, layer, c.url("primary"), 4*time.Second)
		w.visitors = append(w.visitors, page("pennyapp   "+layer+", primary", base))
	}
	w.visitors = append(w.visitors, page("pennyapp   database4, any, -patience 30s", app(t, program, "database4", c.url("any"), 30*time.Second)))
	for _, way := range []string{"primary", "read-write"} {
		w.writers = append(w.writers, &writer{way: way, address: c.url(way)})
	}
	return w
}

// app starts pennyapp, and returns where it serves.
func app(t *testing.T, program, layer, address string, patience time.Duration) (base string) {
	t.Helper()
	port, err := localpg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-layer", layer, "-patience", patience.String())
	cmd.Env = []string{fmt.Sprint("PORT=", port), "DATABASE_URL=" + address}
	cmd.Dir = filepath.Dir(program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	base = fmt.Sprintf("http://127.0.0.1:%d", port)
	pgtest.Eventually(t, settling, "pennyapp serves", func() bool {
		response, err := client.Get(base + "/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == 200
	})
	return base
}

// start sets the crew to work, and waits until everybody has been served.
func (w *crew) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	for _, v := range w.visitors {
		v.calls, v.failed, v.first, v.unknown, v.lost, v.slowest = 0, make(map[string]int), nil, nil, 0, 0
		w.working.Go(func() { v.run(ctx) })
	}
	for _, one := range w.writers {
		one.acked, one.failed, one.gap, one.last = nil, 0, 0, time.Now()
		w.working.Go(func() { one.run(ctx, &w.next) })
	}
	w.untilAllAreServed(t)
}

func (w *crew) stop() {
	w.cancel()
	w.working.Wait()
}

// untilAllAreServed waits until each of the crew has three more answers that needed no second try.
func (w *crew) untilAllAreServed(t *testing.T) {
	t.Helper()
	before := make([]int, len(w.visitors))
	for i, v := range w.visitors {
		before[i] = v.served()
	}
	w.untilAcknowledged(t, 3)
	for i, v := range w.visitors {
		pgtest.Eventually(t, settling, v.name+" is served", func() bool { return v.served() >= before[i]+3 })
	}
}

// served returns how many calls had an answer at the first try.
func (v *visitor) served() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls - v.lost - load.Result{Errors: v.failed}.Failed()
}

// untilAcknowledged waits until the writer behind HAProxy has n more rows acknowledged.
func (w *crew) untilAcknowledged(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		w.writers[0].mu.Lock()
		defer w.writers[0].mu.Unlock()
		return len(w.writers[0].acked)
	}
	before := count()
	pgtest.Eventually(t, settling, "rows are written", func() bool { return count() >= before+n })
}

// untilAnotherLeads waits until the cluster has another primary and writes on it.
func (w *crew) untilAnotherLeads(t *testing.T, old *node) {
	t.Helper()
	pgtest.Eventually(t, settling, "another node is the primary", func() bool { return w.c.primary(old) != nil })
	w.untilAcknowledged(t, 20)
}

// killPatroni kills the primary's Patroni only. Its postgres goes on as if it still were the primary, until Patroni is back.
func (w *crew) killPatroni(t *testing.T, primary *node) {
	primary.patroni.kill()
	w.untilAnotherLeads(t, primary)
	primary.startPatroni(t)
}

// report asserts what is promised, and returns what happened in one line, and to each.
func (w *crew) report(t *testing.T, synchronous bool) (line, detail string) {
	t.Helper()
	var text strings.Builder
	var lost []int
	for _, one := range w.writers {
		lost = append(lost, len(one.acked)-w.present(t, one.acked))
		fmt.Fprintf(&text, "  %-42s %4d acknowledged, %d of them lost, longest gap %.1f s\n", "writer     "+one.way, len(one.acked), lost[len(lost)-1], one.gap.Seconds())
	}
	if lost[0] > 0 && synchronous {
		t.Errorf("%d of %d acknowledged writes are lost", lost[0], len(w.writers[0].acked))
	}
	var slowest []float64 // reads of the primary, in seconds
	var standby time.Duration
	pages := 0
	for _, v := range w.visitors {
		failures := load.Result{Errors: v.failed}
		switch v.way {
		case "primary":
			slowest = append(slowest, v.slowest.Seconds())
		case "any", "prefer-standby":
			standby = max(standby, v.slowest)
		case "":
			pages += failures.Failed()
		}
		fmt.Fprintf(&text, "  %-42s %4d calls, failed at first: %s; lost: %d; slowest %.1f s\n", v.name, v.calls, failures.ErrorCounts(), v.lost, v.slowest.Seconds())
		if v.lost > 0 {
			t.Errorf("%s: %d of %d calls got no answer, the first failure was %v", v.name, v.lost, v.calls, v.first)
		}
		if v.unknown != nil {
			t.Errorf("%s: %q is named %q, which no fault here is", v.name, v.unknown, explain.Name(v.unknown))
		}
		if strings.Contains(v.name, "any, -patience") && failures.Failed() > 0 {
			t.Errorf("%s: %d visitors got a 503, though a standby could have answered", v.name, failures.Failed())
		}
	}
	line = fmt.Sprintf("%5.1f s%9d /%6d%7.1f s /%5.1f s /%5.1f s%11.1f s%7d", w.writers[0].gap.Seconds(), lost[0], lost[1],
		slowest[0], slowest[1], slowest[2], standby.Seconds(), pages)
	return line, text.String()
}

// present returns how many of the rows are in the database.
func (w *crew) present(t *testing.T, rows []int64) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settling)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.c.url("primary"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM writes WHERE id = ANY($1)", rows).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
