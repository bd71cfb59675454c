package main

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/penny/internal/edge"
)

// newHTTPServer returns a server for the app, with limits on what a visitor can send and on how long one can hold a connection.
// WriteTimeout is the patience of a search, and time for a visitor on a phone to read the answer.
func newHTTPServer(a *app) *http.Server {
	return &http.Server{
		Handler:           logged(a.logger, secured(a)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      a.search.patience + 20*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),

		DisableGeneralOptionsHandler: true, // the app answers OPTIONS *, too
	}
}

// secured sends visitors to https if the proxy in front says that they came by http. It tells browsers to load only this app's
// own style sheet and pictures.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		switch proto := edge.Proto(r); {
		case proto == "https":
			h.Set("Strict-Transport-Security", "max-age=31536000")
		case proto == "http" && r.Host != "" && r.URL.Path != "/healthz" && r.URL.Path != "/readyz":
			http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusPermanentRedirect)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// logged writes a line about each request, and gives the request an id: the router's, or its own.
func logged(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := edge.Clean(cmp.Or(r.Header.Get("X-Request-Id"), strconv.FormatUint(rand.Uint64(), 36)))
		w.Header().Set("X-Request-Id", id)
		sent := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sent, r)
		if r.Method == http.MethodHead {
			sent.bytes = 0 // net/http does not send them
		}
		figures.Add("requests "+strconv.Itoa(sent.status), 1)
		attributes := []any{"method", edge.Clean(r.Method), "path", edge.Clean(r.URL.Path), "status", sent.status,
			"bytes", sent.bytes, "ms", float64(time.Since(start).Microseconds()) / 1000, "client", edge.Host(r.RemoteAddr), "id", id}
		// The last hop is what the nearest proxy saw. Without a proxy it is what the visitor wrote, so it is not the client.
		if hops := strings.Join(r.Header.Values("X-Forwarded-For"), ","); hops != "" { // a proxy may add a line of its own
			last := hops[strings.LastIndex(hops, ",")+1:]
			attributes = append(attributes, "forwarded_for", edge.Clean(strings.TrimSpace(last)))
		}
		logger.Info("request", attributes...)
	})
}

// A recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status, bytes int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.bytes += n
	return n, err
}
