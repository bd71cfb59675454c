package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"example.com/penny/internal/browser"
	"example.com/penny/internal/pgtest"
)

// startWeb starts lab race -web and gives back the page's address.
func startWeb(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, done := &syncBuffer{}, make(chan int, 1)
	go func() {
		done <- run(ctx, &environment{stdin: strings.NewReader(""), stdout: out, stderr: out}, []string{"race", "-web"})
	}()
	t.Cleanup(func() {
		cancel()
		if status := <-done; status != 0 {
			t.Errorf("it ended with status %d: %s", status, out)
		}
	})
	pgtest.Eventually(t, 30*time.Second, "the page is served", func() bool { return strings.Contains(out.String(), "Ctrl-C") })
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out.String())
	if address == "" {
		t.Fatalf("it printed %q", out)
	}
	return address
}

func TestALectureHallWatchesARaceInTheBrowser(t *testing.T) {
	ctx := browser.Start(t)
	t.Setenv("DATABASE_URL", pgtest.BooksURL(t))
	address := startWeb(t)
	do := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what, condition string) {
		t.Helper()
		pgtest.Eventually(t, 2*time.Minute, what, func() bool {
			holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool](condition))
			if err != nil {
				t.Fatal(err)
			}
			return holds
		})
	}
	do(chromedp.EmulateViewport(1280, 720), chromedp.Navigate(address), chromedp.WaitVisible("#start"),
		chromedp.Evaluate[chromedp.Void](`document.getElementById("calls").value = 60; document.getElementById("workers").value = 2; document.getElementById("rtt").value = 2`),
		chromedp.Click("#start"))
	until("the bars move", `document.querySelectorAll("#rows tr").length === 7 && document.getElementById("state").textContent.includes("%")`)
	do(chromedp.Click("#pause"))
	until("it pauses", `document.getElementById("state").textContent.startsWith("Paused")`)
	until("it can go on", `document.getElementById("pause").textContent === "Go on"`)
	do(chromedp.Click("#pause"))
	until("it ends", `document.getElementById("state").textContent.startsWith("Done")`)
	until("it can be repeated and saved", `document.getElementById("start").textContent === "Repeat" && !document.getElementById("save").hidden`)
	until("every contender has no error and the pools no new connection",
		`[...document.querySelectorAll("#rows tr")].every(r => r.cells[7].textContent === "0") && document.querySelectorAll("#rows tr")[3].cells[6].textContent < 8`)
	until("the line shows how the server's count moved, and at the end it counts none",
		`new Set([...document.querySelector("#history polyline").points].map(p => p.y)).size > 2 && document.getElementById("connections").textContent === "0"`)
	if response, err := http.Get(address + "/race.svg"); err != nil || response.StatusCode != 200 {
		t.Errorf("the chart: %v, %v", response, err)
	}
	for _, scheme := range []string{"light", "dark"} {
		do(browser.Scheme(scheme))
		picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if folder := os.Getenv("PENNY_SCREENSHOTS"); folder != "" {
			if err := os.WriteFile(folder+"/race-"+scheme+".png", picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	axe := browser.Axe(t)
	findings, err := browser.Findings(ctx, axe)
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range findings {
		t.Error(finding)
	}
	do(chromedp.Evaluate[chromedp.Void](`document.getElementById("calls").value = 100000`), chromedp.Click("#start"))
	until("it runs again", `document.getElementById("state").textContent.startsWith("Running")`)
	do(chromedp.Click("#stop"))
	until("it is stopped", `document.getElementById("state").textContent.includes("Stopped")`)
}

func TestAForeignPageCannotStartARace(t *testing.T) {
	w := &webRace{host: "127.0.0.1:1234", secret: "right", now: snapshot{State: "ready"}, watchers: make(map[chan []byte]bool), done: closedChannel()}
	handler := w.handler()
	for _, c := range []struct {
		name, method, path, host, origin, secret string
		status                                   int
	}{
		{"the page", "GET", "/", "127.0.0.1:1234", "", "", 200},
		{"the page by its other name", "GET", "/", "localhost:1234", "", "", 200},
		{"another host name that leads here", "GET", "/", "evil.example:1234", "", "", 403},
		{"another origin", "POST", "/start", "127.0.0.1:1234", "https://evil.example", "right", 403},
		{"another port's origin", "POST", "/start", "127.0.0.1:1234", "http://127.0.0.1:80", "right", 403},
		{"no origin, no secret", "POST", "/start", "127.0.0.1:1234", "", "", 403},
		{"a wrong secret", "POST", "/stop", "127.0.0.1:1234", "http://127.0.0.1:1234", "wrong", 403},
		{"events for another origin", "GET", "/events", "127.0.0.1:1234", "https://evil.example", "", 403},
		{"a start without a race in it", "POST", "/start", "127.0.0.1:1234", "http://127.0.0.1:1234", "right", 400},
		{"a stop where nothing runs", "POST", "/stop", "127.0.0.1:1234", "http://127.0.0.1:1234", "right", 204},
		{"the wrong method", "GET", "/start", "127.0.0.1:1234", "", "", 405},
	} {
		r := httptest.NewRequest(c.method, "http://"+c.host+c.path, nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		r.Header.Set("X-Penny", c.secret)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		if recorder.Code != c.status {
			t.Errorf("%s: status %d, want %d", c.name, recorder.Code, c.status)
		}
	}
}
