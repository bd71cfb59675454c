package dburl

import (
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"
)

const penny = "postgres://penny:secret@localhost:5432/penny"

func TestAnAddressIsForgivenWhatPeoplePasteWithIt(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"as it should be", penny, penny},
		{"postgresql for postgres", "postgresql://penny:secret@localhost:5432/penny", penny},
		{"capitals", "POSTGRES://penny:secret@localhost:5432/penny", penny},
		{"SQLAlchemy's driver", "postgresql+psycopg2://penny:secret@localhost:5432/penny", penny},
		{"spaces", "  " + penny + " \n", penny},
		{"a carriage return", penny + "\r\n", penny},
		{"double quotes", `"` + penny + `"`, penny},
		{"single quotes and a space in them", "' " + penny + "'", penny},
		{"the name of the variable", "DATABASE_URL=" + penny, penny},
		{"a whole shell line", "export DATABASE_URL='" + penny + "'", penny},
		{"psql in front, as Neon shows it", "psql '" + penny + "?sslmode=require&channel_binding=require'",
			penny + "?sslmode=require&channel_binding=require"},
		{"an encoded password", "postgres://penny:p%23%2F%25%40@localhost/penny", "postgres://penny:p%23%2F%25%40@localhost/penny"},
		{"SQLite, relative", "sqlite:///penny.sqlite", "sqlite:///penny.sqlite"},
		{"SQLite, absolute", "sqlite:////var/penny.sqlite", "sqlite:////var/penny.sqlite"},
		{"SQLite as SQLAlchemy 2 names it", "sqlite+pysqlite:///penny.sqlite", "sqlite:///penny.sqlite"},
		{"SQLite in capitals and quotes", `"SQLITE:///penny.sqlite"`, "sqlite:///penny.sqlite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Clean(c.raw)
			if err != nil || got != c.want {
				t.Fatalf("Clean(%q) = %q, %v; want %q", c.raw, got, err, c.want)
			}
			if again, err := Clean(got); err != nil || again != got {
				t.Errorf("cleaned twice it is %q, %v", again, err)
			}
		})
	}
}

func TestAnAddressThatCannotBeForgivenIsRefusedByNameAndWithoutItsPassword(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		want      *Problem
	}{
		{"empty", "", empty},
		{"only spaces", "  ", empty},
		{"only quotes", `""`, empty},
		{"only the variable's name", "DATABASE_URL=", empty},
		{"key and value", "host=localhost user=penny password=secret dbname=penny", notURL},
		{"a host alone", "db.example.com", notURL},
		{"one slash", "postgres:/penny:secret@localhost/penny", notURL},
		{"another database", "mysql://penny:secret@localhost/penny", unknownScheme},
		{"a web page", "https://penny:secret@example.com", unknownScheme},
		{"# in the password", "postgres://penny:sec#ret-secret@localhost/penny", malformed},
		{"/ in the password", "postgres://penny:1/secret@localhost/penny", malformed},
		{"/ in the password, no digits", "postgres://penny:sec/ret-secret@localhost/penny", malformed},
		{"? in the password", "postgres://penny:1?secret@localhost/penny", malformed},
		{"% in the password", "postgres://penny:100%secret@localhost/penny", malformed},
		{"a space in the password", "postgres://penny:my secret@localhost/penny", malformed},
		{"a port that is no number", "postgres://penny:secret@localhost:port/penny", malformed},
		{"an open bracket", "postgres://penny:secret@[::1/penny", malformed},
		{"a setting that does not decode", penny + "?sslmode=%zz", malformed},
		{"an sslmode that does not exist", penny + "?sslmode=on", badSSLMode},
		{"SQLite with two slashes", "sqlite://penny.sqlite", badSQLite},
		{"SQLite without a file", "sqlite:///", badSQLite},
		{"SQLite in memory", "sqlite:///:memory:", badSQLite},
		{"SQLite with settings", "sqlite:///penny.sqlite?mode=ro", badSQLite},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Clean(c.raw)
			if !errors.Is(err, c.want) {
				t.Fatalf("Clean = %q, %v; want the error %q", got, err, c.want.Says)
			}
			if says := err.Error(); !strings.Contains(says, Variable) || strings.Contains(says, "secret") {
				t.Errorf("the user reads %q", says)
			}
		})
	}
}

func TestTheEnvironmentComesBeforeDotEnv(t *testing.T) {
	utf16 := func(text string) string {
		out := "\xff\xfe"
		for _, r := range text {
			out += string([]byte{byte(r), byte(r >> 8)})
		}
		return out
	}
	for _, c := range []struct {
		name        string
		environment []string // nothing, or the one value
		file        string   // "-" for none
		want, from  string
		err         *Problem
	}{
		{"neither", nil, "-", "", "", NotSet},
		{"only the environment", []string{penny}, "-", penny, "the environment", nil},
		{"only .env", nil, "DATABASE_URL=" + penny + "\n", penny, DotEnv, nil},
		{"both", []string{penny}, "DATABASE_URL=sqlite:///other.sqlite", penny, "the environment", nil},
		{"empty in the environment", []string{""}, "DATABASE_URL=" + penny, "", "", empty},
		{".env without it", nil, "PORT=8080\n", "", "", NotSet},
		{".env empty", nil, "", "", "", NotSet},
		{".env with comments, export and quotes", nil, "# Neon\nexport DATABASE_URL='" + penny + "'\n", penny, DotEnv, nil},
		{".env in UTF-8 with a byte order mark", nil, "\xef\xbb\xbfDATABASE_URL=" + penny, penny, DotEnv, nil},
		{".env in UTF-16, as PowerShell writes it", nil, utf16("DATABASE_URL=" + penny + "\r\n"), penny, DotEnv, nil},
		{".env that is none", nil, "just some secret words\n", "", "", badDotEnv},
		{"a dollar in single quotes", nil, "DATABASE_URL='postgres://penny:pa$HOME@localhost/penny'", "postgres://penny:pa$HOME@localhost/penny", DotEnv, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			t.Setenv(Variable, "") // so that it is put back after the test
			t.Setenv("PORT", "")
			os.Unsetenv(Variable)
			for _, value := range c.environment {
				os.Setenv(Variable, value)
			}
			if c.file != "-" {
				if err := os.WriteFile(DotEnv, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, from, err := Lookup()
			if c.err != nil {
				if !errors.Is(err, c.err) || strings.Contains(err.Error(), "secret") {
					t.Fatalf("got error %v, want %v", err, c.err)
				}
				return
			}
			if err != nil || got != c.want || from != c.from {
				t.Errorf("got %q from %q, %v; want %q from %q", got, from, err, c.want, c.from)
			}
		})
	}
}

func TestEachDriverTakesItsAddress(t *testing.T) {
	for _, c := range []struct{ address, pq, pgx string }{
		{penny, "connect_timeout=5&sslmode=prefer", "connect_timeout=5"},
		{penny + "?sslmode=require&channel_binding=require", "connect_timeout=5&sslmode=require",
			"channel_binding=require&connect_timeout=5&sslmode=require"},
		{penny + "?connect_timeout=3&sslmode=disable", "connect_timeout=3&sslmode=disable", "connect_timeout=3&sslmode=disable"},
		{penny + "?sslmode=disable&default_query_exec_mode=exec&binary_parameters=yes",
			"binary_parameters=yes&connect_timeout=5&sslmode=disable", "connect_timeout=5&default_query_exec_mode=exec&sslmode=disable"},
	} {
		for _, driver := range []struct {
			name  string
			make  func(string) (string, error)
			parse func(string) error
			want  string
		}{
			{"lib/pq", PQ, func(dsn string) error { _, err := pq.NewConnector(dsn); return err }, c.pq},
			{"pgx", PGX, func(dsn string) error { _, err := pgx.ParseConfig(dsn); return err }, c.pgx},
		} {
			got, err := driver.make(c.address)
			if want := penny + "?" + driver.want; err != nil || got != want {
				t.Errorf("%s: got %q, %v; want %q", driver.name, got, err, want)
			}
			if err := driver.parse(got); err != nil {
				t.Errorf("%s does not take %q: %v", driver.name, got, err)
			}
		}
	}
	const two = "postgres://penny:secret@first:5432,second:5433/penny?sslmode=disable"
	if got, err := PQ(two); err != nil || got != "postgres://penny:secret@/penny?connect_timeout=5&host=first%2Csecond&port=5432%2C5433&sslmode=disable" {
		t.Errorf("lib/pq gets %q for two hosts, %v", got, err)
	}
	if got, err := PGX(two); err != nil || !strings.Contains(got, "@first:5432,second:5433/penny") {
		t.Errorf("pgx gets %q for two hosts, %v", got, err)
	}
	for _, refuse := range []func(string) (string, error){PQ, PGX} {
		if _, err := refuse("sqlite:///penny.sqlite"); !errors.Is(err, needsPostgres) {
			t.Errorf("a PostgreSQL driver got SQLite's address: %v", err)
		}
	}
	if _, err := SQLite(penny); !errors.Is(err, needsSQLite) {
		t.Errorf("SQLite's driver got PostgreSQL's address: %v", err)
	}
	for address, want := range map[string]string{
		"sqlite:///penny.sqlite":       "file:penny.sqlite?",
		"sqlite:////var/lib/p q.db":    "file:/var/lib/p%20q.db?",
		"sqlite:///100%25 sure.sqlite": "file:100%2525%20sure.sqlite?",
	} {
		if got, err := SQLite(address); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("SQLite(%q) = %q, %v; want it to begin with %q", address, got, err, want)
		}
	}
}

func TestRedactTakesThePasswordOutHoweverItIsWritten(t *testing.T) {
	for _, c := range []struct{ address, text string }{
		{"postgres://penny:s3cr%23t@localhost/penny", "dial s3cr%23t and s3cr#t"},
		{"postgres://penny:s3cr%23t@localhost/penny", "quoted " + url.QueryEscape("s3cr#t")},
		{"postgres://localhost/penny?user=penny&password=s3cr%23t", "password s3cr#t"},
		{"postgres://penny:s3cr#t@localhost/penny", `parse "postgres://penny:s3cr#t@localhost/penny"`},
		{"'postgres://penny:s3cr%t@local host/penny'", "s3cr%t"},
		{"postgres://penny:s3cr!t@localhost/penny", "as typed s3cr!t"},
	} {
		if got := Redact(c.text, c.address); strings.Contains(got, "s3cr") {
			t.Errorf("%q still shows in %q", c.address, got)
		}
	}
	if got := Redact("nothing to hide", penny); got != "nothing to hide" {
		t.Errorf("an innocent text became %q", got)
	}
}

func FuzzAnAddressNeverShowsItsPassword(f *testing.F) {
	f.Add("hunter2", "penny")
	f.Add("hun#ter2", "penny")
	f.Add("%zz/hunter2?", "penny@x")
	f.Fuzz(func(t *testing.T, password, user string) {
		const mark = "hunter2"
		raw := "postgres://" + user + ":" + mark + password + "@localhost:5432/penny"
		_, err := Clean(raw)
		if err == nil {
			return
		}
		if strings.Contains(err.Error(), mark) {
			t.Errorf("%q: %v", raw, err)
		}
	})
}
