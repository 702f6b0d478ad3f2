// Package watch shows what the processes of a cluster do, from what their operators' ports say: for people on a terminal,
// as a table, or as JSON for programs. It knows the ports' addresses and the names of metrics, and nothing else of the
// servers, so that it can watch those of another version.
//
// A [Watcher] asks all processes at one time and turns two looks at them into a [Report]; what the report is shown as is
// the rest of the package. Everything that a process says is taken for a stranger's text: bounded in size, and escaped
// in tables and on the screen.
package watch

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/charmbracelet/x/term"
)

// IntervalMin is the shortest time between two looks. A server makes no more than five surveys of its topics a second.
const IntervalMin = 200 * time.Millisecond

// Options are what Run is told.
type Options struct {
	Addresses []string // host:port of operators' ports
	Interval  time.Duration
	Once      bool // two looks an interval apart, one report
	JSON      bool // lines instead of tables
	Out       io.Writer
}

// Check says what is wrong with the options, nil if nothing is.
func (o *Options) Check() error {
	if len(o.Addresses) == 0 {
		return fmt.Errorf("no operators' port is named")
	}
	for i, a := range o.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("admin is %q, want host:port", a)
		}
		if slices.Contains(o.Addresses[:i], a) {
			return fmt.Errorf("admin names %s twice", a)
		}
	}
	if o.Interval < IntervalMin {
		return fmt.Errorf("interval is %v, want at least %v", o.Interval, IntervalMin)
	}
	return nil
}

// Run shows the processes until ctx ends, which is no error; with Once it shows them once, and it is an error if none
// could be reached. If Out is a terminal it is a screen that changes, else one table or several JSON lines an interval.
func Run(ctx context.Context, o Options) error {
	w := NewWatcher(o.Addresses, timeoutOf(o.Interval))
	defer w.Close()
	if !o.Once && !o.JSON && isScreen(o.Out) {
		return runScreen(ctx, w, o)
	}
	w.Look(ctx) // rates want two
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.Interval):
		}
		report := w.Look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var err error
		if o.JSON {
			err = report.writeJSON(o.Out)
		} else {
			_, err = io.WriteString(o.Out, report.table())
		}
		if err != nil {
			return err
		}
		if o.Once {
			return report.reached()
		}
	}
}

// reached is an error if no process was.
func (r *Report) reached() error {
	for i := range r.Processes {
		if r.Processes[i].State != Unreachable {
			return nil
		}
	}
	p := r.Processes[0]
	return fmt.Errorf("none of %d processes could be reached; %s: %s", len(r.Processes), p.Address, p.Reason)
}

// timeoutOf is what a process is given to answer, so that one that hangs does not hold up the others' numbers for long.
func timeoutOf(interval time.Duration) time.Duration {
	return min(max(interval, 500*time.Millisecond), 2*time.Second)
}

func isScreen(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(file.Fd()) && os.Getenv("TERM") != "dumb"
}
