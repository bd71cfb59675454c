package dburl

// A Problem is what is wrong with an address. It says so in words for the person at the terminal.
type Problem struct {
	Name string // in two or three words
	Says string // in one line
	Why  string // how it comes about
	Hint string // what to change
}

// Error returns what is wrong in one line.
func (p *Problem) Error() string { return p.Says }

// Problems are all that Get and the forms can return.
var Problems = []*Problem{
	NotSet, empty, badDotEnv, notURL, unknownScheme, malformed, badSSLMode, badSQLite, needsPostgres, needsSQLite,
}

var (
	NotSet = &Problem{
		Name: "not set",
		Says: "DATABASE_URL is not set",
		Why: "The program takes the address of its database from the environment, so that no address, and no " +
			"password, stands in its code. Nothing is set there, and there is no .env file in this folder that sets it.",
		Hint: "export DATABASE_URL='postgres://user:password@host:5432/database', or put that line, without export, into " +
			"a file .env here; go tool lab postgres starts a server and prints the line",
	}
	empty = &Problem{
		Name: "empty",
		Says: "DATABASE_URL is set, but empty",
		Why: "The variable exists with nothing in it, often because a command that should have filled it printed " +
			"nothing. A variable in the environment hides the same one in .env, even when it is empty.",
		Hint: "set it to an address such as postgres://user:password@host:5432/database, or unset DATABASE_URL to let .env speak",
	}
	badDotEnv = &Problem{
		Name: "bad .env",
		Says: "the file .env in this folder cannot be read as lines of NAME=value",
		Why:  "A line has no equals sign, a quote is not closed, or the file is a folder or not yours to read.",
		Hint: "compare it with .env.example: one DATABASE_URL='...' a line, in single quotes",
	}
	notURL = &Problem{
		Name: "not a URL",
		Says: "DATABASE_URL is not a URL",
		Why: "It has no scheme, the part before ://. Some tools show a database's address as host=... dbname=... " +
			"instead, or show its host alone.",
		Hint: "write it as postgres://user:password@host:5432/database or sqlite:///penny.sqlite",
	}
	unknownScheme = &Problem{
		Name: "unknown scheme",
		Says: "DATABASE_URL is for a database that Penny does not speak",
		Why:  "The scheme, the part before ://, names the kind of database. Penny knows PostgreSQL and SQLite.",
		Hint: "begin it with postgres:// (or postgresql://) or sqlite:///",
	}
	malformed = &Problem{
		Name: "malformed",
		Says: "DATABASE_URL does not parse as a URL",
		Why: "Most often the password has a character in it that means something in a URL, so that the URL ends, or " +
			"its host begins, in the wrong place. The port may also be something other than a number from 1 to 65535.",
		Hint: "percent-encode these in the password: % is %25, / is %2F, ? is %3F, # is %23, @ is %40, : is %3A, a space is %20",
	}
	badSSLMode = &Problem{
		Name: "unknown sslmode",
		Says: "DATABASE_URL asks for an sslmode that does not exist",
		Why:  "The setting sslmode says whether the connection is encrypted, and it has six values.",
		Hint: "use sslmode=require or sslmode=verify-full on a network, sslmode=disable only on this computer",
	}
	badSQLite = &Problem{
		Name: "bad SQLite path",
		Says: "DATABASE_URL does not name a SQLite file",
		Why: "After sqlite: come three slashes and then the path. A database in memory would be empty, and a new one for " +
			"every connection. Settings behind a question mark are not known.",
		Hint: "three slashes for a file in this folder, sqlite:///penny.sqlite; four for a path from the root, sqlite:////tmp/penny.sqlite",
	}
	needsPostgres = &Problem{
		Name: "not PostgreSQL",
		Says: "DATABASE_URL is SQLite's, and this program speaks PostgreSQL",
		Why:  "database2 and database3 use a driver for PostgreSQL. Only database4 speaks both.",
		Hint: "set it to postgres://user:password@host:5432/database, or go run ./database4, which speaks SQLite too",
	}
	needsSQLite = &Problem{
		Name: "not SQLite",
		Says: "DATABASE_URL is PostgreSQL's, and the layer database1 speaks SQLite",
		Why:  "database1 uses a driver for SQLite. Only database4 speaks both.",
		Hint: "unset DATABASE_URL or set it to sqlite:///penny.sqlite, or choose database2, 3 or 4",
	}
)
