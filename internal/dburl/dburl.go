// Package dburl reads the address of the database from DATABASE_URL, forgives what can be forgiven in it, makes it ready
// for each driver, and explains what goes wrong between a program and its database.
//
// An address is a URL with a password in it. Nothing in this package puts a password in an error.
package dburl

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/joho/godotenv"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// Variable is the name of the environment variable with the database's address. Heroku, Render and Neon all use it.
const Variable = "DATABASE_URL"

// DotEnv is the file in the current folder that Get reads.
const DotEnv = ".env"

// Get returns the address of the database in the form that a driver takes: PQ, PGX or GORM. The address is DATABASE_URL in
// the environment or, if that is not set, in the file .env of the current folder.
func Get(form func(address string) (string, error)) (string, error) {
	address, _, err := Lookup()
	if err != nil {
		return "", err
	}
	return form(address)
}

// Lookup is Get, and tells where the address comes from, also where it is refused: "the environment" or ".env".
func Lookup() (address, from string, err error) {
	from = "the environment"
	if _, set := os.LookupEnv(Variable); !set {
		from = DotEnv
	}
	if err := LoadDotEnv(); err != nil {
		return "", from, err
	}
	raw, set := os.LookupEnv(Variable)
	if !set {
		return "", "", NotSet
	}
	address, err = Clean(raw)
	return address, from, err
}

// LoadDotEnv puts the settings in the file .env of the current folder into the environment. It never changes a variable
// that is set already, and a missing file is no error. Windows PowerShell writes UTF-16: that is read as well.
func LoadDotEnv() error {
	data, err := os.ReadFile(DotEnv)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", badDotEnv, err)
	}
	text, _, err := transform.Bytes(unicode.BOMOverride(encoding.Nop.NewDecoder()), data)
	if err != nil {
		return badDotEnv
	}
	settings, err := godotenv.UnmarshalBytes(text)
	if err != nil {
		return badDotEnv // the parser's own error quotes the file, and the file has a password in it
	}
	for name, value := range settings {
		if _, set := os.LookupEnv(name); !set {
			if err := os.Setenv(name, value); err != nil {
				return fmt.Errorf("%w: set %s: %w", badDotEnv, name, err)
			}
		}
	}
	return nil
}

// Clean checks an address as people paste it and gives it back as a URL that begins with postgres:// or sqlite://. It
// forgives spaces and quotes around it, DATABASE_URL= or psql in front of it, capitals in its scheme, and the schemes
// that Python's libraries use, such as postgresql+psycopg2. An address that it has cleaned passes unchanged.
func Clean(raw string) (string, error) {
	text := unwrap(raw)
	if text == "" {
		return "", empty
	}
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return "", notURL
	}
	dialect, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	switch dialect {
	case "postgres", "postgresql":
		return cleanPostgres("postgres://" + rest)
	case "sqlite", "sqlite3":
		address := "sqlite://" + rest
		_, err := sqlitePath(address)
		return address, err
	}
	return "", unknownScheme
}

// unwrap takes off what people copy along with an address.
func unwrap(text string) string {
	for {
		before := text
		text = strings.TrimSpace(text)
		for _, prefix := range []string{"export ", "psql ", Variable + "="} {
			text = strings.TrimPrefix(text, prefix)
		}
		for _, quote := range []string{`"`, `'`, "`"} {
			if len(text) > 1 && strings.HasPrefix(text, quote) && strings.HasSuffix(text, quote) {
				text = text[1 : len(text)-1]
			}
		}
		if text == before {
			return text
		}
	}
}

func cleanPostgres(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Fragment != "" || strings.HasSuffix(address, "#") {
		return "", malformed // never with err, which quotes the address, password and all
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return "", malformed
	}
	if strings.Contains(strings.TrimPrefix(u.Path, "/"), "@") || strings.Contains(u.RawQuery, "@") {
		return "", malformed // a / or ? in the password ended the host too early
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "", malformed
		}
	}
	if mode := u.Query().Get("sslmode"); mode != "" && !sslmodes[mode] {
		return "", badSSLMode
	}
	return u.String(), nil
}

var sslmodes = map[string]bool{
	"disable": true, "allow": true, "prefer": true, "require": true, "verify-ca": true, "verify-full": true,
}

// IsSQLite tells whether a cleaned address is that of a SQLite file; otherwise it is PostgreSQL's.
func IsSQLite(address string) bool {
	return strings.HasPrefix(address, "sqlite://")
}

// PQ makes an address ready for github.com/lib/pq. That driver demands TLS where no sslmode is given: here it asks for
// TLS and does without where the server has none, as psql and pgx do. It passes settings that it does not know on to
// the server, which refuses them, so those that only other clients know are left out.
func PQ(address string) (string, error) {
	return forDriver(address, func(u *url.URL, settings url.Values) {
		if !settings.Has("sslmode") {
			settings.Set("sslmode", "prefer")
		}
		spreadHosts(u, settings)
		settings.Del("channel_binding")
		settings.Del("default_query_exec_mode")
		settings.Del("statement_cache_capacity")
		settings.Del("description_cache_capacity")
	})
}

// spreadHosts moves several hosts, as in first:5432,second:5432, to where lib/pq finds them: it does not part a host of
// several from its port.
func spreadHosts(u *url.URL, settings url.Values) {
	if !strings.Contains(u.Host, ",") {
		return
	}
	var hosts, ports []string
	for _, one := range strings.Split(u.Host, ",") {
		host, port, err := net.SplitHostPort(one)
		if err != nil {
			host, port = one, "5432"
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	u.Host = ""
	settings.Set("host", strings.Join(hosts, ","))
	settings.Set("port", strings.Join(ports, ","))
}

// PGX makes an address ready for github.com/jackc/pgx/v5, without the setting that only lib/pq knows.
func PGX(address string) (string, error) {
	return forDriver(address, func(_ *url.URL, settings url.Values) {
		settings.Del("binary_parameters")
	})
}

func forDriver(address string, set func(*url.URL, url.Values)) (string, error) {
	address, err := Clean(address)
	if err != nil {
		return "", err
	}
	if IsSQLite(address) {
		return "", needsPostgres
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", malformed
	}
	settings := u.Query()
	if !settings.Has("connect_timeout") {
		settings.Set("connect_timeout", "5") // seconds; without it a host that swallows packets holds on for minutes
	}
	set(u, settings)
	u.RawQuery = settings.Encode()
	return u.String(), nil
}

// GORM returns address in the form that database4 takes: PGX's, or SQLite's if it names a file.
func GORM(address string) (string, error) {
	if clean, err := Clean(address); err == nil && IsSQLite(clean) {
		return SQLite(address)
	}
	return PGX(address)
}

// SQLite makes an address ready for modernc.org/sqlite. Following SQLAlchemy, sqlite:///penny.sqlite is a file in the
// current folder and sqlite:////var/penny.sqlite is one at /var. A missing file is an error, not a new empty database,
// and who finds the file locked waits for up to five seconds.
func SQLite(address string) (string, error) {
	file, err := File(address)
	if err != nil {
		return "", err
	}
	if filepath.VolumeName(file) != "" {
		file = "/" + filepath.ToSlash(file) // C:\penny.sqlite is file:/C:/penny.sqlite
	}
	// These stand in the name because a PRAGMA holds for one connection only, and a pool has many.
	return "file:" + (&url.URL{Path: file}).EscapedPath() + "?mode=rw&_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)", nil
}

// File is the path of the SQLite file at an address.
func File(address string) (string, error) {
	address, err := Clean(address)
	if err != nil {
		return "", err
	}
	if !IsSQLite(address) {
		return "", needsSQLite
	}
	return sqlitePath(address)
}

func sqlitePath(address string) (string, error) {
	path, found := strings.CutPrefix(address, "sqlite:///")
	if !found || path == "" || path == ":memory:" || strings.ContainsAny(path, "?#") {
		return "", badSQLite
	}
	return path, nil
}

// Redact takes the password in address out of a text, in each way that it can be written.
func Redact(text, address string) string {
	address = unwrap(address)
	u, err := url.Parse(address)
	if err != nil {
		// Not a URL: what stands between the user's colon and the last @ can be a password.
		if _, rest, found := strings.Cut(address, "://"); found {
			if at := strings.LastIndex(rest, "@"); at > 0 {
				_, password, _ := strings.Cut(rest[:at], ":")
				return hide(text, address, password)
			}
		}
		return hide(text, address)
	}
	secrets := []string{u.Query().Get("password"), u.Query().Get("sslpassword")}
	if password, set := u.User.Password(); set {
		_, written, _ := strings.Cut(u.User.String(), ":")
		secrets = append(secrets, password, written, url.QueryEscape(password), url.PathEscape(password))
		if _, rest, found := strings.Cut(address, "://"); found {
			userinfo, _, _ := strings.Cut(rest, "@")
			_, asTyped, _ := strings.Cut(userinfo, ":")
			secrets = append(secrets, asTyped)
		}
	}
	return hide(text, secrets...)
}

func hide(text string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "*****")
		}
	}
	return text
}
