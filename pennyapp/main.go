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
)

// A Store is what the app needs of a layer.
type Store interface {
	ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error)
	Close() error
}

// localURL is the database where DATABASE_URL is not set.
const localURL = "sqlite:///penny.sqlite"

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
		says, hint := explain(err)
		fmt.Fprintf(os.Stderr, "pennyapp: %s\nhint: %s\n", says, hint)
		os.Exit(1)
	}
}

// run serves until ctx ends, lets the requests in flight finish, and closes the store after them.
func run(ctx context.Context, layer string) (err error) {
	store, err := open(ctx, layer)
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

// open opens the layer on the database at DATABASE_URL or, where that is not set, on a SQLite file of its own. A
// PostgreSQL that is down is no error: it may be up when the first visitor comes.
func open(ctx context.Context, layer string) (Store, error) {
	layer = "database" + strings.TrimPrefix(layer, "database")
	open, found := openers[layer]
	if !found {
		return nil, errLayer
	}
	url, err := dburl.Get()
	if _, set := os.LookupEnv(dburl.Variable); !set && (layer == "database1" || layer == "database4") {
		url, err = localURL, database1.Create(ctx, localURL)
	}
	if err != nil {
		return nil, err
	}
	return open(ctx, url)
}

// openers open the layers.
var openers = map[string]func(ctx context.Context, url string) (Store, error){
	"database1": opener(database1.Open),
	"database2": opener(database2.Open),
	"database3": opener(database3.Open),
	"database4": opener(database4.Open),
}

// opener makes a layer's Open one that opens a Store; a nil pointer in a Store would not be a nil Store.
func opener[S Store](open func(context.Context, string) (S, error)) func(context.Context, string) (Store, error) {
	return func(ctx context.Context, url string) (Store, error) {
		store, err := open(ctx, url)
		if err != nil {
			return nil, err
		}
		return store, nil
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

// explain says in a line what kept the app from running, and how to mend it.
func explain(err error) (says, hint string) {
	var network *net.OpError
	switch {
	case errors.Is(err, errLayer):
		return err.Error(), "take -layer database1, database2, database3 or database4"
	case errors.Is(err, errPort):
		return err.Error(), "unset PORT, or set it to a number such as 8080"
	case errors.As(err, &network) && network.Op == "listen":
		return err.Error(), "another program has that port: stop it, or set PORT to another number"
	}
	if says, hint = dburl.Explain(err, databaseAddress()); hint == "" {
		hint = "go tool lab doctor looks for what is wrong with the database"
	}
	return says, hint
}
