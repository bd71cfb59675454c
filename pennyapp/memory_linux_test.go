package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// peak returns the most memory that the app has taken so far, in MB.
func (app *runningApp) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", app.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if peak == nil {
		t.Fatal("/proc does not have the peak")
	}
	kB, err := strconv.Atoi(string(peak[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kB >> 10
}

func TestMemory(t *testing.T) {
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "50"}})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	bin := buildApp(t)
	for _, layer := range layers {
		t.Run(layer, func(t *testing.T) {
			app := startApp(t, bin, "pennyapp -layer "+layer, address)
			if failed, first := visitors(t.Context(), app.base, 200, 20); failed > 0 && layer != "database2" { // its connections fill the server
				t.Errorf("%d of 4000 requests were lost, the first with %s", failed, first)
			}
			if got := app.peak(t); got >= 64 {
				t.Errorf("200 visitors took %d MB, want less than 64", got)
			}
			pause(t, server)
			if failed, _ := visitors(t.Context(), app.base, 2000, 1); failed != 2000 {
				t.Errorf("%d of 2000 visitors got books from a server that is stopped", 2000-failed)
			}
			if got := app.peak(t); got >= 200 {
				t.Errorf("2000 visitors of a stopped server took %d MB, want less than 200", got)
			}
			app.stop(t)
		})
	}
}

// pause stops the server's processes in the middle of what they do, until the test ends.
func pause(t *testing.T, server *localpg.Server) {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", server.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(strings.Fields(string(children)), strconv.Itoa(server.PID())) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGSTOP) // it may have ended
		t.Cleanup(func() { _ = syscall.Kill(n, syscall.SIGCONT) })
	}
}

func TestAWrongPortTakesNoMemory(t *testing.T) {
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() { // as web servers answer what is not HTTP
		for {
			conn, err := web.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			conn.Close()
		}
	}()
	bin := buildApp(t)
	for _, layer := range layers {
		app := startApp(t, bin, "pennyapp -layer "+layer, "postgres://penny:secret@"+web.Addr().String()+"/penny")
		if failed, _ := visitors(t.Context(), app.base, 20, 2); failed != 40 {
			t.Errorf("%s: %d of 40 visitors got books from a web server", layer, 40-failed)
		}
		if got := app.peak(t); got >= 64 {
			t.Errorf("%s: 20 visitors took %d MB, want less than 64", layer, got)
		}
		app.stop(t)
	}
}
