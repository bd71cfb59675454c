package main

import (
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
		return &hinted{fmt.Errorf("copy the Go modules: %w", err), "check the network, and that you may write to the folder"}
	}
	fmt.Fprintln(env.stderr, "PostgreSQL")
	if err := localpg.Stick(ctx, filepath.Join(*to, "postgresql"), showing(env)); err != nil {
		return &hinted{fmt.Errorf("copy PostgreSQL: %w", err), "the Go modules are in the folder; try again for the rest"}
	}
	fmt.Fprintf(env.stdout, "The Go modules are in %s and PostgreSQL is in %s. docs/offline.md says how to use them.\n",
		filepath.Join(*to, "go"), filepath.Join(*to, "postgresql"))
	return nil
}

// copyModules copies the modules that Penny needs on any system from Go's module cache, to a folder with the layout of a module
// proxy. Go downloads the ones that are missing.
func copyModules(ctx context.Context, env *environment, folder string) error {
	fmt.Fprintln(env.stderr, "Go modules")
	downloaded, err := goCommand(ctx, "mod", "download", "-json")
	if err != nil {
		return err
	}
	graph, err := goCommand(ctx, "mod", "graph") // Go also reads the go.mod files of modules that it does not build
	if err != nil {
		return err
	}
	cache, err := goCommand(ctx, "env", "GOMODCACHE")
	if err != nil {
		return err
	}
	cache = filepath.Join(cache, "cache", "download")
	var files []string
	for modules := json.NewDecoder(strings.NewReader(downloaded)); modules.More(); {
		var module struct{ Info, GoMod, Zip string }
		if err := modules.Decode(&module); err != nil {
			return err
		}
		files = append(files, module.Info, module.GoMod, module.Zip)
	}
	for _, module := range strings.Fields(graph) {
		path, version, _ := strings.Cut(capital.ReplaceAllStringFunc(module, func(c string) string { return "!" + strings.ToLower(c) }), "@")
		file := filepath.Join(cache, filepath.FromSlash(path), "@v", version+".mod")
		if _, err := os.Stat(file); err == nil { // Penny itself and Go have no such file
			files = append(files, file)
		}
	}
	for _, file := range files {
		path, err := filepath.Rel(cache, file)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		to := filepath.Join(folder, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// capital matches the letters that a module proxy writes as an exclamation mark and a small letter.
var capital = regexp.MustCompile("[A-Z]")

// goCommand runs the go command and returns its output. Its error has what the command said.
func goCommand(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// root returns Penny's folder.
func root(ctx context.Context) (string, error) {
	mod, err := goCommand(ctx, "env", "GOMOD")
	if err == nil && (mod == "" || mod == os.DevNull) { // without a module
		err = &hinted{errors.New("this is not Penny's folder"), "run it in Penny's folder"}
	}
	return filepath.Dir(mod), err
}
