// Package exercise has the exercises and checks a student's work. Each check is a Go test that runs the student's files on a
// real database. The exercises are in testdata: NN.md has the goal, two hints, a solution and a typical mistake, and NN.go
// is the check.
package exercise

import (
	"embed"
	"io/fs"
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
	Points      int  // one for each promise of the check, at least one
	Server      bool // the check needs PostgreSQL

	Solution string // an explanation in Markdown with the changes to the files
	Wrong    string // the same for a typical mistake, which the check must find
}

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
	e.Solution, e.Wrong = strings.TrimSpace(solution), strings.TrimSpace(wrong)
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
