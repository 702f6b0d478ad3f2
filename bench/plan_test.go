package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// small is a plan of two scenarios on two servers, both of them the floor.
func small(t *testing.T, output Output) (plan *Plan, stdout *bytes.Buffer) {
	t.Helper()
	busy := Scenario{Name: "busy", Topics: 2, Subscribers: 10, Publishers: 2, Duration: 50 * time.Millisecond}
	idle := Scenario{Name: "idle", Topics: 2, Subscribers: 10, Duration: 10 * time.Millisecond}
	stdout = &bytes.Buffer{}
	return &Plan{
		Scenarios:  []Scenario{busy, idle},
		Contenders: []Contender{{Name: "rayflux", Argv: floorArgv(t)}, {Name: FloorName, Argv: floorArgv(t)}},
		CPU:        -1, ServerCPU: -1, Quiet: true, Output: output, Stdout: stdout, Stderr: io.Discard,
	}, stdout
}

func TestPlanMeasuresInTurn(t *testing.T) {
	t.Parallel()
	plan, stdout := small(t, OutputJSON)
	plan.Repeat = 2
	plan.Scenarios = plan.Scenarios[:1]
	plan.Chart = filepath.Join(t.TempDir(), "chart.svg")
	if err := plan.Check(); err != nil {
		t.Fatal(err)
	}
	if err := plan.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	var order []string
	parts := map[Part]int{}
	for line := range bytes.Lines(stdout.Bytes()) {
		var told struct{ Part Part }
		if err := json.Unmarshal(line, &told); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		switch parts[told.Part]++; told.Part {
		case PartRun:
			var r Result
			err := json.Unmarshal(line, &r)
			order = append(order, r.Server)
			if err != nil || r.Deliveries == 0 || r.Round != (len(order)+1)/2 {
				t.Errorf("measurement %d: %v in %s", len(order), err, line)
			}
		case PartSummary:
			var s Summary
			if err := json.Unmarshal(line, &s); err != nil || s.Runs != 2 || s.DeliveriesPerSecond.Min > s.DeliveriesPerSecond.Max || s.MicrosOfFloor == 0 {
				t.Errorf("%v in %s", err, line)
			}
		}
	}
	if want := []string{"rayflux", "floor", "floor", "rayflux"}; !slices.Equal(order, want) {
		t.Errorf("measured in the order %v, want %v", order, want)
	}
	if want := 2 * len(plan.Scenarios[0].loads()); parts[PartSummary] != 2 || parts[PartSweep] != want {
		t.Errorf("parts are %v, want 2 summaries and %d points", parts, want)
	}
	if picture, err := os.ReadFile(plan.Chart); err != nil || len(picture) == 0 {
		t.Errorf("chart of %d bytes (%v)", len(picture), err)
	}
}

func TestTableHasARowForEachServer(t *testing.T) {
	t.Parallel() // it mostly waits
	plan, stdout := small(t, OutputTable)
	if err := plan.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(stdout.String(), "\n")
	for i, want := range [][]string{{"scenario", "server", "us/deliv", "/floor", "KB/conn", "clean"}, {"busy", "rayflux", "2 x 64", "1 of 1"}, {"busy", "floor", "1.00"}, {"idle", "rayflux"}, {"idle", "floor"}} {
		for _, word := range want {
			if !strings.Contains(lines[i], word) {
				t.Errorf("line %d of the table has no %q:\n%s", i, word, stdout)
			}
		}
	}
	if strings.Contains(lines[0], "(min-max)") {
		t.Errorf("a table of single measurements has a spread:\n%s", stdout)
	}
}

func TestPlanGoesOnPastAServerThatFails(t *testing.T) {
	plan, stdout := small(t, OutputBenchstat)
	plan.Scenarios = plan.Scenarios[:1]
	plan.Contenders[0].Argv = []string{"/does/not/exist"}
	err := plan.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "busy rayflux 1/1: start /does/not/exist") {
		t.Errorf("error is %v", err)
	}
	if text := stdout.String(); !strings.Contains(text, "server: floor\nBenchmarkFanout/busy 1 ") || strings.Contains(text, "server: rayflux") {
		t.Errorf("the report is\n%s", text)
	}
}

func TestCancelledPlanReportsWhatItHas(t *testing.T) {
	t.Parallel() // it mostly waits
	plan, stdout := small(t, OutputTable)
	plan.Scenarios = append(plan.Scenarios[:1], Scenario{Name: "long", Topics: 1, Subscribers: 1, Publishers: 1, Duration: time.Minute})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := plan.Run(ctx); err == nil {
		t.Error("a cancelled plan is no error")
	}
	if text := stdout.String(); !strings.Contains(text, "busy") || strings.Contains(text, "long") {
		t.Errorf("the report is\n%s", text)
	}
}

func TestPlanThatCannotBeRunIsRefused(t *testing.T) {
	for want, change := range map[string]func(p *Plan){
		"repeat is -1,":    func(p *Plan) { p.Repeat = -1 },
		`unknown output`:   func(p *Plan) { p.Output = "xml" },
		`ends with ".gif"`: func(p *Plan) { p.Chart = "x.gif" },
		"no rate to find":  func(p *Plan) { p.FindP99 = time.Second },
		"payload is 1":     func(p *Plan) { p.Scenarios[0].PayloadBytes = 1 },
	} {
		plan, _ := small(t, OutputTable)
		if change(plan); plan.Check() == nil || !strings.Contains(plan.Check().Error(), want) {
			t.Errorf("error is %v, want %q", plan.Check(), want)
		}
	}
}

func TestWarningsThatDifferByNumbersAreOne(t *testing.T) {
	s := summarize([]Result{{Warnings: []string{"other processes used 0.31 cores"}}, {Lost: 1}, {Warnings: []string{"other processes used 0.12 cores", "something else"}}})
	if len(s.remarks) != 2 || s.remarks[0].count != 2 || !strings.Contains(s.remarks[0].text, "0.31") || s.Unclean != 1 {
		t.Errorf("%+v", s)
	}
}

func TestDisturbedMeasurementIsMadeAnewAndTheCalmestTaken(t *testing.T) {
	t.Parallel() // it mostly waits
	c := campaign{Plan: &Plan{Calm: 1000}, console: newConsole(io.Discard, true)}
	others := []float64{3000, 1500, 2000}
	calls := 0
	r, err := c.calmly(context.Background(), func() (Result, error) {
		calls++
		return Result{Round: calls, OtherCores: others[calls-1]}, nil
	})
	if err != nil || r.Round != 2 || calls != 3 {
		t.Errorf("of %v, attempt %d is taken after %d (%v), want the second after 3", others, r.Round, calls, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.calmly(ctx, func() (Result, error) { return Result{}, nil }); err == nil {
		t.Error("a cancelled wait is no error")
	}
}

func TestStatusIsTakenAwayOnATerminalAndRareElsewhere(t *testing.T) {
	var text bytes.Buffer
	c := newConsole(&text, false)
	c.status("one")
	if text.Len() != 0 {
		t.Errorf("said at once where there is no terminal: %q", &text)
	}
	c.terminal = true
	c.status("two")
	c.status("three")
	c.line("done")
	if want := "\r\x1b[Ktwo\r\x1b[Kthree\r\x1b[Kdone\n"; text.String() != want {
		t.Errorf("a terminal is told %q, want %q", &text, want)
	}
	c.quiet = true
	c.status("four")
	c.line("five")
	if strings.Contains(text.String(), "f") {
		t.Errorf("not quiet: %q", &text)
	}
}
