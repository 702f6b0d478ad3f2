package main

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

//go:embed allow.txt
var allowList string

// Verdicts, in the suite's words. All others are failures.
const (
	ok            = "OK"
	nonStrict     = "NON-STRICT"
	informational = "INFORMATIONAL"
)

// group is one chapter of the suite. cases is how many the pinned version has:
// a suite that silently ran fewer would look like a conformant server.
type group struct {
	number int
	name   string
	cases  int
	limits bool // runs only with -limits
}

var groups = []group{
	{number: 1, name: "framing", cases: 16},
	{number: 2, name: "pings and pongs", cases: 11},
	{number: 3, name: "reserved bits", cases: 7},
	{number: 4, name: "opcodes", cases: 10},
	{number: 5, name: "fragmentation", cases: 20},
	{number: 6, name: "UTF-8", cases: 145},
	{number: 7, name: "closing", cases: 37},
	{number: 9, name: "limits", cases: 54, limits: true},
	{number: 10, name: "auto-fragmentation", cases: 1},
}

// excuse lets one case end with one verdict other than OK.
type excuse struct{ verdict, reason string }

// parseExcuses reads lines of "case verdict reason"; # starts a comment line.
func parseExcuses(text string) (map[string]excuse, error) {
	excuses := map[string]excuse{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != nonStrict && f[1] != informational {
			return nil, fmt.Errorf("allow.txt: %q is not: case, %s or %s, reason", line, nonStrict, informational)
		}
		excuses[f[0]] = excuse{f[1], strings.Join(f[2:], " ")}
	}
	return excuses, nil
}

// verdicts is the outcome of a run, ready to print.
type verdicts struct {
	counts   map[int]map[string]int // group number, then verdict
	excused  []string
	failures []string
}

func (v *verdicts) failed() bool { return len(v.failures) > 0 }

// judge sorts results into what is OK, what is excused and what fails.
func judge(results map[string]result, excuses map[string]excuse) *verdicts {
	v := &verdicts{counts: map[int]map[string]int{}}
	for _, id := range slices.SortedFunc(maps.Keys(results), compareCases) {
		r := results[id]
		n := caseNumbers(id)[0]
		if v.counts[n] == nil {
			v.counts[n] = map[string]int{}
		}
		got := r.verdict()
		v.counts[n][column(got)]++
		e, listed := excuses[id]
		switch {
		case listed && e.verdict == got:
			v.excused = append(v.excused, fmt.Sprintf("%s %s: %s", id, got, e.reason))
		case listed:
			v.fail("%s: allow.txt expects %s, got %s", id, e.verdict, got)
		case got != ok:
			v.fail("%s: %s, its close %s with code %s; see %s", id, r.Behavior, r.BehaviorClose, r.code(), r.ReportFile)
		}
	}
	return v
}

// requireAll fails the run if a group has not as many cases as it should.
func (v *verdicts) requireAll(limits bool) {
	for _, g := range groups {
		if g.limits && !limits {
			continue
		}
		ran := 0
		for _, n := range v.counts[g.number] {
			ran += n
		}
		if ran != g.cases {
			v.fail("group %d: %d cases were run, expected %d", g.number, ran, g.cases)
		}
	}
}

func (v *verdicts) fail(format string, args ...any) {
	v.failures = append(v.failures, fmt.Sprintf(format, args...))
}

func (v *verdicts) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "group\t\tOK\tNON-STRICT\tINFORMATIONAL\tFAILED\t")
	for _, g := range groups {
		if c := v.counts[g.number]; c != nil {
			fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%d\t%d\t\n", g.number, g.name, c[ok], c[nonStrict], c[informational], c["FAILED"])
		}
	}
	t.Flush()
	for _, s := range v.excused {
		fmt.Fprintln(w, "excused:", s)
	}
	for _, s := range v.failures {
		fmt.Fprintln(w, "failed:", s)
	}
}

// verdict is the worse of the two the suite gives: for the messages and for the close.
func (r result) verdict() string {
	if column(r.BehaviorClose) == "FAILED" || r.Behavior == ok {
		return r.BehaviorClose
	}
	return r.Behavior
}

func (r result) code() string {
	if r.RemoteCloseCode == nil {
		return "none"
	}
	return strconv.Itoa(*r.RemoteCloseCode)
}

func column(verdict string) string {
	switch verdict {
	case ok, nonStrict, informational:
		return verdict
	}
	return "FAILED"
}

// compareCases orders case names by their numbers: 2.10 comes after 2.9.
func compareCases(a, b string) int { return slices.Compare(caseNumbers(a), caseNumbers(b)) }

func caseNumbers(id string) []int {
	var numbers []int
	for part := range strings.SplitSeq(id, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			n = -1 // not a name the suite gives: first, and in no group
		}
		numbers = append(numbers, n)
	}
	return numbers
}
