package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"rayflux/bench"
)

// attempts is how often a run is tried while other processes are busy.
const attempts = 3

// compareLoad compares what both programs spend on a delivery, under every scenario.
func (o *options) compareLoad(ctx context.Context, progress io.Writer) (verdicts []verdict, err error) {
	for _, s := range o.scenarios {
		var blocks []block
		for i := range o.blocks {
			k, err := o.block(ctx, s, i%2 == 1)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(progress, "%s block %d of %d: before %.4g %.4g, after %.4g %.4g us/delivery\n",
				s.Name, i+1, o.blocks, k.a[0], k.a[1], k.b[0], k.b[1])
			blocks = append(blocks, k)
		}
		verdicts = append(verdicts, judge(s.Name, blocks))
	}
	return verdicts, nil
}

// block runs A B B A, or B A A B.
func (o *options) block(ctx context.Context, s bench.Scenario, turned bool) (k block, err error) {
	order := []struct {
		program string
		cost    *float64
	}{{o.a, &k.a[0]}, {o.b, &k.b[0]}, {o.b, &k.b[1]}, {o.a, &k.a[1]}}
	if turned {
		order[0], order[1], order[2], order[3] = order[1], order[0], order[3], order[2]
	}
	for _, run := range order {
		if *run.cost, err = o.calmly(ctx, run.program, s); err != nil {
			return k, err
		}
	}
	return k, nil
}

// calmly measures server CPU per delivery, anew if others disturbed it, and takes the run they disturbed least. What the
// runs cost has no part in the choice.
func (o *options) calmly(ctx context.Context, program string, s bench.Scenario) (micros float64, err error) {
	others := math.Inf(1)
	for range attempts {
		r, err := o.measure(ctx, program, s)
		if err != nil {
			return 0, err
		}
		if r.OtherCores < others {
			others, micros = r.OtherCores, r.ServerMicrosPerDeliv
		}
		if others <= o.calm {
			break
		}
	}
	return micros, nil
}

// measure runs one scenario on a fresh node that has nothing but its defaults, on one processor.
func (o *options) measure(ctx context.Context, program string, s bench.Scenario) (r bench.Result, err error) {
	argv := []string{"env", "GOMAXPROCS=1", program, "node", "--listen", "{addr}", "--admin", "127.0.0.1:0"}
	var written bytes.Buffer // by the server's process alone, and read after its end
	process, err := bench.Spawn(ctx, argv, o.serverCPU, &written)
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, written.Bytes())
	}
	r, err = bench.Run(ctx, process.Addr, process.PID, s)
	if err = errors.Join(err, process.Stop()); err != nil {
		return r, fmt.Errorf("%s: %w\n%s", s.Name, err, written.Bytes())
	}
	if !r.Clean() || r.Deliveries == 0 {
		var table bytes.Buffer
		_ = bench.WriteTable(&table, []bench.Result{r}) // a buffer takes anything
		return r, fmt.Errorf("%s on %q delivered nothing, or not cleanly:\n%s", s.Name, argv, table.Bytes())
	}
	return r, nil
}
