// Command lab has the tools for the lecture hall. Run it as go tool lab.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
	"example.com/penny/internal/explain"
)

// A command is a subcommand of lab.
type command struct {
	name, about string
	run         func(ctx context.Context, env *environment, args []string) error
}

// commands are in the order in which a lecture needs them.
var commands = []command{
	{"postgres", "start a real PostgreSQL on this computer", runPostgres},
	{"load", "load penny.sql, or a million books, into DATABASE_URL", runLoad},
	{"doctor", "find out what is wrong with DATABASE_URL", runDoctor},
	{"exercise", "check the exercises, with hints and solutions", runExercise},
	{"break", "show a pitfall of the lecture next to what prevents it", runBreak},
	{"slides", "write slides made from the chapters", runSlides},
	{"show", "print a function with line numbers, for a projector", runShow},
	{"reset", "put back what a lecture changes", runReset},
	{"stick", "copy what Penny downloads to a folder, for computers without a network", runStick},
	{"race", "run the stages side by side, the pool against no pool", runRace},
	{"demo", "show in a browser why a pool is faster", runDemo},
}

// An environment is what a subcommand reads and writes.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	terminal       bool                                     // stdin and stderr are a terminal
	lookup         func() (address, from string, err error) // returns DATABASE_URL, and where it is set
}

// errUsage is the error of wrong usage, after it was printed.
var errUsage = errors.New("wrong usage")

// A hinted is an error with a hint.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func main() {
	ctx, stop := demo.Context(syscall.SIGHUP) // it comes when the terminal is closed
	env := &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, terminal: isTerminal(os.Stdin) && isTerminal(os.Stderr),
		lookup: dburl.Lookup}
	status := run(ctx, env, os.Args[1:])
	stop()
	os.Exit(status)
}

// run runs a command line and returns its exit status: 0, 1 for a failure, 2 for wrong usage.
func run(ctx context.Context, env *environment, args []string) int {
	if len(args) == 0 {
		help(env.stderr)
		return 2
	}
	name := args[0]
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		if name == "help" && len(args) > 1 {
			return run(ctx, env, []string{args[1], "-h"})
		}
		help(env.stdout)
		return 0
	}
	for _, c := range commands {
		if c.name != name {
			continue
		}
		err := c.run(ctx, env, args[1:])
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return 2
		case errors.Is(err, errUnsolved):
			return 1
		}
		report(env, name, err)
		return 1
	}
	fmt.Fprintf(env.stderr, "lab: there is no command %q\n\n", name)
	help(env.stderr)
	return 2
}

func help(w io.Writer) {
	fmt.Fprint(w, "lab has the tools for the lecture hall.\n\nusage: go tool lab COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\ngo tool lab help COMMAND says more about one.\n")
}

// report prints an error in one line and a hint in another.
func report(env *environment, name string, err error) {
	address, _, _ := env.lookup()
	says, hint := explain.Error(err, address)
	if h, ok := errors.AsType[*hinted](err); ok {
		says, hint = strings.Join(strings.Fields(dburl.Redact(err.Error(), address)), " "), h.hint
	}
	fmt.Fprintf(env.stderr, "lab %s: %s\nhint: %s\n", name, says, hint)
}

// flags makes the flag set of a subcommand, whose help begins with about.
func flags(env *environment, usage, about string) *flag.FlagSet {
	name, _, more := strings.Cut(usage, " ")
	if !more {
		usage += " [flags]"
	}
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(env.stderr)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: go tool lab %s\n\n%s\n\n", usage, about)
		f.PrintDefaults()
	}
	return f
}

// parse reads a subcommand's flags. It takes no other arguments.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return errors.Join(errUsage, err)
	}
	if f.NArg() > 0 {
		return wrong(f, "unknown argument %q", f.Arg(0))
	}
	return nil
}

// parseName reads the one argument of a subcommand. If it is missing, parseName asks question.
func parseName(f *flag.FlagSet, args []string, question string) (string, error) {
	if err := f.Parse(args); err != nil {
		return "", errors.Join(errUsage, err)
	}
	if f.NArg() != 1 {
		return "", wrong(f, "%s", question)
	}
	return f.Arg(0), nil
}

// wrong tells the user what is wrong with the command line.
func wrong(f *flag.FlagSet, format string, args ...any) error {
	fmt.Fprintf(f.Output(), "lab %s: "+format+"\n", append([]any{f.Name()}, args...)...)
	f.Usage()
	return errUsage
}
