package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/race"
)

func TestTheRaceMeasuresEveryContender(t *testing.T) {
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	chart := filepath.Join(t.TempDir(), "race.svg")
	out, errs, status := lab(t, "", "race", "-n", "40", "-c", "4", "-pool", "4", "-json", "-svg", chart)
	if status != 0 {
		t.Fatal(errs)
	}
	var r race.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Entrants) != len(race.Contenders) {
		t.Fatalf("%d contenders, want %d", len(r.Entrants), len(race.Contenders))
	}
	for _, e := range r.Entrants {
		if e.Calls != 40 || len(e.Errors) > 0 || e.CallsPerSec <= 0 || e.P50 <= 0 || e.P99 < e.P50 || e.TimesNoPool <= 0 || e.RoundTrips == nil {
			t.Errorf("%+v", e)
		}
		if *e.Connections != map[bool]float64{false: 1}[e.Pooled] {
			t.Errorf("%s opened %v connections a call", e.Name, *e.Connections)
		}
	}
	drawing, err := os.ReadFile(chart)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<title", "<desc", "database3", "no pool", r.Date, "pools of 4"} {
		if !bytes.Contains(drawing, []byte(want)) {
			t.Errorf("the chart has no %s", want)
		}
	}
	if err := xml.Unmarshal(drawing, new(struct{})); err != nil {
		t.Errorf("the chart is not XML: %v", err)
	}
}

func TestTheTableFits80Columns(t *testing.T) {
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	out, errs, status := lab(t, "", "race", "-n", "10", "-c", "2", "-rtt", "2ms")
	if status != 0 || !strings.Contains(errs, "with fewer than 40 calls") {
		t.Errorf("status %d: %s", status, errs)
	}
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
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
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	out, errs, status := lab(t, "", "race", "-n", "10", "-c", "2", "-only", "database2,database3", "-rtt", "20ms", "-json")
	if status != 0 {
		t.Fatal(errs)
	}
	var r race.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Entrants[0].P50 < 120 || r.Entrants[1].P50 < 20 {
		t.Errorf("p50 %.1f ms and %.1f ms", r.Entrants[0].P50, r.Entrants[1].P50)
	}
}

func TestAChartThatCannotBeWrittenIsFoundBeforeTheRace(t *testing.T) {
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	folder := t.TempDir()
	for _, file := range []string{filepath.Join(folder, "missing", "race.svg"), folder} {
		out, errs, status := lab(t, "", "race", "-n", "10", "-svg", file)
		if status != 1 || out != "" || !strings.Contains(errs, "write a chart") || !strings.Contains(errs, "hint: choose a file") || strings.Contains(errs, "SQLite") {
			t.Errorf("%s: status %d, %q, %q", file, status, out, errs)
		}
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCtrlCKeepsWhatWasMeasured(t *testing.T) {
	address := pgtest.BooksURL(t)
	t.Setenv("DATABASE_URL", address)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	env := &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
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
		t.Errorf("status %d: %s%s", s, out.String(), errs.String())
	}
}

func TestABrokenPipeIsNoFaultOfTheDatabase(t *testing.T) {
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	for _, format := range []string{"-json=true", "-json=false"} {
		var errs bytes.Buffer
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		env := &environment{stdin: strings.NewReader(""), stdout: w, stderr: &errs}
		if status := run(t.Context(), env, []string{"race", "-n", "5", "-c", "1", "-only", "database3", format}); status != 1 || !strings.Contains(errs.String(), "print the result") {
			t.Errorf("status %d: %s", status, errs.String())
		}
		w.Close()
	}
}

func TestTheRaceGoesOnWhereTheRelayCannotCount(t *testing.T) {
	u, err := url.Parse(pgtest.BooksURL(t))
	if err != nil {
		t.Fatal("the address does not parse")
	}
	u.Host = "127.0.0.1:1," + u.Host
	t.Setenv("DATABASE_URL", u.String())
	out, errs, status := lab(t, "", "race", "-n", "5", "-c", "1", "-only", "database3")
	if status != 0 || !strings.Contains(out, "database3: a relay before this server could not count") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	_, errs, status = lab(t, "", "race", "-n", "5", "-c", "1", "-only", "database3", "-rtt", "1ms")
	if status != 1 || !strings.Contains(errs, "several hosts") {
		t.Errorf("with a delay: status %d: %s", status, errs)
	}
}
