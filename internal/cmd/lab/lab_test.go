package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/pgtest"
)

// TestMain makes this test program the lab itself if process starts it.
func TestMain(m *testing.M) {
	if os.Getenv("PENNY_LAB_TEST") != "" {
		main()
	}
	if err := flag.Set("test.parallel", "8"); err != nil { // they mostly wait
		panic(err)
	}
	os.Exit(m.Run())
}

// lab runs a command line with DATABASE_URL, for a user who types input, and returns what it printed and its exit status.
func lab(t *testing.T, address, input string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	env := at(address, strings.NewReader(input), &out, &errs)
	env.terminal = input != ""
	status = run(t.Context(), env, args)
	return out.String(), errs.String(), status
}

// at returns an environment with DATABASE_URL.
func at(address string, stdin io.Reader, stdout, stderr io.Writer) *environment {
	return &environment{stdin: stdin, stdout: stdout, stderr: stderr, lookup: func() (string, string, error) {
		clean, err := dburl.Clean(address)
		return clean, "the environment", err
	}}
}

// process returns the lab as a process, with settings added to its environment, and what it prints.
func process(settings []string, args ...string) (*exec.Cmd, *syncBuffer) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), settings...), "PENNY_LAB_TEST=1")
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

func TestHelpListsEveryCommandAndExplainsEach(t *testing.T) {
	out, _, status := lab(t, "", "", "help")
	for _, c := range commands {
		if !strings.Contains(out, c.name) || !strings.Contains(out, c.about) {
			t.Errorf("help lacks %s", c.name)
		}
		if _, errs, status := lab(t, "", "", "help", c.name); status != 0 || !strings.Contains(errs, "usage: go tool lab "+c.name) {
			t.Errorf("help %s: got status %d and %q, want 0 and the usage", c.name, status, errs)
		}
	}
	if status != 0 {
		t.Errorf("help: got status %d, want 0", status)
	}
}

func TestWrongUsageHasStatus2(t *testing.T) {
	for _, args := range [][]string{
		{}, {"nothing"}, {"load", "-x"}, {"load", "books"}, {"load", "-books", "-1"}, {"doctor", "now"}, {"race", "-n", "0"},
		{"race", "-c", "0"}, {"race", "-pool", "0"}, {"race", "-rtt", "-1s"}, {"race", "-only", "database9"},
		{"race", "-pool", "4294967297"}, {"race", "-n", "99999999999"}, {"race", "-rtt", "1h"}, {"demo", "-n", "2000"}, {"demo", "-max-connections", "3"},
		{"postgres", "-max-connections", "1"}, {"stick"},
		{"exercise", "0"}, {"exercise", "99"}, {"exercise", "title"}, {"exercise", "-hint", "99"}, {"break"}, {"break", "nothing"}, {"show"},
	} {
		if out, errs, status := lab(t, "", "", args...); status != 2 || out != "" || errs == "" {
			t.Errorf("%v: got status %d and %q, want 2 and a message", args, status, errs)
		}
	}
}

func TestTheStagesOwnQueryUsesTheIndex(t *testing.T) {
	t.Parallel()
	address := pgtest.URL(t)
	if _, errs, status := lab(t, address, "", "load", "-books", "20000", "-index"); status != 0 {
		t.Fatal(errs)
	}
	var plan string
	pgtest.Query(t, address, `EXPLAIN (FORMAT JSON) SELECT isbn FROM books WHERE author ILIKE 'ker%' ESCAPE '\'`, &plan)
	if !strings.Contains(plan, "books_author") {
		t.Errorf("the plan lacks books_author: %s", plan)
	}
}

func TestTheDoctorStopsAtTheFirstFault(t *testing.T) {
	t.Parallel()
	good := pgtest.BooksURL(t)
	u, err := url.Parse(good)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	otherTable := pgtest.URL(t)
	pgtest.Exec(t, otherTable, `CREATE TABLE books (isbn INTEGER PRIMARY KEY, author TEXT, title TEXT)`)
	backslashes := pgtest.BooksURL(t)
	pgtest.Exec(t, backslashes, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$`)
	user := u.User.Username()
	password, _ := u.User.Password()
	with := func(edit func(*url.URL)) string {
		v := *u
		edit(&v)
		return v.String()
	}
	for _, c := range []struct {
		name, address string
		ticks         int
		cross         string // empty if all is well
	}{
		{"all is well", good, 13, ""},
		{"several hosts, one of them down", with(func(v *url.URL) { v.Host = "127.0.0.1:1," + v.Host }), 13, ""},
		{"empty", "", 0, "empty"},
		{"a stray character", "postgres://penny:hunter2@local host/x", 0, "has a space in it"},
		{"unknown host", with(func(v *url.URL) { v.Host = "db.invalid:5432" }), 2, "no computer called"},
		{"no server", with(func(v *url.URL) { v.Host = "127.0.0.1:1" }), 3, "no server answers"},
		{"encryption demanded", with(func(v *url.URL) { v.RawQuery = "sslmode=require" }), 4, "does not offer encryption"},
		{"wrong password", with(func(v *url.URL) { v.User = url.UserPassword(user, "hunter2") }), 5, "does not accept this password"},
		{"unknown database", with(func(v *url.URL) { v.Path = "/nowhere" }), 6, "has no database nowhere"},
		{"no table", pgtest.URL(t), 8, "finds no books table"},
		{"columns of another type", otherTable, 10, "database"},
		{"backslashes in the old way", backslashes, 10, "reads a backslash in quotes in the old way"},
		{"a time zone", good + "&TimeZone=Europe/Berlin", 13, ""},
		{"a time zone that does not exist", good + "&TimeZone=Mars/Olympus", 5, "does not accept a setting"},
		{"no SQLite file", "sqlite:////nowhere/penny.sqlite", 2, "cannot be opened"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, errs, status := lab(t, c.address, "", "doctor")
			if got := strings.Count(out, "✓"); got != c.ticks || (status == 0) != (c.cross == "") {
				t.Errorf("got %d ticks and status %d, want %d ticks: %s", got, status, c.ticks, out)
			}
			if c.cross != "" && (!strings.Contains(out, "✗") || !strings.Contains(out, c.cross) || !strings.Contains(out, "Hint:")) {
				t.Errorf("want a cross, %q and a hint, got %s", c.cross, out)
			}
			if strings.Contains(out+errs, "hunter2") || strings.Contains(out+errs, password) {
				t.Error("the password is shown")
			}
		})
	}
}

func TestPostgresStartsKeepsItsDataAndLeavesNoProcess(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	data := filepath.Join(pgtest.Folder(t), "data")
	first := startPostgres(t, "-data", data, "-max-connections", "20")
	pgtest.Exec(t, first.address, `DELETE FROM books WHERE isbn = '345'`)
	most := ""
	pgtest.Query(t, first.address, `SHOW max_connections`, &most)
	if most != "20" {
		t.Errorf("max_connections is %s, want 20", most)
	}
	if _, errs, status := lab(t, "", "", "postgres", "-data", data); status != 1 || !strings.Contains(errs, "a server is running on this folder") {
		t.Errorf("a second server on the folder: got status %d, want 1: %s", status, errs)
	}
	first.stop(t)
	second := startPostgres(t, "-data", data, "-tls")
	if second.address != strings.Replace(first.address, "disable", "require", 1) {
		t.Error("the second start has another address")
	}
	books := 0
	pgtest.Query(t, second.address, `SELECT count(*) FROM books`, &books)
	if books != 2 {
		t.Errorf("%d books are left, want 2", books)
	}
	if out, _, status := lab(t, first.address, "", "doctor"); status != 1 || !strings.Contains(out, "accepts only encrypted connections") {
		t.Errorf("without encryption: the doctor says %s", out)
	}
	second.stop(t)
}

func TestPostgresDoesNotChangeAFolderThatIsNotPennys(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	folder := t.TempDir()
	thesis, password := filepath.Join(folder, "data", "t"), filepath.Join(folder, "password")
	if err := os.Mkdir(filepath.Dir(thesis), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{thesis, password} {
		if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(folder)
	if err != nil {
		t.Fatal(err)
	}
	if out, errs, status := lab(t, "", "", "postgres", "-data", folder); status != 1 || out != "" || !strings.Contains(errs, "is not Penny's") || !strings.Contains(errs, "hint: ") {
		t.Errorf("got status %d and %s%s, want 1, the reason and a hint", status, out, errs)
	}
	for _, file := range []string{thesis, password} {
		if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
			t.Errorf("%s: got %q, %v; want mine", file, text, err)
		}
	}
	if after, err := os.Stat(folder); err != nil || after.Mode() != before.Mode() || after.ModTime() != before.ModTime() {
		t.Errorf("the folder was %v and is %v, %v", before, after, err)
	}
}

type runningPostgres struct {
	address string
	cancel  context.CancelFunc
	done    chan int
	errs    *syncBuffer
}

func startPostgres(t *testing.T, args ...string) *runningPostgres {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	out := &syncBuffer{}
	p := &runningPostgres{cancel: cancel, done: make(chan int, 1), errs: &syncBuffer{}}
	go func() {
		p.done <- run(ctx, at("", nil, out, p.errs), append([]string{"postgres"}, args...))
	}()
	pgtest.Eventually(t, time.Minute, "the server is ready", func() bool { return strings.Contains(out.String(), "Ctrl-C stops it.") })
	match := regexp.MustCompile(`export DATABASE_URL='(.*)'`).FindStringSubmatch(out.String())
	if match == nil {
		t.Fatal("no line sets DATABASE_URL")
	}
	p.address = match[1]
	return p
}

func (p *runningPostgres) stop(t *testing.T) {
	t.Helper()
	p.cancel()
	if status := <-p.done; status != 0 {
		t.Errorf("it ended with status %d, want 0: %s", status, p.errs.String())
	}
}

type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestGoToolRunsTheLab(t *testing.T) {
	if out, err := exec.Command("go", "list", "tool").Output(); err != nil || string(out) != "example.com/penny/internal/cmd/lab\n" {
		t.Errorf("go list tool: got %s (%v), want the lab", out, err)
	}
}
