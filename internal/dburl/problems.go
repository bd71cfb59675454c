package dburl

import "strings"

// A Problem is what is wrong with an address. It says so in words for the person at the terminal.
type Problem struct {
	Name string // in two or three words
	Says string // in one line; {what} stands for What
	Why  string // how it comes about, unless the line says it
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
	NotSet, empty, badDotEnv, dollar, notURL, unknownScheme, slash, percent, isPlaceholder, encodedColon, strayCharacter, badPort, badSSLMode,
	badSetting, loneWord, noService, badSQLite, needsPostgres, needsSQLite,
}

var (
	// NotSet is the problem if neither the environment nor .env has an address.
	NotSet = &Problem{Name: "not set",
		Says: "DATABASE_URL is not set",
		Hint: "put DATABASE_URL='postgres://user:password@host:5432/database' into a file .env in this folder (go tool lab postgres prints " +
			"that line); without a server, database4 takes sqlite:///penny.sqlite, which go run ./database1 makes"}
	empty = &Problem{Name: "empty",
		Says: "DATABASE_URL is set, but empty",
		Why:  "A variable in the environment hides the same one in .env, even if it is empty.",
		Hint: "set it to an address such as postgres://user:password@host:5432/database, or unset it so that .env is used"}
	badDotEnv = &Problem{Name: "bad .env",
		Says: "the file .env in this folder cannot be read as lines of NAME=value",
		Why:  "A line has no name or no equals sign, a quote is not closed, or .env is a folder or a file that you may not read.",
		Hint: "compare it with .env.example: one line DATABASE_URL='...', in single quotes"}
	dollar = &Problem{Name: "dollar in .env",
		Says: "the address in the file .env has a $ that is read as the name of a variable",
		Why:  "Outside single quotes, $NAME stands for another variable, and no such variable is set there.",
		Hint: "put the address in single quotes: DATABASE_URL='...'"}
	notURL = &Problem{Name: "not a URL",
		Says: "DATABASE_URL is not a URL",
		Why:  "It has no scheme, such as postgres://. A host alone, or host=... dbname=..., is another form.",
		Hint: "write it as postgres://user:password@host:5432/database or sqlite:///penny.sqlite"}
	unknownScheme = &Problem{Name: "unknown scheme",
		Says: "DATABASE_URL is for {what}, a database that Penny does not know",
		Hint: "begin it with postgres:// (or postgresql://) or sqlite:///"}
	slash = &Problem{Name: "@ after a slash",
		Says: "DATABASE_URL has an @ after the first / or ?, where no password can be",
		Hint: "write / as %2F, ? as %3F and @ as %40 in the password (@ as %40 also in a database's name or a setting)"}
	percent = &Problem{Name: "lone percent sign",
		Says: "DATABASE_URL has a % that encodes no character of UTF-8",
		Hint: "write % itself as %25, and é as %C3%A9, not as %E9"}
	isPlaceholder = &Problem{Name: "placeholder",
		Says: "DATABASE_URL has a placeholder in place of the password, or a password in brackets",
		Hint: "put the password there, without brackets; your host's page shows it or makes a new one"}
	encodedColon = &Problem{Name: "encoded colon",
		Says: "DATABASE_URL has an encoded colon, %3A, in the user's name",
		Why:  "The user and the password were encoded together.",
		Hint: "write the colon between the user and the password as it is, and encode only the password"}
	strayCharacter = &Problem{Name: "stray character",
		Says: "DATABASE_URL has {what} in it, outside the password",
		Hint: "take it out; if it is meant, percent-encode it: a space is %20, \" is %22, # is %23"}
	badPort = &Problem{Name: "bad port",
		Says: "the port in DATABASE_URL is not a number from 1 to 65535",
		Why:  "Without an @, user:password is read as host:port. Several hosts need one port each, or one for all.",
		Hint: "write it as postgres://user:password@host:5432/database"}
	badSSLMode = &Problem{Name: "unknown sslmode",
		Says: "DATABASE_URL or PGSSLMODE asks for an sslmode that does not exist",
		Hint: "use sslmode=require or sslmode=verify-full on a network, sslmode=disable only on this computer"}
	loneWord = &Problem{Name: "lone word",
		Says: "DATABASE_URL has something after a ? or & that is not name=value",
		Hint: "write it as name=value; in a password, write & as %26, ? as %3F and @ as %40"}
	badSetting = &Problem{Name: "bad setting",
		Says: "the setting {what} has a value that it cannot have",
		Why:  "The setting is in DATABASE_URL, or comes from a variable such as PGCONNECT_TIMEOUT.",
		Hint: "correct it or take it out of DATABASE_URL, or unset its variable, such as PGCONNECT_TIMEOUT"}
	noService = &Problem{Name: "unknown service",
		Says: "the service file has no service {what}",
		Why:  "The address or PGSERVICE names a section of .pg_service.conf in your home folder, or of PGSERVICEFILE.",
		Hint: "add the section [name] to that file, or write the whole address into DATABASE_URL and unset PGSERVICE"}
	badSQLite = &Problem{Name: "bad SQLite path",
		Says: "DATABASE_URL does not name a SQLite file",
		Why:  "A database in memory would be a new, empty one for each connection. Settings are not supported.",
		Hint: "three slashes for a file in this folder, sqlite:///penny.sqlite; four for a path from the root, sqlite:////tmp/penny.sqlite"}
	needsPostgres = &Problem{Name: "not PostgreSQL",
		Says: "DATABASE_URL names a SQLite file, and this program needs PostgreSQL",
		Hint: "set it to postgres://user:password@host:5432/database, or run database4, which takes SQLite too"}
	needsSQLite = &Problem{Name: "not SQLite",
		Says: "DATABASE_URL names a PostgreSQL server, and the layer database1 needs a SQLite file",
		Hint: "unset DATABASE_URL or set it to sqlite:///penny.sqlite, or choose the layer database2, database3 or database4"}
)
