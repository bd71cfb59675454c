// Package dburl reads the address of the database from DATABASE_URL, forgives what can be forgiven in it, adds what the
// environment says, and writes it in the form that each driver takes.
//
// An address is a URL with a password in it. Nothing in this package puts a password in an error.
package dburl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/joho/godotenv"
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

// Lookup returns the address, cleaned, and where it comes from: "the environment" or ".env". It returns from even if it
// refuses the address.
func Lookup() (address, from string, err error) {
	from = "the environment"
	if _, set := os.LookupEnv(Variable); !set {
		from = DotEnv
	}
	err = LoadDotEnv()
	raw, set := os.LookupEnv(Variable)
	switch {
	case !set && err != nil:
		return "", from, err
	case !set:
		return "", "", NotSet
	}
	address, err = Clean(raw) // A .env that cannot be read does not matter if the address is in the environment.
	return address, from, err
}

// LoadDotEnv puts the settings in the file .env of the current folder into the environment. It never changes a variable
// that is already set, and a missing file is no error. It also reads UTF-16, which Windows PowerShell writes.
func LoadDotEnv() error {
	data, err := os.ReadFile(DotEnv)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", badDotEnv, err)
	}
	text := decode(data)
	settings, err := godotenv.Unmarshal(text)
	if err != nil {
		return badDotEnv // the parser's own error quotes the file, and the file has a password in it
	}
	for _, scheme := range []string{"postgres", "postgresql", "sqlite"} {
		if _, bare := settings[scheme]; bare { // an address alone: the parser takes the colon for an equals sign
			return badDotEnv
		}
	}
	if _, set := os.LookupEnv(Variable); !set && loses(text, settings) {
		return dollar
	}
	for name, value := range settings {
		_, set := os.LookupEnv(name)
		_, was := taken.Load(name)
		if set || was {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%w: set %s: %w", badDotEnv, name, err)
		}
	}
	return nil
}

// decode returns the text of a file in UTF-8 or, if its first two bytes say so, in the UTF-16 of Windows.
func decode(data []byte) string {
	rest, wide := bytes.CutPrefix(data, []byte{0xff, 0xfe})
	if !wide {
		return strings.TrimPrefix(string(data), "\ufeff")
	}
	var units []uint16
	for ; len(rest) > 1; rest = rest[2:] {
		units = append(units, binary.LittleEndian.Uint16(rest))
	}
	return string(utf16.Decode(units))
}

// loses reports whether a $NAME in the address, which is not in single quotes, stands for a variable that .env does not set.
func loses(text string, settings map[string]string) bool {
	const mark = "\uE000" // a character that no address has: with it in place of $, nothing is expanded
	literal, err := godotenv.Unmarshal(strings.NewReplacer(`\$`, `\$`, "$", mark).Replace(text))
	if err != nil || strings.ReplaceAll(literal[Variable], mark, "$") == settings[Variable] {
		return false
	}
	lost := false
	os.Expand(strings.ReplaceAll(literal[Variable], mark, "$"), func(name string) string {
		_, known := settings[name]
		lost = lost || !known
		return ""
	})
	return lost
}

// Clean checks an address as people paste it and returns it as a URL that begins with postgres:// or sqlite://. It forgives
// spaces, quotes, commands and assignments around it, and the schemes of other libraries, such as postgresql+psycopg2.
// What the address leaves open comes from the environment (PGHOST, PGPASSWORD, PGSERVICE …) and libpq's defaults, so that
// the result says all that a driver will do. A cleaned address passes unchanged.
func Clean(raw string) (string, error) {
	t, err := Parse(raw)
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// IsSQLite reports whether a cleaned address is that of a SQLite file; otherwise it is PostgreSQL's.
func IsSQLite(address string) bool {
	return strings.HasPrefix(address, "sqlite://")
}

// PQ returns address in the form that github.com/lib/pq takes, without the settings that only other drivers know.
func PQ(address string) (string, error) {
	t, err := parseServer(address)
	if err != nil {
		return "", err
	}
	// lib/pq gives each attempt the whole time, and here it makes two: with encryption and without.
	if seconds, _ := strconv.Atoi(t.Settings["connect_timeout"]); t.Settings["sslmode"] == "prefer" {
		t.Settings["connect_timeout"] = strconv.Itoa(min(seconds, 3))
	}
	// With read-only, libpq and pgx accept a standby; lib/pq 1.12.3 does not.
	if t.Settings["target_session_attrs"] == "read-only" {
		t.Settings["target_session_attrs"] = "standby"
	}
	return t.without(pgxOnly), nil
}

// PGX returns address in the form that github.com/jackc/pgx/v5 takes, without the settings that only lib/pq knows.
func PGX(address string) (string, error) {
	t, err := parseServer(address)
	if err != nil {
		return "", err
	}
	// lib/pq does this for each connection, and pgx never does.
	if t.Settings["load_balance_hosts"] == "random" {
		rand.Shuffle(len(t.Hosts), func(i, j int) { t.Hosts[i], t.Hosts[j] = t.Hosts[j], t.Hosts[i] })
	}
	return t.without(pqOnly), nil
}

// parseServer parses an address of PostgreSQL.
func parseServer(address string) (*Target, error) {
	t, err := Parse(address)
	if err == nil && t.File != "" {
		err = needsPostgres
	}
	return t, err
}

// without returns the address without some settings.
func (t *Target) without(names []string) string {
	maps.DeleteFunc(t.Settings, func(name, _ string) bool { return slices.Contains(names, name) })
	return t.String()
}

// GORM returns address in the form that database4 takes: PGX's, or SQLite's if it names a file.
func GORM(address string) (string, error) {
	if t, err := Parse(address); err == nil && t.File != "" {
		return SQLite(address)
	}
	return PGX(address)
}

// SQLite returns address in the form that modernc.org/sqlite takes. As in SQLAlchemy, sqlite:///penny.sqlite is a file in
// the current folder and sqlite:////var/penny.sqlite is one in /var. A missing file is an error, not a new empty database,
// and a caller that finds the file locked waits for up to three seconds: less than a program waits for its answer.
func SQLite(address string) (string, error) {
	file, err := File(address)
	if err != nil {
		return "", err
	}
	if filepath.VolumeName(file) != "" {
		file = "/" + filepath.ToSlash(file) // C:\penny.sqlite is file:/C:/penny.sqlite
	}
	// The PRAGMAs are in the name because each holds for one connection only, and a pool has many.
	return "file:" + (&url.URL{Path: file}).EscapedPath() + "?mode=rw&_pragma=busy_timeout(3000)&_pragma=foreign_keys(1)", nil
}

// File returns the path of the SQLite file at address.
func File(address string) (string, error) {
	t, err := Parse(address)
	if err != nil {
		return "", err
	}
	if t.File == "" {
		return "", needsSQLite
	}
	return t.File, nil
}
