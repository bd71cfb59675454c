package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/race"
)

const doctorAbout = `Checks DATABASE_URL and the database step by step. It stops at the first problem, and prints its cause and a hint. At the end
it runs each stage's own query: if every step is ticked, the programs work. It shows no password.`

// errSick is the error of a failed step, after tick has printed the reason.
var errSick = &hinted{errors.New("this step failed"), "follow the hint above, and run go tool lab doctor again"}

func runDoctor(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "doctor", doctorAbout)
	if err := parse(f, args); err != nil {
		return err
	}
	address, from, err := env.lookup()
	d := &doctor{env: env, address: address}
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
}

// tick prints how a step ended, and reports whether it ended well.
func (d *doctor) tick(err error, format string, args ...any) bool {
	if err == nil {
		fmt.Fprintf(d.env.stdout, "✓ "+format+"\n", args...)
		return true
	}
	d.cross("", err)
	return false
}

// cross prints what went wrong. The line begins with who.
func (d *doctor) cross(who string, err error) {
	says, hint := explain.Error(err, d.address)
	fmt.Fprintf(d.env.stdout, "✗ %s%s\n\n", who, says)
	if cause := explain.Find(err, d.address); cause != nil && cause.Why != "" {
		fmt.Fprintf(d.env.stdout, "  Why:  %s\n", cause.Why)
	} else if cause == nil { // the usual hint for an unknown cause is to run the doctor
		hint = "Penny does not know this error: look up its words, or show them to the server's administrator"
	}
	fmt.Fprintf(d.env.stdout, "  Hint: %s\n\n", hint)
}

func (d *doctor) sqlite(ctx context.Context) error {
	file, err := dburl.File(d.address)
	if !d.tick(err, "it names the SQLite file %s", file) {
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
	if !d.count(func(query string, into *int) error { return db.QueryRowContext(ctx, query).Scan(into) }) {
		return errSick
	}
	return d.ask(ctx, "database1,database4")
}

// count looks at the table, with a function that asks for a number.
func (d *doctor) count(ask func(query string, into *int) error) bool {
	var books int
	err := ask(`SELECT count(*) FROM books`, &books)
	has := fmt.Sprint(books, " books")
	if books == 1 {
		has = "one book"
	}
	return d.tick(err, "it has the books table") && d.tick(nil, "the books table has %s", has)
}

// ask asks the question of some stages as their programs do, each through its own driver.
func (d *doctor) ask(ctx context.Context, names string) error {
	stages, err := race.Choose(names)
	if err != nil {
		return err
	}
	for _, s := range stages {
		for range 2 { // through a pooler, the second program may meet what the first one has left on the connection
			if err := ask(ctx, s, d.address); err != nil {
				d.cross(s.Name+": ", err)
				return errSick
			}
		}
		d.tick(nil, "%s finds the books", s.Name)
	}
	return nil
}

func ask(ctx context.Context, stage race.Contender, address string) error {
	store, err := stage.Open(address, 1)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = demo.Ask(ctx, store.ByAuthor, "ker", demo.Limit)
	return err
}

func (d *doctor) postgres(ctx context.Context) error {
	target, err := dburl.Parse(d.address)
	if err != nil {
		return err
	}
	d.tick(nil, "it names a PostgreSQL database: user %s, at %s, database %s", target.User, target.Server(), target.Database)
	known, err := those(target.Hosts, func(h dburl.Host) error { return lookUp(ctx, h) })
	if !d.tick(err, "the host's name is known: %s", list(known)) {
		return errSick
	}
	seconds, _ := strconv.Atoi(target.Settings["connect_timeout"])
	open, err := those(known, func(h dburl.Host) error { return knock(ctx, h, time.Duration(seconds)*time.Second) })
	if !d.tick(err, "something listens at %s", list(open)) {
		return errSick
	}
	ctx, cancel := context.WithTimeout(ctx, 2*demo.Patience)
	defer cancel()
	if err := d.look(ctx, target); err != nil {
		return err
	}
	return d.ask(ctx, "database2,database3,database4")
}

// look connects and checks what the database has.
func (d *doctor) look(ctx context.Context, target *dburl.Target) error {
	ctx, cancel := context.WithTimeout(ctx, demo.Patience)
	defer cancel()
	dsn, err := dburl.PGX(d.address)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		// Connecting goes through several steps, and the server's code tells which of them failed.
		var server *pgconn.PgError
		if errors.As(err, &server) {
			d.tick(nil, "PostgreSQL listens there")
			if server.Code == "3D000" || server.Code == "42501" {
				d.tick(nil, "it lets the user %s in", target.User)
			}
		}
		d.cross("", err)
		return errSick
	}
	defer conn.Close(ctx)
	encryption := "without encryption, which is right only on this computer"
	if _, yes := conn.PgConn().Conn().(*tls.Conn); yes {
		encryption = "with encryption"
	}
	d.tick(nil, "PostgreSQL listens there, %s", encryption)
	d.tick(nil, "it lets the user %s in", target.User)
	d.tick(nil, "it has the database %s", target.Database)
	if err := d.places(ctx, conn); conn.IsClosed() {
		d.cross("", err)
		return errSick
	}
	if !d.count(func(query string, into *int) error { return conn.QueryRow(ctx, query).Scan(into) }) {
		return errSick
	}
	return nil
}

func list(hosts []dburl.Host) string { return (&dburl.Target{Hosts: hosts}).Server() }

// those returns the hosts that pass. If none passes, it returns the error of the last one.
func those(hosts []dburl.Host, pass func(dburl.Host) error) (passed []dburl.Host, err error) {
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

func lookUp(ctx context.Context, h dburl.Host) error {
	if network, _ := h.Network(); network == "unix" {
		return nil
	}
	_, err := net.DefaultResolver.LookupHost(ctx, h.Name)
	return err
}

// knock returns an error if nothing listens at a host.
func knock(ctx context.Context, h dburl.Host, timeout time.Duration) error {
	network, address := h.Network()
	wire, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return wire.Close()
}

// places prints how many more connections programs may open. The server has a limit, and hosts often set one for the user or
// the database. The doctor's own connection does not count. If the server does not say, places returns why and prints nothing.
func (d *doctor) places(ctx context.Context, conn *pgx.Conn) error {
	var most, used, kept int
	err := conn.QueryRow(ctx, `
		WITH clients AS (SELECT usename, datname FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
		limits (most, used, kept) AS (
			SELECT current_setting('max_connections')::int, (SELECT count(*) FROM clients),
				current_setting('superuser_reserved_connections')::int + COALESCE(current_setting('reserved_connections', true)::int, 0)
			UNION ALL SELECT rolconnlimit, (SELECT count(*) FROM clients WHERE usename = current_user), 0
				FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0
			UNION ALL SELECT datconnlimit, (SELECT count(*) FROM clients WHERE datname = current_database()), 0
				FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0)
		SELECT most, used, kept FROM limits ORDER BY most - used - kept LIMIT 1`).Scan(&most, &used, &kept)
	if err == nil {
		d.tick(nil, "of %d connections %d are in use, %d are kept for the administrator, and %d are free for programs", most, used, kept, most-used-kept)
	}
	return err
}
