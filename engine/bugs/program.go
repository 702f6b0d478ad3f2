package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// program is the simulation with all bugs in it.
type program struct{ path, folder string }

// build compiles it. The caller calls remove when it is needed no more.
func build(ctx context.Context, engine string, bugs []bug) (p *program, remove func(), err error) {
	files, err := infest(engine, bugs)
	if err != nil {
		return nil, nil, err
	}
	files["injected.go"] = theSwitch
	temp, err := os.MkdirTemp("", "rayflux-bugs-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { os.RemoveAll(temp) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	source, err := filepath.Abs(engine)
	if err != nil {
		return nil, nil, err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range files {
		in := filepath.Join(temp, name)
		if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
		overlay.Replace[filepath.Join(source, name)] = in
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(temp, "overlay.json"), list, 0o600); err != nil {
		return nil, nil, err
	}
	p = &program{filepath.Join(temp, "simulation"), engine}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", filepath.Join(temp, "overlay.json"), "-o", p.path, ".")
	cmd.Dir = engine
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("the engine does not build with the bugs in it: %w\n%s", err, out)
	}
	return p, remove, nil
}

// verdict is what came of simulating with a bug.
type verdict struct {
	schedules int    // how many it took
	judge     string // what the last of them failed with; "": none failed
	output    []byte
	took      time.Duration
	err       error // it was not found, or could not be looked for
}

// firstSeed is the first one of TestClusterSimulation when it is told how many to run.
const firstSeed = 1000

var failure = regexp.MustCompile(`seed (\d+), step \d+ \(RAYFLUX_CLUSTER_SEED=\d+ repeats it\): (.*)`)

// simulate runs schedules with a bug switched on, until one fails. name is "" for none.
func (p *program) simulate(ctx context.Context, name string, runs int, limit time.Duration) (v verdict) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	began := time.Now()
	cmd := exec.CommandContext(ctx, p.path, "-test.run", "^TestClusterSimulation$", "-test.v")
	cmd.Dir = p.folder
	cmd.Env = append(os.Environ(), injectedVariable+"="+name, "RAYFLUX_CLUSTER_RUNS="+strconv.Itoa(runs))
	out, err := cmd.CombinedOutput()
	v.output, v.took = out, time.Since(began)
	said := failure.FindSubmatch(out)
	switch {
	case said != nil:
		seed, _ := strconv.Atoi(string(said[1]))
		v.schedules, v.judge = seed-firstSeed+1, string(said[2])
	case ctx.Err() != nil:
		v.err = fmt.Errorf("not found within %v", limit)
	case err != nil && !bytes.Contains(out, []byte("--- FAIL")):
		v.err = fmt.Errorf("it ends otherwise than by a verdict: %w\n%s", err, out)
	case name != "":
		v.err = fmt.Errorf("not found in %d schedules", runs)
	case err != nil:
		v.err = errors.New(string(out))
	}
	return v
}
