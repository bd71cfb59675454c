package main

import (
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"example.com/penny/internal/dburl"
)

// newHTTPServer puts around the app what the internet makes necessary. Each limit bounds what a visitor can hold up.
func newHTTPServer(a *app, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           logged(logger, secured(recovered(a))),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// secured sets the headers that tell a browser to trust nothing but this app's own style sheet.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		if overTLS(r) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// recovered answers a handler's panic with a page, and logs where it came from.
func recovered(a *app) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			a.logger.Error("panic", "path", clean(r.URL.Path), "stack", string(debug.Stack()))
			a.show(w, http.StatusInternalServerError, "error", page{Title: "The shop has made a mistake",
				Message: "It is not your fault. Please try again later."})
		}()
		a.ServeHTTP(w, r)
	})
}

// logged writes one line about each request.
func logged(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		recorder := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(recorder, r)
		logger.Info("request", "method", clean(r.Method), "path", clean(r.URL.Path), "status", recorder.status,
			"bytes", recorder.bytes, "ms", float64(time.Since(start).Microseconds())/1000)
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

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// cached lets browsers keep the style sheet for an hour.
func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		next.ServeHTTP(w, r)
	})
}

// overTLS tells whether the visitor's browser uses TLS, which ends at the host's router in front of the app.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// clean takes out of a text what a visitor could forge a log line with, and what is too long for one.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return text
}

// databaseAddress is where the books are, for the explanation of an error.
func databaseAddress() string {
	if address, set := os.LookupEnv(dburl.Variable); set {
		return address
	}
	return localURL
}
