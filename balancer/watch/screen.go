package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// screen is what is on the terminal: a value that update makes a new one of, and view draws. Looks are made by commands
// that it returns, one after the other, on goroutines of bubbletea's.
//
// (Not version 1 of bubbletea: its init function asks the terminal for its colours and waits for the answer, and would do
// so in every server that somebody starts by hand.)
type screen struct {
	report        *Report // nil before the first look
	interval      time.Duration
	width, height int
	sorted        int // which of sortings
	look          func() *Report
}

// sortings are the orders that processes can be shown in, each biggest first.
var sortings = []struct {
	name string
	key  func(p Process) float64 // nil: as they were named
}{
	{"as named", nil},
	{"deliveries", ofRates(func(r *Rates) float64 { return r.Delivered })},
	{"publishes", ofRates(func(r *Rates) float64 { return r.Published })},
	{"drops", ofRates(func(r *Rates) float64 { return r.Dropped })},
	{"busy", ofRates(func(r *Rates) float64 { return r.Busiest })},
	{"connections", ofGauges(func(g *Gauges) float64 { return g.Connections })},
	{"memory", ofGauges(func(g *Gauges) float64 { return g.ResidentBytes })},
}

func ofRates(key func(*Rates) float64) func(Process) float64 {
	return func(p Process) float64 {
		if p.Rates == nil {
			return -1
		}
		return key(p.Rates)
	}
}

func ofGauges(key func(*Gauges) float64) func(Process) float64 {
	return func(p Process) float64 {
		if p.Gauges == nil {
			return -1
		}
		return key(p.Gauges)
	}
}

// lookNow is the message that it is time to look again.
type lookNow struct{}

// runScreen shows the screen until ctx ends or somebody at the keyboard ends it.
func runScreen(ctx context.Context, w *Watcher, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a look under way is not waited for
	s := screen{interval: o.Interval, width: 80, height: 24, look: func() *Report { return w.Look(ctx) }}
	_, err := tea.NewProgram(s, tea.WithContext(ctx), tea.WithOutput(o.Out)).Run()
	if errors.Is(err, context.Canceled) || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

func (s screen) Init() tea.Cmd { return s.lookAgain }

func (s screen) lookAgain() tea.Msg { return s.look() }

// Update is part of tea.Model.
func (s screen) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch m := message.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = m.Width, m.Height
	case *Report:
		s.report = m
		return s, tea.Tick(s.interval, func(time.Time) tea.Msg { return lookNow{} })
	case lookNow:
		return s, s.lookAgain
	case tea.KeyPressMsg:
		switch m.String() {
		case "q", "ctrl+c":
			return s, tea.Quit
		case "s":
			s.sorted = (s.sorted + 1) % len(sortings)
		}
	}
	return s, nil
}

// View is part of tea.Model.
func (s screen) View() tea.View {
	v := tea.NewView(strings.Join(s.lines(), "\n"))
	v.AltScreen = true
	return v
}

// topicsLeast is the room that topics are left by processes, with their header and the line above.
const topicsLeast = 7

// lines are the screen's, height of them.
func (s screen) lines() []string {
	if s.report == nil {
		return s.cut([]string{"rayflux top: looking …"})
	}
	lines := []string{bold.Styled("rayflux top") + "  " + s.report.summary(), ""}
	room := s.height - len(lines) - 1 // for the last line
	topics := min(len(s.report.Topics)+2, topicsLeast)
	if len(s.report.Topics) == 0 {
		topics = 0
	}
	lines = append(lines, s.processLines(room-topics)...)
	room = s.height - len(lines) - 1 - 2
	if len(s.report.Topics) > 0 && room > 0 {
		lines = append(lines, "", header(topicColumns, s.width))
		for _, t := range s.report.Topics[:min(len(s.report.Topics), room)] {
			lines = append(lines, format(topicColumns, t, s.width, nil))
		}
	}
	return s.cut(lines)
}

// cut fills the screen, with the keys in its last line.
func (s screen) cut(lines []string) []string {
	lines = lines[:min(len(lines), max(s.height-1, 0))]
	for len(lines) < s.height-1 {
		lines = append(lines, "")
	}
	keys := fmt.Sprintf("q quit  s sort: %s  every %v", sortings[s.sorted].name, s.interval)
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, s.width, "")
	}
	return append(lines, faint.Styled(ansi.Truncate(keys, s.width, "")))
}

// processLines are the table of processes in at most so many lines. Totals stay, processes go.
func (s screen) processLines(room int) []string {
	lines := []string{header(processColumns, s.width)}
	var totals []string
	for _, t := range s.report.Totals {
		totals = append(totals, totalRow(t, s.width).lines(s.width)...)
	}
	processes := slices.Clone(s.report.Processes)
	if key := sortings[s.sorted].key; key != nil {
		slices.SortStableFunc(processes, func(a, b Process) int { return cmp.Compare(key(b), key(a)) })
	}
	left := room - len(lines) - len(totals)
	for i, p := range processes {
		next := rowOf(p, s.width).lines(s.width)
		last := i == len(processes)-1
		if len(next) > left || !last && len(next) == left { // the line below needs one
			lines = append(lines, faint.Styled(fmt.Sprintf("  … and %d more", len(processes)-i)))
			break
		}
		lines = append(lines, next...)
		left -= len(next)
	}
	return append(lines, totals...)
}
