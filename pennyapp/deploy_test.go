package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// patient is a command line for a busy machine.
const patient = "pennyapp -patience 1m"

// Hosted servers demand TLS and a password.
func TestTheAppWorksWithAHostedServer(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, localpg.Options{TLS: true})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	t.Run("that is far away", func(t *testing.T) {
		t.Parallel()
		eachLayer(t, func(t *testing.T, layer string) {
			far := through(t, address, 250*time.Millisecond)
			base, log := shop(t, openLayer(t, layer, far))
			for range 2 {
				if err := visit(t.Context(), http.DefaultTransport, base); err != nil {
					t.Errorf("%v: %s", err, log)
				}
			}
		})
	})
	// Heroku runs the line of Procfile with the folder of the installed program on PATH and little else in the environment.
	t.Run("for an app on Heroku", func(t *testing.T) {
		t.Parallel()
		procfile, err := os.ReadFile("../Procfile")
		if err != nil {
			t.Fatal(err)
		}
		command, found := strings.CutPrefix(strings.TrimSpace(string(procfile)), "web: ")
		if !found {
			t.Fatal("Procfile has no web process")
		}
		bare, _, _ := strings.Cut(address, "?") // as Heroku gives it
		for _, address := range []string{bare, bare + "?sslmode=require"} {
			for _, layer := range []string{"", " -layer database2", " -layer database3"} {
				app := startApp(t, command+layer+" -patience 1m", address)
				if err := visit(t.Context(), http.DefaultTransport, app.base); err != nil {
					t.Errorf("%q: %v", command+layer, err)
				}
				app.stop(t)
			}
		}
	})
}

func TestTheAppStopsWithStatus0(t *testing.T) {
	t.Parallel()
	bin(t)
	address := pgtest.BooksURL(t)
	t.Run("if a body never comes", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, patient, address)
		send(t, dial(t, app.base), "POST /searchform HTTP/1.1\r\nHost: penny\r\nContent-Length: 100\r\n\r\n")
		app.stop(t)
	})
	t.Run("if the terminal closes", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, patient, address)
		app.signal(t, syscall.SIGHUP)
		app.ends(t)
	})
	t.Run("but not if the terminal closes and nohup started it", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, "sh -c 'trap \"\" HUP; exec "+patient+"'", address) // as nohup does
		app.signal(t, syscall.SIGHUP)
		if err := visit(t.Context(), http.DefaultTransport, app.base); err != nil {
			t.Errorf("after SIGHUP: %v", err)
		}
		if strings.Contains(app.log.String(), "stopping") {
			t.Error("SIGHUP stops the app, though it was ignored when the app started")
		}
		app.stop(t)
	})
	t.Run("after a router has learned of it", func(t *testing.T) {
		t.Parallel()
		app := startApp(t, patient, address)
		status := func() int {
			response, err := http.Get(app.base + "/readyz")
			if err != nil {
				return 0
			}
			response.Body.Close()
			return response.StatusCode
		}
		eventually(t, "the app is ready", func() bool { return status() == 200 })
		app.signal(t, syscall.SIGTERM)
		eventually(t, "/readyz tells a router that the app stops", func() bool { return status() == 503 })
		app.ends(t)
	})
	for name, reader := range map[string]func(*os.File){"if the log's reader stalls": func(*os.File) {}, "if the log's reader is gone": func(log *os.File) { log.Close() }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := startApp(t, patient, address, reader)
			// More lines than the pipe and the app hold.
			if failed, reason := visitors(t.Context(), app.base, 10, 200); failed > 0 {
				t.Errorf("%d of 2000 requests failed, one with %v", failed, reason)
			}
			app.stop(t)
		})
	}
}

func TestTheAppRefusesConnectionsBeyondItsLimitOfOpenFilesAndRecovers(t *testing.T) {
	t.Parallel()
	bin(t)
	app := startApp(t, "sh -c 'ulimit -n 256; exec "+patient+"'", pgtest.BooksURL(t))
	const ask = "GET /healthz HTTP/1.1\r\nHost: penny\r\n\r\n"
	var held []net.Conn
	for range 300 {
		conn := dial(t, app.base)
		send(t, conn, ask)
		held = append(held, conn)
	}
	if status, _ := send(t, dial(t, app.base), ask); status != 503 {
		t.Errorf("with 300 idle connections a visitor got status %d, want 503", status)
	}
	for _, conn := range held {
		conn.Close()
	}
	eventually(t, "a visitor gets the books", func() bool { return visit(t.Context(), &http.Transport{}, app.base) == nil })
	app.stop(t)
}

func TestTheLogNamesTheDatabaseAndCheckSaysWhetherTheAppIsUp(t *testing.T) {
	t.Parallel()
	bin(t)
	u, err := url.Parse(pgtest.BooksURL(t))
	if err != nil {
		t.Fatal("the address does not parse")
	}
	app := startApp(t, patient, u.String())
	port := "PORT=" + app.base[strings.LastIndex(app.base, ":")+1:]
	check := func(folder string, environment ...string) error {
		cmd := exec.Command(bin(t)+"/pennyapp", "-check")
		cmd.Dir, cmd.Env = folder, environment
		return cmd.Run()
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, ".env"), []byte(port), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(check("", port), check(folder, "PATH=")); err != nil {
		t.Errorf("-check of an app that is up: %v", err)
	}
	first, _, _ := strings.Cut(app.log.String(), "\n")
	password, _ := u.User.Password()
	if !strings.Contains(first, "PostgreSQL at "+u.Host+u.Path) || strings.Contains(first, password) {
		t.Errorf("the log begins with %s, want the address without its password", strings.ReplaceAll(first, password, "*****"))
	}
	app.stop(t)
	if check("", port) == nil {
		t.Error("no error for -check of an app that is down")
	}
}

func TestSIGTERMLetsARequestFinishAndEndsWithStatus0(t *testing.T) {
	t.Parallel()
	bin(t)
	address := pgtest.BooksURL(t)
	app := startApp(t, patient, address)
	release := pgtest.Lock(t, address, "books")
	result := make(chan string)
	go func() {
		response, err := http.Get(app.base + "/searchresults?author=ker")
		if err != nil {
			result <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		result <- response.Status + string(body)
	}()
	eventually(t, "the request waits for the table", func() bool { return waiting(t, address) == 1 })
	app.signal(t, syscall.SIGTERM)
	eventually(t, "the app is stopping", func() bool { return strings.Contains(app.log.String(), `"msg":"stopping"`) })
	release()
	if got := <-result; !strings.Contains(got, "200 OK") || !strings.Contains(got, "The C Programming Language") {
		t.Errorf("the request in flight got %.100s, want 200 and the books", got)
	}
	app.ends(t)
	eventually(t, "the store is closed", func() bool { return sessions(t, address) == 0 })
}
