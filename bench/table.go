package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// column is one column of the table. A column that has nothing to say of any row is left out.
type column struct {
	name string
	cell func(s *Summary) string
}

const nothing = "-"

var columns = []column{
	{"scenario", func(s *Summary) string { return s.Scenario.Name }},
	{"server", func(s *Summary) string { return s.Server }},
	{"load", func(s *Summary) string { return load(&s.Scenario) }},
	{"n", func(s *Summary) string { return unless(s.Runs == 1, fmt.Sprint(s.Runs)) }},
	{"pub/s", func(s *Summary) string { return s.busy(rate(s.PublishesPerSecond.Median)) }},
	{"deliv/s", func(s *Summary) string { return s.busy(rate(s.DeliveriesPerSecond.Median)) }},
	{"(min-max)", func(s *Summary) string { return s.busy(s.spread(s.DeliveriesPerSecond, rate)) }},
	{"/floor", func(s *Summary) string { return ratio(s.DeliveriesOfFloor) }},
	{"us/deliv", func(s *Summary) string { return s.busy(micros(s.MicrosPerDelivery.Median)) }},
	{"(min-max)", func(s *Summary) string { return s.busy(s.spread(s.MicrosPerDelivery, micros)) }},
	{"/floor", func(s *Summary) string { return ratio(s.MicrosOfFloor) }},
	{"core", func(s *Summary) string { return fmt.Sprintf("%.2f", s.ServerCores.Median) }},
	{"gen core", func(s *Summary) string { return fmt.Sprintf("%.2f", s.GeneratorCores.Median) }},
	{"p50 ms", func(s *Summary) string { return s.busy(millis(s.P50.Median)) }},
	{"(min-max)", func(s *Summary) string { return s.busy(s.spread(s.P50, millis)) }},
	{"p99", func(s *Summary) string { return s.busy(millis(s.P99.Median)) }},
	{"(min-max)", func(s *Summary) string { return s.busy(s.spread(s.P99, millis)) }},
	{"p99.9", func(s *Summary) string { return s.busy(millis(s.P999.Median)) }},
	{"max", func(s *Summary) string { return s.busy(millis(s.Max.Max)) }},
	{"answer ms", func(s *Summary) string { return s.answered(s.AnswerMean) }},
	{"p95", func(s *Summary) string { return s.answered(s.AnswerP95) }},
	{"p99", func(s *Summary) string { return s.answered(s.AnswerP99) }},
	{"RSS MB", func(s *Summary) string {
		return unless(s.ResidentMB.Median == 0, fmt.Sprintf("%.1f", s.ResidentMB.Median))
	}},
	{"KB/conn", func(s *Summary) string {
		return unless(s.KBPerConnection.Median == 0, kilobytes(s.KBPerConnection.Median))
	}},
	{"(min-max)", func(s *Summary) string {
		return unless(s.KBPerConnection.Median == 0, s.spread(s.KBPerConnection, kilobytes))
	}},
	{"/floor", func(s *Summary) string { return ratio(s.KBOfFloor) }},
	{"clean", func(s *Summary) string { return fmt.Sprintf("%d of %d", s.Runs-s.Unclean, s.Runs) }},
}

// WriteTable writes results for people, each in a row of its own.
func WriteTable(w io.Writer, results []Result) error {
	summaries := make([]Summary, len(results))
	for i := range results {
		summaries[i] = summarize(results[i : i+1])
	}
	return writeTable(w, summaries)
}

// writeTable writes summaries for people, what has to be known about the rows under them.
func writeTable(w io.Writer, summaries []Summary) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	shown := slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return !slices.ContainsFunc(summaries, func(s Summary) bool { return c.cell(&s) != nothing })
	})
	for _, c := range shown {
		fmt.Fprint(table, c.name, "\t")
	}
	fmt.Fprintln(table)
	for i := range summaries {
		for _, c := range shown {
			fmt.Fprint(table, c.cell(&summaries[i]), "\t")
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	for i := range summaries {
		s := &summaries[i]
		for _, m := range s.remarks {
			of := ""
			if s.Runs > 1 {
				of = fmt.Sprintf(" (%d of %d)", m.count, s.Runs)
			}
			fmt.Fprintf(&b, "%s %s%s: %s\n", s.Scenario.Name, s.Server, of, m.text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// busy is text for scenarios in which somebody publishes.
func (s *Summary) busy(text string) string { return unless(s.Scenario.Publishers == 0, text) }

// answered is text for scenarios whose publishes are answered one by one.
func (s *Summary) answered(of Spread) string {
	return unless(s.AnswerMean.Median == 0, millis(of.Median))
}

func (s *Summary) spread(of Spread, text func(float64) string) string {
	return unless(s.Runs == 1, text(of.Min)+"-"+text(of.Max))
}

func unless(silent bool, text string) string {
	if silent {
		return nothing
	}
	return text
}

func ratio(v float64) string { return unless(v == 0, fmt.Sprintf("%.2f", v)) }

func micros(v float64) string { return fmt.Sprintf("%.3f", v) }

func kilobytes(v float64) string { return fmt.Sprintf("%.2f", v) }

// millis shows microseconds below 10 ms.
func millis(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// rate shortens a number per second to four digits or so.
func rate(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

// load is how a scenario's publishes are paced.
func load(s *Scenario) string {
	switch {
	case s.Publishers == 0:
		return "idle"
	case s.Rate > 0:
		return rate(s.Rate) + "/s"
	case s.Publish == PublishHTTP:
		return fmt.Sprintf("%d x %d http", s.Publishers, s.Pipeline)
	}
	return fmt.Sprintf("%d x %d", s.Publishers, s.InFlight)
}
