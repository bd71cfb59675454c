// Package exercise has the exercises and checks a student's work: each check is a Go test that runs the student's files on a
// real database. The exercises are in testdata: NN.md has the goal, two hints, a solution and a typical wrong one, and
// NN.go is the check.
package exercise

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed testdata/*.md testdata/*.go
var data embed.FS

// An Exercise is a task with a check.
type Exercise struct {
	Number      int
	Title, Goal string
	Folder      string   // the package that the check is in, from Penny's folder
	Files       []string // what the student changes, from Penny's folder
	Hints       []string
	Points      int  // what a grader gives for it: one for each promise of the check, at least one
	Server      bool // the check needs PostgreSQL

	Solution, Wrong Change // Wrong is a typical mistake, which the check must find
}

// A Change is an explanation in Markdown with the changes to files in it. A block "diff file=NAME" replaces its lines that
// begin with a space or a minus by those that begin with a space or a plus; a block "new file=NAME" is the whole file; and
// the line "copy FROM TO" copies the Go files of a package.
type Change struct{ Text string }

// All returns the exercises in order.
func All() []Exercise {
	names, err := fs.Glob(data, "testdata/*.md")
	if err != nil {
		panic(err)
	}
	var all []Exercise
	for _, name := range names {
		text, err := data.ReadFile(name)
		if err != nil {
			panic(err)
		}
		e := parse(string(text))
		if e.Number != len(all)+1 {
			panic(name + " is not the next exercise")
		}
		all = append(all, e)
	}
	return all
}

func parse(text string) Exercise {
	e := Exercise{Points: 1}
	text, wrong, _ := strings.Cut(text, "\n## Wrong\n")
	text, solution, _ := strings.Cut(text, "\n## Solution\n")
	e.Solution.Text, e.Wrong.Text = strings.TrimSpace(solution), strings.TrimSpace(wrong)
	head, goal, _ := strings.Cut(text, "\n\n")
	goal, list, _ := strings.Cut(goal, "\n\n- ")
	e.Goal = strings.TrimSpace(goal)
	number, title, _ := strings.Cut(strings.TrimPrefix(head, "# "), ". ")
	e.Number, _ = strconv.Atoi(number)
	e.Title = title
	for _, item := range strings.Split(list, "\n- ") {
		key, value, _ := strings.Cut(strings.TrimSpace(item), ": ")
		switch key {
		case "folder":
			e.Folder = value
		case "files":
			e.Files = strings.Fields(value)
		case "hint":
			e.Hints = append(e.Hints, value)
		case "points":
			e.Points, _ = strconv.Atoi(value)
		case "server":
			e.Server = value == "yes"
		}
	}
	return e
}

// Apply makes the change in Penny's folder root.
func (c Change) Apply(root string) error {
	var kind, name, before, after string
	for _, line := range strings.Split(c.Text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		copied := strings.Fields(line)
		switch {
		case fence && kind == "":
			kind, name, _ = strings.Cut(info, " file=")
			before, after = "", ""
		case fence && name != "":
			if err := replace(filepath.Join(root, name), kind, before, after); err != nil {
				return err
			}
			kind, name = "", ""
		case fence:
			kind = ""
		case kind == "" && len(copied) == 3 && copied[0] == "copy":
			if err := copyPackage(filepath.Join(root, copied[1]), filepath.Join(root, copied[2])); err != nil {
				return err
			}
		case kind == "diff" && line != "" && line[0] != '+':
			before += line[1:] + "\n"
			if line[0] == ' ' {
				after += line[1:] + "\n"
			}
		case kind == "diff" && line != "":
			after += line[1:] + "\n"
		case kind == "diff":
			before, after = before+"\n", after+"\n"
		default:
			after += line + "\n"
		}
	}
	return nil
}

// replace puts after in the place of before, which the file must have once, or makes a new file.
func replace(file, kind, before, after string) error {
	if kind == "new" {
		return os.WriteFile(file, []byte(after), 0o644)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(text), before); n != 1 {
		return fmt.Errorf("%s has these lines %d times, not once:\n%s", file, n, before)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), before, after, 1)), 0o644)
}

// copyPackage copies a package's Go files, without its tests.
func copyPackage(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
