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

	"example.com/penny/database1/books"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/relay"
	"example.com/penny/internal/scratch"
)

// kernighan is what each program prints on standard output, to the byte.
const kernighan = "123\nKernighan\nThe Practice of Programming\n\n234\nKernighan\nThe C Programming Language\n\n"

// programs is the folder with the four programs, built once.
var programs = sync.OnceValues(func() (*scratch.Folder, error) {
	folder, err := scratch.New("", "programs")
	if err != nil {
		return nil, err
	}
	for n := range 4 {
		name := fmt.Sprintf("database%d", n+1)
		out, err := exec.Command("go", "build", "-o", folder.Path+string(filepath.Separator), "example.com/penny/"+name).CombinedOutput()
		if err != nil {
			return folder, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return folder, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // they mostly wait
		panic(err)
	}
	status := m.Run()
	if folder, _ := programs(); folder != nil {
		folder.Remove()
	}
	os.Exit(status)
}

// command is a program as a user starts it in folder, with nothing in its environment but what is given.
func command(ctx context.Context, t *testing.T, folder string, environment []string, program string, args ...string) *exec.Cmd {
	t.Helper()
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

func TestEveryProgramPrintsTheKernighanBooksAndNothingElse(t *testing.T) {
	postgres := pgtest.BooksURL(t)
	sqlite := "sqlite:///" + filepath.ToSlash(sqliteFile(t))
	for _, c := range []struct{ program, address string }{
		{"database1", ""}, {"database2", postgres}, {"database3", postgres}, {"database4", postgres}, {"database4", sqlite},
	} {
		got := run(t, t.TempDir(), []string{"DATABASE_URL=" + c.address}, c.program)
		if got != (result{kernighan, "", 0}) {
			t.Errorf("%s: got %+v", c.program, got)
		}
	}
}

func TestTheAddressCanStandInDotEnvOrInQuotesOrWithoutSSLMode(t *testing.T) {
	address := pgtest.BooksURL(t)
	bare, _, _ := strings.Cut(address, "?")
	for _, program := range []string{"database2", "database3", "database4"} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, ".env"), []byte("DATABASE_URL='"+address+"'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := run(t, folder, nil, program); got != (result{kernighan, "", 0}) {
			t.Errorf("%s with .env: got %+v", program, got)
		}
		for _, raw := range []string{
			bare, `"` + bare + `"`, "  " + bare + " ", "DATABASE_URL=" + bare, bare + "?channel_binding=prefer",
			strings.Replace(bare, "postgres://", "POSTGRESQL://", 1), bare + "?default_query_exec_mode=exec&binary_parameters=yes",
		} {
			if got := run(t, t.TempDir(), []string{"DATABASE_URL=" + raw}, program); got != (result{kernighan, "", 0}) {
				t.Errorf("%s: got %+v", program, got)
			}
		}
	}
}

func TestSQLitePathsFollowSQLAlchemy(t *testing.T) {
	file := sqliteFile(t)
	for _, address := range []string{"sqlite:///penny.sqlite", "sqlite:///./penny.sqlite", "sqlite:///" + filepath.ToSlash(file)} {
		if got := run(t, filepath.Dir(file), []string{"DATABASE_URL=" + address}, "database4"); got != (result{kernighan, "", 0}) {
			t.Errorf("%s: got %+v", address, got)
		}
	}
}

func TestTheFlagsChooseTheAuthorAndTimeTheCalls(t *testing.T) {
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
		args := append([]string{"-author", "SEDGE", "-n", "40", "-c", "4"}, c.args...)
		got := run(t, t.TempDir(), postgres, c.program, args...)
		match := line.FindStringSubmatch(got.stderr)
		if got.stdout != sedgewick || got.status != 0 || match == nil || !regexp.MustCompile("^"+c.opened+"$").MatchString(match[1]) {
			t.Errorf("%s %v: got %+v, want %s connections opened", c.program, c.args, got, c.opened)
		}
	}
	if got := run(t, t.TempDir(), postgres, "database2", "-author", "nobody"); got.stdout != "" || got.status != 0 ||
		got.stderr != "database2: no author begins with \"nobody\"\n" {
		t.Errorf("with nothing to find: got %+v", got)
	}
}

func TestWrongUsageIsExplainedWithStatus2(t *testing.T) {
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
			t.Errorf("%s %q: got %+v", program, args, got)
		}
	}
	if got := run(t, t.TempDir(), nil, "database1", "-h"); got.status != 0 || !strings.Contains(got.stderr, "-author PREFIX") {
		t.Errorf("-h: got %+v", got)
	}
}

// Every wrong address, server or file below ends each program with status 1, nothing on standard output, one line that
// says what is wrong, one with a hint, and no password.
func TestWhatGoesWrongIsExplainedInALineAndAHint(t *testing.T) {
	good := parse(t, pgtest.BooksURL(t))
	change := func(edit func(*url.URL)) string {
		u := *good
		edit(&u)
		return u.String()
	}
	settings := func(extra string) string { return change(func(u *url.URL) { u.RawQuery = extra }) }
	login := func(user, password string) string {
		return change(func(u *url.URL) { u.User = url.UserPassword(user, password) })
	}
	noTable := pgtest.URL(t)
	otherTable := pgtest.URL(t)
	pgtest.Exec(t, otherTable, `CREATE TABLE books (name TEXT)`)
	tls := pgtest.Server(t, localpg.Options{TLS: true})
	full := pgtest.BooksURL(t)
	pgtest.Exec(t, full, `CREATE ROLE crowd LOGIN PASSWORD 'hunter2' CONNECTION LIMIT 0; GRANT SELECT ON books TO crowd`)
	t.Cleanup(func() { pgtest.Exec(t, full, `DROP OWNED BY crowd; DROP ROLE crowd`) })
	pgtest.Exec(t, full, `CREATE ROLE outsider LOGIN PASSWORD 'hunter2'`)
	t.Cleanup(func() { pgtest.Exec(t, full, `DROP ROLE outsider`) })
	withUser := func(address, user string) string {
		u := parse(t, address)
		u.User = url.UserPassword(user, "hunter2")
		return u.String()
	}

	folder := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "sqlite:///" + filepath.ToSlash(file)
	}
	const pq, all = "2", "234"
	for _, c := range []struct {
		name, programs, address, says string
	}{
		{"empty", all, "", "DATABASE_URL is set, but empty"},
		{"a host alone", all, "localhost", "DATABASE_URL is not a URL"},
		{"keys and values", all, "host=localhost password=hunter2", "DATABASE_URL is not a URL"},
		{"another database", all, "mysql://penny:hunter2@localhost/penny", "for mysql, a database that Penny does not know"},
		{"/ in the password", "2", "postgres://penny:1/hunter2@localhost/penny", "has an @ after the first /"},
		{"% in the password", "3", "postgres://penny:%hunter2@localhost/penny", "has a % without two hexadecimal digits"},
		{"a placeholder", "4", "postgres://penny:[YOUR-PASSWORD]@localhost/penny", "has [YOUR-PASSWORD] in the place of the password"},
		{"a port out of range", "2", "postgres://penny:hunter2@localhost:99999/penny", "is not a number from 1 to 65535"},
		{"a stray quote", "3", "postgres://penny:hunter2@localhost\"/penny", "has \" in it"},
		{"an unknown sslmode", all, settings("sslmode=maybe"), "sslmode that does not exist"},
		{"SQLite for PostgreSQL's programs", "23", "sqlite:///penny.sqlite", "this program needs PostgreSQL"},
		{"no server", all, "postgres://penny:hunter2@" + freeAddress(t) + "/penny", "no server answers at 127.0.0.1:"},
		{"an unknown host", all, "postgres://penny:hunter2@db.invalid/penny", "there is no computer called db.invalid"},
		{"a wrong password", all, login(good.User.Username(), "hunter2"), "does not accept this password"},
		{"an unknown user", all, login("nobody", "hunter2"), "for the user nobody"},
		{"an unknown database", all, change(func(u *url.URL) { u.Path = "/bookshop" }), "has no database bookshop"},
		{"no table", all, noTable, "has no books table"},
		{"another table", all, otherTable, "is not the one of penny.sql"},
		{"a table of somebody else's", all, withUser(full, "outsider"), "may not read the books table"},
		{"a full server", all, withUser(full, "crowd"), "is full"},
		{"TLS demanded by the address", all, settings("sslmode=require"), "does not offer encryption"},
		{"TLS demanded by the server", all, withSettings(t, tls.URL("postgres"), "sslmode=disable"), "accepts only encrypted connections"},
		{"a certificate nobody signed", all, withSettings(t, tls.URL("postgres"), "sslmode=verify-full&sslrootcert=system"), "does not trust who signed"},
		{"a setting that no server knows", pq + "34", settings("sslmode=disable&colour=green"), "does not accept a setting"},
		{"a server that never answers", all, "postgres://penny:hunter2@" + silentAddress(t) + "/penny", "did not answer in time"},
		{"something else than PostgreSQL", all, "postgres://penny:hunter2@" + rudeAddress(t) + "/penny?sslmode=disable", ""},
		{"a missing SQLite file", "4", "sqlite:///missing.sqlite", "cannot be opened"},
		{"a missing folder", "4", "sqlite:////nowhere/penny.sqlite", "cannot be opened"},
		{"a folder for a file", "4", "sqlite:///" + filepath.ToSlash(folder), "cannot be opened"},
		{"not a SQLite file", "4", write("notes.txt", strings.Repeat("some notes, and no database ", 50)), "is not a SQLite database"},
		{"a SQLite file with nothing in it", "4", write("empty.sqlite", ""), "has no books table"},
		{"SQLite with two slashes", "4", "sqlite://penny.sqlite", "does not name a SQLite file"},
	} {
		for _, digit := range c.programs {
			program := "database" + string(digit)
			t.Run(c.name+"/"+program, func(t *testing.T) {
				t.Parallel()
				got := run(t, t.TempDir(), []string{"DATABASE_URL=" + c.address}, program)
				lines := strings.Split(got.stderr, "\n")
				if got.status != 1 || got.stdout != "" || len(lines) != 3 || lines[2] != "" ||
					!strings.HasPrefix(lines[0], program+": ") || !strings.HasPrefix(lines[1], "hint: ") {
					t.Fatalf("got %s", hide(got, c.address))
				}
				if !strings.Contains(lines[0], c.says) {
					t.Errorf("it says %q, want %q in it", lines[0], c.says)
				}
				if u, err := url.Parse(c.address); err == nil {
					if password, _ := u.User.Password(); len(password) > 3 && strings.Contains(got.stderr, password) {
						t.Error("the password is on the terminal")
					}
				}
				if strings.Contains(got.stderr, "hunter2") {
					t.Error("the password is on the terminal")
				}
			})
		}
	}
	t.Run("database1", func(t *testing.T) {
		for name, prepare := range map[string]func(file string) error{
			"is not a SQLite database": func(file string) error { return os.WriteFile(file, bytes.Repeat([]byte("notes "), 200), 0o600) },
			"cannot be opened":         func(file string) error { return os.Mkdir(file, 0o700) },
			"has no books table":       func(file string) error { return os.WriteFile(file, nil, 0o600) },
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

// timed starts a program that makes calls without end, and comes back when it has printed the books and begun to.
// interrupt presses Ctrl-C and gives back how the program ended.
func timed(t *testing.T, address, program string, workers int) (interrupt func() result) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there is no way to press Ctrl-C for one other program on Windows")
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

func TestCtrlCEndsATimedRunWithWhatWasMeasured(t *testing.T) {
	for _, program := range []string{"database1", "database2", "database3", "database4"} {
		t.Run(program, func(t *testing.T) {
			got := timed(t, pgtest.BooksURL(t), program, 2)()
			if got.status != 1 || !strings.Contains(got.stderr, "2 workers") || !strings.Contains(got.stderr, "stopped before") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAFullServerShowsAsWhatItIs(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "20"}})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	t.Run("database2", func(t *testing.T) {
		interrupt := timed(t, address, "database2", 40)
		// Where calls are answered as fast as they come the server never fills. A lock on the table holds them up.
		unlock := pgtest.Lock(t, address, "books")
		// After more refusals than there are workers, one of them at least has counted its own.
		pgtest.Eventually(t, 30*time.Second, "the server is full", func() bool { return strings.Count(server.Log(), "too many clients") > 40 })
		unlock()
		if got := interrupt(); got.status != 1 || !strings.Contains(got.stderr, "server full") || !strings.Contains(got.stderr, " failed: the server at 127.0.0.1:") {
			t.Errorf("got %+v", got)
		}
	})
	for _, program := range []string{"database3", "database4"} {
		if got := run(t, t.TempDir(), []string{"DATABASE_URL=" + address}, program, "-n", "400", "-c", "40"); got.status != 0 || !regexp.MustCompile(`errors +0\n`).MatchString(got.stderr) {
			t.Errorf("%s: got %+v", program, got)
		}
	}
}

// lib/pq waits without end for a server that stops in the middle of an answer, also for the answer to its request to cancel.
func TestAProgramEndsInTimeWhateverTheServerAndTheDriverDo(t *testing.T) {
	for _, program := range []string{"database2", "database3", "database4"} {
		for _, interrupted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/interrupted=%v", program, interrupted), func(t *testing.T) {
				t.Parallel()
				address := pgtest.BooksURL(t)
				unlock := pgtest.Lock(t, address, "books")
				defer unlock()
				u := parse(t, address)
				r, err := relay.Start(u.Host, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				u.Host = r.Addr()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := command(ctx, t, t.TempDir(), []string{"DATABASE_URL=" + u.String()}, program)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				begin := time.Now()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pgtest.Eventually(t, 5*time.Second, "the question waits for the lock", func() bool {
					waiting := 0
					pgtest.Query(t, address, `SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database WHERE NOT granted AND datname = current_database()`, &waiting)
					return waiting > 0
				})
				r.Swallow()
				limit, says := 8*time.Second, "did not answer in time"
				if interrupted {
					if runtime.GOOS == "windows" {
						t.Skip("there is no way to press Ctrl-C for one other program on Windows")
					}
					begin = time.Now()
					limit, says = 3*time.Second, "stopped before the answer came"
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Fatal(err)
					}
				}
				_ = cmd.Wait() // its status says how it ended
				if took := time.Since(begin); took > limit || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), says) {
					t.Errorf("after %v, status %d: %s", took, cmd.ProcessState.ExitCode(), stderr.String())
				}
			})
		}
	}
}

// The variables of libpq that hosts put into their .env files must not stop a program.
func TestTheProgramsTakeTheEnvironmentOfHosts(t *testing.T) {
	u := parse(t, pgtest.BooksURL(t))
	password, _ := u.User.Password()
	environment := []string{
		"PGHOST=" + u.Hostname(), "PGPORT=" + u.Port(), "PGUSER=" + u.User.Username(), "PGPASSWORD=" + password,
		"PGDATABASE=" + strings.TrimPrefix(u.Path, "/"), "PGSSLMODE=disable", "PGCHANNELBINDING=prefer", "PGGSSENCMODE=disable",
		"PGREQUIREAUTH=scram-sha-256", "PGCLIENTENCODING=LATIN1", "PGDATESTYLE=German", "PGHOSTADDR=", "PGTZ=Europe/Berlin",
	}
	for _, program := range []string{"database2", "database3", "database4"} {
		if got := run(t, t.TempDir(), append(environment, "DATABASE_URL=postgres://"), program); got != (result{kernighan, "", 0}) {
			t.Errorf("%s: got %s", program, strings.ReplaceAll(fmt.Sprintf("%+v", got), password, "*****"))
		}
	}
}

func TestABadDotEnvIsTold(t *testing.T) {
	for _, c := range []struct{ name, file, says string }{
		{"broken", "just some words\n", "the file .env in this folder cannot be read"},
		{"a dollar", "DATABASE_URL=postgres://penny:hunter2$HOME@localhost/penny\n", "has a $ that is read as the name of a variable"},
	} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, ".env"), []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"database2", "database3", "database4"} {
			if got := run(t, folder, nil, program); got.status != 1 || !strings.Contains(got.stderr, c.says) || strings.Contains(got.stderr, "hunter2") {
				t.Errorf("%s with a .env that is %s: got %+v", program, c.name, got)
			}
		}
	}
}

func sqliteFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "penny.sqlite")
	if err := books.Create(file); err != nil {
		t.Fatal(err)
	}
	return file
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	return u
}

func withSettings(t *testing.T, address, settings string) string {
	t.Helper()
	u := parse(t, address)
	u.RawQuery = settings
	return u.String()
}

// hide makes a result fit for a test's log.
func hide(r result, address string) string {
	text := fmt.Sprintf("%+v", r)
	if u, err := url.Parse(address); err == nil {
		if password, set := u.User.Password(); set {
			text = strings.ReplaceAll(text, password, "*****")
		}
	}
	return strings.ReplaceAll(text, "hunter2", "*****")
}

// freeAddress is one where nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// silentAddress is that of a server which accepts connections and says nothing.
func silentAddress(t *testing.T) string {
	return pgtest.Serve(t, func(net.Conn) {})
}

// rudeAddress is that of a server which speaks another protocol.
func rudeAddress(t *testing.T) string {
	return pgtest.Serve(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1024))
		fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		conn.Close()
	})
}
