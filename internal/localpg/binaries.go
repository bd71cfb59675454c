package localpg

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
)

// ErrNotInstalled is what FindBinaries finds where there is no PostgreSQL; it says how to get one.
var ErrNotInstalled = errors.New("no PostgreSQL is installed on this computer: " + HowToInstall())

// HowToInstall is the command, or the page, that installs PostgreSQL on this system.
func HowToInstall() string {
	switch runtime.GOOS {
	case "darwin":
		return "brew install postgresql"
	case "windows":
		return "run the installer from https://www.postgresql.org/download/windows/"
	}
	return "sudo apt install postgresql (Debian, Ubuntu), sudo dnf install postgresql-server (Fedora)"
}

// places are where packages put PostgreSQL's server programs, mostly a folder a version and not on PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // the PostgreSQL project's RPMs
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	`C:\Program Files\PostgreSQL\*\bin`,
}

var version = regexp.MustCompile(`\d+`)

// FindBinaries is the folder with initdb and postgres: of the newest version among the places where packages put them,
// else the one on PATH.
func FindBinaries() (string, error) {
	var folders []string
	for _, place := range places {
		matches, err := filepath.Glob(place)
		if err != nil {
			return "", err
		}
		folders = append(folders, matches...)
	}
	// As numbers: version 16 is newer than 9.6.
	number := func(folder string) int {
		n, _ := strconv.Atoi(version.FindString(folder))
		return n
	}
	slices.SortStableFunc(folders, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
	for _, folder := range folders {
		if Complete(folder) {
			return folder, nil
		}
	}
	if postgres, err := exec.LookPath("postgres"); err == nil {
		if postgres, err = filepath.EvalSymlinks(postgres); err == nil && Complete(filepath.Dir(postgres)) {
			return filepath.Dir(postgres), nil
		}
	}
	return "", ErrNotInstalled
}

// Complete tells whether folder has the programs that Start needs.
func Complete(folder string) bool {
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
