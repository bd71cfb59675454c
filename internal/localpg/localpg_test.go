package localpg_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// TestMain makes this program the owner of a server if a test starts it again, to kill it or to run it as another user.
func TestMain(m *testing.M) {
	folder := os.Getenv("PENNY_LOCALPG_OWNER")
	if folder == "" {
		os.Setenv("PENNY_SECRET", "hunter2")                   // no server inherits it
		if err := flag.Set("test.parallel", "8"); err != nil { // they mostly wait
			panic(err)
		}
		os.Exit(m.Run())
	}
	server, err := localpg.Start(context.Background(), localpg.Options{BinDir: os.Getenv("PENNY_LOCALPG_PROGRAMS"), DataDir: strings.TrimPrefix(folder, "temporary")})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("pid", server.PID(), server.Folder())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the test says so
	if err := server.Stop(); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("stopped")
	os.Exit(0)
}

func TestAServerStartsRestartsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{TLS: true, Config: map[string]string{"max_connections": "17"}})
	folder := server.Folder()
	most, encrypted := "", false
	pgtest.Query(t, server.URL("postgres"), "SELECT current_setting('max_connections'), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &most, &encrypted)
	if most != "17" || !encrypted {
		t.Errorf("max_connections is %s and encryption %v, want 17 and true", most, encrypted)
	}
	if _, err := pgx.Connect(t.Context(), strings.Replace(server.URL("postgres"), "sslmode=require", "sslmode=disable", 1)); err == nil {
		t.Error("no error for a connection without encryption")
	}
	pgtest.Exec(t, server.URL("postgres"), "CREATE TABLE kept (n int)")
	for _, mode := range []localpg.Mode{localpg.Fast, localpg.Immediate} {
		port := server.Port()
		if err := server.Restart(t.Context(), mode); err != nil {
			t.Fatal(err)
		}
		rows := -1
		pgtest.Query(t, server.URL("postgres"), "SELECT count(*) FROM kept", &rows)
		if rows != 0 || server.Port() != port {
			t.Errorf("after a restart: got %d rows at port %d, want 0 at port %d", rows, server.Port(), port)
		}
	}
	if runtime.GOOS != "windows" { // Windows has no env to ask
		pgtest.Exec(t, server.URL("postgres"), "CREATE TABLE e (line text); COPY e FROM PROGRAM 'env'")
		names := ""
		pgtest.Query(t, server.URL("postgres"), "SELECT coalesce(string_agg(split_part(line, '=', 1), ' '), '') FROM e WHERE line LIKE '%hunter2%' OR line LIKE 'HOME=%'", &names)
		if names != "" {
			t.Errorf("the server inherits %s", names)
		}
	}
	pid := server.PID()
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", folder, err)
	}
	if alive(pid) {
		t.Error("the process still runs")
	}
}

// owner starts this program again as the owner of a server, as another user if name is not empty.
func owner(t *testing.T, name string) (cmd *exec.Cmd, say func(), lines *bufio.Scanner, pid int, folder string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	if name != "" {
		// The test program is in a folder that others may not enter.
		program, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(pgtest.Folder(t), "owner")
		if err := os.WriteFile(cmd.Path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		u, err := user.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		asUser(t, cmd, u)
	}
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "PENNY_LOCALPG_OWNER=temporary", "PENNY_LOCALPG_PROGRAMS="+pgtest.Programs(t))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines = bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the owner said nothing")
	}
	match := regexp.MustCompile(`^pid (\d+) (.+)$`).FindStringSubmatch(lines.Text())
	if match == nil {
		t.Fatalf("the owner said %q", lines.Text())
	}
	pid, _ = strconv.Atoi(match[1])
	return cmd, func() { fmt.Fprintln(in) }, lines, pid, match[2]
}

func TestAKilledOwnerLeavesNoServerAndTheNextRemovesItsFolder(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with its parent")
	}
	cmd, _, _, pid, folder := owner(t, "")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	pgtest.Eventually(t, 20*time.Second, "the server is gone", func() bool { return !alive(pid) })
	pgtest.Folder(t) // the next temporary folder
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", folder, err)
	}
}

func TestAnOrdinaryUserCanStartAServer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("this is an ordinary user, so every other test shows it")
	}
	cmd, say, lines, pid, folder := owner(t, "nobody")
	say()
	if !lines.Scan() || lines.Text() != "stopped" {
		t.Errorf("the owner said %q, want stopped", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) || alive(pid) {
		t.Errorf("the folder or the process is left: %v", err)
	}
}

// put makes files, and the folders that they are in.
func put(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// picture describes everything in a folder: names, modes, owners, times and contents.
func picture(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		text, _ := os.ReadFile(path)
		target, _ := os.Readlink(path)
		fmt.Fprintln(&all, path, info.Mode(), info.ModTime(), ownerOf(info), target, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestStartDoesNotChangeAFolderThatIsNotPennys(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	parent := pgtest.Folder(t)
	at := func(name string) string { return filepath.Join(parent, filepath.FromSlash(name)) }
	put(t, at("thesis/data/t"), at("thesis/password"), at("dots/.profile"), at("file"), at("half/data/base/1/1255"),
		at("other/PG_VERSION"), at("other/postgresql.conf"), at("names/half-made"), at("names/data/PG_VERSION"), at("names/log"))
	if err := os.Mkdir(at("closed"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "thesis", "dangling": "nowhere"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Skip(err) // Windows may forbid links
		}
	}
	for _, c := range []struct {
		name, folder string
		want         error
	}{
		{"the names that Penny uses", at("thesis"), localpg.ErrForeign},
		{"only a file that begins with a dot", at("dots"), localpg.ErrForeign},
		{"half of an initdb that Penny did not start", at("half"), localpg.ErrForeign},
		{"all the names that Penny uses", at("names"), localpg.ErrForeign},
		{"the data of another PostgreSQL", at("other"), localpg.ErrForeign},
		{"a link to a folder", at("link"), localpg.ErrForeign},
		{"a file", at("file"), nil},
		{"below a file", at("file/below"), nil},
		{"a link to nothing", at("dangling"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := picture(t, parent)
			server, err := localpg.Start(t.Context(), localpg.Options{DataDir: c.folder})
			if err == nil {
				server.Stop()
			}
			if err == nil {
				t.Error("Start returned no error")
			} else if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if after := picture(t, parent); after != before {
				t.Errorf("the folder changed, before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
	t.Run("another user's folder", func(t *testing.T) {
		giveToNobody(t, at("closed"))
		before := picture(t, parent)
		if _, err := localpg.Start(t.Context(), localpg.Options{DataDir: at("closed")}); !errors.Is(err, localpg.ErrForeign) {
			t.Errorf("got %v, want ErrForeign", err)
		}
		if after := picture(t, parent); after != before {
			t.Errorf("the folder changed, before:\n%s\nafter:\n%s", before, after)
		}
	})
}

func TestStartCreatesAFolderAndUsesItAgainForOneServerAtATime(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	folder := filepath.Join(pgtest.Folder(t), "missing", "data")
	first, err := localpg.Start(t.Context(), localpg.Options{DataDir: folder})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Stop()
	pgtest.Exec(t, first.URL("postgres"), "CREATE TABLE kept (n int)")
	if _, err := localpg.Start(t.Context(), localpg.Options{DataDir: folder}); !errors.Is(err, localpg.ErrRunning) {
		t.Errorf("a second server: got %v, want ErrRunning", err)
	}
	pgtest.Exec(t, first.URL("postgres"), "INSERT INTO kept VALUES (1)")
	if err := first.Stop(); err != nil {
		t.Error(err)
	}

	_, err = localpg.Start(t.Context(), localpg.Options{DataDir: folder, Config: map[string]string{"max_connections": "plenty"}})
	if err == nil || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("with a wrong setting: got %v, want an error about max_connections", err)
	}
	put(t, filepath.Join(folder, "notes"))
	again, err := localpg.Start(t.Context(), localpg.Options{DataDir: folder, Config: map[string]string{"max_connections": "17"}})
	if err != nil {
		t.Fatal(err)
	}
	rows := -1
	pgtest.Query(t, again.URL("postgres"), "SELECT count(*) FROM kept", &rows)
	if err := again.Stop(); err != nil || rows != 1 || again.Port() != first.Port() {
		t.Errorf("again: got %d rows at port %d, want 1 at port %d (%v)", rows, again.Port(), first.Port(), err)
	}

	// If a file is missing from a folder that was complete, the rest is not removed.
	if err := os.Remove(filepath.Join(folder, "data", "PG_VERSION")); err != nil {
		t.Fatal(err)
	}
	if _, err := localpg.Start(t.Context(), localpg.Options{DataDir: folder}); err == nil || !strings.Contains(err.Error(), "is not a valid data directory") {
		t.Errorf("a damaged folder: got %v, want \"is not a valid data directory\"", err)
	}
	for _, file := range []string{"data/base", "notes"} {
		if _, err := os.Stat(filepath.Join(folder, file)); err != nil {
			t.Error(err)
		}
	}
}

func TestStartRepeatsAnInitdbThatWasKilled(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	folder := filepath.Join(pgtest.Folder(t), "data")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PENNY_LOCALPG_OWNER="+folder)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, "initdb has begun", func() bool {
		_, err := os.Stat(filepath.Join(folder, "data", "base"))
		return err == nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	var server *localpg.Server
	var err error
	pgtest.Eventually(t, 20*time.Second, "the old initdb has ended", func() bool {
		server, err = localpg.Start(t.Context(), localpg.Options{DataDir: folder})
		return !errors.Is(err, localpg.ErrRunning)
	})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, server.URL("postgres"), "CREATE TABLE works (n int)")
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

func TestStartFollowsNoLinkThatTheServersUserPlanted(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	folder := pgtest.Folder(t)
	data := filepath.Join(folder, "server")
	server, err := localpg.Start(t.Context(), localpg.Options{DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(folder, "victim")
	put(t, victim)
	before := picture(t, victim)
	for _, name := range []string{"pg_hba.conf", "server.key", "server.crt", "log", "standby.signal", "planted"} {
		_ = os.Remove(filepath.Join(data, "data", name))
		if err := os.Symlink(victim, filepath.Join(data, "data", name)); err != nil {
			t.Skip(err) // Windows may forbid links
		}
	}
	_ = os.Remove(filepath.Join(data, "data", "standby.signal"))
	server, err = localpg.Start(t.Context(), localpg.Options{DataDir: data, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	// A half-made folder is removed with its links, and not what they lead to.
	put(t, filepath.Join(data, "half-made"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = localpg.Start(ctx, localpg.Options{DataDir: data}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled start: got %v, want context.Canceled", err)
	}
	if _, err := os.Lstat(filepath.Join(data, "data", "planted")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half-made folder is left: %v", err)
	}
	if after := picture(t, victim); after != before {
		t.Errorf("the file that the links lead to was\n%sand is\n%s", before, after)
	}
}

func TestStartReportsInitdbsOwnError(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	if os.Getuid() != 0 {
		t.Skip("only root's initdb runs as another user, who may not enter this test's folder")
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := localpg.Start(t.Context(), localpg.Options{DataDir: filepath.Join(closed, "data")})
	if err == nil || !strings.Contains(err.Error(), "could not ") || !strings.HasSuffix(err.Error(), ": Permission denied") {
		t.Errorf("got %v, want initdb's error", err)
	}
}
