package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"rayflux/bench"
)

// measure runs "rayflux bench" and returns the results it prints.
func measure(t *testing.T, args ...string) (results []bench.Result) {
	t.Helper()
	cmd := rayflux(t, append([]string{"bench", "--output=json"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	for line := range bytes.Lines(out) {
		var told struct{ Part bench.Part }
		if err := json.Unmarshal(line, &told); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if told.Part != bench.PartRun {
			continue
		}
		var r bench.Result
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		results = append(results, r)
	}
	return results
}

func TestBenchMeasuresANodeOfItsOwn(t *testing.T) {
	chart := filepath.Join(t.TempDir(), "chart.svg")
	results := measure(t, "F2-2k", "--duration=1s", "--warm-up=100ms", "--chart", chart, "--", "--slow=close")
	if len(results) != 1 {
		t.Fatalf("results are %+v", results)
	}
	r := results[0]
	if !r.Clean() || r.Server != "rayflux" || r.Scenario.Name != "F2-2k" || r.Scenario.Duration != time.Second || r.ServerCPUSeconds <= 0 {
		t.Errorf("result is %+v", r)
	}
	if r.Deliveries < 30_000 || r.Deliveries > 34_000 {
		t.Errorf("%d deliveries in a second of 2000 publishes to 16 readers each", r.Deliveries)
	}
	if picture, err := os.ReadFile(chart); err != nil || !bytes.HasPrefix(picture, []byte("<svg")) {
		t.Errorf("chart of %d bytes (%v)", len(picture), err)
	}
}

func TestBenchMeasuresTheFloorAndAServerThatRuns(t *testing.T) {
	r := start(t, "node")
	results := measure(t, "--addr="+r.listen, "--floor", "--subscribers=10", "--in-flight=4", "--duration=100ms", "--warm-up=10ms")
	if len(results) != 2 {
		t.Fatalf("results are %+v", results)
	}
	for i, name := range []string{"rayflux", "floor"} {
		r := results[i]
		if !r.Clean() || r.Server != name || r.Scenario.Name != scenarioOfParameters || r.Scenario.InFlight != 4 || r.Deliveries == 0 || r.ServerMeasured != (i == 1) {
			t.Errorf("result is %+v", r)
		}
	}
}

func TestBenchLimitsTheNode(t *testing.T) {
	cmd := rayflux(t, "bench", "F7", "--rate=500", "--duration=300ms", "--warm-up=100ms", "--quiet")
	out, err := cmd.CombinedOutput()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) && strings.Contains(string(out), "limit of 0.5 CPU 256 MiB: ") {
		t.Skipf("no control group can be made here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "1 of 1") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	for args, says := range map[string]string{
		"F9":                         `unknown scenario "F9"`,
		"F1 --wire=morse":            `unknown wire "morse"`,
		"--rate=fast":                `"fast" is not a number`,
		"--addr=x:1 -- --loops=2":    `"--loops=2" is for a node that is started`,
		"--pid=1":                    "--addr",
		"--against=x":                "want NAME=COMMAND",
		"--chart=x.gif":              `ends with ".gif"`,
		"F5 --find-p99=1s":           "no rate to find",
		"--subscribers=1 --topics=2": "without a subscriber",
		"--output=xml":               `"xml" is none of table, json or benchstat`,
		"F1 --limit-memory=plenty":   "is not a size",
		"--topics=three":             `"three" is not a whole number`,
	} {
		out, err := rayflux(t, append([]string{"bench"}, strings.Fields(args)...)...).CombinedOutput()
		if got := status(t, err); got != exitUsage || !strings.Contains(string(out), says) {
			t.Errorf("%s: exit status %d, it said %q, want %q", args, got, out, says)
		}
	}
}

func TestFlagsOfTheLoadReachEveryScenario(t *testing.T) {
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	addLoad(flags, &bench.Scenario{})
	given := []string{"--topics=7", "--subscribers=70", "--subscriptions=3", "--publishers=5", "--payload=99", "--wire=json", "--publish=http", "--in-flight=9",
		"--rate=1234.5", "--pipeline=4", "--stalled=2", "--duration=1500ms", "--warm-up=0s", "--spin", "--limit-cpu=1.5", "--limit-memory=1MiB"}
	if err := flags.Parse(given); err != nil {
		t.Fatal(err)
	}
	from, err := fill(flags, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var o benchOptions
	if err := o.choose([]string{"F1", "F7"}, flags, from); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"F1", "F7"} {
		want := bench.Scenario{Name: name, Topics: 7, Subscribers: 70, Subscriptions: 3, Publishers: 5, PayloadBytes: 99, Wire: bench.WireJSON, Publish: bench.PublishHTTP,
			InFlight: 9, Rate: 1234.5, Pipeline: 4, Stalled: 2, Duration: 1500 * time.Millisecond, Spin: true, LimitCPU: 1.5, LimitMemory: 1 << 20}
		if got := o.plan.Scenarios[i]; got.Name != want.Name || got.Shape() != want.Shape() || got.Rate != want.Rate || got.Duration != want.Duration ||
			got.WarmUp != 0 || got.InFlight != want.InFlight || got.Pipeline != 4 || got.Stalled != 2 || !got.Spin || got.LimitMemory != want.LimitMemory {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	if err := (&benchOptions{}).choose([]string{"F3"}, pflag.NewFlagSet("none", 0), origins{}); err != nil {
		t.Error(err)
	}
}
