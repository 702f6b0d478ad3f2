package watch

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// row is a line of the table of processes: one of them, or a total.
type row struct {
	name, role string
	state      State
	mark       ansi.Style
	notes      []string // what has no column
	*Gauges
	*Rates
}

// column is one of a table's. Columns that ask for a wider terminal than there is are left out.
type column[T any] struct {
	title string
	width int // in cells; 0: what the others leave
	least int // width of the terminal
	text  func(T) string
}

func gauge(of func(*Gauges) float64) func(row) string {
	return func(r row) string {
		if r.Gauges == nil {
			return "-"
		}
		return compact(of(r.Gauges))
	}
}

func rate(of func(*Rates) string) func(row) string {
	return func(r row) string {
		if r.Rates == nil {
			return "-"
		}
		return of(r.Rates)
	}
}

var processColumns = []column[row]{
	{"PROCESS", 0, 0, func(r row) string { return r.name }},
	{"ROLE", 4, 0, func(r row) string { return cmp.Or(shortRoles[r.role], r.role) }},
	{"STATE", 5, stateWidth, func(r row) string { return shortStates[r.state] }},
	{"CONN", 5, 0, gauge(func(g *Gauges) float64 { return g.Connections })},
	{"SUBS", 5, 0, gauge(func(g *Gauges) float64 { return g.Subscriptions })},
	{"TOPIC", 5, 0, gauge(func(g *Gauges) float64 { return g.Topics })},
	{"PUB/s", 5, 0, rate(func(r *Rates) string { return compact(r.Published) })},
	{"DLV/s", 5, 0, rate(func(r *Rates) string { return compact(r.Delivered) })},
	{"OUT/s", 5, 0, rate(func(r *Rates) string { return compact(r.SentBytes) })},
	{"DRP/s", 5, 0, rate(func(r *Rates) string { return compact(r.Dropped) })},
	{"REC/s", 5, recoveryWidth, rate(func(r *Rates) string { return compact(r.Recovered + r.NotRecovered) })},
	{"BUSY", 4, 0, rate(func(r *Rates) string { return fmt.Sprintf("%.0f%%", 100*r.Busiest) })},
	{"RSS", 5, 0, gauge(func(g *Gauges) float64 { return g.ResidentBytes })},
	{"P99", 5, 0, rate(func(r *Rates) string {
		switch {
		case r.Latency99 == nil:
			return "-"
		case r.Latency99Over:
			return ">" + compactSeconds(*r.Latency99)
		}
		return compactSeconds(*r.Latency99)
	})},
}

var topicColumns = []column[Topic]{
	{"TOPIC", 0, 0, func(t Topic) string { return escape(t.Topic) }},
	{"PROCESS", 15, 0, func(t Topic) string { return escape(t.Address) }},
	{"MSG/s", 5, 0, func(t Topic) string { return compact(t.Messages) }},
	{"SUBS", 5, 0, func(t Topic) string { return compact(float64(t.Subscribers)) }},
	{"BYTES", 5, 0, func(t Topic) string { return compact(float64(t.Bytes)) }},
	{"HEAD", 12, 0, func(t Topic) string { return fmt.Sprint(t.Head) }},
	{"EPOCH", 8, 0, func(t Topic) string { return escape(t.Epoch) }},
}

const (
	stateWidth    = 90
	recoveryWidth = 96
	tableWidth    = 120 // where there is no terminal to ask
)

var (
	shortStates = map[State]string{Ready: "ready", Draining: "drain", Failing: "fails", Unreachable: "away"}
	shortRoles  = map[string]string{"balancer": "bal"}
	marks       = map[State]ansi.Style{
		Ready:       ansi.NewStyle().ForegroundColor(ansi.Green),
		Draining:    ansi.NewStyle().ForegroundColor(ansi.Yellow),
		Failing:     ansi.NewStyle().ForegroundColor(ansi.Red),
		Unreachable: ansi.NewStyle().ForegroundColor(ansi.Red),
	}
	bold  = ansi.NewStyle().Bold()
	faint = ansi.NewStyle().Faint()
)

func rowOf(p Process, width int) row {
	r := row{name: escape(p.Address), role: escape(p.Role), state: p.State, mark: marks[p.State], Gauges: p.Gauges, Rates: p.Rates}
	if p.State != Ready {
		note := string(p.State)
		if p.Reason != "" {
			note += ": " + escape(p.Reason)
		}
		r.notes = append(r.notes, note)
	}
	r.addNotes(width)
	if p.TopicsError != "" {
		r.notes = append(r.notes, "topics not known: "+escape(p.TopicsError))
	}
	return r
}

func totalRow(t Total, width int) row {
	r := row{name: fmt.Sprintf("all %d", t.Processes), role: escape(t.Role), mark: bold, Gauges: &t.Gauges, Rates: t.Rates}
	if t.Ready < t.Processes {
		r.name = fmt.Sprintf("%d of %d ready", t.Ready, t.Processes)
	}
	r.addNotes(width)
	return r
}

// addNotes says which links and drops there are, and what of recoveries its columns do not.
func (r *row) addNotes(width int) {
	if r.Gauges != nil {
		if links := counts(r.Links); links != "" {
			r.notes = append(r.notes, "links: "+links)
		}
	}
	if r.Rates != nil {
		if dropped := counts(r.DroppedBy); dropped != "" {
			r.notes = append(r.notes, "drops/s: "+dropped)
		}
		recoveries := map[string]float64{"not whole": r.NotRecovered}
		if width < recoveryWidth {
			recoveries["whole"] = r.Recovered
		}
		if said := counts(recoveries); said != "" {
			r.notes = append(r.notes, "recoveries/s: "+said)
		}
	}
}

// lines are the row's: the second, if there are notes, is cut to the width.
func (r row) lines(width int) []string {
	lines := []string{format(processColumns, r, width, r.mark)}
	if len(r.notes) > 0 {
		lines = append(lines, faint.Styled(ansi.Truncate("  "+strings.Join(r.notes, "; "), width, "…")))
	}
	return lines
}

// format is one line of a table. The mark is for its first cell.
func format[T any](columns []column[T], of T, width int, mark ansi.Style) string {
	return arrange(columns, width, func(c column[T], i int, text func(string) string) string {
		if i == 0 {
			return mark.Styled(text(c.text(of)))
		}
		return text(c.text(of))
	})
}

func header[T any](columns []column[T], width int) string {
	return bold.Styled(arrange(columns, width, func(c column[T], _ int, text func(string) string) string { return text(c.title) }))
}

func arrange[T any](columns []column[T], width int, write func(c column[T], i int, text func(string) string) string) string {
	rest := width
	for _, c := range columns {
		if c.least <= width && c.width > 0 {
			rest -= c.width + 1
		}
	}
	var cells []string
	for i, c := range columns {
		if c.least > width {
			continue
		}
		w := c.width
		if w == 0 {
			w = max(rest, 8)
		}
		right := w <= 5 && c.title != "ROLE" && c.title != "STATE" || c.title == "HEAD"
		cells = append(cells, write(c, i, func(s string) string { return cell(s, w, right) }))
	}
	return strings.Join(cells, " ")
}

// summary is the first line.
func (r *Report) summary() string {
	of := map[State]int{}
	for _, p := range r.Processes {
		of[p.State]++
	}
	s := fmt.Sprintf("%s  %d processes", r.At.Format("15:04:05"), len(r.Processes))
	if len(r.Processes) == 1 {
		s = s[:len(s)-len("es")]
	}
	for _, state := range []State{Ready, Draining, Failing, Unreachable} {
		if of[state] > 0 {
			s += fmt.Sprintf(", %d %s", of[state], state)
		}
	}
	return s
}

// topicsOfTable is how many topics a table has at most.
const topicsOfTable = 20

// table is the report for where there is no screen: no colours, and an empty line behind.
func (r *Report) table() string {
	lines := []string{r.summary(), "", header(processColumns, tableWidth)}
	for _, p := range r.Processes {
		lines = append(lines, rowOf(p, tableWidth).lines(tableWidth)...)
	}
	for _, t := range r.Totals {
		lines = append(lines, totalRow(t, tableWidth).lines(tableWidth)...)
	}
	if len(r.Topics) > 0 {
		lines = append(lines, "", header(topicColumns, tableWidth))
	}
	for _, t := range r.Topics[:min(len(r.Topics), topicsOfTable)] {
		lines = append(lines, format(topicColumns, t, tableWidth, nil))
	}
	for i, line := range lines {
		lines[i] = strings.TrimRight(ansi.Strip(line), " ")
	}
	return strings.Join(append(lines, "", ""), "\n")
}
