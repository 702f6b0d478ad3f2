package bench

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// console is where people watch a measurement: one line that is written over while it runs, and a line that stays for
// what is done. Where there is no terminal, a status is shown now and then only. Owned by the thread that measures.
type console struct {
	w        io.Writer
	quiet    bool
	terminal bool
	open     bool // a status stands on the terminal's last line
	shown    time.Time
}

const statusEvery = 10 * time.Second // where there is no terminal

func newConsole(w io.Writer, quiet bool) console {
	c := console{w: w, quiet: quiet, shown: time.Now()}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		c.terminal = err == nil
	}
	return c
}

// status shows how it goes.
func (c *console) status(format string, args ...any) {
	switch {
	case c.quiet:
	case c.terminal:
		fmt.Fprintf(c.w, "\r\x1b[K"+format, args...)
		c.open = true
	case time.Since(c.shown) >= statusEvery:
		c.line(format, args...)
	}
}

// line says what stays.
func (c *console) line(format string, args ...any) {
	if c.quiet {
		return
	}
	c.clear()
	fmt.Fprintf(c.w, format+"\n", args...)
	c.shown = time.Now()
}

// clear takes the status away.
func (c *console) clear() {
	if c.open {
		fmt.Fprint(c.w, "\r\x1b[K")
		c.open = false
	}
}
