package bench

import (
	"bytes"
	"testing"

	"golang.org/x/perf/benchfmt"
)

func TestBenchstatReadsItsLines(t *testing.T) {
	f1, f5 := Scenario{Name: "F1", Publishers: 1}, Scenario{Name: "F5"}
	results := []Result{
		{Server: "rayflux", Scenario: f1, ServerMeasured: true, ServerMicrosPerDeliv: 0.125, DeliveriesPerSecond: 8e6, PublishesPerSecond: 8e3, Latency: Quantiles{P50: 0.5, P99: 2, P999: 3}},
		{Server: "rayflux", Scenario: f5, ResidentKBPerIdleConn: 1.5},
		{Server: "floor", Scenario: f1, Lost: 3},
	}
	var text bytes.Buffer
	if err := writeBenchstat(&text, results); err != nil {
		t.Fatal(err)
	}
	reader := benchfmt.NewReader(bytes.NewReader(text.Bytes()), "bench")
	var read []*benchfmt.Result
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.Result:
			read = append(read, record.Clone())
		case *benchfmt.SyntaxError:
			t.Error(record)
		}
	}
	if err := reader.Err(); err != nil || len(read) != 3 {
		t.Fatalf("%d results are read (%v) from\n%s", len(read), err, text.Bytes())
	}
	for i, want := range []struct {
		name, server string
		values       map[string]float64 // in base units, as benchstat shows them
	}{
		{"Fanout/F1", "rayflux", map[string]float64{"sec/delivery": 125e-9, "deliveries/s": 8e6, "publishes/s": 8e3, "p50-sec": 0.5e-3, "p99-sec": 2e-3, "p99.9-sec": 3e-3, "lost": 0}},
		{"Idle/F5", "rayflux", map[string]float64{"B/connection": 1536}},
		{"Fanout/F1", "floor", map[string]float64{"lost": 3}},
	} {
		r := read[i]
		if string(r.Name) != want.name || r.GetConfig("server") != want.server {
			t.Errorf("line %d is %s of %s, want %s of %s", i, r.Name, r.GetConfig("server"), want.name, want.server)
		}
		for unit, value := range want.values {
			if got, ok := r.Value(unit); !ok || got < value*0.999999 || got > value*1.000001 {
				t.Errorf("%s: %v %s, want %v", r.Name, got, unit, value)
			}
		}
	}
	if reader.Units().GetBetter("deliveries/s") != 1 || reader.Units().GetBetter("ns/delivery") != -1 {
		t.Errorf("benchstat is not told which way is better:\n%s", text.Bytes())
	}
}
