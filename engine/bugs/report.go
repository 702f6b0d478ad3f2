package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// judgeMax is how many characters of a judge's words the table has.
const judgeMax = 90

// report prints what was found, and fails if a bug was not.
func report(w io.Writer, bugs []bug, verdicts []verdict) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "bug\tschedules\ttook\twhat it does\twhat the judge said")
	var missed []string
	for i, b := range bugs {
		v := &verdicts[i]
		count, said := fmt.Sprint(v.schedules), v.judge
		if v.err != nil {
			count, said = "-", v.err.Error()
			missed = append(missed, b.name)
		}
		said, _, _ = strings.Cut(said, "\n")
		if words := []rune(said); len(words) > judgeMax {
			said = string(words[:judgeMax]) + "…"
		}
		fmt.Fprintf(table, "%s\t%s\t%v\t%s\t%s\n", b.name, count, v.took.Round(10*time.Millisecond), b.does, said)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d of %d bugs are not found: %s", len(missed), len(bugs), strings.Join(missed, ", "))
	}
	return nil
}
