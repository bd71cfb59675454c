package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/penny"
	"example.com/penny/internal/bookstest"
	"example.com/penny/internal/edge"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/relay"
	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

var discard = slog.New(slog.DiscardHandler)

// patience is longer than a visitor waits on a busy machine. A test that waits for its end uses a shorter one.
const patience = time.Minute

// TestMain lets ten tests run at once on any number of processors: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	status := m.Run()
	if programs != nil {
		programs.Remove()
	}
	os.Exit(status)
}

// shop serves the app with its middleware and limits, as on the internet.
func shop(t *testing.T, store penny.Store) (base string, log *safeBuffer) {
	t.Helper()
	return hastyShop(t, store, patience)
}

// hastyShop is shop with another patience.
func hastyShop(t *testing.T, store penny.Store, patience time.Duration) (base string, log *safeBuffer) {
	t.Helper()
	server, log := unstarted(store, patience)
	server.Config.ReadHeaderTimeout, server.Config.ReadTimeout = time.Minute, time.Minute // for a client on a busy machine
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, log
}

// unstarted returns the app on a server that does not serve visitors yet.
func unstarted(store penny.Store, patience time.Duration) (server *httptest.Server, log *safeBuffer) {
	log = &safeBuffer{}
	a := newApp(layerOf(store), slog.New(slog.NewJSONHandler(log, nil)), patience)
	server = httptest.NewUnstartedServer(nil)
	server.Config = newHTTPServer(a)
	server.Listener = &edge.Listener{TCPListener: server.Listener.(*net.TCPListener), Most: 1000, Answered: a.answered, Refused: func() {}}
	return server, log
}

// layerOf returns a layer on any store.
func layerOf(store penny.Store) *layer {
	if l, ok := store.(*layer); ok {
		return l
	}
	return &layer{Store: store, name: "database0", address: "postgres://penny:hunter2@db.example.com/penny", opened: func() int64 { return 7 }}
}

// layers are those that talk to PostgreSQL.
var layers = []string{"database2", "database3", "database4"}

// openLayer opens a layer at address. It does not use DATABASE_URL, which all tests share.
func openLayer(t *testing.T, name, address string) *layer {
	t.Helper()
	number := strings.TrimPrefix(name, "database")
	address, err := stages[number].form(patiently(address))
	if err != nil {
		t.Fatal(err)
	}
	l, err := openAt(number, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// patiently returns address with time to connect from a busy machine.
func patiently(address string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	return address + separator + "connect_timeout=60"
}

// eachLayer runs a test for each layer, all at once.
func eachLayer(t *testing.T, test func(t *testing.T, layer string)) {
	for _, layer := range layers {
		t.Run(layer, func(t *testing.T) {
			t.Parallel()
			test(t, layer)
		})
	}
}

func sqliteStore(t *testing.T) (penny.Store, bookstest.Database) {
	t.Helper()
	db := bookstest.SQLite(t)
	l, err := openAt("1", db.URL)
	if err != nil {
		t.Fatal(err)
	}
	return l, db
}

// A storeFunc is a store made of one function.
type storeFunc func(ctx context.Context, prefix string, limit int) ([]penny.Book, error)

func (f storeFunc) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	return f(ctx, prefix, limit)
}
func (f storeFunc) Close() error { return nil }

// waits is a store that answers when its context ends.
var waits = storeFunc(func(ctx context.Context, _ string, _ int) ([]penny.Book, error) {
	<-ctx.Done()
	return nil, ctx.Err()
})

type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// get fetches a page. It sends the address as it is, as a hostile client would.
func get(t *testing.T, address string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// dial connects to a server until the test ends.
func dial(t *testing.T, base string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// send writes text to a connection, and returns the answer's status and the size of its body.
func send(t *testing.T, conn net.Conn, text string) (status, size int) {
	t.Helper()
	io.WriteString(conn, text) // a server that refuses may close the connection before it has read all
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, len(body)
}

// visitors makes n requests from each of several clients at once, and returns how many did not get the books, and one reason.
func visitors(ctx context.Context, base string, clients, n int) (failed int64, reason error) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var lost atomic.Int64
	reasons := make(chan error, 1)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range n {
				if err := visit(ctx, transport, base); err != nil {
					lost.Add(1)
					select {
					case reasons <- err:
					default:
					}
				}
			}
		})
	}
	all.Wait()
	close(reasons)
	return lost.Load(), <-reasons
}

func visit(ctx context.Context, transport http.RoundTripper, base string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/searchresults?author=ker", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != 200 || !strings.Contains(string(body), "The C Programming Language") {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// through returns the address of a relay that adds roundTrip to each round trip to the server at address.
func through(t *testing.T, address string, roundTrip time.Duration) string {
	t.Helper()
	r, through, err := relay.Before(address, roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return through
}

// programs is the folder with the app, or nil if no test needed it.
var programs *scratch.Folder

// install builds the app once, as Heroku's buildpack does: it reads what to install from go.mod, and installs it with the
// tag heroku into a folder.
var install = sync.OnceValue(func() error {
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		return err
	}
	target := regexp.MustCompile(`(?m)^// \+heroku install (\S+)$`).FindSubmatch(module)
	if target == nil || !regexp.MustCompile(`(?m)^// \+heroku goVersion go1\.\d+$`).Match(module) {
		return errors.New("go.mod lacks the comments for Heroku")
	}
	if programs, err = scratch.New("", "app"); err != nil {
		return err
	}
	build := exec.Command("go", "install", "-tags", "heroku", string(target[1]))
	build.Dir = ".."
	build.Env = append(os.Environ(), "GOBIN="+programs.Path, "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go install: %w\n%s", err, out)
	}
	return nil
})

// bin returns the folder with the program pennyapp.
func bin(t *testing.T) string {
	t.Helper()
	skip.Short(t)
	if runtime.GOOS == "windows" {
		t.Skip("it needs a shell and SIGTERM")
	}
	if err := install(); err != nil {
		t.Fatal(err)
	}
	return programs.Path
}

type runningApp struct {
	cmd  *exec.Cmd
	base string
	log  *safeBuffer
	done chan error
}

// startApp runs a shell line with nothing else in its environment, and waits until the app serves. If unread is given, it gets
// the log's pipe after the first line.
func startApp(t *testing.T, line, databaseURL string, unread ...func(*os.File)) *runningApp {
	t.Helper()
	folder := bin(t)
	free, err := localpg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free)
	app := &runningApp{log: &safeBuffer{}, base: "http://127.0.0.1:" + port, done: make(chan error, 1)}
	app.cmd = exec.Command("/bin/sh", "-c", "exec "+line)
	app.cmd.Dir = t.TempDir()
	app.cmd.Env = []string{"PATH=" + folder + ":/usr/bin:/bin", "PORT=" + port, "DATABASE_URL=" + patiently(databaseURL)}
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
	serving, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
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
	case <-ended:
		if strings.Contains(app.log.String(), "another program may have that port") { // another program was faster
			return startApp(t, line, databaseURL, unread...)
		}
		t.Fatalf("%s ended at once: %s", line, app.log)
	case <-time.After(time.Minute):
		t.Fatal("the app did not serve within a minute")
	}
	return app
}

// stop ends the app as hosts do. It fails the test if the status is not 0.
func (app *runningApp) stop(t *testing.T) {
	t.Helper()
	app.signal(t, syscall.SIGTERM)
	app.ends(t)
}

func (app *runningApp) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := app.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// ends waits until the app ends. It fails the test if the status is not 0.
func (app *runningApp) ends(t *testing.T) {
	t.Helper()
	if err := <-app.done; err != nil {
		t.Errorf("the app ended with %v, want status 0", err)
	}
}

// eventually is pgtest.Eventually with time for a busy machine.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, what, cond)
}
