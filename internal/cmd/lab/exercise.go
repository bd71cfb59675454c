package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/penny/internal/exercise"
	"example.com/penny/internal/localpg"
)

const exerciseAbout = `Lists the exercises. With a number, as in go tool lab exercise 7, it checks that exercise and says what is still wrong. A
check starts a PostgreSQL of its own and takes a minute at most. Your progress is in the file .exercises.`

func runExercise(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "exercise [NUMBER] [flags]", exerciseAbout)
	hint := f.Bool("hint", false, "show a hint, and the next time another one")
	solution := f.Bool("solution", false, "show the solution, if you have solved the exercise")
	force := f.Bool("force", false, "with -solution: show it in any case")
	watch := f.Bool("watch", false, "check again whenever you save one of the exercise's files")
	asJSON := f.Bool("json", false, "check this exercise, or all, and print the points as JSON, for a grader")
	all := exercise.All()
	number := 0
	for rest := args; ; { // the number may come before the flags, after them, or between them
		if err := f.Parse(rest); err != nil {
			return errors.Join(errUsage, err)
		}
		if f.NArg() == 0 {
			break
		}
		n, err := strconv.Atoi(f.Arg(0))
		if err != nil || n < 1 || n > len(all) || number != 0 {
			return wrong(f, "want one number from 1 to %d, got %q", len(all), f.Arg(0))
		}
		number, rest = n, f.Args()[1:]
	}
	folder, err := root(ctx)
	if err != nil {
		return err
	}
	progress, err := saved(folder)
	if err != nil {
		return err
	}
	runner := &exercise.Runner{Root: folder, Find: func(ctx context.Context) (string, error) { return findPostgres(ctx, env, localpg.Search{}) }}
	defer runner.Close()
	switch {
	case *asJSON && number > 0:
		return grade(ctx, env, runner, all[number-1:number])
	case *asJSON:
		return grade(ctx, env, runner, all)
	case number == 0 && !*hint && !*solution && !*watch:
		listExercises(env, all, progress)
		return nil
	case number == 0:
		number = max(progress.Next(), 1)
	}
	e := all[number-1]
	switch {
	case *hint:
		shown := progress.Hints[number]
		progress.Hints[number]++
		// The hints are also on a page in docs, and their links are relative to it.
		fmt.Fprintln(env.stdout, strings.ReplaceAll(e.Hints[shown%len(e.Hints)], "](", "](docs/"))
		return save(progress)
	case *solution && !*force && !progress.Solved[number]:
		return &hinted{fmt.Errorf("exercise %d is not solved yet", number),
			fmt.Sprintf("go tool lab exercise -hint %d, or -solution -force %d", number, number)}
	case *solution:
		fmt.Fprintln(env.stdout, e.Solution)
		return nil
	}
	return check(ctx, env, runner, e, *watch)
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

// errUnsolved is the error of a check that found something wrong. The user has been told.
var errUnsolved = errors.New("not solved yet")

// check checks an exercise. With watch it checks again each time one of its files changes, until it is solved.
func check(ctx context.Context, env *environment, runner *exercise.Runner, e exercise.Exercise, watch bool) error {
	for {
		before := changed(runner.Root, e.Files)
		result, err := runner.Check(ctx, e)
		if err != nil {
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
			fmt.Fprintf(env.stdout, "✓ %d. %s is solved. One way to do it: go tool lab exercise -solution %d\n", e.Number, e.Title, e.Number)
		} else {
			fmt.Fprintf(env.stdout, "✗ %d. %s\n%s\nFiles: %s\nNot yet: %s\n", e.Number, e.Title, e.Goal, strings.Join(e.Files, ", "), result.Says)
		}
		// Another lab may have changed the file since this one began.
		progress, err := saved(runner.Root)
		if err != nil {
			return err
		}
		progress.Solved[e.Number] = result.Passed
		if err := save(progress); err != nil {
			return err
		}
		if result.Passed {
			return nil
		}
		if !watch {
			fmt.Fprintf(env.stdout, "A hint: go tool lab exercise -hint %d\n", e.Number)
			return errUnsolved
		}
		fmt.Fprintln(env.stdout, "Waiting until you save a file.")
		for changed(runner.Root, e.Files).Equal(before) {
			select {
			case <-time.After(300 * time.Millisecond): // not every file system reports changes, but all record their time
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// saved returns the user's progress, and save saves it. Their errors have hints.
func saved(root string) (*exercise.Progress, error) {
	progress, err := exercise.Load(root)
	if err != nil {
		return nil, &hinted{err, "delete the file to begin again"}
	}
	return progress, nil
}

func save(progress *exercise.Progress) error {
	if err := progress.Save(); err != nil {
		return &hinted{fmt.Errorf("save your progress: %w", err), "make that file writable"}
	}
	return nil
}

// changed returns when a file in the folders of the given files was last changed.
func changed(root string, files []string) (last time.Time) {
	for _, file := range files {
		names, _ := filepath.Glob(filepath.Join(root, filepath.Dir(file), "*"))
		for _, name := range names {
			if info, err := os.Stat(name); err == nil && info.ModTime().After(last) {
				last = info.ModTime()
			}
		}
	}
	return last
}

// grade checks the exercises and prints their points.
func grade(ctx context.Context, env *environment, runner *exercise.Runner, all []exercise.Exercise) error {
	var report struct {
		Points    int               `json:"points"`
		Of        int               `json:"of"`
		Exercises []exercise.Result `json:"exercises"`
	}
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
