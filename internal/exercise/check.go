package exercise

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"example.com/penny/internal/exercise/given"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/scratch"
)

// most is how many bytes of a check's output are kept.
const most = 1 << 20

// A Runner checks exercises in Penny's folder Root. It starts one PostgreSQL for all checks, which Close stops.
type Runner struct {
	Root  string
	Find  func(context.Context) (string, error) // returns the folder with PostgreSQL's programs
	Limit time.Duration                         // how long a check may run; if it is 0, 50 seconds

	mu     sync.Mutex // protects the fields below
	server *localpg.Server
	bin    string
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
	if r.server == nil {
		return nil
	}
	return r.server.Stop()
}

// start starts the server if it does not run.
func (r *Runner) start(ctx context.Context) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	if r.bin, err = r.Find(ctx); err != nil {
		return err
	}
	r.server, err = localpg.Start(ctx, localpg.Options{BinDir: r.bin, Config: map[string]string{"max_connections": "200"}})
	return err
}

// Check checks the student's files. Its error says why the check itself could not run.
func (r *Runner) Check(ctx context.Context, e Exercise) (Result, error) {
	result := Result{Number: e.Number, Title: e.Title, Of: e.Points}
	if e.Server {
		if err := r.start(ctx); err != nil {
			return result, err
		}
	}
	temporary, err := scratch.New("", "exercise")
	if err != nil {
		return result, err
	}
	defer temporary.Remove()
	folder := temporary.Path
	program := filepath.Join(folder, "check.exe")
	if out, err := r.build(ctx, e, folder, program); ctx.Err() != nil {
		return result, ctx.Err()
	} else if err != nil {
		result.Says = "it does not compile: " + firstError(out, err)
		return result, nil
	}

	limit := cmp.Or(r.Limit, 50*time.Second)
	// The time limit of the test prints where each goroutine is; the context's ends what does not heed it.
	running, cancel := context.WithTimeout(ctx, limit+5*time.Second)
	defer cancel()
	out := &tail{}
	cmd := exec.CommandContext(running, program, "-test.v=test2json", "-test.timeout="+limit.String(), "-test.parallel=8", "-test.paniconexit0")
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.Root, out, out, time.Second
	cmd.Env = append(clean(os.Environ()), "TMPDIR="+folder, "TMP="+folder) // a check that is ended leaves its files there
	if e.Server {
		cmd.Env = append(cmd.Env, given.Bin+"="+r.bin)
		cmd.Env = append(cmd.Env, given.Server+"="+r.server.URL("postgres"))
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	return read(result, e, limit, out.String(), err)
}

// build compiles the check into the student's package.
func (r *Runner) build(ctx context.Context, e Exercise, folder, program string) ([]byte, error) {
	check, err := data.ReadFile(fmt.Sprintf("testdata/%02d.go", e.Number))
	if err != nil {
		return nil, err
	}
	file := filepath.Join(folder, "check.go")
	if err := os.WriteFile(file, check, 0o600); err != nil {
		return nil, err
	}
	target := filepath.Join(r.Root, filepath.FromSlash(e.Folder), "exercise_test.go")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {target: file}})
	if err != nil {
		return nil, err
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", list, "-o", program, "./"+e.Folder)
	cmd.Dir = r.Root
	return cmd.CombinedOutput()
}

var (
	verdict  = regexp.MustCompile(`(?m)^\x16? *--- (PASS|FAIL|SKIP): TestExercise(?:/(.+))? \(`)
	sentence = regexp.MustCompile(`(?m)^ +exercise_test\.go:\d+: (.+(?:\n {8,}.+)*)`)
	panicked = regexp.MustCompile(`(?m)^panic: (.+)`)
)

// read reads what a check printed.
func read(result Result, e Exercise, limit time.Duration, out string, err error) (Result, error) {
	passed := false
	for _, v := range verdict.FindAllStringSubmatch(out, -1) {
		switch {
		case v[1] == "SKIP":
			return result, fmt.Errorf("exercise %d: its check was skipped, which says nothing", e.Number)
		case v[2] == "":
			passed = v[1] == "PASS"
		default:
			result.Promises = append(result.Promises, Promise{strings.ReplaceAll(v[2], "_", " "), v[1] == "PASS"})
			if v[1] == "PASS" {
				result.Points++
			}
		}
	}
	if passed && err == nil {
		result.Passed, result.Points = true, e.Points
		return result, nil
	}
	at := ""
	for _, file := range e.Files {
		if place := regexp.MustCompile(regexp.QuoteMeta(file) + `:\d+`).FindString(out); place != "" && at == "" {
			at = " at " + place
		}
	}
	says, panics := sentence.FindStringSubmatch(out), panicked.FindStringSubmatch(out)
	var exit *exec.ExitError
	switch {
	case panics != nil && strings.HasPrefix(panics[1], "test timed out"):
		result.Says = fmt.Sprintf("it hangs: after %v it is still%s", limit, cmp.Or(at, " not done"))
	case panics != nil:
		result.Says = "it panics: " + strings.TrimSuffix(panics[1], " [recovered, repanicked]") + at
	case says != nil:
		result.Says = strings.Join(strings.Fields(says[1]), " ")
	case err != nil && !errors.As(err, &exit):
		return result, fmt.Errorf("run the check: %w", err)
	default:
		result.Says = "it ended the program before the check was done"
	}
	return result, nil
}

// firstError returns the first line of the compiler's output that names a file.
func firstError(out []byte, err error) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, line := range lines {
		if strings.Contains(line, ".go:") || strings.HasPrefix(line, "no required module") {
			return line
		}
	}
	if lines[0] == "" {
		return err.Error()
	}
	return lines[len(lines)-1]
}

// clean returns the environment without the user's own database.
func clean(environ []string) (kept []string) {
	for _, setting := range environ {
		if name, _, _ := strings.Cut(setting, "="); name != "DATABASE_URL" && !strings.HasPrefix(name, "PG") {
			kept = append(kept, setting)
		}
	}
	return kept
}

// A tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	if t.Len() > most {
		t.Next(t.Len() - most/2)
	}
	return t.Buffer.Write(p)
}
