package main

import (
	"fmt"
	"image/color"
	"io"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

var (
	pooled  = color.RGBA{R: 0x1f, G: 0x6f, B: 0x8b, A: 0xff}
	perCall = color.RGBA{R: 0xc8, G: 0x55, B: 0x3d, A: 0xff}
)

// draw draws the chart into a file, whose kind is that of its name: .svg, .png or .pdf.
func (r *result) draw(file string) error {
	p, err := r.chart()
	if err != nil {
		return err
	}
	return p.Save(chartWidth, r.chartHeight(), file)
}

// write draws the chart as SVG.
func (r *result) write(w io.Writer) error {
	p, err := r.chart()
	if err != nil {
		return err
	}
	svg, err := p.WriterTo(chartWidth, r.chartHeight(), "svg")
	if err != nil {
		return err
	}
	_, err = svg.WriteTo(w)
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
	p.Title.Padding = 16
	p.X.Tick.Label.Font.Size = 14
	p.X.Label.Text = fmt.Sprintf("%d workers, pools of %d", r.Workers, r.Pool)
	p.X.Label.TextStyle.Font.Size = 16
	p.Y.Tick.Label.Font.Size = 18
	p.X.Min = 0
	var ticks []string
	var labels plotter.XYLabels
	for i := range r.Entrants {
		e := r.Entrants[len(r.Entrants)-1-i] // from the bottom up
		// The blanks leave room: an SVG names its font, and where that is missing a wider one takes its place.
		ticks = append(ticks, e.Name+strings.Repeat("\u00a0", 8))
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
		labels.Labels = append(labels.Labels, fmt.Sprintf(" %.0f", e.CallsPerSec))
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
