package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/penny/internal/exercise"
	"example.com/penny/internal/localpg"
)

const exerciseAbout = `Lists the exercises, or checks the one with the number N and says what is still wrong. A check starts a PostgreSQL of its
own and takes a minute at most, once it is compiled. Your progress is in the file .exercises.`

// root returns Penny's folder.
func root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find Penny's folder: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

func runExercise(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "exercise", exerciseAbout)
	hint := f.Int("hint", 0, "show a hint for exercise `N`; asked again, a second one")
	solution := f.Int("solution", 0, "show the solution of exercise `N`, if you have solved it")
	force := f.Bool("force", false, "with -solution: show it in any case")
	watch := f.Bool("watch", false, "check again whenever you save one of the exercise's files")
	asJSON := f.Bool("json", false, "check one exercise, or all, and print the points as JSON, for a grader")
	number := 0
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") { // lab exercise 7 -watch
		var err error
		if number, err = strconv.Atoi(args[0]); err != nil || number < 1 {
			return wrong(f, "%q is not the number of an exercise", args[0])
		}
		args = args[1:]
	}
	if err := f.Parse(args); err != nil {
		return parse(f, args)
	}
	if f.NArg() == 1 && number == 0 { // lab exercise -watch 7
		number, _ = strconv.Atoi(f.Arg(0))
	}
	all := exercise.All()
	for _, n := range []int{number, *hint, *solution} {
		if n < 0 || n > len(all) || f.NArg() > 1 || f.NArg() == 1 && n == 0 && number == 0 {
			return wrong(f, "there are the exercises 1 to %d", len(all))
		}
	}
	folder, err := root()
	if err != nil {
		return err
	}
	progress, err := exercise.Load(folder)
	if err != nil {
		return &hinted{err, "delete the file to begin again"}
	}
	switch {
	case *hint > 0:
		shown := min(progress.Hints[*hint], 1)
		progress.Hints[*hint] = shown + 1
		fmt.Fprintln(env.stdout, all[*hint-1].Hints[shown])
		return progress.Save()
	case *solution > 0:
		if !progress.Solved[*solution] && !*force {
			return &hinted{fmt.Errorf("exercise %d is not solved yet", *solution),
				fmt.Sprintf("go tool lab exercise -hint %d, or -solution %d -force", *solution, *solution)}
		}
		fmt.Fprintln(env.stdout, all[*solution-1].Solution.Text)
		return nil
	}
	runner := &exercise.Runner{Root: folder, Find: func(ctx context.Context) (string, error) { return findPostgres(ctx, env, localpg.Search{}) }}
	defer runner.Close()
	switch {
	case *asJSON:
		return grade(ctx, env, runner, all, number)
	case number == 0 && !*watch:
		listExercises(env, all, progress)
		return nil
	case number == 0:
		number = max(progress.Next(), 1)
	}
	return check(ctx, env, runner, all[number-1], progress, *watch)
}

// listExercises prints the exercises, and marks the ones that are solved and the next one.
func listExercises(env *environment, all []exercise.Exercise, progress *exercise.Progress) {
	next := progress.Next()
	for _, e := range all {
		mark := "✗"
		switch {
		case progress.Solved[e.Number]:
			mark = "✓"
		case e.Number == next:
			mark = "→"
		}
		fmt.Fprintf(env.stdout, "%s %2d  %-26s %s\n", mark, e.Number, e.Title, e.Files[0])
	}
	if next == 0 {
		fmt.Fprintln(env.stdout, "\nAll are solved.")
		return
	}
	e := all[next-1]
	fmt.Fprintf(env.stdout, "\nNext: %d. %s\n%s\n\nCheck it with: go tool lab exercise %d\n", e.Number, e.Title, e.Goal, e.Number)
}

// errUnsolved is the error of a check that found something wrong, of which the user has been told already.
var errUnsolved = errors.New("not solved yet")

// check checks an exercise, and with watch again each time one of its files changes, until it is solved.
func check(ctx context.Context, env *environment, runner *exercise.Runner, e exercise.Exercise, progress *exercise.Progress, watch bool) error {
	for {
		before := changed(runner.Root, e.Files)
		result, err := runner.Check(ctx, e)
		if err != nil {
			return err
		}
		progress.Solved[e.Number] = result.Passed
		if err := progress.Save(); err != nil {
			return err
		}
		for _, p := range result.Promises {
			mark := "✗"
			if p.Kept {
				mark = "✓"
			}
			fmt.Fprintf(env.stdout, "  %s %s\n", mark, p.Name)
		}
		if result.Passed {
			fmt.Fprintf(env.stdout, "✓ %d. %s is solved. go tool lab exercise -solution %d shows another way.\n", e.Number, e.Title, e.Number)
			return nil
		}
		fmt.Fprintf(env.stdout, "✗ %d. %s\n%s\nFiles: %s\nNot yet: %s\n", e.Number, e.Title, e.Goal, strings.Join(e.Files, ", "), result.Says)
		if !watch {
			fmt.Fprintf(env.stdout, "A hint: go tool lab exercise -hint %d\n", e.Number)
			return errUnsolved
		}
		fmt.Fprintln(env.stdout, "Waiting until you save a file.")
		for changed(runner.Root, e.Files).Equal(before) {
			select {
			case <-time.After(300 * time.Millisecond): // a look at the clock of a file works on every disk; events do not
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// changed returns when a file in the folders of the given files was last changed.
func changed(root string, files []string) (last time.Time) {
	for _, file := range files {
		beside, _ := filepath.Glob(filepath.Join(root, filepath.Dir(file), "*"))
		for _, name := range beside {
			if info, err := os.Stat(name); err == nil && info.ModTime().After(last) {
				last = info.ModTime()
			}
		}
	}
	return last
}

// grade prints the points of one exercise, or of all if number is 0.
func grade(ctx context.Context, env *environment, runner *exercise.Runner, all []exercise.Exercise, number int) error {
	if number > 0 {
		all = all[number-1 : number]
	}
	report := struct {
		Points    int               `json:"points"`
		Of        int               `json:"of"`
		Exercises []exercise.Result `json:"exercises"`
	}{}
	for _, e := range all {
		result, err := runner.Check(ctx, e)
		if err != nil {
			return err
		}
		report.Points += result.Points
		report.Of += result.Of
		report.Exercises = append(report.Exercises, result)
	}
	out := json.NewEncoder(env.stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(report)
}
