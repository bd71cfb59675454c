package doctest

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"example.com/penny/internal/skip"
)

// A file has to fit on a screen, and the diff of two stages is the lesson.
func TestTheStagesKeepTheirBudgets(t *testing.T) {
	for n := 1; n <= 4; n++ {
		for file, limit := range map[string]int{"books/books.go": 60, "main.go": 36} {
			name := fmt.Sprintf("database%d/%s", n, file)
			if got := len(regexp.MustCompile(`(?m)^.*\S`).FindAllString(read(t, root+"/"+name), -1)); got > limit {
				t.Errorf("%s has %d lines that are not blank, want at most %d", name, got, limit)
			}
		}
	}
	for n, limit := range map[int]int{1: 20, 2: 36, 3: 56} {
		if got := changed(t, n); got > limit {
			t.Errorf("from database%d to database%d, %d lines of books.go change, want at most %d", n, n+1, got, limit)
		}
	}
}

// changed returns the number of lines that diff marks with < or > between books.go of a stage and the next one.
func changed(t *testing.T, stage int) int {
	t.Helper()
	if _, err := exec.LookPath("diff"); err != nil {
		skip.Test(t, err)
	}
	file := func(n int) string { return fmt.Sprintf("%s/database%d/books/books.go", root, n) }
	out, err := exec.Command("diff", file(stage), file(stage+1)).Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1 says that the files differ
		t.Fatal(err)
	}
	return strings.Count("\n"+string(out), "\n<") + strings.Count("\n"+string(out), "\n>")
}
