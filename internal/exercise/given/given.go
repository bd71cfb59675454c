// Package given has what the checks of the exercises start from: databases on a real server, and a student's answers.
package given

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver "postgres"

	"example.com/penny"
	"example.com/penny/internal/localpg"
)

// The environment of a check: the address of a server, and the folder with PostgreSQL's programs.
const (
	Server = "PENNY_EXERCISE_SERVER"
	Bin    = "PENNY_EXERCISE_BIN"
)

// Admin returns the address of the server, with an administrator's rights. It is for lib/pq and for pgx.
func Admin(t *testing.T) string {
	t.Helper()
	address := os.Getenv(Server)
	if address == "" {
		t.Fatal("there is no server; check this exercise with go tool lab exercise")
	}
	return address
}

// Books returns the address of a database of its own with penny.sql loaded, which is dropped when the test ends. Its
// options go to CREATE DATABASE.
func Books(t *testing.T, options string) string {
	t.Helper()
	name := "exercise_" + strings.ToLower(rand.Text())
	admin := Admin(t)
	Exec(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 "+options)
	t.Cleanup(func() { Exec(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	Exec(t, u.String(), penny.SQL)
	return u.String()
}

// Small returns the address of a server of its own, for an ordinary user, with penny.sql loaded. It lets in 20 connections,
// of which 17 are for ordinary users.
func Small(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	server, err := localpg.Start(ctx, localpg.Options{BinDir: os.Getenv(Bin), Config: map[string]string{"max_connections": "20"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	Exec(t, server.URL("postgres"), penny.SQL+"CREATE ROLE shop LOGIN PASSWORD 'shop'; GRANT SELECT ON books TO shop;")
	u, err := url.Parse(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("shop", "shop")
	return u.String()
}

// Open opens a database with lib/pq. It is closed when the test ends.
func Open(t *testing.T, address string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Exec runs SQL statements at address.
func Exec(t *testing.T, address, statements string) {
	t.Helper()
	db, err := sql.Open("postgres", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatalf("%.60s: %v", statements, err)
	}
}

// Lines returns the lines of the student's file, from Penny's folder, without comments, which begin with #, and blank lines.
func Lines(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
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
