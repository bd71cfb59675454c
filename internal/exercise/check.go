package exercise

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/penny/internal/exercise/given"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/scratch"
)

// most is how many bytes of a check's output are kept: a student's loop may print for ever.
const most = 1 << 20

// A Runner checks exercises in Penny's folder Root. It starts one PostgreSQL for all checks, which Close stops.
type Runner struct {
	Root  string
	Find  func(context.Context) (string, error) // returns the folder with PostgreSQL's programs
	Limit time.Duration                         // how long a check may run; if it is 0, 45 seconds

	mu     sync.Mutex // protects server
	server *localpg.Server
}

// A Result says whether an exercise is solved.
type Result struct {
	Number   int       `json:"number"`
	Title    string    `json:"title"`
	Passed   bool      `json:"passed"`
	Points   int       `json:"points"`
	Of       int       `json:"of"`
	Says     string    `json:"says,omitempty"` // what is still wrong
	Promises []Promise `json:"promises,omitempty"`
}

// A Promise is a part of a check that has a point of its own.
type Promise struct {
	Name string `json:"name"`
	Kept bool   `json:"kept"`
}

// Close stops the server.
func (r *Runner) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil
	}
	return r.server.Stop()
}

// address returns the address of the server. It starts the server if it does not run.
func (r *Runner) address(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		bin, err := r.Find(ctx)
		if err != nil {
			return "", err
		}
		options := localpg.Options{BinDir: bin, Config: map[string]string{"max_connections": "200"}}
		if r.server, err = localpg.Start(ctx, options); err != nil {
			return "", err
		}
	}
	return r.server.URL("postgres"), nil
}

// Check checks the student's files. Its error says why the check itself could not run.
func (r *Runner) Check(ctx context.Context, e Exercise) (Result, error) {
	server := ""
	if e.Server {
		var err error
		if server, err = r.address(ctx); err != nil {
			return Result{}, err
		}
	}
	folder, err := scratch.New("", "exercise")
	if err != nil {
		return Result{}, err
	}
	defer folder.Remove()
	if says, err := r.build(ctx, e, folder.Path); says != "" || err != nil {
		return Result{Number: e.Number, Title: e.Title, Of: e.Points, Says: says}, err
	}
	return r.run(ctx, e, folder.Path, server)
}

// compiler finds the compiler's first complaint, with the lines that belong to it.
var compiler = regexp.MustCompile(`(?m)^.*\.go:\d+:.+(?:\n\t.+)*`)

// build compiles the check into the student's package. If that fails, it returns what the compiler says.
func (r *Runner) build(ctx context.Context, e Exercise, folder string) (says string, err error) {
	check, err := data.ReadFile(fmt.Sprintf("testdata/%02d.go", e.Number))
	if err != nil {
		return "", err
	}
	target := filepath.Join(r.Root, filepath.FromSlash(e.Folder), "exercise_test.go")
	out, err := given.Compile(ctx, folder, r.Root, "./"+e.Folder, target, check)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil:
		return "", nil
	}
	if _, err := os.Stat(filepath.Join(r.Root, filepath.FromSlash(e.Files[0]))); errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf(given.Missing, e.Files[0]), nil
	}
	return "it does not compile: " + oneLine(cmp.Or(compiler.FindString(out), out, err.Error())), nil
}

// run runs the check that build has left in folder.
func (r *Runner) run(ctx context.Context, e Exercise, folder, server string) (Result, error) {
	limit := cmp.Or(r.Limit, 45*time.Second)
	// When the test's own limit is over, it prints where each goroutine is. The context ends a test that does not stop.
	running, cancel := context.WithTimeout(ctx, limit+5*time.Second)
	defer cancel()
	out := &tail{}
	cmd := exec.CommandContext(running, filepath.Join(folder, given.Program),
		"-test.run=^TestExercise$", "-test.v=test2json", "-test.timeout="+limit.String(), "-test.parallel=8", "-test.paniconexit0")
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.Root, out, out, time.Second
	// The check has nothing to do with the user's own database. If it is killed, it leaves its files in the folder.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(setting string) bool {
		return strings.HasPrefix(setting, "DATABASE_URL=") || strings.HasPrefix(setting, "PG")
	})
	cmd.Env = append(cmd.Env, given.Server+"="+server, "TMPDIR="+folder, "TMP="+folder)
	err := cmd.Run()
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return read(e, limit, out.String(), err)
}

var (
	verdict  = regexp.MustCompile(`(?m)^\x16? *--- (PASS|FAIL|SKIP): TestExercise(?:/(.+))? \(`)
	sentence = regexp.MustCompile(`(?m)^ +exercise_test\.go:\d+: (.+(?:\n {8,}.+)*)`)
	crash    = regexp.MustCompile(`(?m)^(?:panic|fatal error): (.+)`)
)

// read reads what a check printed. The error err is that of its process.
func read(e Exercise, limit time.Duration, out string, err error) (Result, error) {
	result := Result{Number: e.Number, Title: e.Title, Of: e.Points}
	for _, v := range verdict.FindAllStringSubmatch(out, -1) {
		passed := v[1] == "PASS"
		switch {
		case v[1] == "SKIP":
			return result, fmt.Errorf("exercise %d: its check was skipped", e.Number)
		case v[2] == "":
			result.Passed = passed && err == nil
		default:
			result.Promises = append(result.Promises, Promise{strings.ReplaceAll(v[2], "_", " "), passed})
			if passed {
				result.Points++
			}
		}
	}
	says, crashed := sentence.FindStringSubmatch(out), crash.FindStringSubmatch(out)
	var exit *exec.ExitError
	switch {
	case result.Passed:
		result.Points = e.Points
	case crashed != nil && strings.HasPrefix(crashed[1], "test timed out"):
		result.Says = fmt.Sprintf("it hangs: after %v it is still%s", limit, cmp.Or(place(e, out), " not done"))
	case crashed != nil:
		result.Says = "it panics: " + strings.TrimSuffix(crashed[1], " [recovered, repanicked]") + place(e, out)
	case says != nil && strings.HasPrefix(says[1], given.Broken):
		return result, errors.New(oneLine(says[1]))
	case says != nil:
		result.Says = oneLine(says[1])
	case err != nil && !errors.As(err, &exit):
		return result, fmt.Errorf("run the check: %w", err)
	default:
		result.Says = "it ended the program before the check was done"
	}
	return result, nil
}

// place returns the first place in the student's files that a stack names. Go names line 1 for a loop with nothing in it.
func place(e Exercise, stack string) string {
	for _, file := range e.Files {
		line := regexp.MustCompile(regexp.QuoteMeta(file) + `(:[2-9]|:\d\d)?\d*`)
		if at := line.FindString(stack); at != "" {
			return " at " + at
		}
	}
	return ""
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// A tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	if t.Len() > most {
		t.Next(t.Len() - most/2)
	}
	return t.Buffer.Write(p)
}
