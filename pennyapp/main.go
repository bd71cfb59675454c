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

const (
	// If DATABASE_URL is not set, the books are here.
	localFile = "penny.sqlite"
	localURL  = "sqlite:///" + localFile

	// The smallest hosted plans let 17 connections in, and two copies of the app run while a new version takes over.
	poolSize = 8

	// Docker kills a program that has not stopped after ten seconds. A /readyz in flight, the pool and the log take 1 s each.
	routerTime = 2 * time.Second // how long a router has to hear from /readyz that the app is stopping
	stopTime   = 5 * time.Second // how long the requests in flight have to finish
)

func main() {
	layer := flag.String("layer", "database4", "answer with `LAYER`: database1, 2, 3 or 4")
	patience := flag.Duration("patience", 4*time.Second, "let a visitor wait for the database for at most `TIME`, such as 10s")
	debug := flag.String("debug", "", "serve figures at /debug/vars of `ADDRESS`, such as localhost:6060; on this computer only")
	check := flag.Bool("check", false, "ask the app that is running at PORT whether it is up, and exit: for a container's health check")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: pennyapp [flags]\n\nServes the bookshop on the web.\n\n")
		flag.PrintDefaults()
		fmt.Fprint(flag.CommandLine.Output(), "\nDATABASE_URL is the address of the database, PORT the port to listen on. The file .env may set both.\n")
	}
	flag.Parse()
	if flag.NArg() > 0 || *patience <= 0 {
		says := "-patience must be more than 0"
		if flag.NArg() > 0 {
			says = fmt.Sprintf("unknown argument %q", flag.Arg(0))
		}
		fmt.Fprintln(os.Stderr, "pennyapp: "+says)
		flag.Usage()
		os.Exit(2)
	}
	if *check {
		_ = dburl.LoadDotEnv() // PORT may be there; the app itself says what is wrong with the file
		if url := "http://localhost:" + cmp.Or(os.Getenv("PORT"), "8080") + "/healthz"; !healthy(url) {
			fmt.Fprintln(os.Stderr, "pennyapp: no app answers at "+url)
			os.Exit(1)
		}
		return
	}
	ctx, stop := demo.Context(syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // it comes when the reader of the log is gone; the app goes on
	log := edge.NewLogWriter(os.Stderr)
	err := run(ctx, *layer, *debug, *patience, edge.NewLogger(log, os.Stderr))
	log.Flush()
	if err != nil {
		says, hint := explainStart(err)
		fmt.Fprintf(os.Stderr, "pennyapp: %s\nhint: %s\n", says, hint)
		os.Exit(1)
	}
}

// run serves until ctx ends. Then it lets the requests in flight finish, and closes the layer after them.
func run(ctx context.Context, layer, debug string, patience time.Duration, logger *slog.Logger) (err error) {
	l, err := open(layer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	listener, err := listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	if debug != "" {
		private, err := listenDebug(debug)
		if err != nil {
			return err
		}
		defer private.Close()
		go http.Serve(private, expvar.Handler()) // it ends when private is closed
	}
	a := newApp(l, logger, patience)
	server := newHTTPServer(a)
	logger.Info("serving", "url", fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port), "layer", l.name, "database", explain.Place(l.address))

	// Serve returns as soon as Shutdown begins. Shutdown returns when the last request has its answer.
	served := make(chan error, 1)
	bounded := &edge.Listener{TCPListener: listener, Most: edge.MostConnections(), Answered: a.answered,
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

// healthy reports whether the app at url answers its health check in time.
func healthy(url string) bool {
	client := &http.Client{Timeout: 2 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// A layer is one of the four stages behind the web server.
type layer struct {
	penny.Store
	name, address string
	opened        func() int64 // returns the number of connections opened so far
}

// stages tells for each layer which form of an address its driver takes, and how to open it.
var stages = map[string]struct {
	form func(address string) (string, error)
	open func(address string) (store penny.Store, opened func() int64, err error)
}{
	"1": {dburl.SQLite, func(address string) (penny.Store, func() int64, error) {
		s, err := database1.Open(address)
		return s, func() int64 { return demo.Opened(s.Stats()) }, err
	}},
	"2": {dburl.PQ, func(address string) (penny.Store, func() int64, error) {
		s, err := database2.Open(address)
		return edge.Knock(s, address), func() int64 { return demo.Opened(s.Stats()) }, err
	}},
	"3": {dburl.PGX, func(address string) (penny.Store, func() int64, error) {
		s, err := database3.Open(address, poolSize)
		return s, func() int64 { return s.Stats().Dials }, err
	}},
	"4": {dburl.GORM, func(address string) (penny.Store, func() int64, error) {
		s, err := database4.Open(address, poolSize)
		return s, func() int64 { return demo.Opened(s.Stats()) }, err
	}},
}

// open opens the layer on the database at DATABASE_URL or, if that is not set, on a SQLite file of its own. A PostgreSQL that
// is down is no error: it may be up when the first visitor comes.
func open(name string) (*layer, error) {
	number := strings.TrimPrefix(name, "database")
	stage, found := stages[number]
	if !found {
		return nil, mistake{"there is no such layer", "use -layer database1, database2, database3 or database4"}
	}
	address, err := dburl.Get(stage.form)
	if errors.Is(err, dburl.NotSet) && (number == "1" || number == "4") {
		if err := database1.Create(localFile); err != nil {
			return nil, err
		}
		address, err = dburl.SQLite(localURL)
	}
	if err != nil {
		return nil, err
	}
	return openAt(number, address)
}

// openAt opens a layer at an address in its driver's form.
func openAt(number, address string) (*layer, error) {
	store, opened, err := stages[number].open(address)
	return &layer{store, "database" + number, address, opened}, err
}

// A mistake is an error in what the user set, with a hint.
type mistake struct{ says, hint string }

func (m mistake) Error() string { return m.says }

// listen listens on PORT, on every interface, as hosts expect. Without PORT, it listens on port 8080 of this computer alone.
func listen() (*net.TCPListener, error) {
	address := "localhost:8080"
	if port, set := os.LookupEnv("PORT"); set {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, mistake{"PORT is not a number from 1 to 65535", "unset PORT, or set it to a number such as 8080"}
		}
		address = ":" + port
	}
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, mistake{err.Error(), "ports below 1024 are for administrators: set PORT to another number, such as 8080"}
	case err != nil:
		return nil, mistake{err.Error(), "another program may have that port: stop it, or set PORT to another number"}
	}
	return listener.(*net.TCPListener), nil
}

// listenDebug listens on an address of this computer alone: the figures are for its owner.
func listenDebug(address string) (net.Listener, error) {
	if at, err := net.ResolveTCPAddr("tcp", address); err != nil || !at.IP.IsLoopback() {
		return nil, mistake{"-debug is not an address of this computer alone", "use -debug localhost:6060"}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, mistake{err.Error(), "another program may have that port: use another one in -debug"}
	}
	return listener, nil
}

// explainStart returns in one line why the app did not start or stopped, and a hint.
func explainStart(err error) (says, hint string) {
	if wrong, ok := errors.AsType[mistake](err); ok {
		return wrong.says, wrong.hint
	}
	return explain.Error(err, cmp.Or(os.Getenv(dburl.Variable), localURL))
}
