package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/schollz/progressbar/v3"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/localpg"
)

const postgresAbout = `Starts a real PostgreSQL on this computer, without Docker or an administrator, loads the books if they are missing, and prints
the line that sets DATABASE_URL. It downloads PostgreSQL if none is installed. It keeps its data for next time, and stops
with Ctrl-C or when the terminal closes.`

func runPostgres(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "postgres", postgresAbout)
	most := f.Int("max-connections", 100, "let in `N` connections at most; 20 is what a small hosted plan gives")
	tls := f.Bool("tls", false, "refuse connections without encryption, as hosted databases do")
	fetch := f.Bool("download", false, "use a downloaded PostgreSQL even if one is installed")
	folder := f.String("data", "", "keep the data in `FOLDER`, which is new, empty or from an earlier run (default: penny/data in your cache folder, for root /var/lib/penny/data)")
	if err := parse(f, args); err != nil {
		return err
	}
	if *most < 5 {
		return wrong(f, "-max-connections must be at least 5")
	}
	if *folder == "" {
		cache, err := localpg.Cache()
		if err != nil {
			return &hinted{err, "say where to keep the data: -data FOLDER"}
		}
		*folder = filepath.Join(cache, "data")
	}
	server, err := startServer(ctx, env, localpg.Search{Download: *fetch}, localpg.Options{DataDir: *folder, TLS: *tls,
		Durable: true, Config: map[string]string{"max_connections": strconv.Itoa(*most)}})
	if err != nil {
		return err
	}
	defer server.Stop()
	address := server.URL("postgres")
	loaded, err := loadIfMissing(ctx, address)
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
		return errors.New("PostgreSQL has stopped; its log is in " + filepath.Join(*folder, "log"))
	}
}

// findPostgres returns the folder with PostgreSQL's programs. If none is installed, it downloads them.
func findPostgres(ctx context.Context, env *environment, search localpg.Search) (string, error) {
	search.Progress = func(download io.Reader, size int64) io.Reader {
		fmt.Fprintln(env.stderr, "Downloading PostgreSQL, once: it is kept for next time.")
		return showing(env)(download, size)
	}
	bin, err := localpg.Find(ctx, search)
	if errors.Is(err, localpg.ErrMissing) && ctx.Err() == nil {
		err = &hinted{err, "install PostgreSQL: " + localpg.HowToInstall() + "; or name a copy of Maven's repository in " + localpg.RepositoryVariable}
	}
	return bin, err
}

// startServer finds PostgreSQL and starts a server. Its errors have hints.
func startServer(ctx context.Context, env *environment, search localpg.Search, o localpg.Options) (*localpg.Server, error) {
	var err error
	if o.BinDir, err = findPostgres(ctx, env, search); err == nil {
		fmt.Fprintf(env.stderr, "Starting PostgreSQL, its data in %s\n", cmp.Or(o.DataDir, "a temporary folder"))
		server, started := localpg.Start(ctx, o)
		if started == nil {
			return server, nil
		}
		err = started
	}
	switch {
	case ctx.Err() != nil:
		return nil, &hinted{errors.New("interrupted"), "run it again: it repeats the step that was interrupted"}
	case errors.Is(err, localpg.ErrMissing):
		return nil, err
	case errors.Is(err, localpg.ErrRunning):
		return nil, &hinted{err, "stop that one first, or give this one another folder with -data"}
	case errors.Is(err, localpg.ErrForeign):
		return nil, &hinted{err, "name a folder with -data that is missing or empty; nothing was changed in this one"}
	case os.Geteuid() == 0 && strings.Contains(err.Error(), "ermission denied"):
		return nil, &hinted{err, "root's PostgreSQL runs as another user, which must be able to enter " + o.DataDir + " and each folder above it"}
	}
	if o.DataDir == "" {
		return nil, &hinted{err, "set TMPDIR to a folder that exists, that you may write to, and that has space"}
	}
	hint := "name a new folder with -data"
	log := filepath.Join(o.DataDir, "log")
	if _, missing := os.Stat(log); missing == nil {
		hint += ", or see " + log
	}
	return nil, &hinted{err, hint}
}

// showing returns a function that shows the progress of a download.
func showing(env *environment) func(io.Reader, int64) io.Reader {
	return func(download io.Reader, size int64) io.Reader {
		reader := progressbar.NewReader(download, progress(env, size, "PostgreSQL"))
		return &reader
	}
}
