// Package live serves a page that shows, in slow motion, what the calls with and without a pool send over the wire. The lab
// records them on a real server.
package live

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/penny/internal/explain"
	"example.com/penny/internal/race"
)

//go:embed web
var files embed.FS

var page = template.Must(template.ParseFS(files, "web/index.html"))

// Options say what the page shows at first, and where.
type Options struct {
	race.Options              // the conditions of the first recording
	Faults       []race.Fault // what a button can do to the server while it is recorded
	Forwarded    string       // the origin under which a forwarded port is seen, such as a Codespace's; empty for none
}

// Most has the limits up to which the page can show every call.
var Most = race.Options{Calls: 1000, Workers: 100, Pool: 100, RTT: time.Second}

// A snapshot is what the page shows of the lab.
type snapshot struct {
	Lab     string `json:"lab"`   // another one after a restart
	State   string `json:"state"` // recording, done or failed
	Message string `json:"message"`
	Run     int    `json:"run"` // the number of the last recording; 0 for none
}

// A studio makes recordings, one at a time, and shows the last one.
type studio struct {
	options Options
	host    string // where the page is served: 127.0.0.1 and the port
	secret  string // in the page, and in each request that changes something

	mu        sync.Mutex // protects the following
	now       snapshot
	recording *race.Recording
	cancel    context.CancelFunc
	ended     chan struct{} // closed when the last recording has ended; nil before the first
}

// Serve serves the page at the listener until ctx ends, and makes the first recording.
func Serve(ctx context.Context, listener net.Listener, o Options) error {
	s := newStudio(listener.Addr().String(), o)
	server := &http.Server{Handler: s.handler(ctx), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := s.record(ctx, o.Options, nil); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	s.stop()
	return server.Close()
}

func newStudio(host string, o Options) *studio {
	return &studio{options: o, host: host, secret: rand.Text(), now: snapshot{Lab: rand.Text(), State: "done"}, cancel: func() {}}
}

func (s *studio) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	static, err := fs.Sub(files, "web")
	if err != nil {
		panic(err) // the folder is embedded
	}
	for _, name := range []string{"live.js", "live.css", "favicon.svg"} {
		mux.Handle("GET /"+name, http.FileServerFS(static))
	}
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /state", s.state)
	mux.HandleFunc("GET /recording.json", s.last("application/json", func(r *race.Recording, w io.Writer, _ float64) error {
		return json.NewEncoder(w).Encode(r)
	}))
	mux.HandleFunc("GET /timeline.svg", s.last("image/svg+xml", (*race.Recording).Timeline))
	mux.HandleFunc("GET /slots.svg", s.last("image/svg+xml", (*race.Recording).Slots))
	mux.HandleFunc("POST /record", func(w http.ResponseWriter, r *http.Request) { s.start(ctx, w, r) })
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) { s.stop(); w.WriteHeader(http.StatusNoContent) })
	return s.guarded(mux)
}

// guarded lets in this page only. A foreign page can make a browser send requests here, under a host name of its own (then
// Host is wrong) or across origins (then Origin is wrong), but it cannot read the secret in our page.
func (s *studio) guarded(next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(s.host)
	origins := []string{"http://" + s.host, "http://localhost:" + port}
	hosts := []string{s.host, "localhost:" + port}
	if s.options.Forwarded != "" {
		origins = append(origins, s.options.Forwarded)
		hosts = append(hosts, strings.TrimPrefix(s.options.Forwarded, "https://"))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
			"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		origin := r.Header.Get("Origin")
		switch {
		case !slices.Contains(hosts, r.Host):
			http.Error(w, "this page is for this computer only", http.StatusForbidden)
		case origin != "" && !slices.Contains(origins, origin):
			http.Error(w, "another page may not use the lab", http.StatusForbidden)
		case r.Method == http.MethodPost && subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Penny")), []byte(s.secret)) != 1:
			http.Error(w, "this request does not come from the page", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (s *studio) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, map[string]any{"Secret": s.secret, "Options": s.options, "RTT": s.options.RTT.Milliseconds()}) // a visitor who has left does not see it
}

// A wish is what the page asks to record.
type wish struct {
	All     bool   `json:"all"` // all contenders, not only the two of the lecture
	Calls   int    `json:"calls"`
	Workers int    `json:"workers"`
	Pool    int    `json:"pool"`
	RTT     int    `json:"rtt"` // milliseconds
	Fault   string `json:"fault"`
}

func (s *studio) start(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	var wanted wish
	if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&wanted); err != nil {
		http.Error(w, "the lab does not understand what to record", http.StatusBadRequest)
		return
	}
	o := s.options.Options
	o.Calls, o.Workers, o.Pool, o.RTT = wanted.Calls, wanted.Workers, wanted.Pool, time.Duration(wanted.RTT)*time.Millisecond
	if min(o.Calls, o.Workers, o.Pool) < 1 || o.RTT < 0 || o.Calls > Most.Calls || o.Workers > Most.Workers || o.Pool > Most.Pool || o.RTT > Most.RTT {
		http.Error(w, "Calls go from 1 to 1,000, callers and places from 1 to 100, the delay from 0 to 1,000 ms.", http.StatusBadRequest)
		return
	}
	var fault *race.Fault
	if wanted.Fault != "" {
		i := slices.IndexFunc(s.options.Faults, func(f race.Fault) bool { return f.Name == wanted.Fault })
		if i < 0 {
			http.Error(w, "The lab does this only to a server that it has started itself: go tool lab demo", http.StatusBadRequest)
			return
		}
		fault = &s.options.Faults[i]
	}
	if wanted.All {
		o.Contenders = race.Contenders
	}
	if err := s.record(ctx, o, fault); err != nil {
		http.Error(w, "The lab is recording. Stop it first.", http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// record begins to record. It fails if the last recording is not done.
func (s *studio) record(ctx context.Context, o race.Options, fault *race.Fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.State == "recording" {
		return errors.New("a recording is not done")
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	s.cancel, s.ended = cancel, ended
	s.now.State, s.now.Message = "recording", "the first contender"
	o.Progress = func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now.Message = fmt.Sprintf("contender %d is done", n)
	}
	go func() {
		defer close(ended)
		defer cancel()
		recording, err := race.Record(ctx, o, fault)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err == nil:
			s.recording, s.now.Run = recording, s.now.Run+1
			s.now.State, s.now.Message = "done", ""
		case errors.Is(err, context.Canceled):
			s.now.State, s.now.Message = "done", "stopped"
		default:
			says, hint := explain.Error(err, o.Address)
			s.now.State, s.now.Message = "failed", says+". "+hint
		}
	}()
	return nil
}

// stop ends what is being recorded and waits until it has ended.
func (s *studio) stop() {
	s.mu.Lock()
	s.cancel()
	ended := s.ended
	s.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// state answers the page, which asks twice a second.
func (s *studio) state(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.now) // a visitor who has left does not read it
}

// last shows the last recording, as wide as the page asks for if it is drawn.
func (s *studio) last(contentType string, show func(*race.Recording, io.Writer, float64) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		recording := s.recording
		s.mu.Unlock()
		if recording == nil {
			http.Error(w, "Nothing has been recorded yet.", http.StatusNotFound)
			return
		}
		width, err := strconv.ParseFloat(r.URL.Query().Get("width"), 64)
		if err != nil || !(width >= 200 && width <= 4000) { // it may be NaN
			width = 960
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_ = show(recording, w, width)
	}
}
