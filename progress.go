package main

import (
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"
)

// progress shows people how far a long command is, on one line of a terminal, and nobody else anything. Other lines are written
// through it, so that they do not meet. Owned by one goroutine at a time.
type progress struct {
	w        io.Writer
	terminal bool
	bar      *progressbar.ProgressBar // nil: none is shown
}

func newProgress(w io.Writer) progress {
	p := progress{w: w}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil && os.Getenv("TERM") != "dumb"
	}
	return p
}

// show says that done of so many units are; -1: nobody knows how many.
func (p *progress) show(unit string, done, of int64, bytes bool) {
	if !p.terminal {
		return
	}
	if p.bar == nil {
		options := []progressbar.Option{
			progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(unit), progressbar.OptionSetWidth(30),
			progressbar.OptionShowBytes(bytes), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(),
		}
		p.bar = progressbar.NewOptions64(of, options...)
	}
	p.bar.ChangeMax64(of)
	p.bar.Set64(done) // it can only fail as the terminal does
}

func (p *progress) clear() {
	if p.bar != nil {
		p.bar.Clear()
		p.bar = nil
	}
}

func (p *progress) Write(b []byte) (int, error) {
	p.clear()
	return p.w.Write(b)
}
