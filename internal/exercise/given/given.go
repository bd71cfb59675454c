// Package given has what the checks of the exercises start from: databases on a real server, and a student's answers.
package given

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/lib/pq" // the driver "postgres"

	"example.com/penny"
	"example.com/penny/internal/localpg"
)

// Server is the environment variable with the address of the server.
const Server = "PENNY_EXERCISE_SERVER"

// Broken is the beginning of a check's message if the check fails for a reason that is not the student's fault.
const Broken = "the check cannot run: "

// Admin returns the address of the server, with an administrator's rights. It is for lib/pq and for pgx.
func Admin(t *testing.T) string {
	t.Helper()
	address := os.Getenv(Server)
	if address == "" {
		t.Fatal(Broken + "there is no server")
	}
	return address
}

// Books returns the address of a new database with penny.sql loaded. It is dropped when the test ends. Its options go to
// CREATE DATABASE.
func Books(t *testing.T, options string) string {
	t.Helper()
	name := "exercise_" + strings.ToLower(rand.Text())
	Exec(t, Admin(t), "CREATE DATABASE "+name+" TEMPLATE template0 "+options)
	t.Cleanup(func() { Exec(t, Admin(t), "DROP DATABASE "+name+" WITH (FORCE)") })
	u := parse(t, Admin(t))
	u.Path = "/" + name
	Exec(t, u.String(), penny.SQL)
	return u.String()
}

// Small starts a server with penny.sql loaded, and returns its address for an ordinary user. It lets in 20 connections, of
// which 17 are for ordinary users.
func Small(t *testing.T) string {
	t.Helper()
	server, err := localpg.Start(t.Context(), localpg.Options{Config: map[string]string{"max_connections": "20"}})
	if err != nil {
		t.Fatal(Broken, err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	Exec(t, server.URL("postgres"), penny.SQL+"CREATE ROLE shop LOGIN PASSWORD 'shop'; GRANT SELECT ON books TO shop;")
	u := parse(t, server.URL("postgres"))
	u.User = url.UserPassword("shop", "shop")
	return u.String()
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Open opens a database with lib/pq. It is closed when the test ends.
func Open(t *testing.T, address string) *sql.DB {
	t.Helper()
	return open(t, "postgres", address)
}

// SQLite opens a new SQLite file with penny.sql loaded. The check imports the driver.
func SQLite(t *testing.T) (db *sql.DB, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "penny.sqlite")
	db = open(t, "sqlite", file)
	if _, err := db.Exec(penny.SQL); err != nil {
		t.Fatal(err)
	}
	return db, file
}

func open(t *testing.T, driver, address string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Exec runs SQL statements at address.
func Exec(t *testing.T, address, statements string) {
	t.Helper()
	if _, err := Open(t, address).Exec(statements); err != nil {
		t.Fatalf("%.60s: %v", statements, err)
	}
}

// During runs statement in a transaction, and calls call while the transaction is open. It commits as soon as call waits
// for the transaction or has returned. It returns call's error.
func During(t *testing.T, address, statement string, call func() error) error {
	t.Helper()
	db := Open(t, address)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(statement); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- call() }()
	for waits := false; !waits && len(done) == 0; {
		err := db.QueryRow(`SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return <-done
}

// Missing says that a file of the student's is missing. Its argument is the name.
const Missing = "%[1]s is missing: git checkout %[1]s brings it back"

// Text returns the student's file, from Penny's folder.
func Text(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(file))
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf(Missing, file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(string(text), "\ufeff") // Notepad may begin a file with it
}

// Lines returns the lines of the student's file, from Penny's folder, without comments, which begin with #, and blank lines.
func Lines(t *testing.T, file string) (lines []string) {
	t.Helper()
	for _, line := range strings.Split(Text(t, file), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// Answers returns the answers in the student's file, which has lines such as "size = 8".
func Answers(t *testing.T, file string) map[string]string {
	t.Helper()
	answers := make(map[string]string)
	for _, line := range Lines(t, file) {
		name, answer, _ := strings.Cut(line, "=")
		answers[strings.TrimSpace(name)] = strings.TrimSpace(answer)
	}
	return answers
}

// Program is the name of the program that Compile makes. Windows runs a program only if its name has an ending such as .exe.
const Program = "check.exe"

// Compile compiles the tests of a package of the module at root to a program in folder. It compiles text in place of the text of
// file, and does not change file. It returns the compiler's message.
func Compile(ctx context.Context, folder, root, pkg, file string, text []byte) (says string, err error) {
	other, list := filepath.Join(folder, "other.go"), filepath.Join(folder, "overlay.json")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: other}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(other, text, 0o600), os.WriteFile(list, overlay, 0o600)); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", list, "-o", filepath.Join(folder, Program), pkg)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return strings.ReplaceAll(string(out), other, filepath.Base(file)), err
}
