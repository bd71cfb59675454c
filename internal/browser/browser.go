// Package browser gives a test a real Chromium without a window.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

// Start starts a browser, which ends with the test. If none is installed, it skips the test; under continuous integration it
// fails it.
func Start(t *testing.T) context.Context {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		skip.Test(t, "there is no Chromium or Chrome here: sudo apt install chromium")
	}
	// A browser that is killed leaves files behind: keep them all in one folder.
	folder, err := scratch.New("", "browser")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := folder.Remove(); err != nil {
			t.Error(err)
		}
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program),
		chromedp.UserDataDir(filepath.Join(folder.Path, "profile")), chromedp.Env("TMPDIR="+folder.Path),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(time.Minute))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium has no sandbox for root
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until the browser has closed its files
		cancel()
	})
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Axe returns the source of axe-core, which checks the accessibility of a page. PENNY_AXE names the file: axe.min.js of the npm
// package axe-core. If PENNY_AXE is not set, Axe skips the test; in continuous integration, it fails the test.
func Axe(t *testing.T) string {
	t.Helper()
	file := os.Getenv("PENNY_AXE")
	if file == "" {
		skip.Test(t, "PENNY_AXE does not name axe.min.js: npm install axe-core, and set it to node_modules/axe-core/axe.min.js")
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// Scheme sets the browser's preferred colors, "light" or "dark".
func Scheme(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	})
}

// Findings returns what axe-core finds wrong with the page in the browser, a line each.
func Findings(ctx context.Context, axe string) ([]string, error) {
	const ask = `axe.run().then(r => r.violations.map(v => v.id + ": " + v.help + " at " + v.nodes.map(n => n.target).join(", ")))`
	if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](axe)); err != nil {
		return nil, fmt.Errorf("load axe-core: %w", err)
	}
	findings, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](ask, chromedp.EvalAwaitPromise))
	if err != nil {
		return nil, fmt.Errorf("run axe-core: %w", err)
	}
	return findings, nil
}
