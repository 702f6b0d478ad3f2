package bench

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
)

// higher are the units of writeBenchstat of which more is better; of its other units less is.
var higher = []string{"deliveries/s", "publishes/s"}

// writeBenchstat writes results as lines that benchstat reads (https://golang.org/design/14313-benchmark-format), each
// measurement one line, and the server's name as configuration: "benchstat -col server" puts servers side by side, plain
// "benchstat old new" two files.
func writeBenchstat(w io.Writer, results []Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: rayflux\n", runtime.GOOS, runtime.GOARCH)
	for _, unit := range higher {
		fmt.Fprintf(&b, "Unit %s better=higher\n", unit)
	}
	for _, unit := range []string{"ns/delivery", "p50-ns", "p99-ns", "p99.9-ns", "lost", "B/connection"} {
		fmt.Fprintf(&b, "Unit %s better=lower\n", unit)
	}
	server := ""
	for i := range results {
		r := &results[i]
		if r.Server != server {
			server = r.Server
			fmt.Fprintf(&b, "server: %s\n", server)
		}
		b.WriteString(r.benchstat())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// benchstat is r as one line.
func (r *Result) benchstat() string {
	var b strings.Builder
	value := func(v float64, unit string) {
		fmt.Fprintf(&b, " %s %s", strconv.FormatFloat(v, 'f', -1, 64), unit)
	}
	if r.Scenario.Publishers == 0 {
		fmt.Fprintf(&b, "BenchmarkIdle/%s 1", r.Scenario.Name)
		value(r.ResidentKBPerIdleConn*1024, "B/connection")
		return b.String() + "\n"
	}
	fmt.Fprintf(&b, "BenchmarkFanout/%s 1", r.Scenario.Name)
	if r.ServerMeasured {
		value(r.ServerMicrosPerDeliv*1e3, "ns/delivery")
	}
	value(r.DeliveriesPerSecond, "deliveries/s")
	value(r.PublishesPerSecond, "publishes/s")
	value(r.Latency.P50*1e6, "p50-ns")
	value(r.Latency.P99*1e6, "p99-ns")
	value(r.Latency.P999*1e6, "p99.9-ns")
	value(float64(r.Lost), "lost")
	return b.String() + "\n"
}
