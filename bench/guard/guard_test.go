package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// measured makes blocks of runs around the given costs, each off by a random factor and all by a steady drift.
func measured(random *rand.Rand, n int, before, after, noise, drift float64) []block {
	blocks := make([]block, n)
	at := 0.0
	cost := func(mean float64) float64 {
		at++
		return mean * math.Exp(noise*random.NormFloat64()+drift*at)
	}
	for i := range blocks {
		k := &blocks[i]
		if i%2 == 0 {
			k.a[0], k.b[0], k.b[1], k.a[1] = cost(before), cost(after), cost(after), cost(before)
		} else {
			k.b[0], k.a[0], k.a[1], k.b[1] = cost(after), cost(before), cost(before), cost(after)
		}
	}
	return blocks
}

func TestNoiseAloneIsSeldomCalledWorse(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const trials = 20_000
	worse := 0
	for range trials {
		if judge("x", measured(random, 4, 1, 1, 0.03, 0)).worse() {
			worse++
		}
	}
	if share := float64(worse) / trials; share < 0.002 || share > 0.010 {
		t.Errorf("%.2f %% of comparisons of a program with itself are called worse, want about 0.5 %%", share*100)
	}
}

func TestChangeBeyondTheNoiseIsSeen(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		if v := judge("x", measured(random, 4, 1, 1.10, 0.01, 0)); !v.worse() || math.Abs(v.change-0.10) > 0.05 {
			t.Fatalf("10 %% more at 1 %% noise: %+v", v)
		}
		if v := judge("x", measured(random, 4, 1, 0.90, 0.01, 0)); !v.better() {
			t.Fatalf("10 %% less at 1 %% noise: %+v", v)
		}
	}
}

func TestSteadyDriftFallsOut(t *testing.T) {
	if v := judge("x", measured(rand.New(rand.NewPCG(5, 6)), 4, 2, 2, 0, 0.02)); math.Abs(v.change) > 1e-9 || v.worse() {
		t.Errorf("%+v", v)
	}
}

func TestVerdictsSayWhatTheyCannotSee(t *testing.T) {
	var table bytes.Buffer
	worse := writeVerdicts(&table, []verdict{
		{name: "F1", change: 0.02, limit: 0.03}, {name: "F2", change: 0.05, limit: 0.2}, {name: "F6", change: -0.3, limit: 0.1}})
	if text := table.String(); worse || !strings.Contains(text, "same") || !strings.Contains(text, "too noisy") || !strings.Contains(text, "better") {
		t.Errorf("worse %v:\n%s", worse, text)
	}
	if !writeVerdicts(&table, []verdict{{name: "F1", change: 0.04, limit: 0.03}}) {
		t.Error("4 % at 3 % noise is not called worse")
	}
}

func TestAllocationsAreReadAndJudged(t *testing.T) {
	read := readAllocations([]byte("goos: linux\n" +
		"BenchmarkNextFrame/7_bit-2   \t1000\t  3.1 ns/op\t 4000.00 MB/s\t       0 B/op\t       0 allocs/op\n" +
		"BenchmarkUpgrade             \t1000\t  900 ns/op\t     512 B/op\t       7 allocs/op\n" +
		"PASS\n"))
	want := []allocations{{"BenchmarkNextFrame/7_bit", 0, 0}, {"BenchmarkUpgrade", 0, 7}}
	if len(read) != 2 || read[0] != want[0] || read[1] != want[1] {
		t.Errorf("read %+v, want %+v", read, want)
	}
	var text bytes.Buffer
	if writeAllocations(&text, []allocations{{"Same", 1, 1}, {"Less", 2, 1}}) {
		t.Errorf("fewer allocations are called worse: %s", &text)
	}
	if !writeAllocations(&text, []allocations{{"More", 0, 1}}) {
		t.Error("more allocations are not called worse")
	}
}

func TestInstructionsAreReadFromValgrind(t *testing.T) {
	n, err := instructionsIn([]byte("==9== Cachegrind\nready listen=127.0.0.1:1\n==9== \n==9== I   refs:      27,486,503\n"))
	if n != 27486503 || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := instructionsIn([]byte("valgrind: aborted\n")); err == nil {
		t.Error("no count is no error")
	}
}

func TestCheapOperationsAreCountedMoreOften(t *testing.T) {
	for cost, want := range map[float64]int{0: countMost, 50: countMost, 1000: 100_000, 1e9: countTried} {
		if n := operationsFor(cost); n != want {
			t.Errorf("%v instructions: %d operations, want %d", cost, n, want)
		}
	}
}

func TestCommandLineIsJudged(t *testing.T) {
	for _, args := range [][]string{{}, {"-base", "x", "-a", "y", "-b", "z"}, {"-a", "y"}, {"-base", "x", "-a", "y"}, {"-base", "x", "F99"}, {"-base", "x", "-blocks", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
