// Package doctest keeps README.md and docs/ true: it runs their console blocks on real databases, compares their excerpts
// with the files they quote, follows their links, and writes the page on troubleshooting from the programs' own table.
package doctest

import (
	"context"
	"errors"
	"flag"
	"fmt"
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

// pages returns the Markdown files, README.md first.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(found) < 15 {
		t.Fatalf("got the pages %v, %v; want at least 15", found, err)
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
	for _, page := range pages(t) {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			folder, address := "", ""
			for _, b := range blocks(read(t, page)) {
				if b.info != "console" {
					continue
				}
				if address == "" {
					folder, address = desk(t), pgtest.BooksURL(t)
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

// desk returns a folder for a page's commands, with the files that they read. The programs run there, and make files there,
// but go builds them in the repository, to use its cache.
func desk(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	files := map[string]string{"here": "#!/bin/sh\ncd '" + folder + "' && exec \"$@\"\n"}
	for _, name := range []string{"penny.sql", "database1/books/books.go", "database2/books/books.go", "database3/books/books.go", "database4/books/books.go"} {
		files[name] = read(t, filepath.Join(root, name))
	}
	for name, text := range files {
		file := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// prompt matches the prompt of psql or sqlite3, and the line that a user types after it. If they do not read from a terminal,
// they print no prompt.
var prompt = regexp.MustCompile(`(?m)^(?:yourdbname=|sqlite)> (.*)\n?`)

// session separates what is typed into a program from what it prints.
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
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	inside := "go -C '" + repository + "' "
	command = strings.NewReplacer("go run ", inside+"run -exec '"+folder+"/here' ", "go tool ", inside+"tool ").Replace(command)
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

func TestEveryExcerptIsInTheFileThatItQuotes(t *testing.T) {
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
		t.Errorf("got %d excerpts, want at least 5", quoted)
	}
}

// The table of faults in the chapter on the pool has figures such as "73 of 373". Each must be in the recorded run.
func TestEveryFigureInTheTableOfFaultsIsInTheRecord(t *testing.T) {
	record := read(t, root+"/docs/race/faults.txt")
	figures := regexp.MustCompile(`\| (\d+ of \d+) `).FindAllStringSubmatch(read(t, root+"/docs/07-database3.md"), -1)
	if len(figures) < 20 {
		t.Errorf("got %d figures, want at least 20", len(figures))
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
					t.Errorf("%s: the link %s is not valid", page, target)
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

func TestThePageOnTroubleshootingMatchesTheProgramsTable(t *testing.T) {
	var page strings.Builder
	page.WriteString(`# Troubleshooting

What the programs say, why, and what to do. The words in braces stand for your own server, user, database or file.
` + "`go tool lab doctor`" + ` finds most of these. A test writes this page: ` + "`go test ./internal/doctest -update`" + `.

`)
	for _, cause := range explain.Causes {
		fmt.Fprintf(&page, "## %s\n\n**%s**\n\n", upper(cause.Name), escape(cause.Says))
		if cause.Why != "" {
			fmt.Fprintf(&page, "%s\n\n", escape(cause.Why))
		}
		fmt.Fprintf(&page, "Hint: %s\n\n", escape(cause.Hint))
	}
	want := strings.TrimRight(page.String(), "\n") + "\n"
	file := filepath.Join(root, "docs", "troubleshooting.md")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, file) != want {
		t.Error("docs/troubleshooting.md does not match the table: run go test ./internal/doctest -update")
	}
}

func upper(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// escape keeps Markdown from reading text as its own signs.
func escape(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", "&lt;").Replace(text)
}
