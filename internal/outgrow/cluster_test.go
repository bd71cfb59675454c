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
	"sync"
	"sync/atomic"
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
	patience = settling        // how long a reader tries again
	oneTry   = 5 * time.Second // how long a reader waits for one answer, as the programs do
)

// passing are the causes of the errors that a fault of the cluster may bring. Each passes when the cluster is whole again.
var passing = []string{"no primary", "no standby", "server starting", "session ended", "connection lost", "no server", "no answer",
	"query cancelled", "conflict", "no route"}

// TestCluster runs every layer on a cluster while it breaks.
func TestCluster(t *testing.T) {
	long(t)
	for _, name := range []string{"etcd", "patroni", "haproxy", "pgbouncer"} {
		if _, err := command(name); err != nil {
			skip.Test(t, "there is no "+name+" here: sudo apt install etcd-server patroni haproxy python3-etcd pgbouncer")
		}
	}
	if localpg.Installed() == "" {
		skip.Test(t, "there is no PostgreSQL here: sudo apt install postgresql")
	}
	t.Parallel()
	if runInOwnNetwork(t) {
		return
	}
	c := startCluster(t)
	pgtest.Exec(t, c.url("primary"), "CREATE TABLE writes (id bigint PRIMARY KEY)")
	crew := newCrew(t, c)
	silenced := "cut off"
	if c.nodes[0].network == nil {
		silenced = "frozen"
	}
	type fault struct {
		name   string
		strike func(t *testing.T, primary *node)
	}
	faults := []fault{
		{"the primary's Patroni is killed", crew.killPatroni},
		{"the primary's postgres is killed", func(t *testing.T, primary *node) { killAll(primary.postgres()) }},
		{"the primary's whole node is killed, and comes back", func(t *testing.T, primary *node) {
			primary.kill()
			crew.untilAnotherLeads(t, primary)
			primary.startEtcd(t)
			primary.startPatroni(t)
		}},
		{"a planned switchover", func(t *testing.T, primary *node) {
			primary.tell(t, "POST", "/switchover", fmt.Sprintf(`{"leader": %q}`, primary.name))
		}},
		{"a rolling restart", func(t *testing.T, primary *node) {
			for _, n := range append(slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == primary }), primary) {
				n.tell(t, "POST", "/restart", "{}")
				c.settle(t)
			}
		}},
		{"an etcd is killed, and comes back", func(t *testing.T, primary *node) {
			kill(primary.etcd)
			crew.untilAcknowledged(t, 40)
			primary.startEtcd(t)
		}},
		// If it just came back, with Patroni 3.0.2, it would take the lease again. Its data may also have a record that the
		// others lack. Patroni does not see that, and the node could not follow them.
		{"the primary's node is " + silenced + ", switched off, and replaced", func(t *testing.T, primary *node) {
			primary.silence(t)
			crew.untilAnotherLeads(t, primary)
			primary.kill()
			if err := os.RemoveAll(primary.data()); err != nil {
				t.Fatal(err)
			}
			primary.join(t)
			primary.startEtcd(t)
			primary.startPatroni(t)
		}},
	}
	// This shows what synchronous_mode is for. Without it, acknowledged writes may be lost.
	const unsafe = "the primary's Patroni is killed, without synchronous_mode"
	if *record {
		faults = slices.Insert(faults, 0, fault{unsafe, crew.killPatroni})
	}
	const columns = "%-60s%8s%10s%8s%7s%6s%6s%11s%10s%9s%6s\n"
	report := fmt.Sprintf(columns, "in seconds:", "writes", "writes", "lost by", "", "", "", "slowest", "read of", "503", "pages") +
		fmt.Sprintf(columns, "", "stop", "HAProxy", "hosts", "2", "3", "4", "PgBouncer", "any node", "primary", "any")
	details := ""
	for _, fault := range faults {
		c.synchronize(t, fault.name != unsafe)
		if !t.Run(fault.name, func(t *testing.T) {
			crew.start(t)
			fault.strike(t, c.leader(t))
			c.settle(t)
			crew.untilAllAreServed(t)
			crew.stop()
			line, detail := crew.report(t)
			t.Log("\n" + detail)
			report += fmt.Sprintf("%-60s%s\n", fault.name, line)
			details += "\n" + fault.name + "\n" + detail
		}) {
			break // a cluster that is not whole would fail the rest
		}
	}
	writeRecord(t, "cluster.txt", "-run TestCluster", report+details)
}

// A visitor asks five times a second, and counts what it gets.
type visitor struct {
	name string
	way  string                          // into the cluster
	page bool                            // it asks pennyapp
	sure bool                            // few calls may fail at the first try: one in ten, and two more
	ask  func(ctx context.Context) error // nil if the answer came, perhaps after some tries, whose errors go to fail

	mu      sync.Mutex
	calls   int
	failed  map[string]int // first tries that failed, by cause
	first   error          // one of them
	unknown error          // a failure whose cause is not among the passing ones
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
	if !slices.Contains(passing, cause) && cause != "503" {
		v.unknown = err
	}
}

func (v *visitor) run(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		begin := time.Now()
		err := v.ask(context.WithoutCancel(ctx)) // a call that has begun is finished
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
func reader(t *testing.T, name, way, address string, sure bool) *visitor {
	s := openURL(t, name, form(t, name, address)) // with the programs' own time to connect
	v := &visitor{name: name + "  " + way, way: way, sure: sure}
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

// page starts a pennyapp, and returns a visitor of it. For the visitor, a 503 that says when to come back is an answer.
func page(t *testing.T, program, layer, way, address, wait string, sure bool) *visitor {
	t.Helper()
	port, err := localpg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-layer", layer, "-patience", wait)
	cmd.Env = []string{fmt.Sprint("PORT=", port), "DATABASE_URL=" + address}
	cmd.Dir = filepath.Dir(program)
	asUser(cmd, -1, -1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	pgtest.Eventually(t, settling, "pennyapp serves", func() bool { return get(base+"/healthz") != nil })
	v := &visitor{name: "pennyapp, " + layer + ", " + way + ", -patience " + wait, way: way, page: true, sure: sure}
	v.ask = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, settling)
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

	mu    sync.Mutex
	acked []int64
	gap   time.Duration // the longest time between two acknowledged rows
	last  time.Time
}

func (w *writer) run(ctx context.Context, next *atomic.Int64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var conn *pgx.Conn
	write := func(ctx context.Context, id int64) (err error) {
		ctx, cancel := context.WithTimeout(ctx, oneTry)
		defer cancel()
		if conn == nil || conn.IsClosed() {
			if conn, err = pgx.Connect(ctx, w.address+"&connect_timeout=1"); err != nil {
				return err
			}
		}
		_, err = conn.Exec(ctx, "INSERT INTO writes VALUES ($1)", id)
		return err
	}
	hangUp := func() {
		if conn != nil {
			conn.Close(context.WithoutCancel(ctx))
		}
	}
	defer hangUp()
	for ; ctx.Err() == nil; <-tick.C {
		id := next.Add(1)
		if write(context.WithoutCancel(ctx), id) != nil {
			hangUp()
			continue
		}
		w.mu.Lock()
		w.acked = append(w.acked, id)
		w.gap = max(w.gap, time.Since(w.last))
		w.last = time.Now()
		w.mu.Unlock()
	}
}

// A crew is all the visitors and writers that use the cluster while it breaks.
type crew struct {
	c        *cluster
	visitors []*visitor
	writers  []*writer    // the first one through HAProxy, the other by a list of hosts
	next     atomic.Int64 // the next row
	working  sync.WaitGroup
	cancel   context.CancelFunc
}

func newCrew(t *testing.T, c *cluster) *crew {
	w := &crew{c: c, cancel: func() {}}
	t.Cleanup(w.stop)
	program := filepath.Join(t.TempDir(), "pennyapp")
	if out, err := exec.Command("go", "build", "-o", program, "../../pennyapp").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	pgbouncer := pooled(t, c.url("primary")) + withPooler
	for _, layer := range slices.Sorted(maps.Keys(layers)) {
		// The way "any" is not sure: for a second, HAProxy still leads to a node that has just stopped.
		for _, way := range []string{"primary", "read-write", "any", "any host", "prefer-standby"} {
			w.visitors = append(w.visitors, reader(t, layer, way, c.url(way), way == "any host" || way == "prefer-standby"))
		}
		w.visitors = append(w.visitors, reader(t, layer, "PgBouncer", pgbouncer, false),
			page(t, program, layer, "primary", c.url("primary"), "4s", false),
			page(t, program, layer, "any host", c.url("any host"), "4s", true))
	}
	for _, way := range []string{"primary", "read-write"} {
		w.visitors = append(w.visitors, page(t, program, "database4", way, c.url(way), "60s", true))
	}
	for _, way := range []string{"primary", "read-write"} {
		w.writers = append(w.writers, &writer{way: way, address: c.url(way)})
	}
	return w
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
		one.acked, one.gap, one.last = nil, 0, time.Now()
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

// failures returns how many first tries failed, by cause.
func (v *visitor) failures() load.Result { return load.Result{Errors: v.failed} }

// served returns how many calls had an answer at the first try.
func (v *visitor) served() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls - v.lost - v.failures().Failed()
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
	kill(primary.patroni)
	w.untilAnotherLeads(t, primary)
	primary.startPatroni(t)
}

// report checks the promises. It returns what happened, in one line and in detail.
func (w *crew) report(t *testing.T) (line, detail string) {
	t.Helper()
	var lost []int
	for _, one := range w.writers {
		missing := 0
		pgtest.Eventually(t, settling, "the primary says which rows it lacks", func() bool {
			const question = "SELECT count(*) FROM unnest($1::bigint[]) AS id WHERE id NOT IN (SELECT id FROM writes)"
			return w.c.ask(t.Context(), "primary", question, []any{one.acked}, &missing) == nil
		})
		lost = append(lost, missing)
		detail += fmt.Sprintf("  writer, %-44s %4d acknowledged, %d of them lost, longest gap %.1f s\n", one.way, len(one.acked), missing, one.gap.Seconds())
	}
	if lost[0] > 0 && w.c.synchronous {
		t.Errorf("%d of %d acknowledged writes are lost", lost[0], len(w.writers[0].acked))
	}
	slowest := make(map[string]float64) // in seconds, by way, and by layer and way
	pages := make(map[string]int)       // with 503, by way
	for _, v := range w.visitors {
		failed := v.failures().Failed()
		detail += fmt.Sprintf("  %-52s %4d calls, failed at first: %s; lost: %d; slowest %.1f s\n", v.name, v.calls, v.failures().ErrorCounts(), v.lost, v.slowest.Seconds())
		if v.page {
			pages[v.way] += failed
		} else {
			slowest[v.name] = v.slowest.Seconds()
			slowest[v.way] = max(slowest[v.way], v.slowest.Seconds())
		}
		if v.lost > 0 {
			t.Errorf("%s: %d of %d calls got no answer, the first failure was %v", v.name, v.lost, v.calls, v.first)
		}
		if v.sure && failed > 2+v.calls/10 {
			t.Errorf("%s: %d of %d calls failed at first: %v", v.name, failed, v.calls, v.first)
		}
		if v.unknown != nil {
			t.Errorf("%s: %q has the cause %q, which is not a passing one", v.name, v.unknown, explain.Name(v.unknown))
		}
	}
	line = fmt.Sprintf("%8.1f%10d%8d%7.1f%6.1f%6.1f%11.1f%10.1f%9d%6d", w.writers[0].gap.Seconds(), lost[0], lost[1],
		slowest["database2  primary"], slowest["database3  primary"], slowest["database4  primary"], slowest["PgBouncer"],
		max(slowest["any"], slowest["any host"], slowest["prefer-standby"]), pages["primary"], pages["any host"])
	return line, detail
}
