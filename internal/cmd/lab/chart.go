package main

import (
	"errors"
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

var (
	pooled  = color.RGBA{R: 0x1f, G: 0x6f, B: 0x8b, A: 0xff}
	perCall = color.RGBA{R: 0xc8, G: 0x55, B: 0x3d, A: 0xff}
)

func init() {
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	plot.DefaultFont, plotter.DefaultFont = sans, sans
}

// draw draws the chart into a file, whose kind is that of its name: .svg, .png or .pdf.
func (r *result) draw(file string) error {
	if strings.EqualFold(filepath.Ext(file), ".svg") {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		return errors.Join(r.write(f), f.Close())
	}
	p, err := r.chart()
	if err != nil {
		return err
	}
	return p.Save(chartWidth, r.chartHeight(), file)
}

// write draws the chart as SVG. An SVG only names its font: others as wide are named beside it, for computers without it.
func (r *result) write(w io.Writer) error {
	p, err := r.chart()
	if err != nil {
		return err
	}
	svg, err := p.WriterTo(chartWidth, r.chartHeight(), "svg")
	if err != nil {
		return err
	}
	var drawing strings.Builder
	if _, err := svg.WriteTo(&drawing); err != nil {
		return err
	}
	_, err = strings.NewReplacer("font-family:Liberation Sans", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif").WriteString(w, drawing.String())
	return err
}

const chartWidth = 12 * vg.Inch

func (r *result) chartHeight() vg.Length {
	return vg.Length(len(r.Entrants))*0.75*vg.Inch + 1.8*vg.Inch
}

// chart shows the calls in a second of each contender as bars, fit for a slide. Who opens a connection for every call has
// another colour than who has a pool.
func (r *result) chart() (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = "Calls a second"
	if r.RTT > 0 {
		p.Title.Text += fmt.Sprintf(", %v away", r.RTT)
	}
	p.Title.TextStyle.Font.Size = 24
	p.Title.Padding = 20
	p.X.Tick.Label.Font.Size = 14
	p.X.Label.Text = fmt.Sprintf("%d workers, pools of %d", r.Workers, r.Pool)
	p.X.Label.TextStyle.Font.Size = 16
	p.Y.Tick.Label.Font.Size = 18
	p.X.Min = 0
	p.X.Tick.Marker = wholeTicks{}
	var ticks []string
	var labels plotter.XYLabels
	for i := range r.Entrants {
		e := r.Entrants[len(r.Entrants)-1-i]                      // from the bottom up
		ticks = append(ticks, e.Name+strings.Repeat("\u00a0", 5)) // where the font is missing, a wider one needs the room
		bar, err := plotter.NewBarChart(plotter.Values{e.CallsPerSec}, 34)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, float64(i), 0
		bar.Color = pooled
		if e.Opened >= int64(e.succeeded) {
			bar.Color = perCall
		}
		p.Add(bar)
		labels.XYs = append(labels.XYs, plotter.XY{X: e.CallsPerSec, Y: float64(i)})
		labels.Labels = append(labels.Labels, fmt.Sprintf("\u00a0%.0f", e.CallsPerSec))
		p.X.Max = max(p.X.Max, e.CallsPerSec*1.15)
	}
	numbers, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range numbers.TextStyle {
		numbers.TextStyle[i].Font.Size = 18
		numbers.TextStyle[i].YAlign = text.YCenter
	}
	p.Add(numbers)
	p.NominalY(ticks...)
	p.Y.Tick.Width, p.Y.Width = 0, 0
	return p, nil
}

// wholeTicks are the default ones with their numbers in whole calls.
type wholeTicks struct{ plot.DefaultTicks }

func (w wholeTicks) Ticks(low, high float64) []plot.Tick {
	ticks := w.DefaultTicks.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = fmt.Sprintf("%.0f", ticks[i].Value)
		}
	}
	return ticks
}
