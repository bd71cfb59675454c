package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"example.com/penny/internal/localpg"
)

const stickAbout = `Copies all that Penny downloads to a folder, such as a USB stick, for computers without a network: the Go modules, and
PostgreSQL for Linux, macOS and Windows. docs/offline.md says how to use it.`

func runStick(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "stick", stickAbout)
	to := f.String("to", "", "copy to `FOLDER`")
	if err := parse(f, args); err != nil {
		return err
	}
	if *to == "" {
		return wrong(f, "-to must name a folder")
	}
	if err := copyModules(ctx, env, filepath.Join(*to, "go")); err != nil {
		return fmt.Errorf("copy the Go modules: %w", err)
	}
	fmt.Fprintln(env.stderr, "PostgreSQL")
	if err := localpg.Stick(ctx, filepath.Join(*to, "postgresql"), showing(env)); err != nil {
		return &hinted{fmt.Errorf("copy PostgreSQL: %w", err), "the Go modules are in the folder; try again for the rest"}
	}
	fmt.Fprintf(env.stdout, "The Go modules are in %s and PostgreSQL is in %s. docs/offline.md says how to use them.\n",
		filepath.Join(*to, "go"), filepath.Join(*to, "postgresql"))
	return nil
}

// copyModules copies the modules that Penny needs, on any system, from Go's module cache. Go downloads those that are not
// there. The folder has the layout of a module proxy.
func copyModules(ctx context.Context, env *environment, folder string) error {
	fmt.Fprintln(env.stderr, "Go modules")
	downloaded, err := goCommand(ctx, "mod", "download", "-json")
	if err != nil {
		return err
	}
	graph, err := goCommand(ctx, "mod", "graph") // Go reads the go.mod of modules, too, that nothing is built of
	if err != nil {
		return err
	}
	cache, err := goCommand(ctx, "env", "GOMODCACHE")
	if err != nil {
		return err
	}
	root := filepath.Join(strings.TrimSpace(string(cache)), "cache", "download")
	var files []string
	for modules := json.NewDecoder(bytes.NewReader(downloaded)); modules.More(); {
		var module struct{ Info, GoMod, Zip string }
		if err := modules.Decode(&module); err != nil {
			return err
		}
		files = append(files, module.Info, module.GoMod, module.Zip)
	}
	for _, module := range strings.Fields(string(graph)) {
		path, version, _ := strings.Cut(capital.ReplaceAllStringFunc(module, func(c string) string { return "!" + strings.ToLower(c) }), "@")
		file := filepath.Join(root, filepath.FromSlash(path), "@v", version+".mod")
		if _, err := os.Stat(file); err == nil { // there is none for Penny itself, for Go, and for what a folder replaces
			files = append(files, file)
		}
	}
	for _, file := range files {
		path, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(folder, path), data); err != nil {
			return err
		}
	}
	return nil
}

// capital finds the letters that a module proxy's paths write as an exclamation mark and a small letter.
var capital = regexp.MustCompile("[A-Z]")

// goCommand runs the go command and returns its output. Its error has what the command said.
func goCommand(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// write writes a file that gets its name when it is complete.
func write(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	defer os.Remove(file + ".part")
	if err := os.WriteFile(file+".part", data, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}
