package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
)

// ErrMissing is the error of Find if PostgreSQL is neither installed nor downloaded, and cannot be downloaded now.
var ErrMissing = errors.New("found no PostgreSQL to start")

// HowToInstall returns the command, or the page, that installs PostgreSQL on this system.
func HowToInstall() string {
	switch runtime.GOOS {
	case "darwin":
		return "brew install postgresql"
	case "windows":
		return "run the installer from https://www.postgresql.org/download/windows/"
	}
	return "sudo apt install postgresql (Debian, Ubuntu), sudo dnf install postgresql-server (Fedora)"
}

// A Search says how Find looks for PostgreSQL.
type Search struct {
	Download bool                                           // ignore an installed PostgreSQL
	Once     string                                         // names a run of several processes that try a download once
	Progress func(download io.Reader, size int64) io.Reader // watches a download; size is -1 if it is unknown
}

// Find returns the folder with PostgreSQL's programs: an installed one, else one that was downloaded, else one that it
// downloads now and keeps.
func Find(ctx context.Context, search Search) (string, error) {
	if !search.Download {
		if bin := Installed(); bin != "" {
			return bin, nil
		}
	}
	cache, err := Cache()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMissing, err)
	}
	bin, err := download(ctx, cache, repository(os.Getenv(RepositoryVariable)), search)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return bin, err
}

// Cache returns the folder in which Penny keeps a downloaded PostgreSQL and the data of servers. Root's is one that
// PostgreSQL's user may enter.
func Cache() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/penny", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find your cache folder: %w", err)
	}
	return filepath.Join(cache, "penny"), nil
}

// places are the folders in which packages put PostgreSQL's programs. Most packages do not add them to PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // the PostgreSQL project's RPMs
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	`C:\Program Files\PostgreSQL\*\bin`,
}

var number = regexp.MustCompile(`\d+`)

// Installed returns the folder with the programs of the newest installed PostgreSQL, else of the one on PATH, else "".
func Installed() string {
	var folders []string
	for _, place := range places {
		matches, _ := filepath.Glob(place) // it fails only for a malformed pattern
		folders = append(folders, matches...)
	}
	version := func(folder string) int {
		n, _ := strconv.Atoi(number.FindString(folder))
		return n // as a number: version 16 is newer than 9.6
	}
	slices.SortStableFunc(folders, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	if postgres, err := exec.LookPath("postgres"); err == nil {
		if postgres, err = filepath.EvalSymlinks(postgres); err == nil {
			folders = append(folders, filepath.Dir(postgres))
		}
	}
	if i := slices.IndexFunc(folders, complete); i >= 0 {
		return folders[i]
	}
	return ""
}

// complete reports whether folder has the programs that Start needs.
func complete(folder string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(folder, executable(program))); err != nil {
			return false
		}
	}
	return true
}

func executable(program string) string {
	if runtime.GOOS == "windows" {
		return program + ".exe"
	}
	return program
}
