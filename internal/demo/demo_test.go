package demo

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/penny"
)

func TestProgressShowsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen strings.Builder
		f := &Flags{program: "database2", Calls: 100}
		done, clear := f.progress(&screen)
		done(false)
		time.Sleep(time.Second)
		done(true)
		clear()
		if got, want := screen.String(), "\r\033[Kdatabase2: 2 of 100 calls, 1 failed\r\033[K"; got != want {
			t.Errorf("the screen has %q, want %q", got, want)
		}
	})
}

func TestAskReturnsEvenIfTheDriverDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &Flags{}
		start := time.Now()
		_, err := f.Ask(t.Context(), func(context.Context, string, int) ([]penny.Book, error) {
			<-release
			return nil, nil
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > Patience+time.Second {
			t.Errorf("got %v after %v, want DeadlineExceeded after %v", err, time.Since(start), Patience)
		}
		close(release)
	})
}

func TestOpenedAddsUpTheOpenAndTheClosedConnections(t *testing.T) {
	stats := sql.DBStats{OpenConnections: 1, MaxIdleClosed: 20, MaxIdleTimeClosed: 300, MaxLifetimeClosed: 4000}
	if got := Opened(stats); got != 4321 {
		t.Errorf("got %d, want 4321", got)
	}
}
