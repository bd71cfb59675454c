// Package edge holds the parts of pennyapp that no lesson covers: a log that never waits for its reader, a listener with a
// bound on connections, embedded files, a router's headers, and a check that a server is PostgreSQL.
package edge

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/term"
)

// A LogWriter writes in the background, so that a reader of the log that stalls or has gone does not stop the app. When the
// reader is a thousand lines behind, lines are dropped and counted.
type LogWriter struct {
	lines   chan []byte
	end     chan struct{} // closed by Flush
	written chan struct{} // closed when the last line is written
	dropped atomic.Int64
}

// NewLogWriter returns a LogWriter that writes to w.
func NewLogWriter(w io.Writer) *LogWriter {
	l := &LogWriter{lines: make(chan []byte, 1000), end: make(chan struct{}), written: make(chan struct{})}
	go l.copy(w)
	return l
}

// copy writes the lines to w until Flush is called and no line is left.
func (l *LogWriter) copy(w io.Writer) {
	defer close(l.written)
	end := l.end
	for end != nil || len(l.lines) > 0 {
		select {
		case line := <-l.lines:
			_, _ = w.Write(line) // if it fails, there is nobody to tell
			if n := l.dropped.Swap(0); n > 0 {
				slog.New(slog.NewJSONHandler(w, nil)).Warn("the reader of the log was too slow", "lines dropped", n)
			}
		case <-end:
			end = nil
		}
	}
}

// Write takes a line. It never waits and never fails.
func (l *LogWriter) Write(line []byte) (int, error) {
	select {
	case l.lines <- append([]byte(nil), line...):
	default:
		l.dropped.Add(1)
	}
	return len(line), nil
}

// Flush ends the log and waits until it is written, for a second at most. Lines that come afterwards are lost.
func (l *LogWriter) Flush() {
	close(l.end)
	select {
	case <-l.written:
	case <-time.After(time.Second):
	}
}

// NewLogger returns a logger that writes text if screen is a terminal, and JSON otherwise.
func NewLogger(w io.Writer, screen *os.File) *slog.Logger {
	if term.IsTerminal(int(screen.Fd())) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}

// Clean replaces what could forge a line of the log, and cuts a text that is too long for one.
func Clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
