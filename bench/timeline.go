package bench

import (
	"bytes"
	"fmt"

	"github.com/go-analyze/charts/chartdraw"
	"github.com/go-analyze/charts/chartdraw/drawing"
)

// Timeline is one panel of a picture of what happened over time.
type Timeline struct {
	Title, Note string
	Lines       []Line
}

// Line is a value over time.
type Line struct {
	Name    string
	Seconds []float64
	Values  []float64
}

const (
	timelineWidth  = 860
	timelineHeight = 240
)

// DrawTimelines returns the picture of panels, one under the other on the same time, in the format that file's name asks for.
func DrawTimelines(file, title string, panels ...Timeline) ([]byte, error) {
	format, err := pictureFormat(file)
	if err != nil {
		return nil, err
	}
	head := headHeight / 2
	width, height := 2*edge+timelineWidth, head+len(panels)*timelineHeight+footHeight
	canvas := format(width, height)
	canvas.SetDPI(chartDPI)
	chartdraw.Draw.Box(canvas, chartdraw.Box{Right: width, Bottom: height, IsSet: true}, chartdraw.Style{FillColor: drawing.ColorWhite})
	pane{canvas, edge, 0}.write(title, 0, 28, titleSize, inkColor)

	longest := 0.0
	for _, panel := range panels {
		for _, line := range panel.Lines {
			for _, s := range line.Seconds {
				longest = max(longest, s)
			}
		}
	}
	for i, panel := range panels {
		if err := panel.draw(pane{canvas, edge, head + i*timelineHeight}, longest); err != nil {
			return nil, fmt.Errorf("panel %s: %w", panel.Title, err)
		}
	}
	var picture bytes.Buffer
	err = canvas.Save(&picture)
	return picture.Bytes(), err
}

func (t *Timeline) draw(p pane, longest float64) error {
	p.write(t.Title, 0, 14, labelSize+2, inkColor)
	p.write(t.Note, p.MeasureText(t.Title).Width()+14, 14, tickSize, paleColor)
	x, most := 0, 0.0
	var series []chartdraw.Series
	for i, line := range t.Lines {
		color := serverColors[i%len(serverColors)]
		p.ResetStyle()
		p.SetStrokeColor(color)
		p.SetStrokeWidth(2.5)
		p.MoveTo(x, 28)
		p.LineTo(x+26, 28)
		p.Stroke()
		p.write(line.Name, x+33, 32, tickSize, paleColor)
		x += 33 + p.MeasureText(line.Name).Width() + 26
		for _, v := range line.Values {
			most = max(most, v)
		}
		series = append(series, chartdraw.ContinuousSeries{YAxis: chartdraw.YAxisSecondary, XValues: line.Seconds, YValues: line.Values,
			Style: chartdraw.Style{StrokeColor: color, StrokeWidth: 2}})
	}
	axis := chartdraw.Style{FontStyle: chartdraw.FontStyle{FontSize: tickSize, FontColor: paleColor}, StrokeColor: gridColor, StrokeWidth: 1}
	grid := chartdraw.Style{StrokeColor: gridColor, StrokeWidth: 1}
	chart := chartdraw.Chart{
		Width: timelineWidth, Height: timelineHeight - panelTop, DPI: chartDPI, Series: series,
		Background: chartdraw.Style{Padding: chartdraw.Box{Top: 6, Left: 0, Right: 12, Bottom: 12, IsSet: true}},
		XAxis:      chartdraw.XAxis{Style: axis, Ticks: roundAxis(longest), GridMajorStyle: grid, GridMinorStyle: grid},
		// As in drawPanel: the library's first axis is on the right, and needs a range.
		YAxis:          chartdraw.YAxis{Style: chartdraw.Hidden(), Range: &chartdraw.ContinuousRange{Max: 1}},
		YAxisSecondary: chartdraw.YAxis{Style: axis, Ticks: roundAxis(most), GridMajorStyle: grid, GridMinorStyle: grid},
	}
	at := pane{p.Renderer, p.left, p.top + panelTop}
	return chart.Render(func(int, int) chartdraw.Renderer { return at }, nil)
}
