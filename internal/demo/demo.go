// Package demo holds the parts of the four programs that no lesson covers: flags, printing, timing and errors.
package demo

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"example.com/penny"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/retry"
)

// Limit is the number of books that a program asks for.
const Limit = 100

// Patience is the time that a call may take. It bounds the wait for a server that does not answer.
const Patience = 5 * time.Second

// Flags are what the user chose.
type Flags struct {
	Author  string // -author: the first letters of the author's name
	Calls   int    // -n: the number of calls to time; 0 for none
	Workers int    // -c: the number of goroutines that make them
	Pool    int    // -pool: the number of connections that the pool may hold

	program string
	failed  string // says how many of the timed calls failed
}

// A search is the ByAuthor of a Store.
type search = func(ctx context.Context, prefix string, limit int) ([]penny.Book, error)

// Parse returns the program's flags from the command line. If size is not 0, the program has the flag -pool, with size as
// its default. After wrong usage Parse ends the program with status 2.
func Parse(program string, size int) *Flags {
	f := &Flags{program: program}
	flag.StringVar(&f.Author, "author", "ker", "find books whose author begins with `PREFIX`, in small or capital letters")
	flag.IntVar(&f.Calls, "n", 0, "then make `CALLS` more calls and print how long they took")
	flag.IntVar(&f.Workers, "c", 1, "with -n: make the calls from `WORKERS` goroutines at once")
	if size > 0 {
		flag.IntVar(&f.Pool, "pool", size, "hold at most `SIZE` connections")
	}
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: %s [flags]\n\nPrints the books of an author.\n\n", program)
		flag.PrintDefaults()
	}
	flag.Parse()
	set := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { set[f.Name] = true })
	wrong := ""
	switch {
	case flag.NArg() > 0:
		wrong = fmt.Sprintf("unknown argument %q: an author is given as -author %[1]s", flag.Arg(0))
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
		flag.Usage()
		os.Exit(2)
	}
	return f
}

// Context returns a context that ends when the user presses Ctrl-C, the program is told to stop, or one of the other signals
// comes. A signal that is ignored, as nohup ignores SIGHUP, stays ignored. A second Ctrl-C ends the program at once.
func Context(others ...os.Signal) (context.Context, context.CancelFunc) {
	signals := append(slices.DeleteFunc(others, signal.Ignored), os.Interrupt, syscall.SIGTERM)
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Ask calls byAuthor for the author that the user chose.
func (f *Flags) Ask(ctx context.Context, byAuthor search) ([]penny.Book, error) {
	return Ask(ctx, byAuthor, f.Author, Limit)
}

// Ask calls byAuthor. If the connection dies, it asks once more: a search changes nothing. It returns after Patience, even if
// the driver does not.
func Ask(ctx context.Context, byAuthor search, author string, limit int) ([]penny.Book, error) {
	return retry.Within(ctx, Patience, func(ctx context.Context) (books []penny.Book, err error) {
		err = retry.Read(ctx, func() error {
			books, err = byAuthor(ctx, author, limit)
			return err
		})
		return books, err
	})
}

// Opened returns the number of connections that a *sql.DB has opened, except those that broke: it does not count them.
func Opened(s sql.DBStats) int64 {
	return int64(s.OpenConnections) + s.MaxIdleClosed + s.MaxIdleTimeClosed + s.MaxLifetimeClosed
}

// Print prints the books on standard output. It prints what else there is to say on standard error.
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

// Time makes the calls that the user asked for with -n and prints on standard error how long they took and how many
// connections were opened. It returns the error of a call if one failed. Ctrl-C ends it, and it prints what it has by then.
func (f *Flags) Time(ctx context.Context, byAuthor search, opened func() int64) error {
	if f.Calls == 0 {
		return nil
	}
	before := opened()
	screen := io.Discard
	if term.IsTerminal(int(os.Stderr.Fd())) {
		screen = os.Stderr
	}
	done, erase := f.progress(screen)
	result := load.Run(ctx, load.Options{Calls: f.Calls, Workers: f.Workers, Name: explain.Name, Done: done},
		func(ctx context.Context) error {
			_, err := f.Ask(ctx, byAuthor)
			return err
		})
	erase()
	fmt.Fprintf(os.Stderr, "%s: %s by %s in %.2f s\n", f.program, count(result.Calls, "call"), count(f.Workers, "worker"), result.Elapsed.Seconds())
	fmt.Fprintf(os.Stderr, "  calls/s      %.0f\n", result.Rate())
	fmt.Fprintf(os.Stderr, "  latency      p50 %s, p95 %s, p99 %s\n", load.Milliseconds(result.Percentile(50)),
		load.Milliseconds(result.Percentile(95)), load.Milliseconds(result.Percentile(99)))
	fmt.Fprintf(os.Stderr, "  connections  %d opened\n", opened()-before)
	fmt.Fprintf(os.Stderr, "  errors       %s\n", result.ErrorCounts())
	switch {
	case result.Err != nil:
		f.failed = fmt.Sprintf("%d of %s failed: ", result.Failed(), count(result.Calls, "call"))
		return result.Err
	case result.Calls < f.Calls:
		return context.Cause(ctx)
	}
	return nil
}

// progress shows on w the calls that are done, and those that failed, ten times a second. The caller calls erase at the end.
func (f *Flags) progress(w io.Writer) (done func(failed bool), erase func()) {
	var calls, failures atomic.Int64
	tick := time.NewTicker(100 * time.Millisecond)
	done = func(failed bool) {
		n := calls.Add(1)
		if failed {
			failures.Add(1)
		}
		select {
		case <-tick.C:
			fmt.Fprintf(w, "\r\033[K%s: %d of %d calls, %d failed", f.program, n, f.Calls, failures.Load())
		default:
		}
	}
	return done, func() { fmt.Fprint(w, "\r\033[K") }
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Exit ends the program. If err is nil, the status is 0. Otherwise it is 1, and standard error has a line that says what went
// wrong at the address, and a hint.
func (f *Flags) Exit(err error, address string) {
	if err == nil {
		os.Exit(0)
	}
	says, hint := explain.Error(err, address)
	fmt.Fprintf(os.Stderr, "%s: %s%s\nhint: %s\n", f.program, f.failed, says, hint)
	os.Exit(1)
}
