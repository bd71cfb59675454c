package dburl

import "strings"

// A Problem is what is wrong with an address. It says so in words for the person at the terminal.
type Problem struct {
	Name string // in two or three words
	Says string // in one line; {what} stands for What
	Why  string // how it comes about
	Hint string // what to change

	What string // the setting or the character that is wrong; never a part of a password
}

// Error returns what is wrong in one line.
func (p *Problem) Error() string { return strings.ReplaceAll(p.Says, "{what}", p.What) }

// Is reports whether target is the same problem, of whichever setting or character.
func (p *Problem) Is(target error) bool {
	other, ok := target.(*Problem)
	return ok && other.Name == p.Name
}

func (p *Problem) with(what string) *Problem {
	named := *p
	named.What = what
	return &named
}

// Problems are all that Get and the forms can return.
var Problems = []*Problem{
	NotSet, empty, badDotEnv, dollar, notURL, unknownScheme, slash, percent, isPlaceholder, strayCharacter, badPort, badSSLMode,
	badSetting, noService, badSQLite, needsPostgres, needsSQLite,
}

// NotSet is the problem if neither the environment nor .env has an address.
var NotSet = &Problem{
	Name: "not set",
	Says: "DATABASE_URL is not set",
	Why: "The program takes the address of its database from the environment, so that no address, and no password, is in " +
		"its code. It is not set there, and no file .env in this folder sets it.",
	Hint: "put DATABASE_URL='postgres://user:password@host:5432/database' into a file .env in this folder (go tool lab postgres starts a " +
		"server and prints that line); for database4 without a server: go run ./database1, then DATABASE_URL=sqlite:///penny.sqlite",
}

var (
	empty = &Problem{
		Name: "empty",
		Says: "DATABASE_URL is set, but empty",
		Why: "The variable exists and holds nothing, often because a command that should have filled it printed nothing. A " +
			"variable in the environment hides the same one in .env, even if it is empty.",
		Hint: "set it to an address such as postgres://user:password@host:5432/database, or unset it so that .env is used",
	}
	badDotEnv = &Problem{
		Name: "bad .env",
		Says: "the file .env in this folder cannot be read as lines of NAME=value",
		Why:  "A line has no equals sign, a quote is not closed, or .env is a folder, or you may not read it.",
		Hint: "compare it with .env.example: one line DATABASE_URL='...', in single quotes",
	}
	dollar = &Problem{
		Name: "dollar in .env",
		Says: "the address in the file .env has a $ that is read as the name of a variable",
		Why:  "In .env, $NAME stands for another variable unless it is in single quotes. Without that variable a part of the password is lost.",
		Hint: "put the address in single quotes: DATABASE_URL='...'",
	}
	notURL = &Problem{
		Name: "not a URL",
		Says: "DATABASE_URL is not a URL",
		Why: "It has no scheme, the part before ://. Some tools show a database's address as host=... dbname=... instead, or " +
			"show only its host.",
		Hint: "write it as postgres://user:password@host:5432/database or sqlite:///penny.sqlite",
	}
	unknownScheme = &Problem{
		Name: "unknown scheme",
		Says: "DATABASE_URL is for {what}, a database that Penny does not know",
		Why:  "The scheme, the part before ://, names the kind of database. Penny knows PostgreSQL and SQLite.",
		Hint: "begin it with postgres:// (or postgresql://) or sqlite:///",
	}
	slash = &Problem{
		Name: "@ after a slash",
		Says: "DATABASE_URL has an @ after the first / or ?, where no password can be",
		Why:  "A / in a password ends the host's part of the address too early, and so do some ?. Then the @ comes too late.",
		Hint: "write / as %2F, ? as %3F and @ as %40 in the password (@ as %40 also in a database's name or a setting)",
	}
	percent = &Problem{
		Name: "lone percent sign",
		Says: "DATABASE_URL has a % without two hexadecimal digits after it",
		Why:  "In a URL, % and two digits stand for a character. In a password, % itself has to be written that way.",
		Hint: "write % as %25 in the password",
	}
	isPlaceholder = &Problem{
		Name: "placeholder",
		Says: "DATABASE_URL still has {what} in the place of the password",
		Why:  "Hosts show the address with a placeholder or with dots, because they do not show the password.",
		Hint: "put the password there; your host's page has a button that shows it or makes a new one",
	}
	strayCharacter = &Problem{
		Name: "stray character",
		Says: "DATABASE_URL has {what} in it, outside the password",
		Why: "No host, user, database or setting is likely to have that character. It comes along when an address is copied out of " +
			"a text or a command, or the address ends there and something else follows.",
		Hint: "take it out; if it is meant, percent-encode it: a space is %20, \" is %22, # is %23",
	}
	badPort = &Problem{
		Name: "bad port",
		Says: "the port in DATABASE_URL is not a number from 1 to 65535",
		Why: "The port is between the host's : and the next / or ?. Without an @, what is meant as user:password is read as " +
			"host:port. Several hosts need one port each, or one for all.",
		Hint: "write it as postgres://user:password@host:5432/database",
	}
	badSSLMode = &Problem{
		Name: "unknown sslmode",
		Says: "DATABASE_URL asks for an sslmode that does not exist",
		Why:  "The setting sslmode says whether the connection is encrypted, and it has six values.",
		Hint: "use sslmode=require or sslmode=verify-full on a network, sslmode=disable only on this computer",
	}
	badSetting = &Problem{
		Name: "bad setting",
		Says: "the setting {what} of DATABASE_URL has a value that it cannot have",
		Why:  "A setting after the ? has a wrong value or none, or its percent signs are wrong. It may also come from a variable such as PGCONNECT_TIMEOUT.",
		Hint: "correct that setting, or take it out",
	}
	noService = &Problem{
		Name: "unknown service",
		Says: "the service file has no service {what}",
		Why:  "The address or the variable PGSERVICE names a section of the file .pg_service.conf in your home folder, or of PGSERVICEFILE.",
		Hint: "add the section [name] to that file, or write the whole address into DATABASE_URL and unset PGSERVICE",
	}
	badSQLite = &Problem{
		Name: "bad SQLite path",
		Says: "DATABASE_URL does not name a SQLite file",
		Why: "After sqlite: come three slashes and then the path. A database in memory would be empty, and a new one for " +
			"each connection. Settings after a question mark are not supported.",
		Hint: "three slashes for a file in this folder, sqlite:///penny.sqlite; four for a path from the root, sqlite:////tmp/penny.sqlite",
	}
	needsPostgres = &Problem{
		Name: "not PostgreSQL",
		Says: "DATABASE_URL names a SQLite file, and this program needs PostgreSQL",
		Why:  "database2 and database3 use a driver for PostgreSQL. Only database4 takes both.",
		Hint: "set it to postgres://user:password@host:5432/database, or run database4, which takes SQLite too",
	}
	needsSQLite = &Problem{
		Name: "not SQLite",
		Says: "DATABASE_URL names a PostgreSQL server, and the layer database1 needs a SQLite file",
		Why:  "database1 uses a driver for SQLite. Only database4 takes both.",
		Hint: "unset DATABASE_URL or set it to sqlite:///penny.sqlite, or choose the layer database2, database3 or database4",
	}
)
