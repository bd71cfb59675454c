// Package demo is what the four programs share and no lesson is about: the flags, the printing, the timing line, and
// how a program ends when something goes wrong.
package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"example.com/penny"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/load"
)

// Limit is how many books a program asks for at most.
const Limit = 100

// Patience is how long a call may take. It bounds the wait for a server that does not answer, and how long a pool
// tries to connect anew.
const Patience = 5 * time.Second

// Flags are what the user chose.
type Flags struct {
	Author  string // -author: the beginning of the author's name
	Calls   int    // -n: how many calls to time; 0 for none
	Workers int    // -c: how many goroutines make them
	Pool    int    // -pool: how many connections the pool holds; only where ParsePool was called

	program string
}

// Store is what a layer can do; the four of them do it alike.
type Store interface {
	ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error)
	Opened() int64
	Close() error
}

// Parse reads the flags of the program from the command line. Wrong usage ends the program with status 2.
func Parse(program string) *Flags {
	return ParsePool(program, 0)
}

// ParsePool is Parse for a program that has a pool of size connections where -pool does not say otherwise.
func ParsePool(program string, size int) *Flags {
	f := &Flags{program: program}
	flags := flag.NewFlagSet(program, flag.ExitOnError)
	flags.StringVar(&f.Author, "author", "ker", "find books whose author begins with `PREFIX`, in capitals or not")
	flags.IntVar(&f.Calls, "n", 0, "then make `CALLS` more calls and print how long they took")
	flags.IntVar(&f.Workers, "c", 1, "with -n: make the calls from `WORKERS` goroutines at once")
	if size > 0 {
		flags.IntVar(&f.Pool, "pool", size, "hold at most `SIZE` connections")
	}
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: %s [flags]\n\nPrints the books of an author.\n\n", program)
		flags.PrintDefaults()
	}
	_ = flags.Parse(os.Args[1:]) // ExitOnError: it does not return one
	wrong := ""
	set := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
	switch {
	case flags.NArg() > 0:
		wrong = fmt.Sprintf("unknown argument %q: an author is given as -author %s", flags.Arg(0), flags.Arg(0))
	case !utf8.ValidString(f.Author):
		wrong = "-author is not UTF-8 text"
	case set["n"] && f.Calls < 1:
		wrong = "-n must be at least 1"
	case f.Workers < 1:
		wrong = "-c must be at least 1"
	case set["c"] && f.Calls == 0:
		wrong = "-c needs -n: how many calls to make"
	case size > 0 && f.Pool < 1:
		wrong = "-pool must be at least 1"
	}
	if wrong != "" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, wrong)
		flags.Usage()
		os.Exit(2)
	}
	return f
}

// Context ends when the user presses Ctrl-C or the program is told to stop. A second Ctrl-C ends the program at once,
// whatever it waits for.
func Context() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Ask asks the store for the books of the author that the user chose.
func (f *Flags) Ask(ctx context.Context, store Store) ([]penny.Book, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return store.ByAuthor(ctx, f.Author, Limit)
}

// Print prints the books on standard output. Where there is more to say about them it stands on standard error.
func (f *Flags) Print(books []penny.Book) {
	for _, book := range books {
		fmt.Println(book)
	}
	switch len(books) {
	case 0:
		fmt.Fprintf(os.Stderr, "%s: no author begins with %q\n", f.program, f.Author)
	case Limit:
		fmt.Fprintf(os.Stderr, "%s: these are the first %d books; there may be more\n", f.program, Limit)
	}
}

// Time makes the calls that the user asked for with -n and prints one line about them on standard error. It fails when
// any of them failed. Ctrl-C ends it at once, and the line tells what was measured until then.
func (f *Flags) Time(ctx context.Context, store Store) error {
	if f.Calls == 0 {
		return nil
	}
	before := store.Opened()
	done := f.progress()
	result := load.Run(ctx, load.Options{Calls: f.Calls, Workers: f.Workers, Name: dburl.Name, Done: done},
		func(ctx context.Context) error {
			_, err := f.Ask(ctx, store)
			return err
		})
	if done != nil {
		fmt.Fprint(os.Stderr, "\r\033[K") // the progress bar makes room for the line
	}
	fmt.Fprintf(os.Stderr, "%s: %s, %s, %.0f calls/s, p50 %s, p95 %s, p99 %s, errors %s, connections opened %d\n",
		f.program, count(result.Calls, "call"), count(f.Workers, "worker"), result.Rate(),
		load.Milliseconds(result.Percentile(50)), load.Milliseconds(result.Percentile(95)),
		load.Milliseconds(result.Percentile(99)), result.ErrorCounts(), store.Opened()-before)
	if result.Err != nil {
		return &failedCalls{result}
	}
	if result.Calls < f.Calls {
		return context.Cause(ctx)
	}
	return nil
}

// progress shows a bar on standard error where that is a terminal, else it is nil. A run that is over within a second
// shows none.
func (f *Flags) progress() func(bool) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	bar := progressbar.NewOptions(f.Calls,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription(f.program),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(time.Second),
		progressbar.OptionClearOnFinish())
	return func(bool) { _ = bar.Add(1) } // a bar that cannot be drawn is no reason to stop
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// failedCalls is the error of a timed run in which calls failed.
type failedCalls struct{ load.Result }

func (e *failedCalls) Error() string { return e.Err.Error() }
func (e *failedCalls) Unwrap() error { return e.Err }

// Exit ends the program: with status 0 where err is nil, else with status 1 and, on standard error, a line that says
// what went wrong at the address and one that says how to mend it.
func (f *Flags) Exit(err error, address string) {
	if err == nil {
		os.Exit(0)
	}
	if address == "" {
		address = os.Getenv(dburl.Variable)
	}
	says, hint := dburl.Explain(err, address)
	var failed *failedCalls
	if errors.As(err, &failed) {
		says = fmt.Sprintf("%d of %s failed: %s", failed.Failed(), count(failed.Calls, "call"), says)
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", f.program, says)
	if hint != "" {
		fmt.Fprintf(os.Stderr, "hint: %s\n", hint)
	}
	os.Exit(1)
}
