package race

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"example.com/penny/internal/relay"
)

// A drawing is an SVG in the making. Its colours follow the reader's preference for light or dark.
type drawing struct {
	strings.Builder
	width, y float64 // y is where the next line of text or bar begins
}

const style = `<style>
svg { font: 16px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
.paper { fill: #fff } text { fill: #16191d } .soft { fill: #4c545e } .line { stroke: #c9cfd6; fill: none } .rest { fill: #dfe4e9 }
.open { fill: #b8432b } .ask { fill: #1f6f8b } .on { fill: #fff; font-weight: 600 } .big { font-size: 22px; font-weight: 600 } .small { font-size: 13px }
.bad { stroke: #16191d; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
.paper { fill: #14171a } text { fill: #f2f4f6 } .soft { fill: #b4bdc7 } .line { stroke: #444c55 } .rest { fill: #343b43 }
.open { fill: #f08a6c } .ask { fill: #58b4d1 } .on { fill: #101214 } .bad { stroke: #f2f4f6 }
}
</style>
`

// margin is what stays free at each side.
const margin = 16.0

func newDrawing(width float64) *drawing { return &drawing{width: width} }

func (d *drawing) rect(class string, x, y, width, height float64) {
	fmt.Fprintf(d, "<rect class=%q x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", class, x, y, max(width, 0), height)
}

func (d *drawing) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(d, "<text class=%q text-anchor=%q x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, anchor, x, y, escape(text))
}

// paragraph writes text from the left margin, in as many lines as it takes at some size of the letters.
func (d *drawing) paragraph(class string, size float64, text string) {
	line := ""
	flush := func() {
		d.y += size * 1.35
		d.text(class, "start", margin, d.y, line)
	}
	for _, word := range strings.Fields(text) {
		if line != "" && textWidth(line+" "+word, size) > d.width-2*margin {
			flush()
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	flush()
}

// textWidth returns about how wide a text is.
func textWidth(text string, size float64) float64 {
	return float64(utf8.RuneCountInString(text)) * size * 0.56
}

// axis draws a scale from 0 to most below what has been drawn.
func (d *drawing) axis(left, right, most float64, unit string) {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.1, 0.2, 0.5, 1} {
		if room := (right - left) * step * part / most; room > textWidth(number(most)+unit, 13)+24 || part == 1 {
			step *= part
			break
		}
	}
	fmt.Fprintf(d, "<path class=\"line\" d=\"M%.1f %.1fH%.1f\"/>\n", left, d.y+4, right)
	for v := 0.0; v <= most*1.001; v += step {
		x, anchor := left+v/most*(right-left), "middle"
		switch half := textWidth(number(v)+unit, 13) / 2; {
		case x-half < 6:
			anchor = "start"
		case x+half > d.width-6:
			anchor = "end"
		}
		fmt.Fprintf(d, "<path class=\"line\" d=\"M%.1f %.1fv7\"/>\n", x, d.y+4)
		d.text("soft small", anchor, x, d.y+24, number(v)+unit)
	}
	d.y += 32
}

func number(v float64) string { return fmt.Sprintf("%.6g", v) }

// finish writes the whole SVG, with what it shows as its title and description.
func (d *drawing) finish(w io.Writer, title, description string) error {
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f">
<title id="title">%s</title>
<desc id="desc">%s</desc>
%s<rect class="paper" width="100%%" height="100%%"/>
%s</svg>
`, d.width, d.y+10, d.width, d.y+10, escape(title), escape(description), style, d.String())
	return err
}

func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // a strings.Builder takes everything
	return out.String()
}

// text returns the conditions in words.
func (c Conditions) text(more string) string {
	text := fmt.Sprintf("%s; %s%s", c.Date, c.Machine, more)
	if c.Server != "" {
		text += "; " + c.Server
	}
	if c.RTTms > 0 {
		return text + fmt.Sprintf("; %g ms between program and server, there and back", c.RTTms)
	}
	return text + "; no delay added between program and server"
}

// Chart draws the calls a second of each entrant as bars, with a scale and with how many times no pool's each is. An entrant
// that runs under other conditions than the rest is named below.
func (r *Result) Chart(w io.Writer) error {
	d := newDrawing(960)
	most, apart, told := 1e-9, "", ""
	for _, e := range r.Entrants {
		if r.apart(e) {
			apart = fmt.Sprintf("Not drawn: %s makes %.0f calls a second, because its file is on this computer.", e.Name, e.CallsPerSec)
			continue
		}
		most = max(most, e.CallsPerSec)
	}
	d.paragraph("big", 22, "Calls a second")
	d.paragraph("soft", 16, "Striped at the end: a connection for every call, no pool. Plain: connections that are used again.")
	d.y += 14
	left, right := 140.0, d.width-210
	for _, e := range r.Entrants {
		if r.apart(e) {
			continue
		}
		class, label := "ask", fmt.Sprintf("%.0f", e.CallsPerSec)
		if !e.Pooled {
			class = "open"
		}
		if e.TimesNoPool > 0 {
			label += fmt.Sprintf(", %.1f× no pool", e.TimesNoPool)
		}
		if e.Name == NoPool {
			label = fmt.Sprintf("%.0f, no pool", e.CallsPerSec)
		}
		width := e.CallsPerSec / most * (right - left)
		d.text("", "end", left-10, d.y+26, e.Name)
		d.rect(class, left, d.y+6, width, 30)
		if !e.Pooled {
			for x := max(left, left+width-24); x < left+width; x += 8 {
				d.rect("paper", x, d.y+6, 3, 30)
			}
		}
		d.text("", "start", left+width+8, d.y+26, label)
		told += fmt.Sprintf("%s: %s. ", e.Name, label)
		d.y += 44
	}
	d.axis(left, right, most, "")
	conditions := r.text(fmt.Sprintf("; %d calls each, %d workers, pools of %d", r.Calls, r.Workers, r.Pool))
	if apart != "" {
		d.paragraph("soft small", 13, apart)
	}
	d.paragraph("soft small", 13, conditions)
	return d.finish(w, "Calls a second of each contender", told+apart+" "+conditions)
}

// lane returns the lane of a contender, nil if it is not in the recording.
func (r *Recording) lane(name string) *Lane {
	if i := slices.IndexFunc(r.Lanes, func(l *Lane) bool { return l.Name == name }); i >= 0 {
		return r.Lanes[i]
	}
	return nil
}

// Sentence returns what the recording shows, in one sentence; empty if it lacks no pool or the pool.
func (r *Recording) Sentence() string {
	no, pool := r.lane(NoPool), r.lane(Pool)
	if no == nil || pool == nil || pool.CallMs == 0 {
		return ""
	}
	apart := "with no delay added"
	if r.RTTms > 0 {
		apart = fmt.Sprintf("%g ms apart", r.RTTms)
	}
	return fmt.Sprintf("%s against %g, %s: %.1f× faster", trips(no.RoundTrips), pool.RoundTrips, apart, no.CallMs/pool.CallMs)
}

func trips(n float64) string {
	if n == 1 {
		return "1 round trip"
	}
	return fmt.Sprintf("%g round trips", n)
}

// opening reports whether a round trip belongs to opening a connection; if not, it belongs to a question.
func opening(phase string) bool {
	return phase == relay.Socket || phase == relay.TLS || phase == relay.Login
}

// Timeline draws one call of each lane to scale, one below the other, as wide as width.
func (r *Recording) Timeline(w io.Writer, width float64) error {
	d := newDrawing(width)
	most, told := 1e-9, ""
	for _, l := range r.Lanes {
		most = max(most, l.CallMs)
	}
	title := r.Sentence()
	if title == "" {
		title = "One call of each contender, to scale"
	}
	d.paragraph("big", 22, title)
	d.y += 10
	left, right := margin, d.width-margin
	for _, l := range r.Lanes {
		kind := "no pool"
		if l.Pooled {
			kind = "pool"
		}
		line := fmt.Sprintf("%s, %s: %s, %.1f ms", l.Name, kind, trips(l.RoundTrips), l.CallMs)
		d.paragraph("", 16, line)
		d.y += 8
		told += line + ". "
		// Opening is low and asking is high, so that nobody needs the colours to tell them apart.
		trip := 0
		for _, t := range l.Timeline {
			x := left + t.Begin/most*(right-left)
			if t.End == 0 {
				if t.Phase == relay.Goodbye && textWidth(relay.Goodbye, 13) < x-left {
					d.text("soft small", "end", min(x, right), d.y+66, "goodbye ↑")
				}
				continue
			}
			trip++
			length := (t.End - t.Begin) / most * (right - left)
			class, y := "ask", d.y
			if opening(t.Phase) {
				class, y = "open", d.y+14
			}
			d.rect(class, x, y, max(length-1.5, 1), d.y+34-y)
			if length > 16 {
				d.text("on", "middle", x+length/2, d.y+29, fmt.Sprint(trip))
			}
			if length > textWidth(t.Phase, 13) {
				d.text("soft small", "middle", x+length/2, d.y+50, t.Phase)
			}
		}
		if d.y += 52; !l.Pooled {
			d.y += 16
		}
	}
	d.axis(left, right, most, " ms")
	d.paragraph("small", 13, "Low, red: open a connection (socket, TLS, login). High, blue: ask (prepare, question). Each number is a round trip.")
	conditions := r.text("")
	d.paragraph("soft small", 13, conditions)
	return d.finish(w, title, told+conditions)
}

// Slots draws what happens when all callers come at once: each connection of a lane in a row of its own while it is open, and
// below it how many callers wait.
func (r *Recording) Slots(w io.Writer, width float64) error {
	d := newDrawing(width)
	title := fmt.Sprintf("%d callers at once, a pool of %d, a server with %d places", r.Workers, r.Pool, r.Most)
	d.paragraph("big", 22, title)
	most, told := 1e-9, ""
	for _, l := range r.Lanes {
		most = max(most, l.Elapsed)
	}
	left, right := margin, d.width-margin
	at := func(ms float64) float64 { return left + min(ms, most)/most*(right-left) }
	for _, l := range r.Lanes {
		failed := 0
		for _, n := range l.Errors {
			failed += n
		}
		line := fmt.Sprintf("%s: %d calls answered in %.0f ms, %d failed, %d connections opened", l.Name, len(l.Calls)-failed, l.Elapsed, failed, len(l.Conns))
		told += line + ". "
		d.y += 10
		d.paragraph("", 16, line)
		d.y += 8
		const row = 9.0
		ends := []float64{} // when the row's last connection closed
		for _, c := range l.Conns {
			i := slices.IndexFunc(ends, func(end float64) bool { return end <= c.Open })
			if i < 0 {
				i, ends = len(ends), append(ends, 0)
			}
			ends[i] = c.Close
			y := d.y + float64(i)*row
			d.rect("rest", at(c.Open), y+2, at(c.Close)-at(c.Open), row-5)
			served := false
			for _, t := range c.Trips {
				switch {
				case t.End == 0:
				case opening(t.Phase):
					d.rect("open", at(t.Begin), y+1.5, max(at(t.End)-at(t.Begin)-0.7, 0.5), row-4)
				default:
					d.rect("ask", at(t.Begin), y, max(at(t.End)-at(t.Begin)-0.7, 0.5), row-1)
					served = true
				}
			}
			if !served {
				fmt.Fprintf(d, "<path class=\"bad\" d=\"M%.1f %.1fl7 7m0 -7l-7 7\"/>\n", at(c.Close)+1, y)
			}
		}
		d.y += float64(len(ends)) * row
		if l.FaultAt > 0 {
			fmt.Fprintf(d, "<path class=\"bad\" d=\"M%.1f %.1fV%.1f\"/>\n", at(l.FaultAt), d.y-float64(len(ends))*row, d.y)
		}
		d.y += 6
	}
	d.axis(left, right, most, " ms")
	d.paragraph("small", 13, "A row is a connection while it is open. Low, red: it is being opened. High, blue: it answers a question. Grey: it is idle. A cross: it was refused or broke before an answer.")
	conditions := r.text("")
	if r.Fault != "" {
		conditions = r.Fault + " at the upright line; " + conditions
	}
	d.paragraph("soft small", 13, conditions)
	return d.finish(w, title, told+conditions)
}
