package exercise

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/exercises.md and docs/solutions.md")

const exercisesHead = `# Exercises

` + "`go tool lab exercise`" + ` lists them. With a number, such as ` + "`go tool lab exercise 7`" + `, it checks one and says what is still wrong.
` + "`-hint 7`" + ` gives a hint and, asked again, a second one; ` + "`-watch 7`" + ` checks again whenever you save a file. If a check needs
PostgreSQL, it starts its own. It changes none of your files.

The exercises do not depend on each other. ` + "`git checkout exercises pennyapp`" + ` undoes your changes, and ` + "`git clean -f exercises`" + `
deletes the files that you added. If you have a ZIP and not a clone, unpack it again. [Solutions](solutions.md) are on another
page. If you have solved an exercise, ` + "`go tool lab exercise -solution 7`" + ` shows its solution.

For a class: [classroom.yml](classroom.yml) is a workflow for GitHub that checks what a student has pushed and lists the points.
`

const solutionsHead = `# Solutions

One way to solve each of the [exercises](exercises.md), and a typical mistake. In a block, remove the lines with a minus, and
add those with a plus.
`

var (
	open   = regexp.MustCompile("(?m)^```(diff|new) file=(\\S+)$")
	copied = regexp.MustCompile(`(?m)^copy (\S+) (\S+)$`)
)

// page renders a change for docs/solutions.md.
func page(change string) string {
	text := open.ReplaceAllStringFunc(change, func(fence string) string {
		part := open.FindStringSubmatch(fence)
		language := "diff"
		if part[1] == "new" {
			language = strings.TrimPrefix(filepath.Ext(part[2]), ".")
		}
		return fmt.Sprintf("`%s`:\n\n```%s", part[2], language)
	})
	return copied.ReplaceAllString(text, "from `$1` to `$2`.")
}

// The pages are written from the same files as the command's answers.
func TestThePagesMatchTheExercises(t *testing.T) {
	exercises, solutions := exercisesHead, solutionsHead
	for _, e := range All() {
		title := fmt.Sprintf("\n## %d. %s\n\n", e.Number, e.Title)
		exercises += title + e.Goal + "\n\n"
		for _, file := range e.Files {
			if _, err := os.Stat(filepath.Join(root, file)); err == nil {
				exercises += fmt.Sprintf("[`%s`](../%s)\n", file, file)
			} else {
				exercises += fmt.Sprintf("`%s`, which you make\n", file)
			}
		}
		if e.Points > 1 {
			exercises += fmt.Sprintf("(%d promises, a point each)\n", e.Points)
		}
		exercises += "\n"
		for i, hint := range e.Hints {
			exercises += fmt.Sprintf("<details><summary>Hint %d</summary>\n\n%s\n\n</details>\n", i+1, hint)
		}
		solutions += title + page(e.Solution) + "\n\n**Not quite:** " + page(e.Wrong) + "\n"
	}
	for name, want := range map[string]string{"exercises.md": exercises, "solutions.md": solutions} {
		file := filepath.Join(root, "docs", name)
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("docs/%s does not match the exercises (%v): run go test ./internal/exercise -run Pages -update", name, err)
		}
	}
}
