package main

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	flameWidth  = 1200.0 // pixels
	rowHeight   = 17
	letterWidth = 6.6 // of 11 px monospace
	narrowest   = 0.4 // pixels; what is narrower is left out
	titleHeight = 24
)

// draw writes the flame graphs: width is time, callers are under what they call, brothers in order of time.
func (o *options) draw(ctx context.Context, seen sight) error {
	root, err := readStacks(ctx, seen.captures[0].file)
	if err != nil {
		return err
	}
	if err := o.drawInto("flame.svg", root, "as Go's profile sees it"); err != nil || seen.kernel == nil {
		return err
	}
	return o.drawInto("kernel.svg", seen.kernel, "as perf sees it")
}

func (o *options) drawInto(file string, root *frame, by string) error {
	title := fmt.Sprintf("%s: %s of a server's CPU time, %s", o.scenario.Name, time.Duration(root.total).Round(10*time.Millisecond), by)
	return os.WriteFile(filepath.Join(o.dir, file), flameGraph(root, title), 0o644)
}

// flameGraph draws the frames under root as one SVG.
func flameGraph(root *frame, title string) []byte {
	scale := flameWidth / float64(root.total)
	height := titleHeight + rowHeight*depth(root, scale)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" font-family="monospace" font-size="11">`+"\n", flameWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="4" y="16" font-size="13">%s. Colours: kernel red, engine and protocol green, runtime grey, other blue.</text>`+"\n", html.EscapeString(title))
	drawFrame(&b, root, root.total, 0, float64(height-rowHeight), scale)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// depth is the number of rows that frames wide enough to be drawn take.
func depth(f *frame, scale float64) (rows int) {
	if float64(f.total)*scale < narrowest {
		return 0
	}
	for _, c := range f.called {
		rows = max(rows, depth(c, scale))
	}
	return rows + 1
}

func drawFrame(b *bytes.Buffer, f *frame, all int64, x, y, scale float64) {
	width := float64(f.total) * scale
	if width < narrowest {
		return
	}
	fmt.Fprintf(b, `<g><title>%s: %.2f %%</title><rect x="%.1f" y="%.0f" width="%.1f" height="%d" fill="%s" stroke="#fff" stroke-width=".5"/>`,
		html.EscapeString(f.name), 100*float64(f.total)/float64(all), x, y, width, rowHeight-1, colourOf(f.name))
	if letters := int(width/letterWidth) - 1; letters >= 3 {
		fmt.Fprintf(b, `<text x="%.1f" y="%.0f">%s</text>`, x+3, y+rowHeight-5, html.EscapeString(shortened(f.name, letters)))
	}
	b.WriteString("</g>\n")
	slices.SortStableFunc(f.called, func(a, b *frame) int { return int(b.total - a.total) })
	for _, c := range f.called {
		drawFrame(b, c, all, x, y-rowHeight, scale)
		x += float64(c.total) * scale
	}
}

// shortened leaves a function's import path out, then what does not fit.
func shortened(name string, letters int) string {
	name = name[strings.LastIndexByte(name, '/')+1:]
	if len(name) <= letters {
		return name
	}
	return name[:letters-1] + "…"
}

func colourOf(name string) string {
	switch {
	case strings.HasSuffix(name, kernelMark), strings.Contains(name, "yscall"): // or the call, which in Go's profile has its time
		return "#f2a6a0"
	case strings.HasPrefix(name, "rayflux/"):
		return "#a9d8a5"
	case strings.HasPrefix(name, "runtime."), strings.HasPrefix(name, "internal/runtime"):
		return "#d0d0d0"
	}
	return "#a9c6e8"
}
