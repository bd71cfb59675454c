package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
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

// startApp runs a shell line in an environment with nothing else in it, and waits until the app serves. unread, if given, gets
// the pipe of the log after the first line.
func startApp(t *testing.T, bin, line, databaseURL string, unread ...func(*os.File)) *runningApp {
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
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	app.cmd.Stderr = writer
	if err := app.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	t.Cleanup(func() { app.cmd.Process.Kill() })
	go func() { app.done <- app.cmd.Wait() }()
	serving := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			app.log.Write(append(lines.Bytes(), '\n'))
			if bytes.Contains(lines.Bytes(), []byte(`"msg":"serving"`)) {
				close(serving)
				if len(unread) > 0 {
					unread[0](reader)
					return
				}
			}
		}
	}()
	select {
	case <-serving:
	case err := <-app.done:
		t.Fatalf("%s ended at once: %v: %s", line, err, app.log)
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

func TestStop(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	bin := buildApp(t)
	address := pgtest.BooksURL(t)
	t.Run("a body that never comes", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, bin, "pennyapp", address)
		conn, err := net.Dial("tcp", strings.TrimPrefix(app.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "POST /searchform HTTP/1.1\r\nHost: penny\r\nContent-Length: 100\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
		app.stop(t)
	})
	t.Run("the terminal closes", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, bin, "pennyapp", address)
		if err := app.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := <-app.done; err != nil {
			t.Errorf("after SIGHUP: %v", err)
		}
	})
	t.Run("a router hears of it first", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, bin, "pennyapp", address)
		status := func() int {
			response, err := http.Get(app.base + "/readyz")
			if err != nil {
				return 0
			}
			response.Body.Close()
			return response.StatusCode
		}
		pgtest.Eventually(t, 30*time.Second, "the app is ready", func() bool { return status() == 200 })
		if err := app.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 30*time.Second, "a router learns that it stops", func() bool { return status() == 503 })
		if err := <-app.done; err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	t.Run("nobody reads the log", func(t *testing.T) {
		t.Parallel()
		for _, closed := range []bool{false, true} {
			app := startApp(t, bin, "pennyapp", address, func(reader *os.File) {
				if closed {
					reader.Close()
				}
			})
			// Ten times what a pipe holds.
			if failed, first := visitors(t.Context(), app.base, 10, 300); failed > 0 {
				t.Errorf("closed is %t: %d of 3000 requests failed, the first with %s", closed, failed, first)
			}
			app.stop(t)
		}
	})
	t.Run("few files", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, bin, "sh -c 'ulimit -n 256; exec pennyapp'", address)
		var held []net.Conn
		for range 300 {
			conn, err := net.Dial("tcp", strings.TrimPrefix(app.base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		if err := visit(t.Context(), &http.Transport{}, app.base); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("with 300 idle connections a visitor gets %v, want 503", err)
		}
		for _, conn := range held {
			conn.Close()
		}
		pgtest.Eventually(t, 30*time.Second, "a visitor gets the books", func() bool { return visit(t.Context(), &http.Transport{}, app.base) == nil })
		app.stop(t)
	})
}

func TestTheAppTellsWhereItsDatabaseIsAndWhetherItIsUp(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it takes a shell")
	}
	u, err := url.Parse(pgtest.BooksURL(t))
	if err != nil {
		t.Fatal("the address does not parse")
	}
	bin := buildApp(t)
	app := startApp(t, bin, "pennyapp", u.String())
	port := "PORT=" + app.base[strings.LastIndex(app.base, ":")+1:]
	check := exec.Command(bin+"/pennyapp", "-check")
	check.Env = []string{port}
	if err := check.Run(); err != nil {
		t.Errorf("-check, of an app that is up: %v", err)
	}
	first, _, _ := strings.Cut(app.log.String(), "\n")
	password, _ := u.User.Password()
	if !strings.Contains(first, "PostgreSQL at "+u.Host+u.Path) || strings.Contains(first, password) {
		t.Errorf("the first line is %s", strings.ReplaceAll(first, password, "*****"))
	}
	app.stop(t)
	check = exec.Command(bin+"/pennyapp", "-check")
	check.Env = []string{port}
	if err := check.Run(); err == nil {
		t.Error("-check, of an app that is down, succeeds")
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
