package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rayflux/bench"
	"rayflux/protocol"
)

// These tests keep the pages for people from drifting away from the program.

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// codeBlock is one fenced block of a page.
type codeBlock struct {
	heading  string // the nearest one above it
	language string
	text     string
	line     int // of its first line of text
}

func codeBlocks(page string) (blocks []codeBlock) {
	var b codeBlock
	fenced := false
	for i, line := range strings.Split(page, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && fenced:
			blocks = append(blocks, b)
			fenced = false
		case fence:
			b.language, b.text, b.line = language, "", i+2
			fenced = true
		case fenced:
			b.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			b.heading = strings.TrimLeft(line, "# ")
		}
	}
	return blocks
}

// tableRows are the rows of a page's tables whose first cell matches first, by
// what its first group took.
func tableRows(page string, first string) map[string][]string {
	rows := map[string][]string{}
	for line := range strings.Lines(page) {
		inner, ok := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !ok {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(inner, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if m := regexp.MustCompile("^" + first + "$").FindStringSubmatch(cells[0]); m != nil {
			rows[m[1]] = cells
		}
	}
	return rows
}

// sameNames complains about what is on one side only.
func sameNames[A, B any](t *testing.T, page string, written map[string]A, real map[string]B) {
	t.Helper()
	for name := range real {
		if _, ok := written[name]; !ok {
			t.Errorf("%s does not mention %s", page, name)
		}
	}
	for name := range written {
		if _, ok := real[name]; !ok {
			t.Errorf("%s mentions %s, which does not exist", page, name)
		}
	}
}

const settingsPage = "docs/settings.md"

// defaultCell is how the page has to write a flag's default: as --help says
// it where it follows from something else, or else the value.
func defaultCell(f *pflag.Flag, value string) string {
	if _, derived, ok := strings.Cut(f.Usage, "(default: "); ok && (value == "" || value == "0") {
		return strings.TrimSuffix(derived, ")")
	}
	if value == "" {
		return "none"
	}
	return "`" + value + "`"
}

func TestSettingsPageHasEverySettingOfAServer(t *testing.T) {
	serversPart, _, _ := strings.Cut(readPage(t, settingsPage), "## rayflux pub")
	written := tableRows(serversPart, "`--([a-z-]+)`")
	real := map[string]*pflag.Flag{}

	defaults := map[string]string{} // as the page has to write them: a node's, and others' where they differ
	for _, r := range roles {
		flags := pflag.NewFlagSet(r.name, 0)
		addSettings(flags, r)
		flags.VisitAll(func(f *pflag.Flag) {
			switch first := real[f.Name]; {
			case !isSetting(f.Name):
			case first == nil:
				real[f.Name], defaults[f.Name] = f, defaultCell(f, f.DefValue)
			case first.DefValue != f.DefValue:
				defaults[f.Name] += "; " + r.name + ": `" + f.DefValue + "`"
			}
		})
	}
	for name, f := range real {
		row := written[name]
		if len(row) != 4 {
			continue // complained about below
		}
		if row[2] != defaults[name] {
			t.Errorf("%s: the default of --%s is %q, want %q", settingsPage, name, row[2], defaults[name])
		}
		if want := "`" + envName(name) + "`"; row[1] != want {
			t.Errorf("%s: the variable of --%s is %s, want %s", settingsPage, name, row[1], want)
		}
		if row[3] == "" {
			t.Errorf("%s: --%s has no meaning: %s", settingsPage, name, f.Usage)
		}
	}
	sameNames(t, settingsPage, written, real)
}

func TestSettingsPageHasEveryFlagOfPubAndSub(t *testing.T) {
	settingsPageHasFlags(t, "## rayflux pub and rayflux sub", pubCommand(), subCommand())
}

func TestSettingsPageHasEveryFlagOfRoute(t *testing.T) {
	settingsPageHasFlags(t, "## rayflux route", routeCommand())
}

func TestSettingsPageHasEveryFlagOfSnapshot(t *testing.T) {
	settingsPageHasFlags(t, "## rayflux snapshot", snapshotCommand().Commands()...)
}

// settingsPageHasFlags compares the part below heading with the flags of commands. A flag that not all of them have
// stands behind its command's name.
func settingsPageHasFlags(t *testing.T, heading string, commands ...*cobra.Command) {
	t.Helper()
	_, part, _ := strings.Cut(readPage(t, settingsPage), heading+"\n")
	part, _, _ = strings.Cut(part, "\n## ")
	written := tableRows(part, "((?:[a-z]+ )?`--[a-z-]+`)")
	real := map[string]*pflag.Flag{}

	for _, cmd := range commands {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !isSetting(f.Name) {
				return
			}
			name := "`--" + f.Name + "`"
			if slices.ContainsFunc(commands, func(c *cobra.Command) bool { return c.Flags().Lookup(f.Name) == nil }) {
				name = cmd.Name() + " " + name
			}
			real[name] = f
			row := written[name]
			if len(row) != 4 {
				return
			}
			want := "`" + f.DefValue + "`"
			if f.DefValue == "" {
				want = defaultCell(f, "")
			}
			if row[1] != "`"+envName(f.Name)+"`" || row[2] != want {
				t.Errorf("%s: %s has %s and %q, want %s and %q", settingsPage, name, row[1], row[2], envName(f.Name), want)
			}
		})
	}
	sameNames(t, settingsPage, written, real)
}

func TestSettingsPageHasEveryFlagOfTop(t *testing.T) {
	_, part, _ := strings.Cut(readPage(t, settingsPage), "## rayflux top")
	written, real := tableRows(part, "`--([a-z-]+)`"), map[string]bool{}
	topCommand().Flags().VisitAll(func(f *pflag.Flag) {
		real[f.Name] = true
		if row := written[f.Name]; len(row) == 4 && (row[1] != "`"+envName(f.Name)+"`" || row[2] != "`"+f.DefValue+"`") {
			t.Errorf("%s: --%s has %s and %s, want %s and %s", settingsPage, f.Name, row[1], row[2], envName(f.Name), f.DefValue)
		}
	})
	sameNames(t, settingsPage, written, real)
}

func TestFilesOfTheSettingsPageAreValid(t *testing.T) {
	found := false
	for _, b := range codeBlocks(readPage(t, settingsPage)) {
		if b.language != "yaml" {
			continue
		}
		found = true
		path := filepath.Join(t.TempDir(), "rayflux.yaml")
		if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := rayflux(t, "config", "check", "--config", path).CombinedOutput(); err != nil {
			t.Errorf("%s:%d: %v: %s", settingsPage, b.line, err, out)
		}
	}
	if !found {
		t.Errorf("%s has no file", settingsPage)
	}
}

const metricsPage = "docs/metrics.md"

// metricKind is what a scrape tells of one metric.
type metricKind struct {
	kind   string
	labels []string
}

func scrapedMetrics(t *testing.T, scraped string) map[string]*metricKind {
	t.Helper()
	all := map[string]*metricKind{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (rayflux_\w+) (\w+)$`).FindAllStringSubmatch(scraped, -1) {
		all[m[1]] = &metricKind{kind: m[2]}
	}
	for _, m := range regexp.MustCompile(`(?m)^(rayflux_\w+)\{(.+)\} `).FindAllStringSubmatch(scraped, -1) {
		of := all[strings.TrimSuffix(m[1], "_count")]
		if of == nil { // a histogram's buckets: le is Prometheus' own
			continue
		}
		of.labels = nil
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			of.labels = append(of.labels, "`"+l[1]+"`")
		}
	}
	return all
}

func TestMetricsPageHasEveryMetric(t *testing.T) {
	const throttled = "rayflux_cpu_throttled_seconds_total" // has no sample where the kernel does not count
	r := start(t, "node", "--store=dir:"+t.TempDir())
	response, err := http.Post("http://"+r.listen+"/v1/topics/t/messages?ack=stored", "", strings.NewReader("x")) // so that all requests are counted
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	_, scraped := r.get("/metrics")
	real := scrapedMetrics(t, scraped)
	if real[throttled] == nil && strings.Contains(throttledDesc.String(), `"`+throttled+`"`) {
		real[throttled] = &metricKind{kind: "counter"}
	}
	written := tableRows(readPage(t, metricsPage), "`(rayflux_[a-z_]+)`")
	sameNames(t, metricsPage, written, real)
	for name, row := range written {
		m := real[name]
		if m == nil || len(row) != 4 {
			continue
		}
		if labels := strings.Join(m.labels, ", "); row[1] != m.kind || row[2] != labels || row[3] == "" {
			t.Errorf("%s: %s is a %s with labels %q, want a %s with labels %q, and a meaning", metricsPage, name, row[1], row[2], m.kind, labels)
		}
	}
}

// Examples of what to watch name metrics too.
func TestPagesNameNoMetricThatDoesNotExist(t *testing.T) {
	known := tableRows(readPage(t, metricsPage), "`(rayflux_[a-z_]+)`")
	for _, page := range []string{"README.md", metricsPage, operationsPage, settingsPage} {
		for _, name := range regexp.MustCompile(`rayflux_[a-z_]+`).FindAllString(readPage(t, page), -1) {
			if known[name] == nil {
				t.Errorf("%s names %s, which %s does not have", page, name, metricsPage)
			}
		}
	}
}

const operationsPage = "docs/operations.md"

func TestOperationsPageHasEveryReason(t *testing.T) {
	ended, dropped, ok := strings.Cut(readPage(t, operationsPage), "## Why a message was dropped")
	if !ok {
		t.Fatalf("%s has no part on dropped messages", operationsPage)
	}
	_, ended, _ = strings.Cut(ended, "## Why a connection ended")
	disconnects, drops := map[string]bool{}, map[string]bool{}
	codes := tableRows(ended, "`([a-z0-9_]+)`")
	for r := protocol.ReasonNone + 1; r < protocol.NumReasons; r++ {
		if r.IsDrop() {
			drops[r.Label()] = true
			continue
		}
		disconnects[r.Label()] = true
		want := "–"
		if r.CloseCode().OnWire() {
			want = fmt.Sprint(r.CloseCode())
		}
		if row := codes[r.Label()]; row != nil && row[1] != want {
			t.Errorf("%s: the close code of %s is %s, want %s", operationsPage, r.Label(), row[1], want)
		}
	}
	sameNames(t, operationsPage, codes, disconnects)
	sameNames(t, operationsPage, tableRows(dropped, "`([a-z0-9_]+)`"), drops)
}

const protocolPage = "docs/protocol.md"

func TestProtocolPageHasEveryCodeAndPath(t *testing.T) {
	page := readPage(t, protocolPage)
	codes := regexp.MustCompile(`(?m)^\tCode\w+ +Code = "([a-z_]+)"`).FindAllStringSubmatch(readPage(t, "protocol/code.go"), -1)
	paths := regexp.MustCompile(`(?m)^\troute\w+: +\{"(/[a-z0-9/]+)"`).FindAllStringSubmatch(readPage(t, "engine/route.go"), -1)
	if len(codes) < 20 || len(paths) < 5 {
		t.Fatalf("found %d codes and %d paths: the test looks at the wrong place", len(codes), len(paths))
	}
	for _, m := range append(codes, paths...) {
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("%s does not mention %s", protocolPage, m[1])
		}
	}
}

const clusterPage = "docs/cluster.md"

func TestClusterPageShowsWhatRouteSays(t *testing.T) {
	shown := 0
	for _, b := range codeBlocks(readPage(t, clusterPage)) {
		line, want, _ := strings.Cut(b.text, "\n")
		args, ok := strings.CutPrefix(line, "$ rayflux ")
		if !ok {
			continue
		}
		shown++
		if out, err := rayflux(t, strings.Fields(args)...).CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s:%d: it says\n%s(%v), want\n%s", clusterPage, b.line, out, err, want)
		}
	}
	if shown < 2 {
		t.Errorf("%s shows %d commands", clusterPage, shown)
	}
}

// A page may name a flag, a target of make or a scenario only if there is one.
func TestPagesNameOnlyWhatThereIs(t *testing.T) {
	flags := map[string]bool{}
	for _, cmd := range commandsBelow(rootCommand()) {
		for _, name := range flagNames(cmd.Flags()) {
			flags["--"+name] = true
		}
	}
	makefile := readPage(t, "Makefile")
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("pages are %q (%v)", pages, err)
	}
	for _, page := range append(pages, "README.md") {
		text := readPage(t, page)
		for _, m := range regexp.MustCompile("`(?:rayflux [a-z ]+ )?(--[a-z-]+)").FindAllStringSubmatch(text, -1) {
			if !flags[m[1]] {
				t.Errorf("%s names the flag %s, which no command has", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`make ([a-z]+)`").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which is no target", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`rayflux bench ((?:[A-Z][A-Za-z0-9-]* ?)+)`).FindAllStringSubmatch(text, -1) {
			for name := range strings.FieldsSeq(m[1]) {
				if _, err := bench.Named(name); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to nothing: %v", page, err)
			}
		}
	}
}
