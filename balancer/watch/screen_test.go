package watch

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

var update = flag.Bool("update", false, "write what is drawn into testdata")

// cluster is two nodes, one of them draining and one that is away, and a balancer with a lot to do.
func cluster() *Report {
	second := 1.0
	sub := .00043
	gauges := func(n float64) *Gauges {
		return &Gauges{Connections: n, Subscriptions: 3 * n, Topics: n / 2, ResidentBytes: 1e5*n + 4e7}
	}
	r := &Report{At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	balancer := Process{Address: "10.0.0.9:9083", Role: "balancer", State: Ready, Gauges: gauges(12345),
		Rates: &Rates{Published: 999.6, Delivered: 1234567, SentBytes: 98765432, Dropped: 12.5, Busiest: .987, Recovered: 4,
			NotRecovered: 1, DroppedBy: map[string]float64{"slow_skip": 12, "invalid": .5}, Latency99: &second, Latency99Over: true}}
	balancer.Links = map[string]float64{"up": 3, "down": 1}
	r.Processes = []Process{
		{Address: "rayflux-node-0.rayflux-nodes:9080", Role: "node", State: Ready, Gauges: gauges(40), Rates: &Rates{Published: 999.6, Delivered: 2000, SentBytes: 1e5, Busiest: .25, Latency99: &sub}},
		{Address: "10.0.0.2:9080", Role: "node", State: Draining, Gauges: gauges(2), Rates: &Rates{}},
		{Address: "10.0.0.3:9080", Role: "node", State: Unreachable, Reason: "dial tcp 10.0.0.3:9080: connect: no route to host, \x1b[31mthat is"},
		balancer,
	}
	r.addTotals()
	for i := range 30 {
		r.Topics = append(r.Topics, Topic{Topic: fmt.Sprintf("prices.%02d", i), Address: "10.0.0.9:9083", Epoch: "0AbcdeF_", Head: uint64(1e9) / uint64(1+i),
			Messages: 500 / float64(1+i*i), Subscribers: 12345 - i, Bytes: 70512})
	}
	r.Topics[1].Topic = "a\u202eb \\ 注文 " + strings.Repeat("long", 20)
	return r
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew):\n%s\nwant\n%s", file, got, want)
	}
}

func TestScreen(t *testing.T) {
	many := cluster()
	for i := range 40 {
		many.Processes = append(many.Processes, Process{Address: fmt.Sprintf("10.0.1.%d:9080", i), Role: "node", State: Ready, Gauges: &Gauges{}})
	}
	many.Totals = nil
	many.addTotals()
	calm := &Report{At: many.At, Processes: many.Processes[4:5]}
	for _, c := range []struct {
		file   string
		report *Report
		w, h   int
		keys   string
	}{
		{"screen_80x24.txt", cluster(), 80, 24, ""},
		{"screen_80x24_sorted.txt", cluster(), 80, 24, "s"},
		{"screen_80x24_many.txt", many, 80, 24, ""},
		{"screen_80x24_calm.txt", calm, 80, 24, ""},
		{"screen_80x24_first.txt", nil, 80, 24, ""},
		{"screen_120x30.txt", cluster(), 120, 30, "sssssss"},
		{"screen_20x5.txt", cluster(), 20, 5, ""},
	} {
		t.Run(c.file, func(t *testing.T) {
			var model tea.Model = screen{interval: time.Second}
			model, _ = model.Update(tea.WindowSizeMsg{Width: c.w, Height: c.h})
			if c.report != nil {
				model, _ = model.Update(c.report)
			}
			for _, key := range c.keys {
				model, _ = model.Update(tea.KeyPressMsg{Code: key, Text: string(key)})
			}
			v := model.View()
			if !v.AltScreen {
				t.Error("it draws over what was there")
			}
			lines := strings.Split(v.Content, "\n")
			if len(lines) != c.h {
				t.Errorf("%d lines, want %d", len(lines), c.h)
			}
			for i, line := range lines {
				if w := ansi.StringWidth(line); w > c.w {
					t.Errorf("line %d is %d cells wide, limit %d", i, w, c.w)
				}
				if plain := ansi.Strip(line); strings.ContainsAny(plain, "\x1b\u202e") {
					t.Errorf("line %d has a stranger's escapes: %q", i, plain)
				}
				lines[i] = strings.TrimRight(ansi.Strip(line), " ")
			}
			golden(t, c.file, strings.Join(lines, "\n")+"\n")
		})
	}
}

func TestScreenGoesOnLookingUntilItIsLeft(t *testing.T) {
	looks := 0
	var model tea.Model = screen{interval: time.Nanosecond, look: func() *Report { looks++; return cluster() }}
	command := model.Init()
	for range 3 {
		message := command()
		if _, ok := message.(*Report); !ok {
			t.Fatalf("it looks, and finds %T", message)
		}
		model, command = model.Update(message)
		model, command = model.Update(command())
	}
	if looks != 3 {
		t.Errorf("%d looks", looks)
	}
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		if _, command := model.Update(key); command == nil || command() != tea.Quit() {
			t.Errorf("%v does not end it", key)
		}
	}
	if _, command := model.Update(tea.KeyPressMsg{Code: 'x', Text: "x"}); command != nil {
		t.Error("another key does something")
	}
}

func TestProcessesAreSorted(t *testing.T) {
	for at, want := range []string{
		"rayflux-node-0.", "10.0.0.9:9083", "rayflux-node-0.", "10.0.0.9:9083", "10.0.0.9:9083", "10.0.0.9:9083", "10.0.0.9:9083",
	} {
		s := screen{report: cluster(), width: 80, height: 24, sorted: at}
		if first := ansi.Strip(s.processLines(20)[1]); !strings.HasPrefix(first, want[:len(want)-1]) {
			t.Errorf("by %s the first is %s, want %s", sortings[at].name, first, want)
		}
	}
}

func TestNumbersFitTheirCells(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0", .01: "<0.1", .05: "0.1", .94: "0.9", 7: "7", 9.96: "10.0", 99.94: "99.9", 99.95: "100", 999: "999", 999.4: "999", 999.5: "1.00k",
		1234: "1.23k", 9994: "9.99k", 9996: "10.0k", 99949: "99.9k", 99951: "100k", 999499: "999k", 999500: "1.00M",
		5e9: "5.00G", 123e12: "123T",
	} {
		if got := compact(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0µs", .00005: "50µs", .000999: "999µs", .0009996: "1.0ms", .0099: "9.9ms", .00996: "10ms", .9994: "999ms", 1: "1s"} {
		if got := compactSeconds(s); got != want {
			t.Errorf("%v s is %q, want %q", s, got, want)
		}
	}
	for n := 1e-3; n < 1e15; n *= 1.003 {
		if text := compact(n); len(text) > 5 {
			t.Fatalf("%v is %q", n, text)
		}
		if text := compactSeconds(math.Min(n, 999)); ansi.StringWidth(text) > 5 {
			t.Fatalf("%v s is %q", n, text)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain / 注文 é": "plain / 注文 é",
		"a\\b":         `a\\b`,
		"\x1b[31m":     `\x1b[31m`,
		"\u009b31m":    `\u009b31m`,
		"a\u202eb":     `a\u202eb`,
		"e\u0301":      `e\u0301`,
		"\u200b":       `\u200b`,
		"a\xffb":       `a\xffb`,
		"\ufffd":       `\ufffd`,
		"tab\tline\n":  `tab\tline\n`,
		"\U000e0041":   `\U000e0041`,
	} {
		if got := escape(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o    Options
		says string
	}{
		{Options{Addresses: []string{"a:1", ":2"}, Interval: time.Second}, ""},
		{Options{Interval: time.Second}, "no operators' port"},
		{Options{Addresses: []string{"a"}, Interval: time.Second}, `admin is "a"`},
		{Options{Addresses: []string{"a:1", "a:1"}, Interval: time.Second}, "names a:1 twice"},
		{Options{Addresses: []string{"a:1"}, Interval: time.Millisecond}, "interval is 1ms"},
	} {
		if err := c.o.Check(); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.says)
		}
	}
}
