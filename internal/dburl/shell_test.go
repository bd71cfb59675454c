package dburl

import (
	"strings"
	"testing"
)

func TestTheShellIsToldByTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, system string
		env          map[string]string
		want         Shell
	}{
		{"bash", "linux", map[string]string{"SHELL": "/bin/bash"}, posix},
		{"zsh", "darwin", map[string]string{"SHELL": "/bin/zsh"}, posix},
		{"fish", "linux", map[string]string{"SHELL": "/usr/bin/fish"}, fish},
		{"nothing", "linux", nil, posix},
		{"cmd", "windows", map[string]string{"PSModulePath": `C:\Program Files\WindowsPowerShell\Modules;C:\WINDOWS\system32\WindowsPowerShell\v1.0\Modules`}, cmd},
		{"PowerShell", "windows", map[string]string{"PSModulePath": `C:\Users\me\Documents\PowerShell\Modules;C:\Program Files\PowerShell\Modules;C:\WINDOWS\system32\WindowsPowerShell\v1.0\Modules`}, powerShell},
	} {
		if got := shellOf(c.system, func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%s on %s is taken for %s", c.name, c.system, got.Name)
		}
	}
}

func TestHintsAreTranslatedForTheShell(t *testing.T) {
	for _, c := range []struct {
		shell      Shell
		hint, want string
	}{
		{posix, notSet.Hint, notSet.Hint},
		{powerShell, notSet.Hint, "$env:DATABASE_URL = 'postgres://user:password@host:5432/database', or put that line"},
		{cmd, notSet.Hint, `set "DATABASE_URL=postgres://user:password@host:5432/database", or put that line`},
		{fish, notSet.Hint, "set -gx DATABASE_URL 'postgres://user:password@host:5432/database', or put that line"},
		{powerShell, empty.Hint, "Remove-Item Env:DATABASE_URL to let .env speak"},
		{cmd, `psql "$DATABASE_URL" -f penny.sql`, `psql "%DATABASE_URL%" -f penny.sql`},
	} {
		if got := c.shell.translate(c.hint); !strings.Contains(got, c.want) {
			t.Errorf("for %s the hint is %q", c.shell.Name, got)
		}
	}
}

func TestTheMendedAddressHasTheMendAndNoPassword(t *testing.T) {
	const address = "postgres://penny:hunter2@db.example.com:5433/shop?channel_binding=require&sslmode=disable&password=hunter2"
	for _, c := range []struct{ name, address, want string }{
		{"encryption required", address, "postgres://penny:PASSWORD@db.example.com:5433/shop?channel_binding=require&sslmode=require"},
		{"unknown database", address, "postgres://penny:PASSWORD@db.example.com:5433/DATABASE?channel_binding=require&sslmode=disable"},
		{"no server", address, "postgres://penny:PASSWORD@HOST:5432/shop?channel_binding=require&sslmode=disable"},
		{"unknown setting", address, "postgres://penny:PASSWORD@db.example.com:5433/shop?sslmode=disable"},
		{"malformed", "postgres://penny:hunter#2@db", "postgres://USER:PASSWORD@HOST:5432/DATABASE"},
		{"not set", "", "postgres://USER:PASSWORD@HOST:5432/DATABASE"},
		{"not PostgreSQL", "sqlite:///penny.sqlite", "postgres://USER:PASSWORD@HOST:5432/DATABASE"},
		{"no books table", address, ""},
	} {
		for _, cause := range Causes {
			if cause.Name != c.name {
				continue
			}
			if got := cause.Mended(c.address); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
}
