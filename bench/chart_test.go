package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"strings"
	"testing"
)

// grown are curves of the given scenarios on two servers.
func grown(t *testing.T, names ...string) (curves []curve) {
	t.Helper()
	for _, name := range names {
		s, err := Named(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, server := range []string{"rayflux", FloorName} {
			c := curve{scenario: s, server: server}
			for i, load := range s.loads() {
				at := float64(i + 1)
				c.points = append(c.points, Result{Scenario: load, DeliveriesPerSecond: 1e6 * at, Latency: Quantiles{P50: 0.1 * at * at, P99: 0.3 * at * at * at}})
			}
			curves = append(curves, c)
		}
	}
	return curves
}

func TestChartIsAPicture(t *testing.T) {
	curves := grown(t, "F1", "F2-20k", "F7", "F8")
	svg, err := drawChart("x.svg", curves)
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	var text strings.Builder
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if words, ok := token.(xml.CharData); ok {
			text.Write(words)
			text.WriteByte('\n')
		}
	}
	for _, want := range []string{"F1", "F2-20k", "F7", "F8", "rayflux", FloorName, "median", "8M", "1 topic, 1000 subscribers", "closed loop, 1 to 128 in flight each", "open loop, 800 to 80.0k publishes/s"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the chart does not say %q: %q", want, text.String())
		}
	}
	raster, err := drawChart("x.png", curves)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(raster))
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds().Size(); size.X < 3*panelWidth || size.Y < 2*panelHeight {
		t.Errorf("four panels make a picture of %v", size)
	}
}

func TestChartOfAlmostNothing(t *testing.T) {
	for _, points := range [][]Result{
		{{}},
		{{DeliveriesPerSecond: 1, Latency: Quantiles{P50: 1e-9, P99: 6e4}}},
		{{DeliveriesPerSecond: 5e9, Latency: Quantiles{P50: 1, P99: 1}}, {DeliveriesPerSecond: 1}},
	} {
		if _, err := drawChart("x.svg", []curve{{scenario: Scenario{Name: "x", Topics: 1, Publishers: 1}, server: "y", points: points}}); err != nil {
			t.Errorf("%+v: %v", points, err)
		}
	}
	if _, err := drawChart("x.gif", nil); err == nil {
		t.Error("a .gif is drawn")
	}
}

func TestMarksOfTheThroughputAxisAreRound(t *testing.T) {
	for most, want := range map[float64]string{
		0: "0 1", 3: "0 1 2 3", 32_000: "0 10k 20k 30k 40k", 1e6: "0 200k 400k 600k 800k 1M", 9.7e6: "0 2M 4M 6M 8M 10M", 23e6: "0 5M 10M 15M 20M 25M",
	} {
		var labels []string
		for _, tick := range roundAxis(most) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != want {
			t.Errorf("up to %v the marks are %s, want %s", most, got, want)
		}
	}
}
