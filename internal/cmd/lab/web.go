package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/explain"
)

//go:embed web
var webFiles embed.FS

var webPage = template.Must(template.ParseFS(webFiles, "web/index.html"))

// A snapshot is what the page shows at one time.
type snapshot struct {
	State       string  `json:"state"` // ready, running, paused, done or failed
	Message     string  `json:"message"`
	Connections int     `json:"connections"` // as the server counts them, without the one that asks
	Race        *result `json:"race"`
}

// A webRace is the race that the page shows. One runs at a time.
type webRace struct {
	host   string // where the page is served: 127.0.0.1 and the port
	secret string // in the page, and in each request that changes something

	mu       sync.Mutex // protects the following
	now      snapshot
	resume   chan struct{} // closed when the race may go on; nil while it does
	cancel   context.CancelFunc
	done     chan struct{}        // closed when no race runs
	watchers map[chan []byte]bool // each gets the snapshots
}

// runWeb serves the page until ctx ends.
func runWeb(ctx context.Context, env *environment) error {
	if _, err := dburl.Get(dburl.Clean); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w := &webRace{host: listener.Addr().String(), secret: rand.Text(), now: snapshot{State: "ready"},
		watchers: make(map[chan []byte]bool), done: closedChannel()}
	server := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	fmt.Fprintf(env.stdout, "The race is at http://%s\nCtrl-C stops it.\n", w.host)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	w.stop()
	return server.Close()
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (w *webRace) handler() http.Handler {
	mux := http.NewServeMux()
	static, err := fs.Sub(webFiles, "web")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux.HandleFunc("GET /{$}", w.page)
	mux.Handle("GET /race.js", http.FileServerFS(static))
	mux.Handle("GET /race.css", http.FileServerFS(static))
	mux.HandleFunc("GET /events", w.events)
	mux.HandleFunc("GET /race.svg", w.chart)
	mux.HandleFunc("POST /start", w.start)
	mux.HandleFunc("POST /pause", func(rw http.ResponseWriter, _ *http.Request) { w.pause(true); rw.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /resume", func(rw http.ResponseWriter, _ *http.Request) { w.pause(false); rw.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /stop", func(rw http.ResponseWriter, _ *http.Request) { w.stop(); rw.WriteHeader(http.StatusNoContent) })
	return w.guarded(mux)
}

// guarded lets in this page alone. A foreign page can make a browser send requests here, under a host name of its own
// (then Host is wrong) or across origins (then Origin is), but it cannot read the secret in our page.
func (w *webRace) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
			"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		rw.Header().Set("X-Content-Type-Options", "nosniff")
		rw.Header().Set("Cache-Control", "no-store")
		_, port, _ := net.SplitHostPort(w.host)
		if r.Host != w.host && r.Host != "localhost:"+port {
			http.Error(rw, "this page is for this computer alone", http.StatusForbidden)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
			http.Error(rw, "another page may not start a race", http.StatusForbidden)
			return
		}
		if r.Method == http.MethodPost && subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Penny")), []byte(w.secret)) != 1 {
			http.Error(rw, "this request does not come from the page", http.StatusForbidden)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

func (w *webRace) page(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	type row struct{ Name, About string }
	var rows []row
	for _, c := range contenders {
		rows = append(rows, row{c.name, c.about})
	}
	_ = webPage.Execute(rw, map[string]any{"Secret": w.secret, "Contenders": rows}) // who has gone does not see it
}

// A wish is what the page asks to start.
type wish struct {
	Only    []string `json:"only"`
	Calls   int      `json:"calls"`
	Workers int      `json:"workers"`
	Pool    int      `json:"pool"`
	RTT     int      `json:"rtt"` // milliseconds
}

func (w *webRace) start(rw http.ResponseWriter, r *http.Request) {
	var wanted wish
	if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&wanted); err != nil {
		http.Error(rw, "that is no race", http.StatusBadRequest)
		return
	}
	chosen, err := choose(strings.Join(wanted.Only, ","))
	switch {
	case err != nil || len(wanted.Only) == 0:
		http.Error(rw, "Choose at least one contender.", http.StatusBadRequest)
		return
	case wanted.Calls < 1 || wanted.Calls > 100_000 || wanted.Workers < 1 || wanted.Workers > 200 || wanted.Pool < 1 ||
		wanted.Pool > 200 || wanted.RTT < 0 || wanted.RTT > 1000:
		http.Error(rw, "Calls go from 1 to 100,000, workers and connections from 1 to 200, the delay from 0 to 1,000 ms.", http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	select {
	case <-w.done:
	default:
		w.mu.Unlock()
		http.Error(rw, "A race is running. Stop it first.", http.StatusConflict)
		return
	}
	// The race outlives the request that started it, and ends with the program or with stop.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	race := &result{rounds: watchedRounds, Date: time.Now().Format(time.DateOnly), Calls: wanted.Calls, Workers: wanted.Workers,
		Pool: wanted.Pool, RTT: time.Duration(wanted.RTT) * time.Millisecond, RTTms: float64(wanted.RTT)}
	w.cancel, w.done, w.resume = cancel, make(chan struct{}), nil
	done := w.done
	w.now = snapshot{State: "running"}
	w.mu.Unlock()
	race.turned = func(ctx context.Context) error { return w.turned(ctx, race) }
	go func() {
		defer close(done)
		defer cancel()
		before, watching := make(chan struct{}), make(chan struct{})
		go w.count(ctx, before, watching)
		<-before
		err := race.run(ctx, &environment{stderr: io.Discard}, chosen)
		cancel()
		<-watching
		w.ended(err)
	}()
	rw.WriteHeader(http.StatusNoContent)
}

// turned shows the race after a turn, and holds it up while it is paused.
func (w *webRace) turned(ctx context.Context, race *result) error {
	w.mu.Lock()
	w.now.Race = race.copy()
	w.publish()
	resume := w.resume
	w.mu.Unlock()
	if resume == nil {
		return nil
	}
	select {
	case <-resume:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copy is the race as it stands, for others to read while it goes on.
func (r *result) copy() *result {
	c := *r
	c.turned = nil
	c.Entrants = nil
	for _, e := range r.Entrants {
		one := *e // its figures are those of the last sum, which makes Errors anew
		c.Entrants = append(c.Entrants, &one)
	}
	return &c
}

func (w *webRace) ended(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now.State, w.now.Message = "done", ""
	if errors.Is(err, context.Canceled) {
		w.now.Message = "Stopped."
	} else if err != nil {
		address, _ := dburl.Get(dburl.Clean)
		says, hint := explain.Error(err, address)
		w.now.State, w.now.Message = "failed", says+". "+hint
	}
	w.publish()
}

func (w *webRace) pause(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case yes && w.now.State == "running":
		w.resume, w.now.State = make(chan struct{}), "paused"
	case !yes && w.now.State == "paused":
		close(w.resume)
		w.resume, w.now.State = nil, "running"
	}
	w.publish()
}

// stop ends the race, if one runs, and waits until it has.
func (w *webRace) stop() {
	w.mu.Lock()
	cancel, done := w.cancel, w.done
	w.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	<-done
}

// count asks the server five times a second how many connections it has. It closes before when it has asked once, so that
// the race can begin, and done when ctx has ended and the race's own connections are gone: the server takes a moment to
// let them go, two seconds at most.
func (w *webRace) count(ctx context.Context, before, done chan<- struct{}) {
	defer close(done)
	began := sync.OnceFunc(func() { close(before) })
	defer began()
	address, err := dburl.Get(dburl.Clean)
	if err != nil || dburl.IsSQLite(address) {
		return
	}
	dsn, err := dburl.PGX(address)
	if err != nil {
		return
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return // the race itself tells what is wrong
	}
	defer conn.Close(context.Background())
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	others := -1 // connections that are not the race's
	for left := 10; left > 0; {
		var n int
		asking, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := conn.QueryRow(asking, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid()`).Scan(&n)
		cancel()
		if err != nil {
			return
		}
		w.mu.Lock()
		w.now.Connections = n
		w.publish()
		w.mu.Unlock()
		if others < 0 {
			others = n
			began()
		}
		if ctx.Err() != nil {
			if left--; n <= others {
				return
			}
		}
		<-tick.C
	}
}

// publish sends the snapshot to who watches. Who is slow misses some. The caller must hold w.mu.
func (w *webRace) publish() {
	text, err := json.Marshal(w.now)
	if err != nil {
		return
	}
	for watcher := range w.watchers {
		select {
		case watcher <- text:
		default:
		}
	}
}

func (w *webRace) events(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(rw)
	watcher := make(chan []byte, 16)
	w.mu.Lock()
	w.watchers[watcher] = true
	w.publish()
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.watchers, watcher)
		w.mu.Unlock()
	}()
	for {
		select {
		case text := <-watcher:
			if _, err := fmt.Fprintf(rw, "data: %s\n\n", text); err != nil {
				return
			}
			if err := control.Flush(); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (w *webRace) chart(rw http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	race := w.now.Race
	w.mu.Unlock()
	if race == nil {
		http.Error(rw, "There has been no race yet.", http.StatusNotFound)
		return
	}
	rw.Header().Set("Content-Type", "image/svg+xml")
	rw.Header().Set("Content-Disposition", `attachment; filename="race.svg"`)
	_ = race.write(rw) // who has gone does not see it
}
