package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

const slidesAbout = `Writes slides made from the chapters in docs to one file, for a browser, a projector and a printer; they need no network.
A slide has the code, the tables and the lists of a section. Its notes, which N shows and a printer prints, are the prose.`

//go:embed slides.html
var slidesPage string

// A slide is a section of a chapter.
type slide struct {
	Chapter, Title string
	Shows, Notes   template.HTML
}

func runSlides(_ context.Context, env *environment, args []string) error {
	f := flags(env, "slides", slidesAbout)
	file := f.String("o", "slides.html", "write to `FILE`")
	if err := parse(f, args); err != nil {
		return err
	}
	folder, err := root()
	if err != nil {
		return err
	}
	chapters, err := filepath.Glob(filepath.Join(folder, "docs", "[01]*.md"))
	if err != nil {
		return err
	}
	var slides []slide
	for _, chapter := range chapters {
		source, err := os.ReadFile(chapter)
		if err != nil {
			return err
		}
		more, err := slidesOf(source, filepath.Dir(chapter))
		if err != nil {
			return fmt.Errorf("%s: %w", chapter, err)
		}
		slides = append(slides, more...)
	}
	page, err := template.New("slides").Parse(slidesPage)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := page.Execute(&out, slides); err != nil {
		return err
	}
	if err := os.WriteFile(*file, out.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%d slides of %d chapters are in %s. Open it in a browser: the arrow keys turn the slides, N shows the notes.\n",
		len(slides), len(chapters), *file)
	return nil
}

var picture = regexp.MustCompile(`src="([^":]+\.svg)"`)

// slidesOf makes a slide of each section of a chapter. The pictures, which are in folder, become a part of it.
func slidesOf(source []byte, folder string) (slides []slide, err error) {
	markdown := goldmark.New(goldmark.WithExtensions(extension.Table))
	var shows, notes, points bytes.Buffer
	finish := func() {
		if len(slides) == 0 {
			return
		}
		if shows.Len() == 0 { // a section of prose: the first sentence of each paragraph
			fmt.Fprintf(&shows, "<ul>%s</ul>", points.String())
		}
		last := &slides[len(slides)-1]
		seen := picture.ReplaceAllStringFunc(shows.String(), func(src string) string {
			drawn, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(picture.FindStringSubmatch(src)[1])))
			if err != nil {
				return src
			}
			return `src="data:image/svg+xml;base64,` + base64.StdEncoding.EncodeToString(drawn) + `"`
		})
		last.Shows, last.Notes = template.HTML(seen), template.HTML(notes.String())
		shows.Reset()
		notes.Reset()
		points.Reset()
	}
	chapter := ""
	for node := markdown.Parser().Parse(text.NewReader(source)).FirstChild(); node != nil; node = node.NextSibling() {
		into := &shows
		switch n := node.(type) {
		case *ast.Heading:
			if n.Level <= 2 {
				finish()
				title := string(n.Lines().Value(source))
				if n.Level == 1 {
					chapter = title
				}
				slides = append(slides, slide{Chapter: chapter, Title: strings.ReplaceAll(title, "`", "")})
				continue
			}
		case *ast.FencedCodeBlock:
			if string(n.Language(source)) == "mermaid" { // a drawing's source, which only GitHub draws
				into = &notes
			}
		case *ast.Paragraph:
			if _, ok := n.FirstChild().(*ast.Image); ok {
				break
			}
			into = &notes
			first, _, _ := strings.Cut(strings.Join(strings.Fields(string(n.Lines().Value(source))), " "), ". ")
			var point bytes.Buffer
			if err := markdown.Convert([]byte(strings.TrimRight(first, ".:")), &point); err != nil {
				return nil, err
			}
			fmt.Fprintf(&points, "<li>%s</li>", point.String())
		}
		if err := markdown.Renderer().Render(into, source, node); err != nil {
			return nil, err
		}
	}
	finish()
	return slides, nil
}
