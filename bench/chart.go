package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"

	"github.com/go-analyze/charts/chartdraw"
	"github.com/go-analyze/charts/chartdraw/drawing"
)

// The picture: a panel for each scenario, throughput to the right and latency (logarithmic) up, a colour for each
// contender, the median solid and the 99th percentile dashed. All panels share the latency axis.
//
// chartdraw is the maintained heir of wcharczuk/go-chart, which is archived. It adds 2.3 MB to the binary where
// gonum.org/v1/plot adds 9 (fonts, LaTeX and PDF), and the server is in this binary.
const (
	chartColumns = 3
	panelWidth   = 420
	panelHeight  = 290
	panelTop     = 46 // of the plot in its panel: two lines of text are above it
	headHeight   = 78
	footHeight   = 10
	edge         = 24
	chartDPI     = 92

	titleSize = 15
	labelSize = 9
	tickSize  = 8
)

var (
	inkColor  = drawing.ColorFromHex("1f2937")
	paleColor = drawing.ColorFromHex("6b7280")
	gridColor = drawing.ColorFromHex("e5e7eb")
	// serverColors go to contenders in their order, but floorColor to the floor.
	serverColors = []drawing.Color{drawing.ColorFromHex("1d4ed8"), drawing.ColorFromHex("d97706"), drawing.ColorFromHex("059669"),
		drawing.ColorFromHex("be185d"), drawing.ColorFromHex("7c3aed")}
	floorColor = drawing.ColorFromHex("9ca3af")
	dashes     = []float64{5, 4}
)

// pictureFormat chooses a renderer by a file's name.
func pictureFormat(file string) (chartdraw.RendererProvider, error) {
	switch extension := filepath.Ext(file); extension {
	case ".svg":
		return chartdraw.SVG, nil
	case ".png":
		return chartdraw.PNG, nil
	default:
		return nil, fmt.Errorf("chart %q ends with %q, want .svg or .png", file, extension)
	}
}

// pane is a part of a picture: it draws at an offset, and leaves saving to whoever owns the picture.
type pane struct {
	chartdraw.Renderer
	left, top int
}

func (p pane) MoveTo(x, y int)            { p.Renderer.MoveTo(p.left+x, p.top+y) }
func (p pane) LineTo(x, y int)            { p.Renderer.LineTo(p.left+x, p.top+y) }
func (p pane) Circle(r float64, x, y int) { p.Renderer.Circle(r, p.left+x, p.top+y) }
func (p pane) Text(body string, x, y int) { p.Renderer.Text(body, p.left+x, p.top+y) }
func (p pane) QuadCurveTo(cx, cy, x, y int) {
	p.Renderer.QuadCurveTo(p.left+cx, p.top+cy, p.left+x, p.top+y)
}
func (p pane) ArcTo(x, y int, a, b, c, d float64) { p.Renderer.ArcTo(p.left+x, p.top+y, a, b, c, d) }
func (p pane) Save(io.Writer) error               { return nil }

// write puts text with its left end and base line at x and y.
func (p pane) write(text string, x, y int, size float64, color drawing.Color) {
	p.ResetStyle()
	p.SetFont(chartdraw.GetDefaultFont())
	p.SetFontSize(size)
	p.SetFontColor(color)
	p.Text(text, x, y)
}

// drawChart returns the picture of curves in the format that file's name asks for. Curves of one scenario stand together.
func drawChart(file string, curves []curve) ([]byte, error) {
	format, err := pictureFormat(file)
	if err != nil {
		return nil, err
	}
	panels := slices.Collect(chunks(curves))
	columns := min(chartColumns, len(panels))
	rows := (len(panels) + chartColumns - 1) / chartColumns
	width, height := 2*edge+columns*panelWidth, headHeight+rows*panelHeight+footHeight
	canvas := format(width, height)
	canvas.SetDPI(chartDPI)
	chartdraw.Draw.Box(canvas, chartdraw.Box{Right: width, Bottom: height, IsSet: true}, chartdraw.Style{FillColor: drawing.ColorWhite})

	colors := colorsOf(curves)
	latency := latencyAxis(curves)
	for i, panel := range panels {
		at := pane{canvas, edge + i%chartColumns*panelWidth, headHeight + i/chartColumns*panelHeight}
		if err := drawPanel(at, panel, colors, latency); err != nil {
			return nil, fmt.Errorf("panel %s: %w", panel[0].scenario.Name, err)
		}
	}
	drawHead(pane{canvas, edge, 0}, curves, colors)
	var picture bytes.Buffer
	err = canvas.Save(&picture)
	return picture.Bytes(), err
}

// chunks are runs of curves of the same scenario.
func chunks(curves []curve) func(yield func([]curve) bool) {
	return func(yield func([]curve) bool) {
		for len(curves) > 0 {
			n := 1
			for n < len(curves) && curves[n].scenario.Name == curves[0].scenario.Name {
				n++
			}
			if !yield(curves[:n]) {
				return
			}
			curves = curves[n:]
		}
	}
}

func colorsOf(curves []curve) map[string]drawing.Color {
	colors := map[string]drawing.Color{FloorName: floorColor}
	next := 0
	for _, c := range curves {
		if _, ok := colors[c.server]; !ok {
			colors[c.server] = serverColors[next%len(serverColors)]
			next++
		}
	}
	return colors
}

// drawHead writes title and legend.
func drawHead(p pane, curves []curve, colors map[string]drawing.Color) {
	p.write("Throughput against latency", 0, 30, titleSize, inkColor)
	x := 0
	sample := func(text string, color drawing.Color, dash []float64) {
		p.ResetStyle()
		p.SetStrokeColor(color)
		p.SetStrokeWidth(2.5)
		p.SetStrokeDashArray(dash)
		p.MoveTo(x, 53)
		p.LineTo(x+26, 53)
		p.Stroke()
		p.write(text, x+33, 57, labelSize, inkColor)
		x += 33 + p.MeasureText(text).Width() + 26
	}
	var named []string
	for _, c := range curves {
		if !slices.Contains(named, c.server) {
			named = append(named, c.server)
			sample(c.server, colors[c.server], nil)
		}
	}
	sample("median", inkColor, nil)
	sample("99th percentile", inkColor, dashes)
	p.write("ms from due to read, over deliveries/s", x, 57, labelSize, paleColor)
}

// drawPanel draws the curves of one scenario.
func drawPanel(p pane, curves []curve, colors map[string]drawing.Color, latency []chartdraw.Tick) error {
	s := curves[0].scenario
	p.write(s.Name, 0, 14, labelSize+2, inkColor)
	p.write(loadsOf(curves), p.MeasureText(s.Name).Width()+10, 14, tickSize, paleColor)
	p.write(s.Shape(), 0, 32, tickSize, paleColor)

	var series []chartdraw.Series
	most := 0.0
	for _, c := range slices.Backward(curves) { // the first contender on top
		line := func(value func(q Quantiles) float64, width, dot float64, dash []float64) {
			one := chartdraw.ContinuousSeries{YAxis: chartdraw.YAxisSecondary, Style: chartdraw.Style{
				StrokeColor: colors[c.server], StrokeWidth: width, StrokeDashArray: dash, DotColor: colors[c.server], DotWidth: dot}}
			for _, r := range c.points {
				most = max(most, r.DeliveriesPerSecond)
				one.XValues = append(one.XValues, r.DeliveriesPerSecond)
				one.YValues = append(one.YValues, math.Log10(max(latencyLeast, value(r.Latency))))
			}
			series = append(series, one)
		}
		line(func(q Quantiles) float64 { return q.P99 }, 1.5, 1.5, dashes)
		line(func(q Quantiles) float64 { return q.P50 }, 2, 2.5, nil)
	}
	throughput := roundAxis(most)
	axis := chartdraw.Style{FontStyle: chartdraw.FontStyle{FontSize: tickSize, FontColor: paleColor}, StrokeColor: gridColor, StrokeWidth: 1}
	grid := chartdraw.Style{StrokeColor: gridColor, StrokeWidth: 1}
	chart := chartdraw.Chart{
		Width: panelWidth - edge, Height: panelHeight - panelTop, DPI: chartDPI, Series: series,
		Background: chartdraw.Style{Padding: chartdraw.Box{Top: 6, Left: 0, Right: 12, Bottom: 12, IsSet: true}},
		XAxis:      chartdraw.XAxis{Style: axis, Ticks: throughput, GridMajorStyle: grid, GridMinorStyle: grid},
		// The library's first axis is on the right. It is hidden, and needs a range all the same.
		YAxis:          chartdraw.YAxis{Style: chartdraw.Hidden(), Range: &chartdraw.ContinuousRange{Max: 1}},
		YAxisSecondary: chartdraw.YAxis{Style: axis, Ticks: latency, GridMajorStyle: grid, GridMinorStyle: grid},
	}
	at := pane{p.Renderer, p.left, p.top + panelTop}
	return chart.Render(func(int, int) chartdraw.Renderer { return at }, nil)
}

// loadsOf says in words from where to where the load of curves grows.
func loadsOf(curves []curve) string {
	least, most := curves[0].points[0].Scenario, Scenario{}
	for _, c := range curves {
		for _, r := range c.points {
			if r.Scenario.Rate > most.Rate || r.Scenario.InFlight > most.InFlight {
				most = r.Scenario
			}
		}
	}
	if most.Rate > 0 {
		return fmt.Sprintf("open loop, %s to %s publishes/s", rate(least.Rate), rate(most.Rate))
	}
	return fmt.Sprintf("closed loop, %d to %d in flight each", least.InFlight, most.InFlight)
}

const latencyLeast = 0.001 // ms; the logarithm of 0 has no place

// latencyAxis marks the decades that hold all curves, by their logarithms.
func latencyAxis(curves []curve) (ticks []chartdraw.Tick) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, r := range c.points {
			low = min(low, math.Log10(max(latencyLeast, r.Latency.P50)))
			high = max(high, math.Log10(max(latencyLeast, r.Latency.P99)))
		}
	}
	first := math.Floor(low)
	for decade := first; decade <= max(first+1, math.Ceil(high)); decade++ {
		ticks = append(ticks, chartdraw.Tick{Value: decade, Label: fmt.Sprintf("%g", math.Pow(10, decade))})
	}
	return ticks
}

// roundAxis marks round numbers from 0 to past most.
func roundAxis(most float64) (ticks []chartdraw.Tick) {
	const marks = 5
	most = max(most, 1)
	step := math.Pow(10, max(0, math.Floor(math.Log10(most/marks))))
	for _, times := range []float64{2, 2.5, 2, 2} { // 1, 2, 5, 10 and 20 times the power of ten
		if most/step <= marks {
			break
		}
		step *= times
	}
	for i := 0; ; i++ {
		at := step * float64(i)
		ticks = append(ticks, chartdraw.Tick{Value: at, Label: roundRate(at)})
		if at >= most {
			return ticks
		}
	}
}

// roundRate is a round number without what is always zero.
func roundRate(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}
