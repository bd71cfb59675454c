package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	"example.com/penny/internal/live"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/race"
)

const demoAbout = `Shows in a browser, in slow motion, why a pool is faster: every round trip of calls with and without one, recorded on a real
server. It starts a temporary PostgreSQL with the books in it, and with Ctrl-C all of it is gone.`

// demoPort is the port of the page if it is free, so that the page finds the lab again after a restart.
const demoPort = 4711

func runDemo(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "demo", demoAbout)
	chosen := raceFlags{
		calls:   f.Int("n", 96, "record `CALLS` calls of each contender"),
		workers: f.Int("c", 24, "let `CALLERS` make them at once"),
		size:    f.Int("pool", 8, "let the pools hold `SIZE` connections"),
		only:    f.String("only", race.NoPool+","+race.Pool, "show these `NAMES`, with commas between them: "+race.Names()),
		rtt:     f.Duration("rtt", 30*time.Millisecond, "put a `DELAY` between the program and the server, for there and back"),
	}
	most := f.Int("max-connections", 20, "let the temporary server have `N` places; 20 is what a small hosted plan gives")
	here := f.Bool("url", false, "show it on the PostgreSQL at DATABASE_URL, without the buttons that break the server")
	open := f.Bool("open", true, "open the page in the browser; with -open=false print its address only")
	pictures := f.String("pictures", "", "record once, draw timeline.svg and slots.svg into `FOLDER`, and end")
	if err := parse(f, args); err != nil {
		return err
	}
	o, err := chosen.options(func(format string, args ...any) error { return wrong(f, format, args...) })
	switch {
	case err != nil:
		return err
	case o.Calls > 1000 || o.Workers > 100 || o.Pool > 100:
		return wrong(f, "the page shows 1000 calls, 100 callers and a pool of 100 at most")
	case *most < 10 || *most > 1000:
		return wrong(f, "-max-connections must be between 10 and 1000")
	}
	options := live.Options{Options: o}
	if *here {
		if options.Address, err = postgresAddress(); err != nil {
			return err
		}
	} else {
		server, err := startServer(ctx, env, localpg.Search{}, localpg.Options{Config: map[string]string{"max_connections": strconv.Itoa(*most)}})
		if err != nil {
			return err
		}
		defer server.Stop()
		options.Address, options.Faults = server.URL("postgres"), live.Faults(server)
		if err := loadBooks(ctx, options.Address); err != nil {
			return err
		}
	}
	if *pictures != "" {
		return drawPictures(ctx, options.Options, *pictures)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(demoPort)))
	if err != nil {
		fmt.Fprintf(env.stderr, "Port %d is taken, so the page is at another one.\n", demoPort)
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return err
	}
	address := "http://127.0.0.1:" + port
	if name := os.Getenv("CODESPACE_NAME"); name != "" { // a Codespace forwards its ports to an origin of this form
		domain := cmp.Or(os.Getenv("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN"), "app.github.dev")
		options.Forwarded = fmt.Sprintf("https://%s-%s.%s", name, port, domain)
		address = options.Forwarded
	}
	fmt.Fprintf(env.stdout, "The page is at %s\nCtrl-C stops it.\n", address)
	if *open {
		if err := openBrowser(address); err != nil {
			fmt.Fprintf(env.stderr, "No browser opened (%v): open the address yourself.\n", err)
		}
	}
	return live.Serve(ctx, listener, options)
}

func loadBooks(ctx context.Context, address string) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return fmt.Errorf("load the books: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, penny.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("load the books: %w", err)
	}
	return nil
}

// drawPictures records once and draws what the page would show.
func drawPictures(ctx context.Context, o race.Options, folder string) error {
	timeline, err := newChart(filepath.Join(folder, "timeline.svg"))
	if err != nil {
		return err
	}
	defer finishChart(timeline, nil)
	slots, err := newChart(filepath.Join(folder, "slots.svg"))
	if err != nil {
		return err
	}
	defer finishChart(slots, nil)
	recording, err := race.Record(ctx, o, nil)
	if err != nil {
		return err
	}
	return errors.Join(finishChart(timeline, func(w io.Writer) error { return recording.Timeline(w, 960) }),
		finishChart(slots, func(w io.Writer) error { return recording.Slots(w, 960) }))
}

// openBrowser opens the page in the browser that BROWSER names, or in the system's own.
func openBrowser(address string) error {
	command := map[string][]string{"darwin": {"open"}, "windows": {"rundll32", "url.dll,FileProtocolHandler"}}[runtime.GOOS]
	if command == nil {
		command = []string{"xdg-open"}
	}
	if browser := os.Getenv("BROWSER"); browser != "" {
		command = []string{browser}
	}
	cmd := exec.Command(command[0], append(command[1:], address)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait()
	return nil
}
