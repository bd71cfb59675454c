package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"testing"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

// peak returns the most memory that the app has used so far, in MB.
func (app *runningApp) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", app.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if peak == nil {
		t.Fatal("/proc has no VmHWM for the app")
	}
	kB, err := strconv.Atoi(string(peak[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kB >> 10
}

func TestManyVisitorsTakeLittleMemory(t *testing.T) {
	skip.Long(t)
	t.Parallel()
	bin(t)
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "50"}})
	address := server.URL("postgres")
	pgtest.LoadBooks(t, address)
	apps := make(map[string]*runningApp)
	for _, layer := range layers {
		app := startApp(t, "pennyapp -patience 60s -layer "+layer, address)           // a busy machine needs it for 200 at once
		if failed, reason := visitors(t.Context(), app.base, 200, 1); failed == 200 { // some are lost if connections fill the server
			t.Errorf("%s: all requests were lost, one with %v", layer, reason)
		}
		if got := app.peak(t); got >= 64 {
			t.Errorf("%s: 200 visitors took %d MB, want less than 64", layer, got)
		}
		app.stop(t)
		apps[layer] = startApp(t, "pennyapp -layer "+layer, address)
	}
	pgtest.Suspend(t, server.PID())
	eachLayer(t, func(t *testing.T, layer string) {
		app := apps[layer]
		if failed, _ := visitors(t.Context(), app.base, 2000, 1); failed != 2000 {
			t.Errorf("%d of 2000 visitors got books from a server that is stopped", 2000-failed)
		}
		if got := app.peak(t); got >= 200 {
			t.Errorf("2000 visitors of a stopped server took %d MB, want less than 200", got)
		}
		app.stop(t)
	})
}

func TestAServerThatIsNotPostgreSQLTakesLittleMemory(t *testing.T) {
	skip.Long(t)
	t.Parallel()
	bin(t)
	for _, answer := range []string{"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "SSH-2.0-OpenSSH_9.2p1\r\n"} {
		server := pgtest.Serve(t, func(conn net.Conn) {
			io.WriteString(conn, answer)
			conn.Close()
		})
		eachLayer(t, func(t *testing.T, layer string) {
			app := startApp(t, "pennyapp -layer "+layer, "postgres://penny:secret@"+server+"/penny?sslmode=disable")
			if failed, _ := visitors(t.Context(), app.base, 20, 2); failed != 40 {
				t.Errorf("%d of 40 visitors got books from a server that says %q", 40-failed, answer)
			}
			if got := app.peak(t); got >= 64 {
				t.Errorf("20 visitors took %d MB, want less than 64", got)
			}
			app.stop(t)
		})
	}
}
