package race

import (
	"fmt"
	"html"
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
	width, y float64  // y is where the next paragraph or bar begins
	said     []string // the paragraphs; the first is the title, and the others tell a reader who does not see the picture
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

func (d *drawing) rect(class string, x, y, width, height float64) {
	fmt.Fprintf(d, "<rect class=%q x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", class, x, y, max(width, 0), height)
}

func (d *drawing) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(d, "<text class=%q text-anchor=%q x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, anchor, x, y, html.EscapeString(text))
}

// paragraph writes text from the left margin, in as many lines as it takes. Its class has letters of that size.
func (d *drawing) paragraph(class string, size float64, text string) {
	d.said = append(d.said, text)
	line := ""
	for _, word := range append(strings.Fields(text), "") {
		if line != "" && (word == "" || textWidth(line+" "+word, size) > d.width-2*margin) {
			d.y += size * 1.35
			d.text(class, "start", margin, d.y, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
}

// textWidth returns about how wide a text is. An SVG cannot break a line itself, and only its viewer knows the font.
func textWidth(text string, size float64) float64 {
	return float64(utf8.RuneCountInString(text)) * size * 0.56
}

// at returns where a time is between the margins, if most milliseconds reach from one to the other.
func (d *drawing) at(ms, most float64) float64 {
	return margin + min(ms, most)/most*(d.width-2*margin)
}

// axis draws a scale from 0 to most milliseconds below what has been drawn.
func (d *drawing) axis(most float64) {
	step := math.Pow(10, math.Floor(math.Log10(most))) / 10
	for _, next := range []float64{2, 2.5, 2} { // 1, 2, 5 and 10 tenths, as the numbers have room
		if d.at(step, most)-margin < 70 {
			step *= next
		}
	}
	fmt.Fprintf(d, "<path class=\"line\" d=\"M%.1f %.1fH%.1f\"/>\n", margin, d.y+4, d.width-margin)
	for ms := 0.0; ms <= most; ms += step {
		x := d.at(ms, most)
		fmt.Fprintf(d, "<path class=\"line\" d=\"M%.1f %.1fv7\"/>\n", x, d.y+4)
		d.text("soft small", "middle", min(max(x, 22), d.width-30), d.y+24, fmt.Sprintf("%.6g ms", ms))
	}
	d.y += 32
}

// finish writes the whole SVG.
func (d *drawing) finish(w io.Writer) error {
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" width="%.0f" height="%.0f" viewBox="0 0 %[1]g %[2]g">
<title id="title">%[3]s</title>
<desc id="desc">%[4]s</desc>
%[5]s<rect class="paper" width="100%%" height="100%%"/>
%[6]s</svg>
`, d.width, math.Ceil(d.y)+10, html.EscapeString(d.said[0]), html.EscapeString(strings.Join(d.said[1:], " ")), style, d.String())
	return err
}

// text returns the conditions in words.
func (c Conditions) text() string {
	text := fmt.Sprintf("%s; %s; %s; ", c.Date, c.Machine, c.Server)
	if c.RTTms == 0 {
		return text + "no delay added between program and server."
	}
	return text + fmt.Sprintf("%g ms between program and server, there and back.", c.RTTms)
}

// lane returns the lane of a contender, nil if it is not in the recording.
func (r *Recording) lane(name string) *Lane {
	if i := slices.IndexFunc(r.Lanes, func(l *Lane) bool { return l.Name == name }); i >= 0 {
		return r.Lanes[i]
	}
	return nil
}

// sentence returns what the recording shows. It is about the pool and no pool, if the recording has both.
func (r *Recording) sentence() string {
	no, pool := r.lane(NoPool), r.lane(Pool)
	if no == nil || pool == nil || pool.CallMs == 0 {
		return "One call of each contender, to scale"
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

// opens reports whether a round trip belongs to opening a connection; if not, it belongs to a question.
func (t Trip) opens() bool {
	return t.Phase == relay.Socket || t.Phase == relay.TLS || t.Phase == relay.Login
}

// Timeline draws one call of each lane to scale, one below the other, as wide as width.
func (r *Recording) Timeline(w io.Writer, width float64) error {
	d := &drawing{width: width}
	most := 1e-9
	for _, l := range r.Lanes {
		most = max(most, l.CallMs)
	}
	d.paragraph("big", 22, r.Sentence)
	d.y += 10
	for _, l := range r.Lanes {
		kind := "no pool"
		if l.Pooled {
			kind = "pool"
		}
		d.paragraph("", 16, fmt.Sprintf("%s, %s: %s, %.1f ms.", l.Name, kind, trips(l.RoundTrips), l.CallMs))
		d.y += 8
		// Opening is low and asking is high, so that nobody needs the colours to tell them apart.
		trip := 0
		for _, t := range l.Timeline {
			x := d.at(t.Begin, most)
			if t.End == 0 {
				if t.Phase == relay.Goodbye && textWidth(relay.Goodbye, 13) < x {
					d.text("soft small", "end", x, d.y+66, "goodbye ↑")
				}
				continue
			}
			trip++
			length := d.at(t.End, most) - x
			class, y := "ask", d.y
			if t.opens() {
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
	d.axis(most)
	d.paragraph("small", 13, "Low, red: open a connection (socket, TLS, login). High, blue: ask (prepare, question). Each number is a round trip.")
	d.paragraph("soft small", 13, r.text())
	return d.finish(w)
}

// Slots draws what happens when all callers come at once: each connection of a lane in a row of its own while it is open.
func (r *Recording) Slots(w io.Writer, width float64) error {
	d := &drawing{width: width}
	d.paragraph("big", 22, fmt.Sprintf("%d callers at once, a pool of %d, a server with %d places", r.Workers, r.Pool, r.Most))
	most := 1e-9
	for _, l := range r.Lanes {
		most = max(most, l.Elapsed)
	}
	for _, l := range r.Lanes {
		failed := 0
		for _, n := range l.Errors {
			failed += n
		}
		d.y += 10
		d.paragraph("", 16, fmt.Sprintf("%s: %d calls answered in %.0f ms, %d failed, %d connections opened.", l.Name, len(l.Calls)-failed, l.Elapsed, failed, len(l.Conns)))
		d.y += 8
		const row = 9.0
		top := d.y
		var ends []float64 // when each row's last connection closed
		for _, c := range l.Conns {
			i := slices.IndexFunc(ends, func(end float64) bool { return end <= c.Open })
			if i < 0 {
				i, ends = len(ends), append(ends, 0)
			}
			ends[i] = c.Close
			y := top + float64(i)*row
			d.y = max(d.y, y+row)
			d.rect("rest", d.at(c.Open, most), y+2, d.at(c.Close, most)-d.at(c.Open, most), row-5)
			served := false
			for _, t := range c.Trips {
				x := d.at(t.Begin, most)
				length := max(d.at(t.End, most)-x-0.7, 0.5)
				switch {
				case t.End == 0:
				case t.opens():
					d.rect("open", x, y+1.5, length, row-4)
				default:
					d.rect("ask", x, y, length, row-1)
					served = true
				}
			}
			if !served {
				fmt.Fprintf(d, "<path class=\"bad\" d=\"M%.1f %.1fl7 7m0 -7l-7 7\"/>\n", d.at(c.Close, most)+1, y)
			}
		}
		if l.FaultAt > 0 {
			fmt.Fprintf(d, "<path class=\"bad\" d=\"M%.1f %.1fV%.1f\"/>\n", d.at(l.FaultAt, most), top, d.y)
		}
		d.y += 6
	}
	d.axis(most)
	d.paragraph("small", 13, "A row is a connection while it is open. Low, red: it is being opened. High, blue: it answers a question. Grey: it is idle. A cross: it was refused or broke before an answer.")
	if r.Fault != "" {
		d.paragraph("small", 13, "The upright line: "+r.Fault+".")
	}
	d.paragraph("soft small", 13, r.text())
	return d.finish(w)
}
