package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// built is a server to try this on.
func built(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rayflux")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "rayflux").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func TestNobodyMissesAnything(t *testing.T) {
	program := built(t)
	for name, c := range map[string]struct {
		age  time.Duration
		says string
	}{
		"restart": {0, "balancer 1 had"},
		"spread":  {time.Second, "after balancer 2 came"},
	} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			chart := filepath.Join(t.TempDir(), "chart.svg")
			o := &options{program: program, clients: 60, balancers: 2, topics: 5, rate: 50, drain: time.Second, age: c.age, chart: chart, out: &said}
			if err := o.run(t.Context()); err != nil {
				t.Error(err)
			}
			for _, want := range []string{"60 clients came", c.says, "0 gaps; everybody has read everything"} {
				if !strings.Contains(said.String(), want) {
					t.Errorf("it does not say %q: %q", want, said.String())
				}
			}
			picture, err := os.ReadFile(chart)
			if err != nil || !bytes.Contains(picture, []byte("Returns per second")) {
				t.Errorf("the chart is %.80q (%v)", picture, err)
			}
		})
	}
}

func TestWhatCannotBeRun(t *testing.T) {
	for _, args := range []string{"-clients 0", "-balancers 1", "-topics 0", "-rate 0", "extra"} {
		if o, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s: %+v", args, o)
		}
	}
}

func TestWhoCameWhen(t *testing.T) {
	w := &crowd{events: []event{{0, 0, true}, {1.5, 0, true}, {1.9, 1, true}, {2.2, 0, false}, {3.4, 1, true}}, at: []int{1, 2}, began: time.Now()}
	came := w.cameBetween(1, 4)
	if came.total() != 3 || came.most() != 2 {
		t.Errorf("came: %v", came)
	}
}
