package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/race"
)

func TestTheRaceMeasuresEveryContender(t *testing.T) {
	t.Parallel()
	out, errs, status := lab(t, pgtest.BooksURL(t), "", "race", "-n", "40", "-c", "4", "-pool", "4", "-json")
	if status != 0 {
		t.Fatal(errs)
	}
	var r race.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Entrants) != len(race.Contenders) {
		t.Fatalf("got %d contenders, want %d", len(r.Entrants), len(race.Contenders))
	}
	for _, e := range r.Entrants {
		if e.Calls != 40 || len(e.Errors) > 0 || e.CallsPerSec <= 0 || e.P50 <= 0 || e.P99 < e.P50 || e.TimesNoPool <= 0 || e.RoundTrips == nil {
			t.Errorf("got %+v, want 40 calls, all figures and no errors", e)
		}
		if *e.Connections != map[bool]float64{false: 1}[e.Pooled] {
			t.Errorf("%s opened %v connections a call, want 1 without a pool and 0 with one", e.Name, *e.Connections)
		}
	}
}

func TestTheTableFits80Columns(t *testing.T) {
	t.Parallel()
	out, errs, status := lab(t, pgtest.BooksURL(t), "", "race", "-n", "10", "-c", "2", "-rtt", "2ms")
	if status != 0 || !strings.Contains(errs, "with fewer than 40 calls") {
		t.Errorf("got status %d and %s, want 0 and a warning", status, errs)
	}
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("a line has %d columns, want 80 at most: %s", n, line)
		}
	}
	for _, want := range []string{`(?m)^ +database2 +6 +1\.0× +1 .* 0$`, `(?m)^ +database3 +1 +[\d.]+× +0 .* 0$`, `█`, `(?m)^ +database1 +0 +- `, `apart`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}

// No call can be faster than its round trips: six for a new connection with a password, and one over a pooled one.
func TestADelayMakesEveryRoundTripLonger(t *testing.T) {
	t.Parallel()
	out, errs, status := lab(t, pgtest.BooksURL(t), "", "race", "-n", "10", "-c", "2", "-only", "database2,database3", "-rtt", "5ms", "-json")
	if status != 0 {
		t.Fatal(errs)
	}
	var r race.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Entrants[0].P50 < 30 || r.Entrants[1].P50 < 5 {
		t.Errorf("got p50 %.1f ms and %.1f ms, want at least 30 and 5", r.Entrants[0].P50, r.Entrants[1].P50)
	}
}

func TestCtrlCKeepsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	env := at(address, nil, &out, &errs)
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, env, []string{"race", "-n", "1000000", "-c", "2", "-only", "database2,database3"})
	}()
	asked := 0
	pgtest.Eventually(t, time.Minute, "the server has answered a hundred calls of others", func() bool {
		answered := 0
		asked++
		pgtest.Query(t, address, `SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`, &answered)
		return answered-asked > 100
	})
	cancel()
	if s := <-status; s != 1 || !strings.Contains(out.String(), "database2: stopped early, after ") ||
		!regexp.MustCompile(`database2 +6 +1\.0× +1 +[1-9]`).MatchString(out.String()) {
		t.Errorf("got status %d, want 1 and what was measured: %s%s", s, out.String(), errs.String())
	}
}

func TestABrokenPipeIsNotBlamedOnTheDatabase(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var errs bytes.Buffer
	status := run(t.Context(), at(pgtest.BooksURL(t), nil, w, &errs), []string{"race", "-n", "5", "-c", "1", "-only", "database3"})
	if status != 1 || !strings.Contains(errs.String(), "print the result") {
		t.Errorf("got status %d and %s, want 1 and \"print the result\"", status, errs.String())
	}
}

func TestTheRaceGoesOnIfTheRelayCannotCount(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(pgtest.BooksURL(t))
	if err != nil {
		t.Fatal("the address does not parse")
	}
	u.Host = "127.0.0.1:1," + u.Host
	out, errs, status := lab(t, u.String(), "", "race", "-n", "5", "-c", "1", "-only", "database3")
	if status != 0 || !strings.Contains(out, "database3: a relay in front of this server could not count") {
		t.Errorf("got status %d, want 0 and a note: %s%s", status, out, errs)
	}
	_, errs, status = lab(t, u.String(), "", "race", "-n", "5", "-c", "1", "-only", "database3", "-rtt", "1ms")
	if status != 1 || !strings.Contains(errs, "several hosts") {
		t.Errorf("with a delay: got status %d and %s, want 1 and the reason", status, errs)
	}
}
