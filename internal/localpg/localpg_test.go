package localpg_test

import (
	"bufio"
	"context"
	"errors"
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

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// TestMain makes this test program a server's owner where a test asks for one, to be killed or to run as somebody else.
func TestMain(m *testing.M) {
	if os.Getenv("PENNY_LOCALPG_OWNER") == "" {
		os.Exit(m.Run())
	}
	server, err := localpg.Start(context.Background(), localpg.Options{})
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
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "17"}})
	folder := server.Folder()
	most := ""
	pgtest.Query(t, server.URL("postgres"), "SHOW max_connections", &most)
	if most != "17" {
		t.Errorf("max_connections is %s", most)
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
			t.Errorf("after a restart: %d rows, port %d, before %d", rows, server.Port(), port)
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
		t.Error("the process is left")
	}
}

func TestAServerWithTLSRefusesWhatIsNotEncrypted(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{TLS: true})
	encrypted := false
	pgtest.Query(t, server.URL("postgres"), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &encrypted)
	if !encrypted {
		t.Error("the connection is not encrypted")
	}
}

func TestAFailureToStartTellsTheReasonAndNoPassword(t *testing.T) {
	pgtest.Admin(t) // skips where there is no PostgreSQL
	_, err := localpg.Start(t.Context(), localpg.Options{Config: map[string]string{"max_connections": "plenty"}})
	if err == nil || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("got %v", err)
	}
	if _, err := localpg.Start(t.Context(), localpg.Options{BinDir: t.TempDir()}); err == nil {
		t.Error("a folder without PostgreSQL started")
	}
}

// owner starts this program anew as the owner of a server, as another user where name is not empty.
func owner(t *testing.T, name string) (cmd *exec.Cmd, say func(), lines *bufio.Scanner, pid int, folder string) {
	t.Helper()
	pgtest.Admin(t) // skips where there is no PostgreSQL
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(program)
	cmd.Dir = os.TempDir()
	if name != "" {
		// The test program lies in a folder that others may not enter.
		public := filepath.Join(os.TempDir(), "penny-owner-"+strconv.Itoa(os.Getpid()))
		data, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(public, data, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(public) })
		cmd = exec.Command(public)
		cmd.Dir = os.TempDir()
		u, err := user.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		asUser(t, cmd, u)
	}
	cmd.Env = append(os.Environ(), "PENNY_LOCALPG_OWNER=1")
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

func TestAKilledOwnerLeavesNoServerAndItsFolderIsSweptByTheNext(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with its parent")
	}
	cmd, _, _, pid, folder := owner(t, "")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	pgtest.Eventually(t, 20*time.Second, "the server is gone", func() bool { return !alive(pid) })
	pgtest.Server(t, localpg.Options{})
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", folder, err)
	}
}

func TestAnOrdinaryUserCanStartAServer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("this is an ordinary user, and every other test shows it")
	}
	cmd, say, lines, pid, folder := owner(t, "nobody")
	say()
	if !lines.Scan() || lines.Text() != "stopped" {
		t.Errorf("the owner said %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) || alive(pid) {
		t.Errorf("something is left: %v", err)
	}
}
