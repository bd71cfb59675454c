package dburl

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// A Shell is a way to set a variable in the environment, and to read it.
type Shell struct {
	Name  string
	set   string // with %s for the address
	unset string
	read  string
}

// The shells that Penny can tell apart. A hint is written for the first and translated for the others.
var (
	posix      = Shell{"bash, zsh", "export DATABASE_URL='%s'", "unset DATABASE_URL", `"$DATABASE_URL"`}
	fish       = Shell{"fish", "set -gx DATABASE_URL '%s'", "set -e DATABASE_URL", `"$DATABASE_URL"`}
	powerShell = Shell{"PowerShell", "$env:DATABASE_URL = '%s'", "Remove-Item Env:DATABASE_URL", "$env:DATABASE_URL"}
	cmd        = Shell{"cmd", `set "DATABASE_URL=%s"`, "set DATABASE_URL=", `"%DATABASE_URL%"`}
)

// Shells is every shell that Penny knows how to set DATABASE_URL in.
func Shells() []Shell { return []Shell{posix, fish, powerShell, cmd} }

// ThisShell is the shell that the program was started from, as far as the environment tells.
func ThisShell() Shell { return shellOf(runtime.GOOS, os.Getenv) }

func shellOf(system string, env func(string) string) Shell {
	switch {
	case system != "windows" && filepath.Base(env("SHELL")) == "fish":
		return fish
	case system != "windows":
		return posix
	case strings.Count(env("PSModulePath"), ";") < 2: // the system's two folders; PowerShell puts the user's before them
		return cmd
	}
	return powerShell
}

// Set is the line that sets DATABASE_URL to address.
func (s Shell) Set(address string) string { return fmt.Sprintf(s.set, address) }

var setting = regexp.MustCompile(`export DATABASE_URL='([^']*)'`)

// translate puts a hint that is written for bash into this shell's words.
func (s Shell) translate(hint string) string {
	hint = setting.ReplaceAllStringFunc(hint, func(line string) string { return s.Set(setting.FindStringSubmatch(line)[1]) })
	return strings.NewReplacer(posix.unset, s.unset, posix.read, s.read).Replace(hint)
}
