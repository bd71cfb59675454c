// Command lab has the tools that a lecture hall needs beside the programs. Run it as go tool lab.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"example.com/penny/internal/dburl"
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
	{"break", "show a pitfall of the lecture beside what prevents it", runBreak},
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
	terminal       bool // a person sits at stdin and stderr
}

// errUsage is the error for wrong usage, of which the user has been told already.
var errUsage = errors.New("wrong usage")

// A hinted is an error with a hint.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func main() {
	// SIGHUP comes when the terminal is closed.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not heed the first
	env := &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, terminal: isTerminal(os.Stdin) && isTerminal(os.Stderr)}
	status := run(ctx, env, os.Args[1:])
	stop()
	os.Exit(status)
}

// run carries out a command line and gives back its exit status: 0, 1 for a failure, 2 for wrong usage.
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
		report(env.stderr, name, err)
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
	fmt.Fprint(w, "\ngo tool lab help COMMAND tells more of one.\n")
}

// report prints an error in one line and a hint in another.
func report(w io.Writer, name string, err error) {
	var h *hinted
	if errors.As(err, &h) {
		says := strings.Join(strings.Fields(dburl.Redact(err.Error(), os.Getenv(dburl.Variable))), " ") // in one line
		fmt.Fprintf(w, "lab %s: %s\nhint: %s\n", name, says, h.hint)
		return
	}
	says, hint := explain.Error(err, os.Getenv(dburl.Variable))
	fmt.Fprintf(w, "lab %s: %s\n", name, says)
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// flags makes the flag set of a subcommand, whose help begins with about.
func flags(env *environment, name, about string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(env.stderr)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: go tool lab %s [flags]\n\n%s\n\n", name, about)
		f.PrintDefaults()
	}
	return f
}

// parse reads a subcommand's flags. It takes no arguments beside them.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if f.NArg() > 0 {
		return wrong(f, "unknown argument %q", f.Arg(0))
	}
	return nil
}

// wrong tells the user what is wrong with the command line.
func wrong(f *flag.FlagSet, format string, args ...any) error {
	fmt.Fprintf(f.Output(), "lab %s: "+format+"\n", append([]any{f.Name()}, args...)...)
	f.Usage()
	return errUsage
}
