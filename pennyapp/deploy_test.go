package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// Heroku's buildpack reads what to install from go.mod, installs it with the tag heroku into a folder bin, and runs the
// line of Procfile with that folder on PATH and little else in the environment. So does this test, against a PostgreSQL
// that demands TLS and a password, as Heroku's does.
func TestTheAppBuildsAndRunsAsOnHeroku(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Heroku's machines run Linux, and Windows has no SIGTERM")
	}
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	install := regexp.MustCompile(`(?m)^// \+heroku install (\S+)$`).FindSubmatch(module)
	if install == nil || !regexp.MustCompile(`(?m)^// \+heroku goVersion go1\.\d+$`).Match(module) {
		t.Fatal("go.mod lacks the comments for Heroku")
	}
	procfile, err := os.ReadFile("../Procfile")
	if err != nil {
		t.Fatal(err)
	}
	command, found := strings.CutPrefix(strings.TrimSpace(string(procfile)), "web: ")
	if !found {
		t.Fatal("Procfile has no web process")
	}
	bin := t.TempDir()
	build := exec.Command("go", "install", "-tags", "heroku", string(install[1]))
	build.Dir = ".."
	build.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go install: %v\n%s", err, out)
	}

	server := pgtest.Server(t, localpg.Options{TLS: true})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	for name, settings := range map[string]string{"with sslmode": "sslmode=require", "as Heroku gives it, without": ""} {
		t.Run(name, func(t *testing.T) {
			for _, layer := range []string{"", " -layer database2", " -layer database3"} {
				app := startApp(t, bin, command+layer, query(address, settings))
				if err := visit(t.Context(), http.DefaultTransport, app.base); err != nil {
					t.Errorf("%q: %v", command+layer, err)
				}
				app.stop(t)
			}
		})
	}
}

type runningApp struct {
	cmd  *exec.Cmd
	base string
	log  *safeBuffer
	done chan error
}

// startApp runs a shell line in an environment with nothing else in it, and waits until the app serves.
func startApp(t *testing.T, bin, line, databaseURL string) *runningApp {
	t.Helper()
	free, err := localpg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free)
	app := &runningApp{log: &safeBuffer{}, base: "http://127.0.0.1:" + port, done: make(chan error, 1)}
	app.cmd = exec.Command("/bin/sh", "-c", "exec "+line)
	app.cmd.Dir = t.TempDir()
	app.cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "PORT=" + port, "DATABASE_URL=" + databaseURL}
	stderr, err := app.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.cmd.Process.Kill() })
	serving := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			app.log.Write(append(lines.Bytes(), '\n'))
			if bytes.Contains(lines.Bytes(), []byte(`"msg":"serving"`)) {
				close(serving)
			}
		}
		app.done <- app.cmd.Wait()
	}()
	select {
	case <-serving:
	case err := <-app.done:
		t.Fatalf("%s ended at once: %v", filepath.Base(line), err)
	case <-time.After(30 * time.Second):
		t.Fatal("the app does not serve")
	}
	return app
}

// stop ends the app as hosts do, and wants status 0.
func (app *runningApp) stop(t *testing.T) {
	t.Helper()
	if err := app.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-app.done; err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// buildApp builds the app into a folder, as a user's go build does.
func buildApp(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func TestTwoHundredVisitorsAtOnceTakeLessThan64MBOfMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a program's peak of memory in /proc")
	}
	address := pgtest.BooksURL(t)
	bin := buildApp(t)
	for _, layer := range []string{"database3", "database4"} {
		app := startApp(t, bin, "pennyapp -layer "+layer, address)
		if failed, first := visitors(t.Context(), app.base, 200, 20); failed > 0 {
			t.Errorf("%s: %d of 4000 requests were lost, the first with %s", layer, failed, first)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", app.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
		if peak == nil {
			t.Fatal("/proc does not tell the peak")
		}
		kB, err := strconv.Atoi(string(peak[1]))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d MB at its peak", layer, kB>>10)
		if kB>>10 >= 64 {
			t.Errorf("%s: %d MB", layer, kB>>10)
		}
		app.stop(t)
	}
}

func TestSIGTERMLetsARequestFinishAndEndsWithStatus0(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	address := pgtest.BooksURL(t)
	app := startApp(t, buildApp(t), "pennyapp", address)
	release := pgtest.Lock(t, address, "books")
	result := make(chan string)
	go func() {
		response, err := http.Get(app.base + "/searchresults?author=ker")
		if err != nil {
			result <- err.Error()
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			result <- err.Error()
			return
		}
		result <- response.Status + string(body)
	}()
	waiting := 0
	pgtest.Eventually(t, 10*time.Second, "the request waits for the table", func() bool {
		pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`, &waiting)
		return waiting == 1
	})
	if err := app.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 10*time.Second, "the app is stopping", func() bool { return strings.Contains(app.log.String(), `"msg":"stopping"`) })
	release()
	if got := <-result; !strings.Contains(got, "200 OK") || !strings.Contains(got, "The C Programming Language") {
		t.Errorf("the request in flight got %.100s", got)
	}
	if err := <-app.done; err != nil {
		t.Errorf("the app ended with %v", err)
	}
	pgtest.Eventually(t, 10*time.Second, "the store is closed", func() bool {
		pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`, &waiting)
		return waiting == 0
	})
}
