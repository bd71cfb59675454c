package main

import (
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

func TestLoadEndsIfTheServerHangs(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	unlock := pgtest.Lock(t, address, "books") // load waits for it when the server stops
	defer unlock()
	type outcome struct {
		errs   string
		status int
	}
	ended := make(chan outcome)
	go func() {
		_, errs, status := lab(t, address, "", "load", "-yes", "-books", "10")
		ended <- outcome{errs, status}
	}()
	waiting := 0
	pgtest.Eventually(t, 30*time.Second, "load waits for the table", func() bool {
		pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`, &waiting)
		return waiting == 1
	})
	pgtest.Suspend(t, server.PID())
	select {
	case got := <-ended:
		if got.status != 1 || !strings.Contains(got.errs, "did not answer in time") {
			t.Errorf("got status %d and %s, want 1 and \"did not answer in time\"", got.status, got.errs)
		}
	case <-time.After(time.Minute):
		t.Fatal("load still waits for a server that hangs")
	}
}
