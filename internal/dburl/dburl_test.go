package dburl

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"
)

const penny = "postgres://penny:s3cret@localhost:5432/penny"

// rest is what a cleaned address says after the question mark if the user gave no setting.
const rest = "?client_encoding=UTF8&connect_timeout=5&sslmode=prefer"

// alone runs the test without libpq's variables, and with an empty home folder.
func alone(t testing.TB) {
	t.Helper()
	forget := func() {
		taken.Clear()
		for name := range variables {
			os.Unsetenv(name)
		}
	}
	for name := range variables {
		t.Setenv(name, "") // so that it comes back after the test
	}
	forget()
	t.Cleanup(forget)
	t.Setenv("HOME", t.TempDir())
}

func TestCleanAcceptsWhatPeoplePasteWithAnAddress(t *testing.T) {
	alone(t)
	for _, c := range []struct{ name, raw, want string }{
		{"as it should be", penny, penny + rest},
		{"postgresql for postgres", "postgresql://penny:s3cret@localhost:5432/penny", penny + rest},
		{"capitals", "POSTGRES://penny:s3cret@localhost:5432/penny", penny + rest},
		{"SQLAlchemy's driver", "postgresql+psycopg2://penny:s3cret@localhost:5432/penny", penny + rest},
		{"JDBC's address", "jdbc:postgresql://localhost:5432/penny?user=penny&password=s3cret&ssl=true",
			strings.Replace(penny+rest, "prefer", "require", 1)},
		{"Django's scheme", "psql://penny:s3cret@localhost:5432/penny", penny + rest},
		{"no port, no database", "postgres://penny:s3cret@localhost", penny + rest},
		{"spaces", "  " + penny + " \n", penny + rest},
		{"a line break in the middle", penny[:20] + "\r\n" + penny[20:], penny + rest},
		{"a byte order mark and a zero-width space", "\ufeff" + penny + "\u200b", penny + rest},
		{"double quotes", `"` + penny + `"`, penny + rest},
		{"single quotes and a space in them", "' " + penny + "'", penny + rest},
		{"typographic quotes", "“" + penny + "”", penny + rest},
		{"one stray quote", penny + "'", penny + rest},
		{"a semicolon", penny + ";", penny + rest},
		{"angle brackets", "<" + penny + ">", penny + rest},
		{"the name of the variable", "DATABASE_URL=" + penny, penny + rest},
		{"the scheme twice", "postgres://" + penny, penny + rest},
		{"a shell's line", "export DATABASE_URL='" + penny + "'", penny + rest},
		{"PowerShell's line", `$env:DATABASE_URL = "` + penny + `"`, penny + rest},
		{"cmd's line", `set "DATABASE_URL=` + penny + `"`, penny + rest},
		{"a line of YAML", `- DATABASE_URL: "` + penny + `"`, penny + rest},
		{"psql in front, as Neon shows it", "psql '" + penny + "?sslmode=require&channel_binding=require'",
			penny + "?channel_binding=require&client_encoding=UTF8&connect_timeout=5&sslmode=require"},
		{"psql -d", "psql -d " + penny, penny + rest},
		{"an address from a web page", penny + "?sslmode=disable&amp;application_name=x",
			penny + "?application_name=x&client_encoding=UTF8&connect_timeout=5&sslmode=disable"},
		{"an encoded password", "postgres://penny:p%23%2F%25%40@localhost/penny", "postgres://penny:p%23%2F%25%40@localhost:5432/penny" + rest},
		{"# in the password", "postgres://penny:s3#cret@localhost/penny", "postgres://penny:s3%23cret@localhost:5432/penny" + rest},
		{"? in the password", "postgres://penny:s3?cret@localhost/penny", "postgres://penny:s3%3Fcret@localhost:5432/penny" + rest},
		{"@ in the password", "postgres://penny:s3@cret@localhost/penny", "postgres://penny:s3%40cret@localhost:5432/penny" + rest},
		{": in the password", "postgres://penny:s3:cret@localhost/penny", "postgres://penny:s3%3Acret@localhost:5432/penny" + rest},
		{"a space in the password", "postgres://penny:s3 cret@localhost/penny", "postgres://penny:s3%20cret@localhost:5432/penny" + rest},
		{"brackets in the password", "postgres://penny:s3[cret]@localhost/penny", "postgres://penny:s3%5Bcret%5D@localhost:5432/penny" + rest},
		{"@ in a setting", "postgres://penny:s3cret@localhost?application_name=a@b",
			penny + "?application_name=a%40b&client_encoding=UTF8&connect_timeout=5&sslmode=prefer"},
		{"an IPv6 address", "postgres://penny@[::1]/penny", "postgres://penny@[::1]:5432/penny" + rest},
		{"an IPv6 address with a zone", "postgres://penny@[fe80::1%25lo]/penny", "postgres://penny@[fe80::1%25lo]:5432/penny" + rest},
		{"user and password as settings", "postgres://localhost/penny?user=penny&pwd=s3cret", penny + rest},
		{"a socket's folder as a setting", "postgres://penny@/penny?host=/var/run/pg", "postgres://penny@/penny" + rest + "&host=/var/run/pg&port=5432"},
		{"a socket's folder as the host", "postgres://penny@%2Fvar%2Frun%2Fpg:6432/penny", "postgres://penny@/penny" + rest + "&host=/var/run/pg&port=6432"},
		{"two hosts", "postgres://penny@first:5432,second:5433/penny?connect_timeout=10",
			"postgres://penny@/penny?client_encoding=UTF8&connect_timeout=2&sslmode=prefer&host=first,second&port=5432,5433"},
		{"spaces in a setting", penny + "?options=-c statement_timeout=5s",
			penny + "?client_encoding=UTF8&connect_timeout=5&options=-c%20statement_timeout%3D5s&sslmode=prefer"},
		{"plus signs in a setting", penny + "?options=-c+statement_timeout=5s",
			penny + "?client_encoding=UTF8&connect_timeout=5&options=-c%20statement_timeout%3D5s&sslmode=prefer"},
		{"a time zone", penny + "?TimeZone=Europe/Berlin", penny + "?Timezone=Europe/Berlin&client_encoding=UTF8&connect_timeout=5&sslmode=prefer"},
		{"a path with a space", penny + "?sslmode=verify-ca&sslrootcert=/my certs/ca.pem",
			penny + "?client_encoding=UTF8&connect_timeout=5&sslmode=verify-ca&sslrootcert=/my%20certs/ca.pem"},
		{"an empty sslmode", penny + "?sslmode=", penny + rest},
		{"a setting in capitals", penny + "?SSLMode=disable", strings.Replace(penny+rest, "prefer", "disable", 1)},
		{"the system's authorities", penny + "?sslrootcert=system&sslmode=require",
			penny + "?client_encoding=UTF8&connect_timeout=5&sslmode=verify-full&sslrootcert=system"},
		{"connect_timeout=0, which means for ever", penny + "?connect_timeout=0", penny + rest},
		{"settings that only psql has", penny + "?gssencmode=disable&keepalives=1&client_encoding=LATIN1", penny + rest},
		{"a second question mark", penny + "?application_name=x?sslmode=disable",
			penny + "?application_name=x&client_encoding=UTF8&connect_timeout=5&sslmode=disable"},
		{"Prisma's settings", penny + "?pgbouncer=true&connection_limit=1&schema=shop",
			penny + "?binary_parameters=yes&client_encoding=UTF8&connect_timeout=5&default_query_exec_mode=exec&search_path=shop&sslmode=prefer"},
		{"a setting of the server", penny + "?statement_timeout=2000", penny + "?client_encoding=UTF8&connect_timeout=5&sslmode=prefer&statement_timeout=2000"},
		{"SQLite, relative", "sqlite:///penny.sqlite", "sqlite:///penny.sqlite"},
		{"SQLite, absolute", "sqlite:////var/penny.sqlite", "sqlite:////var/penny.sqlite"},
		{"SQLite as SQLAlchemy 2 names it", "sqlite+pysqlite:///penny.sqlite", "sqlite:///penny.sqlite"},
		{"SQLite in capitals and quotes", `"SQLITE:///penny.sqlite"`, "sqlite:///penny.sqlite"},
		{"SQLite with # and ? in the path", "sqlite:///a#b?.sqlite", "sqlite:///a#b?.sqlite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Clean(c.raw)
			if err != nil || got != c.want {
				t.Fatalf("Clean(%q) = %q, %v; want %q", c.raw, got, err, c.want)
			}
			if again, err := Clean(got); err != nil || again != got {
				t.Errorf("Clean(%q) = %q, %v; want it unchanged", got, again, err)
			}
			if !IsSQLite(got) {
				driversAccept(t, c.raw)
			}
		})
	}
}

// driversAccept fails the test if lib/pq or pgx does not accept an address, or reads it differently from Parse.
func driversAccept(t testing.TB, raw string) {
	t.Helper()
	want, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if want.Settings["sslcert"] != "" || want.Settings["sslkey"] != "" || want.Settings["sslrootcert"] != "" {
		return // pgx wants to read the files
	}
	port, _ := strconv.Atoi(want.Hosts[0].Port)
	show := func(host string, port uint16, user, password, database string) string {
		return fmt.Sprintf("%s %d %s %s %s", host, port, user, password, database)
	}
	expected := show(want.Hosts[0].Name, uint16(port), want.User, want.Password, want.Database)
	dsn, err := PQ(raw)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pq.NewConfig(dsn)
	if err != nil {
		t.Fatalf("lib/pq does not accept %q: %v", dsn, err)
	}
	if got := show(config.Host, config.Port, config.User, config.Password, config.Database); got != expected || len(config.Multi) != len(want.Hosts)-1 {
		t.Errorf("lib/pq reads %q as %s, want %s", dsn, got, expected)
	}
	if dsn, err = PGX(raw); err != nil {
		t.Fatal(err)
	}
	other, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgx does not accept %q: %v", dsn, err)
	}
	if got := show(other.Host, other.Port, other.User, other.Password, other.Database); got != expected {
		t.Errorf("pgx reads %q as %s, want %s", dsn, got, expected)
	}
	for name, value := range want.Settings {
		if !slices.Contains(ours, name) && (config.Runtime[name] != value || other.RuntimeParams[name] != value) {
			t.Errorf("%s=%s is %q for lib/pq and %q for pgx", name, value, config.Runtime[name], other.RuntimeParams[name])
		}
	}
}

// Each fixed address follows the problem's hint.
func TestABadAddressIsRefusedWithAHintThatWorksAndWithoutItsPassword(t *testing.T) {
	alone(t)
	const example = "postgres://user:password@host:5432/database"
	for _, c := range []struct {
		name, raw   string
		want        *Problem
		says, fixed string
	}{
		{"empty", "", empty, "", example},
		{"only spaces", "  ", empty, "", example},
		{"only quotes", `""`, empty, "", example},
		{"only the variable's name", "DATABASE_URL=", empty, "", example},
		{"key and value", "host=localhost user=penny password=secret dbname=penny", notURL, "", "postgres://penny:secret@localhost:5432/penny"},
		{"a host alone", "db.example.com", notURL, "", "postgres://user:password@db.example.com:5432/database"},
		{"one slash", "postgres:/penny:secret@localhost/penny", notURL, "", "postgres://penny:secret@localhost:5432/penny"},
		{"another database", "mysql://penny:secret@localhost/penny", unknownScheme, "for mysql,", "postgres://penny:secret@localhost/penny"},
		{"a web page", "https://penny:secret@example.com", unknownScheme, "for https,", "postgresql://penny:secret@example.com"},
		{"/ in the password", "postgres://penny:1/secret@localhost/penny", slash, "", "postgres://penny:1%2Fsecret@localhost/penny"},
		{"/ in the password, no digits", "postgres://penny:sec/ret-secret@localhost/penny", slash, "", "postgres://penny:sec%2Fret-secret@localhost/penny"},
		{"@ and / in the password", "postgres://penny:a@b/secret@localhost/penny", slash, "", "postgres://penny:a%40b%2Fsecret@localhost/penny"},
		{"/ and ? in the password", "postgres://penny:a/b?secret=1@localhost/penny", slash, "", "postgres://penny:a%2Fb%3Fsecret=1@localhost/penny"},
		{"@ in the database's name", "postgres://penny:secret@localhost/a@b", slash, "", "postgres://penny:secret@localhost/a%40b"},
		{"@ in a setting of the server", penny + "?x.y=secret@b", slash, "", penny + "?x.y=secret%40b"},
		{"% in the password", "postgres://penny:100%secret@localhost/penny", percent, "", "postgres://penny:100%25secret@localhost/penny"},
		{"a zero byte in the password", "postgres://penny:secret%00@localhost/penny", percent, "", "postgres://penny:secret%2500@localhost/penny"},
		{"% in a setting", penny + "?application_name=100%", percent, "", penny + "?application_name=100%25"},
		{"Supabase's placeholder", "postgres://penny:[YOUR-PASSWORD]@localhost/penny", isPlaceholder, "placeholder", penny},
		{"a password in Supabase's brackets", "postgres://penny:[correct-horse]@localhost/penny", isPlaceholder, "placeholder", penny},
		{"an & in a password among the settings", "postgres://localhost/penny?user=penny&password=Zq9&Xw7Kp5", loneWord, "not name=value", penny},
		{"user and password encoded as one", "postgres://penny%3Asecret@localhost/penny", encodedColon, "", "postgres://penny:secret@localhost/penny"},
		{"Latin-1", "postgres://penny:Zq9%E9Xw7@localhost/penny", percent, "UTF-8", penny},
		{"Neon's dots", "postgres://penny:••••••••@localhost/penny", isPlaceholder, "placeholder", penny},
		{"a port that is no number", "postgres://penny:secret@localhost:port/penny", badPort, "", "postgres://penny:secret@localhost:5432/penny"},
		{"a port too large", "postgres://penny:secret@localhost:65536/penny", badPort, "", "postgres://penny:secret@localhost:5432/penny"},
		{"no @", "postgres://penny:secret", badPort, "", "postgres://penny:secret@host:5432/database"},
		{"three ports for two hosts", "postgres://a,b/penny?port=1,2,3", badPort, "", "postgres://a,b/penny?port=1,2"},
		{"an open bracket", "postgres://penny:secret@[::1/penny", strayCharacter, "has [ in", "postgres://penny:secret@::1/penny"},
		{"a space in the host", "postgres://penny:secret@local host/penny", strayCharacter, "has a space in", "postgres://penny:secret@localhost/penny"},
		{"a space in the user", "postgres://pen ny:secret@localhost/penny", strayCharacter, "has a space in", "postgres://pen%20ny:secret@localhost/penny"},
		{"a command after the address", "psql " + penny + " -c 'SELECT 1'", strayCharacter, "has a space in", "psql " + penny},
		{"a quote in the middle", `postgres://penny:secret@localhost"/penny`, strayCharacter, `has " in`, "postgres://penny:secret@localhost/penny"},
		{"# in the database's name", "postgres://penny:secret@localhost/a#b", strayCharacter, "has # in", "postgres://penny:secret@localhost/a%23b"},
		{"a stray sign in a setting", penny + "?[sslmode=disable", strayCharacter, "has [ in", penny + "?sslmode=disable"},
		{"an sslmode that does not exist", penny + "?sslmode=on", badSSLMode, "", penny + "?sslmode=require"},
		{"a connect_timeout with a unit", penny + "?connect_timeout=5s", badSetting, "setting connect_timeout", penny + "?connect_timeout=5"},
		{"a setting without a value", penny + "?sslmode", badSetting, "setting sslmode", penny},
		{"ssl that is neither true nor false", penny + "?ssl=on", badSetting, "setting ssl", penny + "?ssl=true"},
		{"direct TLS without TLS", penny + "?sslnegotiation=direct&sslmode=disable", badSetting, "setting sslnegotiation", penny + "?sslmode=disable"},
		{"a service that does not exist", "postgres:///?service=shop", noService, "no service shop", example},
		{"SQLite with two slashes", "sqlite://penny.sqlite", badSQLite, "", "sqlite:///penny.sqlite"},
		{"SQLite without a file", "sqlite:///", badSQLite, "", "sqlite:////tmp/penny.sqlite"},
		{"SQLite in memory", "sqlite:///:memory:", badSQLite, "", "sqlite:///penny.sqlite"},
		{"SQLite with settings", "sqlite:///penny.sqlite?mode=ro", badSQLite, "", "sqlite:///penny.sqlite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Clean(c.raw)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %q, %v; want the error %q with %q", got, err, c.want.Says, c.says)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %q", err)
			}
			if _, err := Clean(c.fixed); err != nil {
				t.Errorf("after the hint %q: %v", c.want.Hint, err)
			}
		})
	}
}

func TestTheEnvironmentComesBeforeDotEnv(t *testing.T) {
	alone(t)
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
		file        string   // "-" for none, "folder" for a folder
		want, from  string
		err         *Problem
	}{
		{"neither", nil, "-", "", "", NotSet},
		{"only the environment", []string{penny}, "-", penny, "the environment", nil},
		{"only .env", nil, "DATABASE_URL=" + penny + "\n", penny, DotEnv, nil},
		{"both", []string{penny}, "DATABASE_URL=sqlite:///other.sqlite", penny, "the environment", nil},
		{"a broken .env and the environment", []string{penny}, "just some words\n", penny, "the environment", nil},
		{"a folder .env and the environment", []string{penny}, "folder", penny, "the environment", nil},
		{"a folder .env", nil, "folder", "", DotEnv, badDotEnv},
		{"empty in the environment", []string{""}, "DATABASE_URL=" + penny, "", "", empty},
		{".env without it", nil, "PORT=8080\n", "", "", NotSet},
		{".env empty", nil, "", "", "", NotSet},
		{".env with comments, export and quotes", nil, "# Neon\nexport DATABASE_URL='" + penny + "'\n", penny, DotEnv, nil},
		{".env in UTF-8 with a byte order mark", nil, "\xef\xbb\xbfDATABASE_URL=" + penny, penny, DotEnv, nil},
		{".env in UTF-16, as PowerShell writes it", nil, utf16("DATABASE_URL=" + penny + "\r\n"), penny, DotEnv, nil},
		{"a .env with an address and no name", nil, "postgres://penny:secret@localhost/penny\n", "", "", badDotEnv},
		{"a .env that is not one", nil, "just some secret words\n", "", "", badDotEnv},
		{"a dollar in single quotes", nil, "DATABASE_URL='postgres://penny:s3$HOMEcret@localhost/penny'",
			"postgres://penny:s3$HOMEcret@localhost:5432/penny", DotEnv, nil},
		{"a dollar without quotes", nil, "DATABASE_URL=postgres://penny:s3$HOMEcret@localhost/penny", "", DotEnv, dollar},
		{"a dollar in double quotes", nil, `DATABASE_URL="postgres://penny:s3$1cret@localhost/penny"`, "", DotEnv, dollar},
		{"a dollar that is escaped", nil, `DATABASE_URL="postgres://penny:s3\$HOMEcret@localhost/penny"`,
			"postgres://penny:s3$HOMEcret@localhost:5432/penny", DotEnv, nil},
		{"a dollar before a small letter", nil, "DATABASE_URL=postgres://penny:s3$cret@localhost/penny",
			"postgres://penny:s3$cret@localhost:5432/penny", DotEnv, nil},
		{"a variable of the same file", nil, "PASSWORD=s3cret\nDATABASE_URL=postgres://penny:${PASSWORD}@localhost/penny", penny, DotEnv, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			t.Setenv(Variable, "") // so that it is put back after the test
			t.Setenv("PORT", "")
			t.Setenv("PASSWORD", "")
			os.Unsetenv(Variable)
			os.Unsetenv("PASSWORD")
			for _, value := range c.environment {
				os.Setenv(Variable, value)
			}
			switch c.file {
			case "-":
			case "folder":
				if err := os.Mkdir(DotEnv, 0o700); err != nil {
					t.Fatal(err)
				}
			default:
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
			if err != nil || got != c.want+rest || from != c.from {
				t.Errorf("got %q from %q, %v; want %q from %q", got, from, err, c.want+rest, c.from)
			}
		})
	}
}

func TestSettingsThatTheAddressLacksComeFromTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		name        string
		environment map[string]string
		raw, want   string
	}{
		{"everything", map[string]string{"PGHOST": "db", "PGPORT": "6432", "PGUSER": "penny", "PGPASSWORD": "s3cret", "PGDATABASE": "shop"},
			"postgres://", "postgres://penny:s3cret@db:6432/shop" + rest},
		{"nothing that the address has", map[string]string{"PGHOST": "db", "PGUSER": "other", "PGPASSWORD": "other", "PGDATABASE": "other"},
			penny, penny + rest},
		{"Neon's", map[string]string{"PGSSLMODE": "require", "PGCHANNELBINDING": "require", "PGGSSENCMODE": "disable"},
			penny, penny + "?channel_binding=require&client_encoding=UTF8&connect_timeout=5&sslmode=require"},
		{"empty ones", map[string]string{"PGSSLMODE": "", "PGPORT": "", "PGHOSTADDR": "", "PGCONNECT_TIMEOUT": ""}, penny, penny + rest},
		{"an encoding and a date style", map[string]string{"PGCLIENTENCODING": "LATIN1", "PGDATESTYLE": "German"}, penny, penny + rest},
		{"a time zone", map[string]string{"PGTZ": "Etc/GMT+1"},
			penny, penny + "?Timezone=Etc/GMT%2B1&client_encoding=UTF8&connect_timeout=5&sslmode=prefer"},
		{"a host that is a folder", map[string]string{"PGHOST": "/var/run/pg"}, "postgres://penny@/penny",
			"postgres://penny@/penny" + rest + "&host=/var/run/pg&port=5432"},
		{"a service", map[string]string{"PGSERVICE": "shop", "PGUSER": "other"}, "postgres://", "postgres://penny:s3cret@db:5432/shop" + rest},
		{"a service in the address", nil, "postgres://you@/?service=shop", "postgres://you:s3cret@db:5432/shop" + rest},
	} {
		t.Run(c.name, func(t *testing.T) {
			alone(t)
			file := filepath.Join(t.TempDir(), "services")
			if err := os.WriteFile(file, []byte("[other]\nhost=no\n\n# ours\n[shop]\nhost = db\nuser=penny\npassword=s3cret\ndbname=shop\n[more]\nuser=no\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PGSERVICEFILE", file)
			for name, value := range c.environment {
				t.Setenv(name, value)
			}
			for range 2 { // the second time without them in the environment
				if got, err := Clean(c.raw); err != nil || got != c.want {
					t.Errorf("got %q, %v; want %q", got, err, c.want)
				}
			}
			driversAccept(t, c.raw)
		})
	}
}

func TestASocketIsTheDefaultIfAServerHasOne(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the folders are those of Unix")
	}
	alone(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that no PostgreSQL has
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	address := "postgres://penny@:" + port + "/penny"
	if got, err := Parse(address); err != nil || got.Server() != "localhost:"+port {
		t.Errorf("without a socket: got %s, %v; want localhost", got.Server(), err)
	}
	socket, err := net.Listen("unix", "/tmp/.s.PGSQL."+port)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if got, err := Parse(address); err != nil || got.Server() != "/tmp/.s.PGSQL."+port {
		t.Errorf("with a socket: got %s, %v; want /tmp/.s.PGSQL.%s", got.Server(), err, port)
	}
	driversAccept(t, address)
}

func TestEachDriverGetsTheSettingsThatItKnows(t *testing.T) {
	alone(t)
	const all = penny + "?sslmode=require&channel_binding=require&default_query_exec_mode=exec&binary_parameters=yes&load_balance_hosts=random"
	for _, c := range []struct {
		name string
		form func(string) (string, error)
		want string
	}{
		{"lib/pq", PQ, "binary_parameters=yes&client_encoding=UTF8&connect_timeout=5&load_balance_hosts=random&sslmode=require"},
		{"pgx", PGX, "channel_binding=require&client_encoding=UTF8&connect_timeout=5&default_query_exec_mode=exec&sslmode=require"},
		{"GORM", GORM, "channel_binding=require&client_encoding=UTF8&connect_timeout=5&default_query_exec_mode=exec&sslmode=require"},
	} {
		if got, err := c.form(all); err != nil || got != penny+"?"+c.want {
			t.Errorf("%s gets %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	for _, refuse := range []func(string) (string, error){PQ, PGX} {
		if _, err := refuse("sqlite:///penny.sqlite"); !errors.Is(err, needsPostgres) {
			t.Errorf("a PostgreSQL driver with SQLite's address: got %v, want %v", err, needsPostgres)
		}
	}
	if _, err := SQLite(penny); !errors.Is(err, needsSQLite) {
		t.Errorf("SQLite's driver with PostgreSQL's address: got %v, want %v", err, needsSQLite)
	}
	for address, want := range map[string]string{
		"sqlite:///penny.sqlite":       "file:penny.sqlite?",
		"sqlite:////var/lib/p q.db":    "file:/var/lib/p%20q.db?",
		"sqlite:///100%25 sure.sqlite": "file:100%2525%20sure.sqlite?",
		"sqlite:///a#b?.sqlite":        "file:a%23b%3F.sqlite?",
	} {
		got, err := SQLite(address)
		if err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("SQLite(%q) = %q, %v; want it to begin with %q", address, got, err, want)
		}
		if back, err := Parse(got); err != nil || back.String() != address {
			t.Errorf("Parse(%q) = %v, %v; want %q", got, back, err, address)
		}
	}
}

func TestRedactRemovesThePasswordHoweverItIsWrittenAndNothingElse(t *testing.T) {
	alone(t)
	for _, c := range []struct{ address, text string }{
		{"postgres://penny:s3cr%23t@localhost/penny", "dial s3cr%23t and s3cr#t"},
		{"postgres://localhost/penny?user=penny&password=s3cr%23t", "password s3cr#t"},
		{"postgres://localhost/penny?user=penny&PASSWORD=s3cr!t", `parameter "pwd" is s3cr!t`},
		{"postgres://localhost/penny?pwd=s3cr!t", "s3cr!t"},
		{"postgres://penny:s3cr#t@localhost/penny", `parse "postgres://penny:s3cr#t@localhost/penny"`},
		{"'postgres://penny:s3cr%t@local host/penny'", "s3cr%t"},
		{"postgres://penny:s3cr!t@localhost/penny", "as typed s3cr!t"},
		{"postgres://penny:s3cret@localhost/penny", `the password "s3cret" is wrong`},
		{"", "cannot parse postgres://penny:s3cret@localhost and password=s3cret"},
	} {
		if got := Redact(c.text, c.address); strings.Contains(got, "s3cr") {
			t.Errorf("the password of %q still shows in %q", c.address, got)
		}
	}
	t.Setenv("PGPASSWORD", "s3cret")
	if got := Redact("the server says s3cret", "postgres://penny@localhost"); strings.Contains(got, "s3cret") {
		t.Errorf("PGPASSWORD shows in %q", got)
	}
	for password, sentence := range map[string]string{
		"e":     `the database "shop" does not exist`,
		"wrong": "something is wrong here",
		"penny": `role "penny" does not exist`,
	} {
		if got := Redact(sentence, "postgres://penny:"+password+"@localhost/shop"); got != sentence {
			t.Errorf("with the password %q: got %q, want it unchanged", password, got)
		}
	}
}

func FuzzAnAddressIsAcceptedByBothDriversOrRefusedWithoutItsPassword(f *testing.F) {
	f.Add("penny", "hunter2", "localhost:5432", "penny", "sslmode=disable")
	f.Add("penny@x", "%zz/hunter2?", "[::1]", "a/b", "options=-c a=b")
	f.Add("", "hun#ter2", "first:1,second", "", "TimeZone=Etc/GMT+1&port=1,2")
	f.Add("\u200b", "'", "/tmp", "ä ", "password=hunter2&user=x&connect_timeout=-1")
	alone(f)
	f.Fuzz(func(t *testing.T, user, password, host, database, settings string) {
		const mark = "hunter2"
		if strings.Contains(user+host+database+settings, "hunter2") {
			t.Skip("it would not be a secret")
		}
		raw := "postgres://" + user + ":" + mark + password + "@" + host + "/" + database + "?" + settings
		clean, err := Clean(raw)
		if err != nil {
			if strings.Contains(err.Error(), mark) {
				t.Errorf("the error for %q shows the password: %v", raw, err)
			}
			return
		}
		if again, err := Clean(clean); err != nil || again != clean {
			t.Errorf("%q: Clean(%q) = %q, %v; want it unchanged", raw, clean, again, err)
		}
		driversAccept(t, raw)
	})
}

func TestPGXGetsRandomHostsInAnyOrder(t *testing.T) {
	const address = "postgres://penny@first:5432,second:5433/penny?load_balance_hosts=random"
	found := make(map[string]bool)
	for range 100 {
		got, err := PGX(address)
		if err != nil {
			t.Fatal(err)
		}
		found[got[strings.Index(got, "&host="):]] = true
	}
	if !found["&host=first,second&port=5432,5433"] || !found["&host=second,first&port=5433,5432"] || len(found) != 2 {
		t.Errorf("got the hosts %v, want both orders", found)
	}
}
