package live

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"example.com/penny/internal/browser"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/race"
	"example.com/penny/internal/skip"
)

// options returns options for a small and quick recording, with more callers than the server and the pool have places.
func options(t *testing.T, address string) Options {
	t.Helper()
	two, err := race.Choose(race.NoPool + "," + race.Pool)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Options: race.Options{Address: address, Contenders: two, Calls: 40, Workers: 20, Pool: 4, RTT: 5 * time.Millisecond}}
}

// serve serves the page at a port, 0 for any, until stop is called or the test ends.
func serve(t *testing.T, o Options, port string) (address string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, o) }()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
		stopped = true
	}
	t.Cleanup(stop)
	return "http://" + listener.Addr().String(), stop
}

func TestThePageShowsWhyThePoolIsFaster(t *testing.T) {
	skip.Long(t)
	server := pgtest.Server(t, localpg.Options{Config: map[string]string{"max_connections": "10"}})
	pgtest.LoadBooks(t, server.URL("postgres"))
	o := options(t, server.URL("postgres"))
	o.RTT = 100 * time.Millisecond // so long that 20 callers are there at once even if the machine takes 50 ms for a connection
	o.Faults = Faults(server)
	address, stop := serve(t, o, "0")
	ctx := browser.Start(t)
	do := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what, condition string) {
		t.Helper()
		pgtest.Eventually(t, time.Minute, what, func() bool {
			holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`typeof recording !== "undefined" && (`+condition+`)`)) // while it loads, nothing holds
			if err != nil {
				t.Fatal(err)
			}
			return holds
		})
	}
	script := func(statements string) chromedp.Action[chromedp.Void] {
		return chromedp.Evaluate[chromedp.Void](statements)
	}
	do(chromedp.EmulateViewport(1280, 720), chromedp.Navigate(address))
	until("the first recording plays", `recording !== null && playing && now > 0`)
	until("the timeline is drawn", `document.getElementById("timeline").naturalWidth > 0`)
	until("its text says what it shows", `/^database2: 6 round trips in .*database3: 1 round trips in /.test(document.getElementById("timeline").alt)`)

	do(chromedp.Click("#play"))
	until("it pauses, and says so", `!playing && document.getElementById("play").textContent === "Play"`)
	do(script(`now = 0`), chromedp.Click("#step"))
	until("a step goes to the next event", `now > 0 && now === Math.min(...lanes.flatMap((l) => [...l.calls.flatMap((c) => [c.begin, c.end]), ...l.connections.flatMap((c) => [c.open, c.close, ...c.trips.flatMap((t) => [t.begin, t.end])]), ...l.processes.map((s) => s.at)]).filter((t) => t > 0.05))`)

	// What the page shows at any moment is what was recorded.
	until("the picture matches the recording at a hundred moments", `(() => {
		for (let i = 0; i < 100; i++) {
			now = end * i / 100; draw();
			for (const lane of lanes) {
				const open = lane.connections.filter((c) => c.open <= now && now < c.close).length;
				const shown = lane.boxes.filter((b) => b.frame.getAttribute("class") === "place there").length;
				const pids = (lane.processes.findLast((s) => s.at <= now) || { pids: [] }).pids.length;
				const seats = lane.chairs.filter((c) => c.getAttribute("class") === "process").length;
				const busy = lane.calls.filter((c) => c.begin <= now && now < c.end).length;
				const dots = lane.dots.filter((d) => d.getAttribute("visibility") === "visible").length;
				if (open !== shown || pids !== seats || dots > busy || lane.pooled && dots !== busy) throw new Error([lane.name, now, open, shown, pids, seats, busy, dots].join());
			}
		}
		return true;
	})()`)
	until("each failed call had a connection that was refused", `lanes[0].calls.every((c) => c.had.length > 0 && (!c.error || c.had.every((h) => !h.c.served)))`)
	until("the full server refused some callers, only in the lane without a pool", `(() => {
		now = end; draw();
		return /[1-9]\d* server full/.test(lanes[0].figures.textContent) && lanes[1].figures.textContent.startsWith("40 of 40 answered, 0 failed") && lanes[1].boxes.length === 4;
	})()`)

	axe := ""
	if os.Getenv("PENNY_AXE") != "" || os.Getenv("CI") != "" {
		axe = browser.Axe(t)
	}
	for _, screen := range []struct{ width, height int64 }{{390, 844}, {960, 1080}, {1280, 720}, {1920, 1080}} {
		for _, scheme := range []string{"light", "dark"} {
			do(chromedp.EmulateViewport(screen.width, screen.height), browser.Scheme(scheme), script(`build(); play(false); now = 100; draw()`))
			until("the timeline is drawn again", `document.getElementById("timeline").complete`)
			until("nothing is wider than the screen", `document.documentElement.scrollWidth <= innerWidth`)
			until("no text covers another", `[...document.querySelectorAll("#lanes svg")].every((svg) => {
				const texts = [...svg.querySelectorAll(":scope > text")].map((t) => t.getBoundingClientRect());
				return texts.every((a, i) => texts.every((b, j) => i >= j || a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top));
			})`)
			if screen.height == 1080 && screen.width == 1920 {
				until("both lanes are on the screen at once", `lanes.every((l) => l.figures.getBoundingClientRect().bottom <= innerHeight)`)
			}
			if folder := os.Getenv("PENNY_SCREENSHOTS"); folder != "" {
				picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("live-%d-%s.png", screen.width, scheme)), picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if axe == "" {
				continue
			}
			findings, err := browser.Findings(ctx, axe)
			if err != nil {
				t.Fatal(err)
			}
			for _, finding := range findings {
				t.Errorf("%d pixels, %s: %s", screen.width, scheme, finding)
			}
		}
	}

	for i, fault := range o.Faults {
		do(script(fmt.Sprintf(`document.querySelector('button[value="%s"]').click()`, fault.Name)))
		until("it records this fault: "+fault.Name, fmt.Sprintf(`run === %d && recording.fault === %q && lanes.every((l) => l.fault_at > 0)`, i+2, fault.Name))
		until("the page names the fault", fmt.Sprintf(`(() => { now = end; draw(); return lanes.every((l) => l.figures.textContent.includes(%q)); })()`, fault.Name))
	}
	do(script(`document.getElementById("all").click(); document.querySelector(".record").click()`))
	until("all contenders that ask a server have a lane", `lanes.length === 6`)
	do(script(`document.getElementById("calls").value = 1000; document.getElementById("workers").value = 1; document.querySelector(".record").click()`))
	until("it records", `document.getElementById("state").textContent.startsWith("Recording")`)
	do(chromedp.Click("#stop"))
	until("it is stopped", `document.getElementById("state").textContent === "stopped"`)

	do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}})
		return err
	}), chromedp.Navigate(address))
	until("nothing moves by itself if the user wants less motion", `recording !== null && !playing && now === 0`)

	stop()
	until("the page says that the lab does not answer", `document.getElementById("state").textContent.startsWith("The lab does not answer")`)
	serve(t, o, strings.TrimPrefix(address, "http://127.0.0.1:"))
	until("it finds the next lab, and its recording", `recording !== null && document.getElementById("state").textContent.startsWith("Recorded")`)
}

func TestARecordingThatFailsSaysWhy(t *testing.T) {
	s := newStudio("127.0.0.1:1", options(t, "postgres://penny:hunter2@127.0.0.1:1/penny"))
	if err := s.record(t.Context(), s.options.Options, nil); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	if s.now.State != "failed" || !strings.Contains(s.now.Message, "no server answers") || strings.Contains(s.now.Message, "hunter2") {
		t.Errorf("got %+v, want the state failed and \"no server answers\", without the password", s.now)
	}
}

func TestAForeignPageCannotUseTheLab(t *testing.T) {
	o := options(t, "postgres://127.0.0.1:1/penny")
	o.Forwarded = "https://fluffy-space-1234.app.github.dev"
	s := newStudio("127.0.0.1:1234", o)
	s.secret = "right"
	handler := s.handler(t.Context())
	good, err := json.Marshal(wish{Calls: 1, Workers: 1, Pool: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method, path, host, origin, secret, body string
		status                                         int
	}{
		{"the page", "GET", "/", "127.0.0.1:1234", "", "", "", 200},
		{"the page by its other name", "GET", "/", "localhost:1234", "", "", "", 200},
		{"the page through a Codespace", "GET", "/", "fluffy-space-1234.app.github.dev", "", "", "", 200},
		{"the page's icon", "GET", "/favicon.svg", "localhost:1234", "", "", "", 200},
		{"another host name that leads here", "GET", "/", "evil.example:1234", "", "", "", 403},
		{"another origin", "POST", "/record", "127.0.0.1:1234", "https://evil.example", "right", string(good), 403},
		{"another Codespace", "POST", "/record", "127.0.0.1:1234", "https://evil-1234.app.github.dev", "right", string(good), 403},
		{"another port's origin", "POST", "/record", "127.0.0.1:1234", "http://127.0.0.1:80", "right", string(good), 403},
		{"no origin, no secret", "POST", "/record", "127.0.0.1:1234", "", "", string(good), 403},
		{"a wrong secret", "POST", "/stop", "127.0.0.1:1234", "http://127.0.0.1:1234", "wrong", "", 403},
		{"the state for another origin", "GET", "/state", "127.0.0.1:1234", "https://evil.example", "", "", 403},
		{"nothing to record", "POST", "/record", "127.0.0.1:1234", "http://127.0.0.1:1234", "right", "", 400},
		{"too many callers", "POST", "/record", "127.0.0.1:1234", "http://127.0.0.1:1234", "right", `{"calls":1,"workers":101,"pool":1}`, 400},
		{"a fault on a server that is not the lab's", "POST", "/record", "127.0.0.1:1234", "http://127.0.0.1:1234", "right", `{"calls":1,"workers":1,"pool":1,"fault":"fill the server"}`, 400},
		{"a Codespace's page starts a recording", "POST", "/record", "localhost:1234", o.Forwarded, "right", string(good), 204},
		{"stop", "POST", "/stop", "127.0.0.1:1234", "http://127.0.0.1:1234", "right", "", 204},
		{"stop again", "POST", "/stop", "127.0.0.1:1234", "http://localhost:1234", "right", "", 204},
		{"no recording yet", "GET", "/timeline.svg", "127.0.0.1:1234", "", "", "", 404},
		{"the wrong method", "GET", "/record", "127.0.0.1:1234", "", "", "", 405},
	} {
		r := httptest.NewRequest(c.method, "http://"+c.host+c.path, strings.NewReader(c.body))
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		r.Header.Set("X-Penny", c.secret)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		if recorder.Code != c.status {
			t.Errorf("%s: status %d, want %d", c.name, recorder.Code, c.status)
		}
		if policy := recorder.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'") {
			t.Errorf("%s: the policy is %q", c.name, policy)
		}
	}
}
