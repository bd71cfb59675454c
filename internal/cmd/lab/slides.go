package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
)

const slidesAbout = `Writes slides made from the chapters in docs to one file, for a browser, a projector and a printer; they need no network.
A slide has the code, the tables and the lists of a section. Its notes, which N shows and a printer prints, are the prose.`

//go:embed slides.html
var slidesHTML string

var slidesPage = template.Must(template.New("slides").Parse(slidesHTML))

// A slide is a section of a chapter.
type slide struct {
	Chapter, Title string
	Shows          template.HTML // code, tables, lists and pictures
	Points         template.HTML // the first sentence of each paragraph, for a section that has nothing else to show
	Notes          template.HTML // the prose
}

func runSlides(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "slides", slidesAbout)
	file := f.String("o", "slides.html", "write to `FILE`")
	if err := parse(f, args); err != nil {
		return err
	}
	folder, err := root(ctx)
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
	var out bytes.Buffer
	if err := slidesPage.Execute(&out, slides); err != nil {
		return err
	}
	if err := replace(*file, out.Bytes()); err != nil {
		return &hinted{fmt.Errorf("write the slides: %w", err), "name another file with -o"}
	}
	fmt.Fprintf(env.stdout, "%d slides of %d chapters are in %s. Open it in a browser: the arrow keys turn the slides, N shows the notes.\n",
		len(slides), len(chapters), *file)
	return nil
}

// replace writes text to a file. If the file exists, it must begin as text does: then the lab wrote it.
func replace(file string, text []byte) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !bytes.HasPrefix(old, text[:50]) {
		return fmt.Errorf("the lab did not write %s, so it stays as it is", file)
	}
	return os.WriteFile(file, text, 0o644)
}

// slidesOf makes a slide of each section of a chapter. The chapter's pictures, which are in folder, become a part of it.
func slidesOf(source []byte, folder string) (slides []slide, err error) {
	markdown := goldmark.New(goldmark.WithExtensions(extension.Table),
		goldmark.WithRendererOptions(html.WithUnsafe())) // for pictures in data: URLs; the chapters are our own, so it is safe
	chapter := ""
	for node := markdown.Parser().Parse(text.NewReader(source)).FirstChild(); node != nil; node = node.NextSibling() {
		if h, ok := node.(*ast.Heading); ok && h.Level <= 2 {
			title := strings.ReplaceAll(string(h.Lines().Value(source)), "`", "")
			if h.Level == 1 {
				chapter = title
			}
			slides = append(slides, slide{Chapter: chapter, Title: title})
			continue
		}
		last := &slides[len(slides)-1] // a chapter begins with a heading
		image, isPicture := node.FirstChild().(*ast.Image)
		if isPicture {
			drawn, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(string(image.Destination))))
			if err != nil {
				return nil, err
			}
			image.Destination = []byte("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString(drawn))
		}
		var block, point bytes.Buffer
		if err := markdown.Renderer().Render(&block, source, node); err != nil {
			return nil, err
		}
		code, isCode := node.(*ast.FencedCodeBlock)
		switch {
		case isCode && string(code.Language(source)) == "mermaid": // the source of a drawing, which only GitHub draws
			last.Notes += template.HTML(block.String())
		case node.Kind() == ast.KindParagraph && !isPicture:
			last.Notes += template.HTML(block.String())
			first, _, _ := strings.Cut(strings.Join(strings.Fields(string(node.Lines().Value(source))), " "), ". ")
			if err := markdown.Convert([]byte(strings.TrimRight(first, ".:")), &point); err != nil {
				return nil, err
			}
			last.Points += template.HTML("<li>" + point.String() + "</li>")
		default:
			last.Shows += template.HTML(block.String())
		}
	}
	return slides, nil
}
