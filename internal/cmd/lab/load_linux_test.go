package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

func TestLoadEndsIfTheServerHangs(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{})
	address := server.URL("postgres")
	t.Setenv("DATABASE_URL", address)
	pgtest.LoadBooks(t, address)
	unlock := pgtest.Lock(t, address, "books") // load waits for it when the server stops
	defer unlock()
	type outcome struct {
		errs   string
		status int
	}
	ended := make(chan outcome)
	go func() {
		_, errs, status := lab(t, "", "load", "-yes", "-books", "10")
		ended <- outcome{errs, status}
	}()
	waiting := 0
	pgtest.Eventually(t, 30*time.Second, "load waits for the table", func() bool {
		pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`, &waiting)
		return waiting == 1
	})
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", server.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(strings.Fields(string(children)), strconv.Itoa(server.PID())) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(n, syscall.SIGCONT)
	}
	select {
	case got := <-ended:
		if got.status != 1 || !strings.Contains(got.errs, "did not answer in time") {
			t.Errorf("status %d, and it says %s", got.status, got.errs)
		}
	case <-time.After(time.Minute):
		t.Fatal("load still waits for a server that hangs")
	}
}
