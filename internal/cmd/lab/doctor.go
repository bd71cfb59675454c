package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/dburl"
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
	d := &doctor{env: env}
	address, from, err := dburl.Lookup()
	if !d.tick(err, os.Getenv(dburl.Variable), "DATABASE_URL is set, in %s", from) {
		return errSick
	}
	d.address = address
	if dburl.IsSQLite(address) {
		return d.sqlite(ctx)
	}
	return d.postgres(ctx)
}

type doctor struct {
	env     *environment
	address string
}

// tick tells how a step has ended, and whether it ended well.
func (d *doctor) tick(err error, address, format string, args ...any) bool {
	if err == nil {
		fmt.Fprintf(d.env.stdout, "✓ "+format+"\n", args...)
		return true
	}
	says, hint := dburl.Explain(err, address)
	fmt.Fprintf(d.env.stdout, "✗ %s\n", says)
	if cause := dburl.Find(err); cause != nil {
		fmt.Fprintf(d.env.stdout, "\n  Why:  %s\n  Mend: %s\n\n", cause.Why, hint)
	}
	return false
}

func (d *doctor) sqlite(ctx context.Context) error {
	file, err := dburl.File(d.address)
	if !d.tick(err, d.address, "it names the SQLite file %s", file) {
		return errSick
	}
	_, err = os.Stat(file)
	if !d.tick(err, d.address, "the file is there") {
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
	var books int
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM books`).Scan(&books)
	if !d.tick(err, d.address, "it is a SQLite database, and its books table has %d books", books) {
		return errSick
	}
	return nil
}

func (d *doctor) postgres(ctx context.Context) error {
	u, err := url.Parse(d.address)
	if err != nil {
		return errors.New("the address does not parse") // never with err, which quotes it
	}
	host, port := cmp.Or(u.Hostname(), "localhost"), cmp.Or(u.Port(), "5432")
	d.tick(nil, "", "it is PostgreSQL's: user %s, host %s, port %s, database %s", u.User.Username(), host, port, u.Path)

	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if !d.tick(err, d.address, "the host's name is known: %v", addresses) {
		return errSick
	}
	dialling, cancelDial := context.WithTimeout(ctx, 5*time.Second)
	defer cancelDial()
	wire, err := (&net.Dialer{}).DialContext(dialling, "tcp", net.JoinHostPort(host, port))
	if !d.tick(err, d.address, "something listens at that port") {
		return errSick
	}
	wire.Close()

	dsn, err := dburl.PGX(d.address)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if !d.tick(err, d.address, "it is PostgreSQL, it knows the user, the password and the database") {
		return errSick
	}
	defer conn.Close(context.Background())
	var version string
	var encrypted bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'),
		coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)`).Scan(&version, &encrypted)
	how := "not encrypted, which is right on this computer alone"
	if encrypted {
		how = "encrypted"
	}
	if !d.tick(err, d.address, "version %s; the connection is %s", version, how) {
		return errSick
	}
	var books int
	err = conn.QueryRow(ctx, `SELECT count(*) FROM books`).Scan(&books)
	if !d.tick(err, d.address, "the books table has %d books", books) {
		return errSick
	}
	var most, reserved, used int
	err = conn.QueryRow(ctx, `SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')`).Scan(&most, &reserved, &used)
	if !d.tick(err, d.address, "of %d connections %d are free for programs, %d are kept for the administrator", most, most-reserved-used, reserved) {
		return errSick
	}
	return nil
}
