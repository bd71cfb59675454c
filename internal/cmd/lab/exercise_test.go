package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/exercise"
)

// elsewhere changes to the folder of another module, so that the test does not change the user's progress.
func elsewhere(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte("module example.com/elsewhere\n\ngo 1.26.0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	return folder
}

func TestExerciseGivesTwoHintsAndTheSolutionOnceItIsSolved(t *testing.T) {
	folder := elsewhere(t)
	e := exercise.All()[6]
	for i, want := range []string{e.Hints[0], e.Hints[1], e.Hints[0]} {
		args := [][]string{{"exercise", "-hint", "7"}, {"exercise", "7", "-hint"}, {"exercise", "7", "--hint"}}[i]
		if out, errs, status := lab(t, "", "", args...); status != 0 || strings.TrimSpace(out) != want {
			t.Errorf("got %q, %q, status %d; want the hint %q", out, errs, status, want)
		}
	}
	if out, errs, status := lab(t, "", "", "exercise", "-solution", "7"); status != 1 || out != "" || !strings.Contains(errs, "hint: ") {
		t.Errorf("the solution before it is solved: got status %d, %q, %q; want 1 and a hint", status, out, errs)
	}
	if out, _, status := lab(t, "", "", "exercise", "-solution", "7", "-force"); status != 0 || strings.TrimSpace(out) != e.Solution {
		t.Errorf("with -force: got status %d and %q, want the solution", status, out)
	}
	progress, err := exercise.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	progress.Solved[1], progress.Solved[7] = true, true
	if err := progress.Save(); err != nil {
		t.Fatal(err)
	}
	if out, _, status := lab(t, "", "", "exercise", "-solution", "7"); status != 0 || strings.TrimSpace(out) != e.Solution {
		t.Errorf("when it is solved: got status %d and %q, want the solution", status, out)
	}
	out, _, status := lab(t, "", "", "exercise")
	for _, want := range []string{"✓  1  ", "→  2  ", "✗  3  ", "✓  7  ", "Next: 2. "} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("the list lacks %q, status %d:\n%s", want, status, out)
		}
	}
}

func TestExerciseNeedsOneNumber(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"99"}, {"0"}, {"seven"}, {"1", "2"}, {"1", "-hint", "2"}, {"-hint=7"}, {"-1"}} {
		out, errs, status := lab(t, "", "", append([]string{"exercise"}, args...)...)
		if status != 2 || out != "" || strings.Count(errs, "usage:") != 1 {
			t.Errorf("%q: got status %d, %q, %q; want 2 and the usage", args, status, out, errs)
		}
	}
}

func TestExerciseSaysWhatIsWrongAndCountsThePoints(t *testing.T) {
	elsewhere(t) // the exercises are not here
	out, errs, status := lab(t, "", "", "exercise", "1")
	if status != 1 || errs != "" || !strings.Contains(out, "Not yet: exercises/01-title/title.go is missing: git checkout ") || !strings.Contains(out, "-hint 1") {
		t.Errorf("got status %d, %q, %q; want 1 and what is wrong", status, out, errs)
	}
	out, errs, status = lab(t, "", "", "exercise", "1", "-json")
	var report struct {
		Points, Of int
		Exercises  []exercise.Result
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || report.Points != 0 || report.Of != 1 ||
		len(report.Exercises) != 1 || report.Exercises[0].Says == "" {
		t.Errorf("with -json: got status %d, %v, %q, %q; want 0 of 1 points", status, err, out, errs)
	}
}

func TestShowFindsAMethodByAnyOfItsNames(t *testing.T) {
	for _, name := range []string{"Release", "Conn.Release", "pool.Conn.Release"} {
		out, errs, status := lab(t, "", "", "show", name)
		if status != 0 || !strings.HasPrefix(out, "database3/pool/conn.go\n") || !strings.Contains(out, "func (c *Conn) Release() {\n") {
			t.Errorf("%s: got status %d, %q, %q; want the code", name, status, out, errs)
		}
	}
	if _, errs, status := lab(t, "", "", "show", "Nothing"); status != 1 || !strings.Contains(errs, "nothing is called Nothing") {
		t.Errorf("got status %d and %q, want 1 and \"nothing is called Nothing\"", status, errs)
	}
}

func TestResetBringsTheThreeBooksBack(t *testing.T) {
	folder := elsewhere(t)
	address := "sqlite:///" + filepath.ToSlash(filepath.Join(folder, "penny.sqlite"))
	if _, errs, status := lab(t, address, "", "load", "-books", "5"); status != 0 {
		t.Fatal(errs)
	}
	if err := os.WriteFile(".exercises", []byte(`{"solved":{"1":true}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := lab(t, address, "", "reset"); status != 1 || !strings.Contains(errs, "5 other books") {
		t.Errorf("without -yes: got status %d and %q, want 1 and the 5 books", status, errs)
	}
	if out, errs, status := lab(t, address, "", "reset", "-yes"); status != 0 || !strings.Contains(out, "has 3 books") {
		t.Errorf("with -yes: got status %d, %q, %q; want 0 and 3 books", status, out, errs)
	}
	if _, err := os.Stat(".exercises"); err == nil {
		t.Error("the progress is still there")
	}
}

func TestSlidesHaveEverySectionOfEveryChapter(t *testing.T) {
	folder, err := root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "slides.html")
	if _, errs, status := lab(t, "", "", "slides", "-o", file); status != 0 {
		t.Fatal(errs)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	thesis := filepath.Join(t.TempDir(), "thesis.html")
	if err := os.WriteFile(thesis, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := lab(t, "", "", "slides", "-o", thesis); status != 1 || !strings.Contains(errs, "stays as it is") {
		t.Errorf("over another file: got status %d and %q, want 1 and \"stays as it is\"", status, errs)
	}
	if _, errs, status := lab(t, "", "", "slides", "-o", file); status != 0 {
		t.Errorf("over the slides: got status %d and %q, want 0", status, errs)
	}
	chapters, err := filepath.Glob(filepath.Join(folder, "docs", "[01]*.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := 0
	for _, chapter := range chapters {
		source, err := os.ReadFile(chapter)
		if err != nil {
			t.Fatal(err)
		}
		slides, err := slidesOf(source, filepath.Dir(chapter))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range slides {
			if s.Shows == "" && s.Points == "" || s.Title == "" {
				t.Errorf("%s: the slide %q shows nothing", chapter, s.Title)
			}
		}
		sections += len(slides)
	}
	if n := strings.Count(string(page), "<section>"); n != sections || n < 40 {
		t.Errorf("got %d slides, want %d, one for each section", n, sections)
	}
	if regexp.MustCompile(`src="[^d]`).Match(page) || strings.Contains(string(page), "@import") {
		t.Error("the slides need a network")
	}
}

// A saver saves a file when it reads that the command waits for one, and ends the command the second time.
type saver struct {
	bytes.Buffer
	file string
	end  context.CancelFunc
}

func (s *saver) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "Waiting until you save") {
		if strings.Contains(s.String(), "Waiting") {
			s.end()
		} else if err := os.WriteFile(s.file, []byte("package title\n"), 0o644); err != nil {
			panic(err)
		}
	}
	return s.Buffer.Write(p)
}

func TestExerciseWatchChecksAgainWhenAFileIsSaved(t *testing.T) {
	folder := elsewhere(t)
	file := filepath.Join(folder, "exercises", "01-title", "title.go")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &saver{file: file, end: cancel}
	status := run(ctx, at("", nil, out, out), []string{"exercise", "1", "-watch"})
	if n := strings.Count(out.String(), "Not yet:"); status != 0 || n != 2 {
		t.Errorf("got status %d after %d checks, want 0 after 2:\n%s", status, n, out.String())
	}
}
