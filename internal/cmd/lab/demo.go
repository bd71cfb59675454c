package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/live"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/race"
)

const demoAbout = `Shows in a browser, in slow motion, why a pool is faster: every round trip of calls with and without one, recorded on a real
server. It starts a temporary PostgreSQL with the books in it. Ctrl-C ends it and removes everything.`

// demoPort is the port of the page if it is free, so that the page finds the lab again after a restart.
const demoPort = 4711

func runDemo(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "demo", demoAbout)
	options := live.Options{Options: race.Options{Calls: 96, Workers: 24, Pool: 8, RTT: 30 * time.Millisecond}}
	check := raceFlags(f, &options.Options, race.NoPool+","+race.Pool, live.Most)
	most := f.Int("max-connections", 20, "let the temporary server have `N` places; 20 is what a small hosted plan gives")
	here := f.Bool("url", false, "show it on the PostgreSQL at DATABASE_URL, without the buttons that break the server")
	open := f.Bool("open", true, "open the page in the browser; with -open=false print its address only")
	pictures := f.String("pictures", "", "record once, draw timeline.svg and slots.svg into `FOLDER`, and end")
	if err := parse(f, args); err != nil {
		return err
	}
	if err := check(); err != nil {
		return err
	}
	if *most < 10 || *most > 1000 {
		return wrong(f, "-max-connections must be between 10 and 1000")
	}
	if *here {
		var err error
		if options.Address, err = postgresAddress(env); err != nil {
			return err
		}
		if target, err := dburl.Parse(options.Address); err == nil && len(target.Hosts) > 1 {
			return &hinted{race.ErrSeveralHosts, "name one host"}
		}
	} else {
		server, err := startServer(ctx, env, localpg.Search{}, localpg.Options{Config: map[string]string{"max_connections": strconv.Itoa(*most)}})
		if err != nil {
			return err
		}
		defer server.Stop()
		options.Address, options.Faults = server.URL("postgres"), live.Faults(server)
		if _, err := loadIfMissing(ctx, options.Address); err != nil {
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

// drawPictures records once and draws what the page would show.
func drawPictures(ctx context.Context, o race.Options, folder string) error {
	recording, err := race.Record(ctx, o, nil)
	if err != nil {
		return err
	}
	var timeline, slots bytes.Buffer
	err = errors.Join(recording.Timeline(&timeline, 960), recording.Slots(&slots, 960),
		replace(filepath.Join(folder, "timeline.svg"), timeline.Bytes()), replace(filepath.Join(folder, "slots.svg"), slots.Bytes()))
	if err != nil {
		return &hinted{fmt.Errorf("draw the pictures: %w", err), "name another folder with -pictures"}
	}
	return nil
}

// openBrowser opens the page in the browser that BROWSER names, or in the system's own.
func openBrowser(address string) error {
	command := []string{"xdg-open"}
	switch {
	case os.Getenv("BROWSER") != "":
		command = []string{os.Getenv("BROWSER")}
	case runtime.GOOS == "darwin":
		command = []string{"open"}
	case runtime.GOOS == "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	cmd := exec.Command(command[0], append(command[1:], address)...)
	err := cmd.Start()
	if err == nil {
		go cmd.Wait()
	}
	return err
}
