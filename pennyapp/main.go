// Command pennyapp is the bookshop on the web: it finds books by their author, for many visitors at once.
//
// If nothing is set, it serves http://localhost:8080 and keeps its books in the SQLite file penny.sqlite, which it makes if
// it is missing. DATABASE_URL names another database, PORT another port, and -layer one of the four layers.
//
// Read it in this order: main.go starts and stops the app; server.go has its pages; search.go asks the database, within
// bounds; middleware.go has what each request passes through.
package main

import (
	"cmp"
	"context"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/penny"
	database1 "example.com/penny/database1/books"
	database2 "example.com/penny/database2/books"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/edge"
	"example.com/penny/internal/explain"
)

// localURL is the database if DATABASE_URL is not set.
const (
	localFile = "penny.sqlite"
	localURL  = "sqlite:///" + localFile
)

// poolSize is the number of connections that a pool may hold. The smallest hosted plans let 17 in, and two copies of the
// app run while a new version takes over.
const poolSize = 8

// stopTime bounds how long the app waits for requests in flight. Docker kills what has not stopped after ten seconds, which
// routerTime and stopTime fit into.
const stopTime = 7 * time.Second

// routerTime is the time that a router has to hear from /readyz that the app stops.
const routerTime = 2 * time.Second

func main() {
	o := options{}
	flag.StringVar(&o.layer, "layer", "database4", "answer with `LAYER`: database1, 2, 3 or 4")
	flag.DurationVar(&o.patience, "patience", 4*time.Second, "let a visitor wait for the database for at most `TIME`")
	flag.StringVar(&o.debug, "debug", "", "serve figures at /debug/vars of `ADDRESS`, such as localhost:6060; on this computer only")
	check := flag.Bool("check", false, "ask the app that is running at PORT whether it is up, and exit: for a container's health check")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: pennyapp [flags]\n\nServes the bookshop on the web.\n\n")
		flag.PrintDefaults()
		fmt.Fprint(flag.CommandLine.Output(), "\nDATABASE_URL is the address of the database, PORT the port to listen at. The file .env may set both.\n")
	}
	flag.Parse()
	if flag.NArg() > 0 || o.patience <= 0 {
		fmt.Fprintf(os.Stderr, "pennyapp: unknown argument %q, or a patience of no time\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	if *check {
		if response, err := http.Get("http://localhost:" + cmp.Or(os.Getenv("PORT"), "8080") + "/healthz"); err != nil || response.StatusCode != 200 {
			os.Exit(1)
		}
		return
	}
	// SIGHUP comes when the terminal closes. A reader of the log that is gone must not end the app.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the app at once
	log := edge.NewLogWriter(os.Stderr)
	err := run(ctx, o, edge.NewLogger(log, os.Stderr))
	log.Flush()
	if err != nil {
		says, hint := explainStart(err)
		fmt.Fprintf(os.Stderr, "pennyapp: %s\nhint: %s\n", says, hint)
		os.Exit(1)
	}
}

// options are what the user chose.
type options struct {
	layer, debug string
	patience     time.Duration
}

// run serves until ctx ends. Then it lets the requests in flight finish, and closes the layer after them.
func run(ctx context.Context, o options, logger *slog.Logger) (err error) {
	l, err := open(o.layer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	listener, err := listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	if o.debug != "" {
		debug, err := listenDebug(o.debug)
		if err != nil {
			return err
		}
		defer debug.Close()
		go http.Serve(debug, expvar.Handler()) // it ends when debug is closed
	}
	a := newApp(l, logger, o.patience)
	server := newHTTPServer(a)
	logger.Info("serving", "url", fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port), "layer", l.name, "database", explain.Place(l.address))

	// Serve returns as soon as Shutdown begins. Shutdown returns when the last request has its answer.
	served := make(chan error, 1)
	bounded := &edge.Listener{Listener: listener, Most: edge.MostConnections(mostSearches + 32), Answered: a.answered,
		Refused: func() { figures.Add("connections refused", 1) }}
	go func() { served <- server.Serve(bounded) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	logger.Info("stopping")
	if a.ready.stopping.Store(true); a.ready.asked() {
		time.Sleep(routerTime) // A router that asks /readyz learns that it must not send visitors here any more.
	}
	limit, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if server.Shutdown(limit) != nil {
		logger.Warn("closing connections that are still open", "after", stopTime.String())
		return server.Close()
	}
	return nil
}

// A layer is one of the four stages behind the web server.
type layer struct {
	penny.Store
	name, address string
	opened        func() int64 // returns the number of connections opened so far
}

// errLayer is the error for a layer that does not exist.
var errLayer = errors.New("there is no such layer")

// open opens the layer on the database at DATABASE_URL or, if that is not set, on a SQLite file of its own. A PostgreSQL that
// is down is no error: it may be up when the first visitor comes.
func open(name string) (*layer, error) {
	number := strings.TrimPrefix(name, "database")
	form := map[string]func(string) (string, error){"1": dburl.SQLite, "2": dburl.PQ, "3": dburl.PGX, "4": dburl.GORM}[number]
	if form == nil {
		return nil, errLayer
	}
	address, err := dburl.Get(form)
	if errors.Is(err, dburl.NotSet) && (number == "1" || number == "4") {
		if err := database1.Create(localFile); err != nil {
			return nil, err
		}
		address, err = dburl.SQLite(localURL)
	}
	if err != nil {
		return nil, err
	}
	l := &layer{name: "database" + number, address: address}
	switch number {
	case "1":
		s, err := database1.Open(address)
		l.Store, l.opened = s, func() int64 { return demo.Opened(s.Stats()) }
		return l, err
	case "2":
		s, err := database2.Open(address)
		l.Store, l.opened = edge.Knock(s, address), func() int64 { return demo.Opened(s.Stats()) }
		return l, err
	case "3":
		s, err := database3.Open(address, poolSize)
		l.Store, l.opened = s, func() int64 { return s.Stats().Dials }
		return l, err
	default:
		s, err := database4.Open(address, poolSize)
		l.Store, l.opened = s, func() int64 { return demo.Opened(s.Stats()) }
		return l, err
	}
}

var (
	errPort  = errors.New("PORT is not a number from 1 to 65535")
	errDebug = errors.New("-debug is not an address of this computer alone")
)

// listen listens at PORT on every interface, as hosts expect. Without PORT, it listens at 8080 for this computer alone.
func listen() (net.Listener, error) {
	address := "localhost:8080"
	if port, set := os.LookupEnv("PORT"); set {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, errPort
		}
		address = ":" + port
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	return listener, nil
}

// listenDebug listens at an address of this computer alone: the figures are for its owner.
func listenDebug(address string) (net.Listener, error) {
	if at, err := net.ResolveTCPAddr("tcp", address); err != nil || !at.IP.IsLoopback() {
		return nil, errDebug
	}
	return net.Listen("tcp", address)
}

// explainStart returns in one line why the app did not start or stopped, and a hint.
func explainStart(err error) (says, hint string) {
	var network *net.OpError
	listening := errors.As(err, &network) && network.Op == "listen"
	switch {
	case errors.Is(err, errLayer):
		return err.Error(), "use -layer database1, database2, database3 or database4"
	case errors.Is(err, errPort):
		return err.Error(), "unset PORT, or set it to a number such as 8080"
	case errors.Is(err, errDebug):
		return err.Error(), "use -debug localhost:6060"
	case listening && errors.Is(err, fs.ErrPermission):
		return err.Error(), "ports below 1024 are for administrators: set PORT to another number, such as 8080"
	case listening:
		return err.Error(), "another program may have that port: stop it, or set PORT to another number"
	}
	return explain.Error(err, cmp.Or(os.Getenv(dburl.Variable), localURL))
}
