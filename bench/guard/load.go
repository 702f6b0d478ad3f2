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
		v, err := o.compare(ctx, s.Name, "us/delivery", o.blocks, progress, func(program string) (float64, error) {
			return o.calmly(ctx, program, s)
		})
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

// compare measures both programs, interleaved, and judges.
func (o *options) compare(ctx context.Context, name, unit string, n int, progress io.Writer, measure func(program string) (float64, error)) (verdict, error) {
	var blocks []block
	for i := range n {
		k, err := o.block(i%2 == 1, measure)
		if err != nil {
			return verdict{}, err
		}
		fmt.Fprintf(progress, "%s block %d of %d: before %.4g %.4g, after %.4g %.4g %s\n", name, i+1, n, k.a[0], k.a[1], k.b[0], k.b[1], unit)
		blocks = append(blocks, k)
	}
	return judge(name, unit, blocks), ctx.Err()
}

// block runs A B B A, or B A A B.
func (o *options) block(turned bool, measure func(program string) (float64, error)) (k block, err error) {
	order := []struct {
		program string
		cost    *float64
	}{{o.a, &k.a[0]}, {o.b, &k.b[0]}, {o.b, &k.b[1]}, {o.a, &k.a[1]}}
	if turned {
		order[0], order[1], order[2], order[3] = order[1], order[0], order[3], order[2]
	}
	for _, run := range order {
		if *run.cost, err = measure(run.program); err != nil {
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
		r, _, err := o.measure(ctx, server(program), s)
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

// server is the command line of a node that has nothing but its defaults, on one processor.
func server(program string) []string {
	return []string{"env", "GOMAXPROCS=1", program, "node", "--listen", "{addr}", "--admin", "127.0.0.1:0"}
}

// measure runs one scenario on a fresh server; log is what the server wrote.
func (o *options) measure(ctx context.Context, argv []string, s bench.Scenario) (r bench.Result, log []byte, err error) {
	var written bytes.Buffer // by the server's process alone, and read after its end
	process, err := bench.Spawn(ctx, argv, o.serverCPU, &written)
	if err != nil {
		return r, nil, fmt.Errorf("%w\n%s", err, written.Bytes())
	}
	r, err = bench.Run(ctx, process.Addr, process.PID, s)
	if err = errors.Join(err, process.Stop()); err != nil {
		return r, nil, fmt.Errorf("%s: %w\n%s", s.Name, err, written.Bytes())
	}
	if !r.Clean() || r.Deliveries == 0 {
		var table bytes.Buffer
		_ = bench.WriteTable(&table, []bench.Result{r}) // a buffer takes anything
		return r, nil, fmt.Errorf("%s on %q delivered nothing, or not cleanly:\n%s", s.Name, argv, table.Bytes())
	}
	return r, written.Bytes(), nil
}
