package demo_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/database1/books"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/relay"
	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

// kernighan is what each program prints on standard output, to the byte.
const kernighan = "123\nKernighan\nThe Practice of Programming\n\n234\nKernighan\nThe C Programming Language\n\n"

// programs is the folder with the four programs, built once. Without tables for a debugger they are linked faster.
var programs = sync.OnceValues(func() (*scratch.Folder, error) {
	folder, err := scratch.New("", "programs")
	if err != nil {
		return nil, err
	}
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", folder.Path+string(filepath.Separator), "example.com/penny/database1",
		"example.com/penny/database2", "example.com/penny/database3", "example.com/penny/database4")
	if out, err := build.CombinedOutput(); err != nil {
		return folder, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return folder, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil { // they mostly wait
		panic(err)
	}
	if testing.Short() {
		os.Exit(m.Run())
	}
	go programs() // while the server starts
	status := m.Run()
	if folder, _ := programs(); folder != nil {
		folder.Remove()
	}
	os.Exit(status)
}

// command returns a program to run in folder, with the given settings and little else in its environment.
func command(ctx context.Context, t *testing.T, folder string, environment []string, program string, args ...string) *exec.Cmd {
	t.Helper()
	skip.Short(t)
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(built.Path, program), args...)
	cmd.Dir = folder
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "SYSTEMROOT=" + os.Getenv("SYSTEMROOT")}, environment...)
	return cmd
}

type result struct {
	stdout, stderr string
	status         int
}

func run(t *testing.T, folder string, environment []string, program string, args ...string) result {
	t.Helper()
	cmd := command(t.Context(), t, folder, environment, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// found is the result of a program that finds Kernighan's books.
var found = result{kernighan, "", 0}

func TestEveryProgramPrintsTheKernighanBooksAndNothingElse(t *testing.T) {
	t.Parallel()
	bare, _, _ := strings.Cut(pgtest.BooksURL(t), "?")
	for i, raw := range []string{
		bare + "?sslmode=disable", bare + "?sslmode=disable", bare + "?sslmode=disable", bare, `"` + bare + `"`, "  " + bare + " ",
		"DATABASE_URL=" + bare, bare + "?channel_binding=prefer", strings.Replace(bare, "postgres://", "POSTGRESQL://", 1),
	} {
		program := fmt.Sprintf("database%d", 2+i%3) // they take turns
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			if got := run(t, t.TempDir(), []string{"DATABASE_URL=" + raw}, program); got != found {
				t.Errorf("with %s: got %+v, want the books", strings.Replace(raw, bare, "the address", 1), got)
			}
		})
		t.Run(program+" with .env", func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, ".env"), []byte("DATABASE_URL='"+raw+"'\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := run(t, folder, nil, program); got != found {
				t.Errorf("got %+v, want the books", got)
			}
		})
	}
}

func TestSQLitePathsFollowSQLAlchemy(t *testing.T) {
	t.Parallel()
	if got := run(t, t.TempDir(), nil, "database1"); got != found {
		t.Errorf("database1: got %+v, want the books", got)
	}
	file := filepath.Join(t.TempDir(), "penny.sqlite")
	if err := books.Create(file); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"sqlite:///penny.sqlite", "sqlite:///./penny.sqlite", "sqlite:///" + filepath.ToSlash(file)} {
		if got := run(t, filepath.Dir(file), []string{"DATABASE_URL=" + address}, "database4"); got != found {
			t.Errorf("%s: got %+v, want the books", address, got)
		}
	}
}

func TestTheFlagsChooseTheAuthorAndTimeTheCalls(t *testing.T) {
	t.Parallel()
	postgres := []string{"DATABASE_URL=" + pgtest.BooksURL(t)}
	const sedgewick = "345\nSedgewick\nAlgorithms in C\n\n"
	line := regexp.MustCompile(`^database\d: 40 calls by 4 workers in [\d.]+ s\n  calls/s      \d+\n` +
		`  latency      p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms\n  connections  (\d+) opened\n  errors       0\n$`)
	for _, c := range []struct {
		program string
		args    []string
		opened  string // how many connections 40 calls by 4 workers open, as a pattern
	}{
		{"database1", nil, "[0-9]+"}, {"database2", nil, "40"}, {"database3", nil, "[0-3]"}, {"database4", nil, "[0-3]"},
		{"database3", []string{"-pool", "2"}, "[01]"}, {"database4", []string{"-pool", "2"}, "[01]"},
	} {
		t.Run(strings.Join(append([]string{c.program}, c.args...), " "), func(t *testing.T) {
			t.Parallel()
			args := append([]string{"-author", "SEDGE", "-n", "40", "-c", "4"}, c.args...)
			got := run(t, t.TempDir(), postgres, c.program, args...)
			match := line.FindStringSubmatch(got.stderr)
			if got.stdout != sedgewick || got.status != 0 || match == nil || !regexp.MustCompile("^"+c.opened+"$").MatchString(match[1]) {
				t.Errorf("got %+v, want %s connections opened", got, c.opened)
			}
		})
	}
	if got := run(t, t.TempDir(), postgres, "database2", "-author", "nobody"); got.stdout != "" || got.status != 0 ||
		got.stderr != "database2: no author begins with \"nobody\"\n" {
		t.Errorf("with nothing to find: got %+v, want status 0 and a note", got)
	}
}

func TestWrongUsageIsExplainedWithStatus2(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-x"}, {"kernighan"}, {"-n"}, {"-n", "many"}, {"-n", "0"}, {"-n", "-1"}, {"-n", "10", "-c", "0"}, {"-c", "4"},
		{"-author", "\xff"}, {"-pool", "0"}, {"-pool", "4"},
	} {
		program := "database1"
		if args[0] == "-pool" && args[1] == "0" {
			program = "database3"
		}
		got := run(t, t.TempDir(), nil, program, args...)
		if got.status != 2 || got.stdout != "" || !strings.Contains(got.stderr, "usage: "+program) && !strings.Contains(got.stderr, "Usage") {
			t.Errorf("%s %q: got %+v, want status 2 and the usage", program, args, got)
		}
	}
	if got := run(t, t.TempDir(), nil, "database1", "-h"); got.status != 0 || !strings.Contains(got.stderr, "-author PREFIX") {
		t.Errorf("-h: got %+v, want status 0 and the flags", got)
	}
}

// Every wrong address, server or file below ends a program with status 1, nothing on standard output, one line that says what
// is wrong, one with a hint, and no password. The programs take turns: explain's tests ask every layer for every cause.
func TestAFaultIsExplainedInALineAndAHint(t *testing.T) {
	t.Parallel()
	good := pgtest.BooksURL(t)
	change := func(address string, edit func(*url.URL)) string {
		u := parse(t, address)
		edit(u)
		return u.String()
	}
	settings := func(extra string) func(*url.URL) { return func(u *url.URL) { u.RawQuery = extra } }
	login := func(user string) func(*url.URL) {
		return func(u *url.URL) { u.User = url.UserPassword(user, "hunter2") }
	}
	noTable, otherTable := pgtest.URL(t), pgtest.URL(t)
	pgtest.Exec(t, otherTable, `CREATE TABLE books (name TEXT)`)
	tls := pgtest.Server(t, localpg.Options{TLS: true})
	pgtest.Exec(t, good, `CREATE ROLE crowd LOGIN PASSWORD 'hunter2' CONNECTION LIMIT 0; CREATE ROLE outsider LOGIN PASSWORD 'hunter2'`)
	t.Cleanup(func() { pgtest.Exec(t, good, `DROP ROLE crowd, outsider`) })

	folder := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "sqlite:///" + filepath.ToSlash(file)
	}
	const each, file = "234", "4"
	for i, c := range []struct {
		name, programs, address, says string
	}{
		{"empty", each, "", "DATABASE_URL is set, but empty"},
		{"a host alone", each, "localhost", "DATABASE_URL is not a URL"},
		{"keys and values", each, "host=localhost password=hunter2", "DATABASE_URL is not a URL"},
		{"another database", each, "mysql://penny:hunter2@localhost/penny", "for mysql, a database that Penny does not know"},
		{"/ in the password", each, "postgres://penny:1/hunter2@localhost/penny", "has an @ after the first /"},
		{"% in the password", each, "postgres://penny:%hunter2@localhost/penny", "has a % that encodes no character"},
		{"a placeholder", each, "postgres://penny:[YOUR-PASSWORD]@localhost/penny", "has a placeholder in place of the password"},
		{"a port out of range", each, "postgres://penny:hunter2@localhost:99999/penny", "is not a number from 1 to 65535"},
		{"a stray quote", each, "postgres://penny:hunter2@localhost\"/penny", "has \" in it"},
		{"an unknown sslmode", each, change(good, settings("sslmode=maybe")), "sslmode that does not exist"},
		{"SQLite for PostgreSQL's programs", "23", "sqlite:///penny.sqlite", "this program needs PostgreSQL"},
		{"no server", each, "postgres://penny:hunter2@" + freeAddress(t) + "/penny", "no server answers at 127.0.0.1:"},
		{"an unknown host", each, "postgres://penny:hunter2@db.invalid/penny", "there is no computer called db.invalid"},
		{"an unknown user", each, change(good, login("nobody")), "does not accept this password for the user nobody"},
		{"an unknown database", each, change(good, func(u *url.URL) { u.Path = "/bookshop" }), "has no database bookshop"},
		{"no table", each, noTable, "finds no books table"},
		{"another table", each, otherTable, "is not the one of penny.sql"},
		{"another user's table", each, change(good, login("outsider")), "may not read the books table"},
		{"a full server", each, change(good, login("crowd")), "is full"},
		{"TLS demanded by the address", each, change(good, settings("sslmode=require")), "does not offer encryption"},
		{"TLS demanded by the server", each, change(tls.URL("postgres"), settings("sslmode=disable")), "accepts only encrypted connections"},
		{"a certificate of an unknown authority", each, change(tls.URL("postgres"), settings("sslmode=verify-full&sslrootcert=system")), "does not trust the authority that signed"},
		{"a setting that no server knows", each, change(good, settings("sslmode=disable&colour=green")), "does not accept a setting"},
		{"a server that never answers", each, "postgres://penny:hunter2@" + pgtest.Serve(t, func(net.Conn) {}) + "/penny", "did not answer in time"},
		{"a server that is not PostgreSQL", "34", "postgres://penny:hunter2@" + rudeAddress(t) + "/penny?sslmode=disable", "is not PostgreSQL"},
		{"a missing SQLite file", file, "sqlite:///missing.sqlite", "cannot be opened"},
		{"a missing folder", file, "sqlite:////nowhere/penny.sqlite", "cannot be opened"},
		{"a folder for a file", file, "sqlite:///" + filepath.ToSlash(folder), "cannot be opened"},
		{"not a SQLite file", file, write("notes.txt", strings.Repeat("some notes, and no database ", 50)), "is not a SQLite database"},
		{"a SQLite file with nothing in it", file, write("empty.sqlite", ""), "does not hold Penny's books"},
		{"SQLite with two slashes", file, "sqlite://penny.sqlite", "does not name a SQLite file"},
	} {
		program := "database" + string(c.programs[i%len(c.programs)])
		t.Run(c.name+"/"+program, func(t *testing.T) {
			t.Parallel()
			got := run(t, t.TempDir(), []string{"DATABASE_URL=" + c.address}, program)
			lines := strings.Split(got.stderr, "\n")
			if got.status != 1 || got.stdout != "" || len(lines) != 3 || lines[2] != "" ||
				!strings.HasPrefix(lines[0], program+": ") || !strings.HasPrefix(lines[1], "hint: ") {
				t.Fatalf("got %s, want status 1, a line and a hint", hide(got, c.address))
			}
			if !strings.Contains(lines[0], c.says) {
				t.Errorf("got %q, want %q in it", lines[0], c.says)
			}
			if hide(got, c.address) != fmt.Sprintf("%+v", got) {
				t.Error("the output shows the password")
			}
		})
	}
	t.Run("database1", func(t *testing.T) {
		t.Parallel()
		for name, prepare := range map[string]func(file string) error{
			"is not a SQLite database":    func(file string) error { return os.WriteFile(file, bytes.Repeat([]byte("notes "), 200), 0o600) },
			"cannot be opened":            func(file string) error { return os.Mkdir(file, 0o700) },
			"does not hold Penny's books": func(file string) error { return os.WriteFile(file, nil, 0o600) },
		} {
			folder := t.TempDir()
			if err := prepare(filepath.Join(folder, "penny.sqlite")); err != nil {
				t.Fatal(err)
			}
			got := run(t, folder, nil, "database1")
			if got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, name) || !strings.Contains(got.stderr, "\nhint: ") {
				t.Errorf("got %+v, want %q", got, name)
			}
		}
	})
}

// timed starts a program that makes calls until it is stopped, and returns when the program has printed the books. interrupt
// presses Ctrl-C and returns how the program ended.
func timed(t *testing.T, address, program string, workers int) (interrupt func() result) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("on Windows, a test cannot press Ctrl-C for another program alone")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := command(ctx, t, t.TempDir(), []string{"DATABASE_URL=" + address}, program, "-n", "100000000", "-c", strconv.Itoa(workers))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed := make([]byte, len(kernighan))
	if _, err := io.ReadFull(stdout, printed); err != nil {
		t.Fatal(err)
	}
	return func() result {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its status says how it ended
		return result{string(printed), stderr.String(), cmd.ProcessState.ExitCode()}
	}
}

func TestCtrlCEndsATimedRunAndShowsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	for _, program := range []string{"database1", "database2", "database3", "database4"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			got := timed(t, address, program, 2)()
			if got.status != 1 || !strings.Contains(got.stderr, "2 workers") || !strings.Contains(got.stderr, "stopped before") {
				t.Errorf("got %+v, want status 1 and what was measured", got)
			}
		})
	}
}

func TestAFullServerIsReportedAndAPoolDoesNotFillIt(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "20"}})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	interrupt := timed(t, address, "database2", 40)
	// A fast server never fills, so a lock on the table holds up the calls.
	unlock := pgtest.Lock(t, address, "books")
	// After more refusals than there are workers, at least one worker has counted its own.
	pgtest.Eventually(t, time.Minute, "the server is full", func() bool { return strings.Count(server.Log(), "too many clients") > 40 })
	unlock()
	if got := interrupt(); got.status != 1 || !strings.Contains(got.stderr, "server full") || !strings.Contains(got.stderr, " failed: the server at 127.0.0.1:") {
		t.Errorf("got %+v, want status 1 and \"server full\"", got)
	}
	for _, program := range []string{"database3", "database4"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			got := run(t, t.TempDir(), []string{"DATABASE_URL=" + address}, program, "-n", "400", "-c", "40")
			if got.status != 0 || !strings.Contains(got.stderr, "errors       0\n") {
				t.Errorf("got %+v, want status 0 and no errors", got)
			}
		})
	}
}

// If a server stops in the middle of an answer, lib/pq waits for ever, also for the answer to its request to cancel.
func TestAProgramEndsWhateverTheServerAndTheDriverDo(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"database2", "database3", "database4"} {
		for _, interrupted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/interrupted=%v", program, interrupted), func(t *testing.T) {
				t.Parallel()
				if interrupted && runtime.GOOS == "windows" {
					t.Skip("on Windows, a test cannot press Ctrl-C for another program alone")
				}
				address := pgtest.BooksURL(t)
				defer pgtest.Lock(t, address, "books")()
				r, through, err := relay.Before(address, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := command(ctx, t, t.TempDir(), []string{"DATABASE_URL=" + through}, program)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				watch, err := pgx.Connect(ctx, address)
				if err != nil {
					t.Fatal(err)
				}
				defer watch.Close(context.Background())
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pgtest.Eventually(t, time.Minute, "the question waits for the lock", func() bool {
					waiting := false
					const query = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`
					return watch.QueryRow(ctx, query).Scan(&waiting) == nil && waiting
				})
				r.Swallow()
				says := "did not answer in time"
				if interrupted {
					says = "stopped before the answer came"
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Fatal(err)
					}
				}
				_ = cmd.Wait() // after a minute it would have been killed, and have no status
				if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), says) {
					t.Errorf("got status %d and %s, want 1 and %q", cmd.ProcessState.ExitCode(), stderr.String(), says)
				}
			})
		}
	}
}

// The variables of libpq that hosts put into their .env files must not stop a program.
func TestTheProgramsAcceptTheEnvironmentOfHosts(t *testing.T) {
	t.Parallel()
	u := parse(t, pgtest.BooksURL(t))
	password, _ := u.User.Password()
	environment := []string{
		"PGHOST=" + u.Hostname(), "PGPORT=" + u.Port(), "PGUSER=" + u.User.Username(), "PGPASSWORD=" + password,
		"PGDATABASE=" + strings.TrimPrefix(u.Path, "/"), "PGSSLMODE=disable", "PGCHANNELBINDING=prefer", "PGGSSENCMODE=disable",
		"PGREQUIREAUTH=scram-sha-256", "PGCLIENTENCODING=LATIN1", "PGDATESTYLE=German", "PGHOSTADDR=", "PGTZ=Europe/Berlin",
		"DATABASE_URL=postgres://",
	}
	for _, program := range []string{"database2", "database3", "database4"} {
		if got := run(t, t.TempDir(), environment, program); got != found {
			t.Errorf("%s: got %s, want the books", program, hide(got, u.String()))
		}
	}
}

func TestABadDotEnvIsExplained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ program, file, says string }{
		{"database2", "just some words\n", "the file .env in this folder cannot be read"},
		{"database3", "DATABASE_URL=postgres://penny:hunter2$HOME@localhost/penny\n", "has a $ that is read as the name of a variable"},
	} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, ".env"), []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := run(t, folder, nil, c.program); got.status != 1 || !strings.Contains(got.stderr, c.says) || strings.Contains(got.stderr, "hunter2") {
			t.Errorf("%s with a .env of %s: got %s, want status 1 and %q", c.program, c.file, hide(got, ""), c.says)
		}
	}
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	return u
}

// hide returns a result as text for the test's log, without the passwords.
func hide(r result, address string) string {
	text := fmt.Sprintf("%+v", r)
	if u, err := url.Parse(address); err == nil {
		if password, set := u.User.Password(); set {
			text = strings.ReplaceAll(text, password, "*****")
		}
	}
	return strings.ReplaceAll(text, "hunter2", "*****")
}

// freeAddress returns an address at which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// rudeAddress returns the address of a server that speaks another protocol.
func rudeAddress(t *testing.T) string {
	return pgtest.Serve(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1024))
		fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		conn.Close()
	})
}
