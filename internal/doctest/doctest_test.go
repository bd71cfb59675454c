// Package doctest keeps README.md and docs/ true: it runs their console blocks on real databases, compares their excerpts
// with the files they quote, follows their links, and writes the page on troubleshooting out of the programs' own table.
package doctest

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/penny/internal/explain"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

var update = flag.Bool("update", false, "write docs/troubleshooting.md")

const root = "../.."

// A block is a fenced part of a page.
type block struct {
	info string // the words after the fence
	line int
	text string
}

// pages are the Markdown files, from the root.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(found) < 15 {
		t.Fatalf("the pages of docs: %v, %v", found, err)
	}
	return append([]string{filepath.Join(root, "README.md")}, found...)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func blocks(text string) (found []block) {
	var open *block
	for i, line := range strings.Split(text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{info: strings.TrimSpace(info), line: i + 1}
		case fence:
			found = append(found, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return found
}

func TestEveryConsoleBlockPrintsWhatThePageSays(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("the blocks are for a Unix shell")
	}
	for _, program := range []string{"psql", "sqlite3", "diff"} {
		if _, err := exec.LookPath(program); err != nil {
			skip.Test(t, err)
		}
	}
	folder := t.TempDir() // the blocks make files
	if err := copyTree(folder); err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		t.Run(filepath.Base(page), func(t *testing.T) {
			address := ""
			for _, b := range blocks(read(t, page)) {
				if b.info != "console" {
					continue
				}
				if address == "" {
					address = pgtest.BooksURL(t)
				}
				for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
					command, want, _ := strings.Cut(step, "\n")
					typed, want := session(want)
					got, err := shell(t, folder, address, command, typed)
					fails := strings.HasSuffix(strings.TrimSpace(want), "exit status 1") || strings.HasPrefix(command, "diff ") // diff's way to say that there is a difference
					if err != nil && !fails {
						t.Errorf("line %d: %s: %v", b.line, command, err)
					}
					if !matches(want, got) {
						t.Errorf("line %d: %s printed\n%s\nand the page says\n%s", b.line, command, got, want)
					}
				}
			}
		})
	}
}

// copyTree copies the repository into folder, but for what Git keeps.
func copyTree(folder string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		target := filepath.Join(folder, relative)
		if entry.IsDir() {
			if entry.Name() == ".git" {
				return filepath.SkipDir
			}
			return os.MkdirAll(target, 0o755)
		}
		if !entry.Type().IsRegular() || strings.HasSuffix(path, ".sqlite") || entry.Name() == ".env" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// prompt is what psql and sqlite3 print before what is typed. Where they do not read from a terminal, they print none.
var prompt = regexp.MustCompile(`(?m)^(?:yourdbname=|sqlite)> (.*)\n?`)

// session parts what is typed into a program from what it prints.
func session(text string) (typed, printed string) {
	for _, line := range prompt.FindAllStringSubmatch(text, -1) {
		typed += line[1] + "\n"
	}
	return typed, prompt.ReplaceAllString(text, "")
}

func shell(t *testing.T, folder, address, command, typed string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = folder
	cmd.Stdin = strings.NewReader(typed)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+address, "PGCLIENTENCODING=UTF8", "PSQLRC=/dev/null")
	out, err := cmd.CombinedOutput()
	text := string(out)
	if u, parseErr := url.Parse(address); parseErr == nil {
		if password, set := u.User.Password(); set {
			text = strings.ReplaceAll(text, password, "*****")
		}
	}
	return text, err
}

// matches compares what was printed with what the page says. Three dots stand for anything in the line and, alone in a
// line, for any lines.
func matches(want, got string) bool {
	pattern := regexp.QuoteMeta(strings.TrimRight(want, "\n"))
	pattern = regexp.MustCompile(`(?m)^\\\.\\\.\\\.$`).ReplaceAllString(pattern, `(?s:.*)`)
	pattern = strings.ReplaceAll(pattern, `\.\.\.`, `[^\n]*`)
	return regexp.MustCompile(`^` + pattern + `\n*$`).MatchString(strings.TrimRight(got, "\n"))
}

func TestEveryExcerptStandsInTheFileThatItQuotes(t *testing.T) {
	quoted := 0
	for _, page := range pages(t) {
		for _, b := range blocks(read(t, page)) {
			_, file, found := strings.Cut(b.info, "file=")
			if !found {
				continue
			}
			quoted++
			if !strings.Contains(read(t, filepath.Join(root, file)), b.text) {
				t.Errorf("%s, line %d: %s does not have\n%s", page, b.line, file, b.text)
			}
		}
	}
	if quoted < 5 {
		t.Errorf("only %d excerpts were found", quoted)
	}
}

// The table of faults in the chapter on the pool has figures such as "73 of 373". Each must be in the recorded run.
func TestEveryFigureInTheTableOfFaultsIsInTheRecord(t *testing.T) {
	record := read(t, root+"/docs/race/faults.txt")
	figures := regexp.MustCompile(`\| (\d+ of \d+) `).FindAllStringSubmatch(read(t, root+"/docs/07-database3.md"), -1)
	if len(figures) < 20 {
		t.Errorf("only %d figures were found", len(figures))
	}
	for _, figure := range figures {
		if !strings.Contains(record, figure[1]+" calls failed") {
			t.Errorf("%q is not in the record", figure[1])
		}
	}
}

var (
	link = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
)

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(read(t, page), "code"), -1) {
			target := match[1]
			if u, err := url.Parse(target); err == nil && u.Scheme != "" {
				if u.Scheme != "https" && u.Hostname() != "localhost" || u.Host == "" {
					t.Errorf("%s: the link %s is none", page, target)
				}
				continue
			}
			file, _, _ := strings.Cut(target, "#")
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), file)); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

func TestThePageOnTroubleshootingIsTheProgramsOwnTable(t *testing.T) {
	var page strings.Builder
	page.WriteString(`# Troubleshooting

This page lists what the programs say when something is wrong, why it happens, and what to do. The words in braces stand for
your own server, user, database or file. ` + "`go tool lab doctor`" + ` finds most of these step by step. A test writes
this page from the table that the programs use: ` + "`go test ./internal/doctest -update`" + `.

`)
	for _, cause := range explain.Causes {
		fmt.Fprintf(&page, "## %s\n\n**You see:** %s\n\n**Why:** %s\n\n**Hint:** %s\n\n", upper(cause.Name), escape(cause.Says), escape(cause.Why), escape(cause.Hint))
	}
	want := strings.TrimRight(page.String(), "\n") + "\n"
	file := filepath.Join(root, "docs", "troubleshooting.md")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, file) != want {
		t.Error("docs/troubleshooting.md is not the table: go test ./internal/doctest -update")
	}
}

func upper(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// escape keeps Markdown from reading what is meant as it stands.
func escape(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", "&lt;").Replace(text)
}
