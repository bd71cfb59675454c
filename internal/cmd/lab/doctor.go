package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/explain"
)

const doctorAbout = `Looks, step by step, at what can be wrong with DATABASE_URL, and stops at the first thing that is, with its cause and its
mend. It shows no password.`

// errSick is the error when a step has failed and has been told.
var errSick = &hinted{errors.New("that was the first thing that is wrong"), "mend it, and run go tool lab doctor again"}

func runDoctor(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "doctor", doctorAbout)
	if err := parse(f, args); err != nil {
		return err
	}
	address, from, err := dburl.Lookup()
	if err != nil { // then it is told of the address as it stands there, which Lookup has put into the environment
		address = os.Getenv(dburl.Variable)
	}
	d := &doctor{env: env, address: address, from: from}
	if !d.tick(err, "DATABASE_URL is set, in %s", from) {
		return errSick
	}
	if dburl.IsSQLite(address) {
		return d.sqlite(ctx)
	}
	return d.postgres(ctx)
}

type doctor struct {
	env     *environment
	address string
	from    string // "the environment" or ".env"
}

// tick tells how a step has ended, and whether it ended well.
func (d *doctor) tick(err error, format string, args ...any) bool {
	if err == nil {
		fmt.Fprintf(d.env.stdout, "✓ "+format+"\n", args...)
		return true
	}
	says, hint := explain.Error(err, d.address)
	fmt.Fprintf(d.env.stdout, "✗ %s\n", says)
	cause := explain.Find(err)
	if cause == nil {
		return false
	}
	fmt.Fprintf(d.env.stdout, "\n  Why:  %s\n  Hint: %s\n", cause.Why, hint)
	fmt.Fprintln(d.env.stdout)
	return false
}

func (d *doctor) sqlite(ctx context.Context) error {
	file, err := dburl.File(d.address)
	if !d.tick(err, "it names the SQLite file %s", file) {
		return errSick
	}
	_, err = os.Stat(file)
	if !d.tick(err, "the file is there") {
		return errSick
	}
	dsn, err := dburl.SQLite(d.address)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	var tables int
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&tables)
	if !d.tick(err, "it is a SQLite database") {
		return errSick
	}
	return d.books(func(query string, into *int) error { return db.QueryRowContext(ctx, query).Scan(into) })
}

// books looks at the table, with a function that asks for a number.
func (d *doctor) books(ask func(query string, into *int) error) error {
	var table, books int
	err := ask(`SELECT count(*) FROM (SELECT isbn, author, title FROM books LIMIT 1) AS first`, &table)
	if !d.tick(err, "it has the books table") {
		return errSick
	}
	err = ask(`SELECT count(*) FROM books`, &books)
	if !d.tick(err, "the books table has %d books", books) {
		return errSick
	}
	return nil
}

func (d *doctor) postgres(ctx context.Context) error {
	dsn, err := dburl.PGX(d.address)
	if err != nil {
		return err
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errors.New("the address does not parse") // never with err, which may quote it
	}
	hosts := hosts(config)
	d.tick(nil, "it is PostgreSQL's: user %s, at %s, database %s", config.User, list(hosts), config.Database)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	known, err := those(hosts, func(h host) error { return h.lookUp(ctx) })
	if !d.tick(err, "the host's name is known: %s", list(known)) {
		return errSick
	}
	open, err := those(known, func(h host) error { return h.knock(ctx) })
	if !d.tick(err, "something listens at %s", list(open)) {
		return errSick
	}

	// Connecting goes through three steps; how it fails tells at which.
	conn, err := pgx.ConnectConfig(ctx, config)
	encryption := "agrees on encryption"
	if err == nil {
		defer conn.Close(context.Background())
		encryption = "does without encryption, which is right on this computer alone"
		if _, yes := conn.PgConn().Conn().(*tls.Conn); yes {
			encryption = "encrypts the connection"
		}
	}
	for i, step := range []string{
		"it is PostgreSQL that listens there, and it " + encryption,
		"it lets the user " + config.User + " in",
		"it has the database " + config.Database,
	} {
		if err != nil && i == failedStep(err) {
			d.tick(err, "")
			return errSick
		}
		d.tick(nil, "%s", step)
	}
	if err := d.books(func(query string, into *int) error { return conn.QueryRow(ctx, query).Scan(into) }); err != nil {
		return err
	}
	return d.places(ctx, conn)
}

// failedStep is the step of connecting that err ended.
func failedStep(err error) int {
	switch explain.Name(err) {
	case "wrong password", "not allowed", "server full":
		return 1
	case "unknown database", "no permission":
		return 2
	}
	return 0
}

// A host is where an address leads: a host and port, or a socket in a folder of this computer.
type host struct{ network, address string }

// hosts are those in the address, which may name several.
func hosts(config *pgx.ConnConfig) []host {
	var all []host
	add := func(name string, port uint16) {
		network, address := pgconn.NetworkAddress(name, port)
		if h := (host{network, address}); !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	add(config.Host, config.Port)
	for _, other := range config.Fallbacks { // the other hosts, and the same ones once more without encryption
		add(other.Host, other.Port)
	}
	return all
}

func list(hosts []host) string {
	var all []string
	for _, h := range hosts {
		all = append(all, h.address)
	}
	return strings.Join(all, ", ")
}

// those are the hosts that pass; where none does, the error of the last.
func those(hosts []host, pass func(host) error) (passed []host, err error) {
	for _, h := range hosts {
		if failed := pass(h); failed != nil {
			err = failed
			continue
		}
		passed = append(passed, h)
	}
	if len(passed) > 0 {
		err = nil
	}
	return passed, err
}

func (h host) lookUp(ctx context.Context) error {
	name, _, err := net.SplitHostPort(h.address)
	if h.network == "unix" || err != nil {
		return err
	}
	_, err = net.DefaultResolver.LookupHost(ctx, name)
	return err
}

func (h host) knock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	wire, err := (&net.Dialer{}).DialContext(ctx, h.network, h.address)
	if err != nil {
		return err
	}
	return wire.Close()
}

// places tells how many more connections programs may open: the server has a limit, and hosts often set one for the user
// or for the database.
func (d *doctor) places(ctx context.Context, conn *pgx.Conn) error {
	var most, used, kept int
	err := conn.QueryRow(ctx, `
		WITH clients AS (SELECT usename, datname FROM pg_stat_activity WHERE backend_type = 'client backend'),
		limits (most, used, kept) AS (
			SELECT current_setting('max_connections')::int, (SELECT count(*) FROM clients),
				current_setting('superuser_reserved_connections')::int
			UNION ALL SELECT rolconnlimit, (SELECT count(*) FROM clients WHERE usename = current_user), 0
				FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0
			UNION ALL SELECT datconnlimit, (SELECT count(*) FROM clients WHERE datname = current_database()), 0
				FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0)
		SELECT most, used, kept FROM limits ORDER BY most - used - kept LIMIT 1`).Scan(&most, &used, &kept)
	if !d.tick(err, "of %d connections %d are in use, %d are kept for the administrator, and %d are free for programs", most, used, kept, most-used-kept) {
		return errSick
	}
	return nil
}
