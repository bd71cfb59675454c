package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/race"
)

// startDemo runs lab demo, and returns the page's address and what stops it and returns its exit status.
func startDemo(t *testing.T, args ...string) (address string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, done := &syncBuffer{}, make(chan int, 1)
	go func() {
		done <- run(ctx, &environment{stdin: strings.NewReader(""), stdout: out, stderr: out}, append([]string{"demo", "-open=false"}, args...))
	}()
	pgtest.Eventually(t, time.Minute, "the page is served", func() bool { return strings.Contains(out.String(), "Ctrl-C") })
	address = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out.String())
	if address == "" {
		t.Fatalf("it printed %q", out)
	}
	return address, func() int {
		cancel()
		status := <-done
		if status != 0 {
			t.Errorf("status %d: %s", status, out)
		}
		return status
	}
}

func TestOneCommandShowsThePictureAndLeavesNothingBehind(t *testing.T) {
	pgtest.Admin(t) // skips if there is no PostgreSQL
	folder, err := os.MkdirTemp("", "penny-lab-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", folder)
	t.Setenv("DATABASE_URL", "postgres://127.0.0.1:1/nobody") // the demo asks its own server
	// Whether the demo's port is free here or not: it is taken when the demo starts.
	if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", demoPort)); err == nil {
		defer listener.Close()
	}
	address, stop := startDemo(t, "-n", "24", "-c", "12", "-pool", "3", "-rtt", "5ms", "-max-connections", "10")
	if strings.HasSuffix(address, fmt.Sprint(":", demoPort)) {
		t.Errorf("the page is at %s, whose port is taken", address)
	}
	var recording race.Recording
	pgtest.Eventually(t, time.Minute, "the first recording is there", func() bool {
		response, err := http.Get(address + "/recording.json")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK && json.NewDecoder(response.Body).Decode(&recording) == nil
	})
	if recording.Calls != 24 || recording.Workers != 12 || recording.Pool != 3 || recording.RTTms != 5 || recording.Most != 10 || len(recording.Lanes) != 2 {
		t.Errorf("%+v", recording.Conditions)
	}
	stop()
	if _, err := http.Get(address); err == nil {
		t.Error("the page is still there")
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTheDemoDrawsItsPictures(t *testing.T) {
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	folder := t.TempDir()
	if _, errs, status := lab(t, "", "demo", "-url", "-pictures", folder, "-n", "12", "-c", "6", "-pool", "2", "-rtt", "2ms"); status != 0 {
		t.Fatal(errs)
	}
	for name, want := range map[string]string{"timeline.svg": "6 round trips against 1, 2 ms apart", "slots.svg": "6 callers at once, a pool of 2"} {
		if drawing, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !strings.Contains(string(drawing), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, errs, status := lab(t, "", "demo", "-url", "-pictures", filepath.Join(folder, "missing")); status != 1 || !strings.Contains(errs, "choose a file in a folder") {
		t.Errorf("status %d: %s", status, errs)
	}
}
