package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"example.com/penny/internal/browser"
	"example.com/penny/internal/skip"
)

// start starts a browser.
func start(t *testing.T) context.Context {
	t.Helper()
	skip.Long(t)
	return browser.Start(t)
}

// A visitor searches with the keyboard alone, reads, searches again, and sees the previous search.
func TestAVisitorFindsABookInARealBrowser(t *testing.T) {
	t.Parallel()
	ctx := start(t)
	store, _ := sqliteStore(t)
	base, _ := shop(t, store)
	text := func(selector string) string {
		t.Helper()
		text, err := chromedp.Run(ctx, chromedp.Text(selector))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	do := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatal(err)
		}
	}
	do(chromedp.Navigate(base + "/"))
	greeting := text("h1")
	do(chromedp.Click("main a.button"), chromedp.WaitVisible("#author:focus"))
	previous := text(".previous")
	// The field has the focus: the visitor just types.
	do(chromedp.KeyEvent("ker"+kb.Enter), chromedp.WaitVisible("table"))
	rows := text("tbody")
	do(chromedp.Click("main a.button"), chromedp.WaitVisible("#author:focus"))
	again := text(".previous")
	do(chromedp.KeyEvent("  "+kb.Enter), chromedp.WaitVisible(".message"))
	message := text(".message")
	if !strings.HasPrefix(greeting, "Good ") || !strings.Contains(previous, "(None)") || !strings.Contains(again, "ker") ||
		strings.Count(rows, "Kernighan") != 2 || !strings.Contains(message, "Please type an author") {
		t.Errorf("got greeting %q, previous %q, rows %q, again %q, message %q", greeting, previous, rows, again, message)
	}
}

// On a phone and on a projector, in light and in dark, axe-core finds no fault in any page, and no page scrolls sideways.
// PENNY_SCREENSHOTS names a folder for pictures of the pages.
func TestEveryPageSuitsEveryScreenAndEveryReader(t *testing.T) {
	t.Parallel()
	axe := browser.Axe(t)
	ctx := start(t)
	store, db := sqliteStore(t)
	db.Exec(t, `INSERT INTO books VALUES ('978-0-13-468599-1', 'Longstocking-Featherstonehaugh', 'Incomprehensibilities of Electroencephalography'),
		('978-0-13-468599-2', 'Long', '`+strings.Repeat("n", 60)+`')`)
	base, _ := shop(t, store)
	for _, screen := range []struct {
		name          string
		width, height int64
		scheme        string
	}{{"phone", 360, 740, "light"}, {"phone-dark", 360, 740, "dark"}, {"projector", 1920, 1080, "light"}, {"projector-dark", 1920, 1080, "dark"}} {
		for name, path := range map[string]string{"index": "/", "searchform": "/searchform", "results": "/searchresults?author=ker", "long": "/searchresults?author=long",
			"none": "/searchresults?author=" + strings.Repeat("n", 150), "blank": "/searchresults?author=", "notfound": "/nothing"} {
			if err := chromedp.Do(ctx, chromedp.EmulateViewport(screen.width, screen.height), browser.Scheme(screen.scheme),
				chromedp.Navigate(base+path)); err != nil {
				t.Fatal(err)
			}
			wide, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
			if err != nil {
				t.Fatal(err)
			}
			broken, err := chromedp.Run(ctx, chromedp.Evaluate[bool](brokenWord))
			if err != nil {
				t.Fatal(err)
			}
			if broken {
				t.Errorf("%s breaks a short word on the %s", path, screen.name)
			}
			if wide {
				t.Errorf("%s is wider than the %s", path, screen.name)
			}
			findings, err := browser.Findings(ctx, axe)
			if err != nil {
				t.Fatal(err)
			}
			for _, finding := range findings {
				t.Errorf("%s on the %s: %s", path, screen.name, finding)
			}
			if folder := os.Getenv("PENNY_SCREENSHOTS"); folder != "" {
				picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, name+"-"+screen.name+".png"), picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// brokenWord is true if a word of at most 20 letters in a table takes two lines.
const brokenWord = `[...document.querySelectorAll('th, td')].some(cell => {
	const text = cell.firstChild, range = document.createRange();
	return text && [...text.data.matchAll(/[^\s-]{1,20}/g)].some(word => {
		if (text.data.length > 50) return false;
		range.setStart(text, word.index);
		range.setEnd(text, word.index + word[0].length);
		return new Set([...range.getClientRects()].map(line => line.top)).size > 1;
	});
})`
