package doctest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// turns are turns of phrase that make a reader stumble, and what to write instead.
var turns = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\banew\b`), "again"},
	{regexp.MustCompile(`(?i)\bmend(s|ed|ing)?\b`), "fix"},
	{regexp.MustCompile(`(?i)\bwhere (there is|there are) (none|no)\b`), "if it is missing"},
	{regexp.MustCompile(`(?i)\b(is|are) none of\b`), "is not one of"},
	{regexp.MustCompile(`(?i)\bwrongs? (nobody|somebody)\b`), "is unfair to"},
	{regexp.MustCompile(`(?i)\bheed(s|ed|ing)?\b`), "ignores, or respects"},
	{regexp.MustCompile(`(?i)\bin vain\b`), "for ever"},
	{regexp.MustCompile(`(?i)\b(hardly|lest|whence|therein|thereby)\b`), "few, or so that"},
	{regexp.MustCompile(`(?i)\bgives? back\b`), "returns"},
	{regexp.MustCompile(`(?i)\bin place of who\b`), "instead of"},
	{regexp.MustCompile(`(?i)\bwho(ever)? waits? (in turn|is served)\b`), "callers that wait"},
	{regexp.MustCompile(`(?i)\bbeside\b`), "next to, besides, or at the same time"},
	{regexp.MustCompile(`(?i)\b(each|one|any) of so many\b`), "each of the"},
	{regexp.MustCompile(`(?i)\bfor long\b`), "for a long time"},
	{regexp.MustCompile(`(?i)\bat whichever\b`), "at any"},
}

// The test skips CONTRIBUTING.md and this file, which show some of them as examples.
func TestNoFileHasAStiffTurnOfPhrase(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return filepath.SkipDir
		case entry.IsDir(), entry.Name() == "CONTRIBUTING.md", entry.Name() == "words_test.go":
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".md", ".html", ".js", ".css", ".sh", ".yml", ".yaml":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			for _, turn := range turns {
				if found := turn.pattern.FindString(line); found != "" {
					t.Errorf("%s:%d: %q; write %q or the like", path, number, found, turn.instead)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
