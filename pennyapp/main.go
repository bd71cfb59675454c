// Command pennyapp is the bookshop on the web: it finds books by their author, for any number of visitors at once.
//
// With nothing set it serves http://localhost:8080 and keeps its books in the SQLite file penny.sqlite, which it makes
// when it is missing. DATABASE_URL gives it another database, PORT another port, and -layer one of the four layers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
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
	"example.com/penny/internal/explain"
)

// localURL is the database where DATABASE_URL is not set.
const (
	localFile = "penny.sqlite"
	localURL  = "sqlite:///" + localFile
)

// poolSize is the number of connections that a pool may hold. The smallest hosted plans let 17 in, and two copies of the
// app run while a new version takes over.
const poolSize = 8

func main() {
	layer := flag.String("layer", "database4", "answer with `LAYER`: database1, 2, 3 or 4")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: pennyapp [flags]\n\nServes the bookshop on the web.\n\n")
		flag.PrintDefaults()
		fmt.Fprint(flag.CommandLine.Output(), "\nDATABASE_URL says where the books are, PORT where to listen; both may stand in the file .env.\n")
	}
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "pennyapp: unknown argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the app at once
	if err := run(ctx, *layer); err != nil {
		says, hint := explainStart(err)
		fmt.Fprintf(os.Stderr, "pennyapp: %s\nhint: %s\n", says, hint)
		os.Exit(1)
	}
}

// run serves until ctx ends, lets the requests in flight finish, and closes the store after them.
func run(ctx context.Context, layer string) (err error) {
	store, err := open(layer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	listener, err := listen()
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	server := newHTTPServer(newApp(store, logger), logger)
	logger.Info("serving", "url", "http://"+visible(listener.Addr()), "layer", layer)

	// Serve comes back as soon as Shutdown begins; Shutdown comes back when the last request has its answer.
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	logger.Info("stopping")
	// Hosts kill what has not stopped by itself after ten seconds (docker) or thirty (Heroku, Render).
	patience, cancel := context.WithTimeout(context.Background(), 9*time.Second)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// errLayer is the error for a layer that does not exist.
var errLayer = errors.New("there is no such layer")

// open opens the layer on the database at DATABASE_URL or, if that is not set, on a SQLite file of its own. A PostgreSQL
// that is down is no error: it may be up when the first visitor comes.
func open(layer string) (penny.Store, error) {
	form := map[string]func(string) (string, error){"1": dburl.SQLite, "2": dburl.PQ, "3": dburl.PGX, "4": dburl.GORM}
	number := strings.TrimPrefix(layer, "database")
	if form[number] == nil {
		return nil, errLayer
	}
	url, err := dburl.Get(form[number])
	if _, set := os.LookupEnv(dburl.Variable); !set && (number == "1" || number == "4") {
		if err := database1.Create(localFile); err != nil {
			return nil, err
		}
		url, err = dburl.SQLite(localURL)
	}
	if err != nil {
		return nil, err
	}
	switch number {
	case "1":
		return database1.Open(url)
	case "2":
		return database2.Open(url)
	case "3":
		return database3.Open(url, poolSize)
	default:
		return database4.Open(url, poolSize)
	}
}

// errPort is the error for a PORT that is none.
var errPort = errors.New("PORT is not a number from 1 to 65535")

// listen listens at PORT on every interface, as hosts expect; without PORT, at 8080 for this computer alone.
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

// visible is an address as a browser on this computer takes it.
func visible(address net.Addr) string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return address.String()
	}
	return net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
}

// explainStart returns in a line what kept the app from running, and how to mend it.
func explainStart(err error) (says, hint string) {
	var network *net.OpError
	switch {
	case errors.Is(err, errLayer):
		return err.Error(), "take -layer database1, database2, database3 or database4"
	case errors.Is(err, errPort):
		return err.Error(), "unset PORT, or set it to a number such as 8080"
	case errors.As(err, &network) && network.Op == "listen":
		return err.Error(), "another program has that port: stop it, or set PORT to another number"
	}
	if says, hint = explain.Error(err, databaseAddress()); hint == "" {
		hint = "go tool lab doctor looks for what is wrong with the database"
	}
	return says, hint
}
