package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// block is one round of A B B A or B A A B: what each program cost, twice. A drift that is even over the block falls out
// of the comparison.
type block struct{ a, b [2]float64 }

// quantiles are Student's, one-sided 0.5 %, for the degrees of freedom that 1, 2, 3, … blocks have: two each, since the
// two runs of a program in a block differ by noise alone.
var quantiles = []float64{9.925, 4.604, 3.707, 3.355, 3.169, 3.055, 2.977, 2.921, 2.878, 2.845, 2.819, 2.797}

// verdict is one comparison.
type verdict struct {
	name, unit    string
	before, after float64
	change        float64 // of after to before, as a share
	limit         float64 // the greatest change that noise explains
}

func (v verdict) worse() bool  { return v.change > v.limit }
func (v verdict) better() bool { return v.change < -v.limit }

// judge compares by logarithms: costs are off by factors, not by sums.
func judge(name string, blocks []block) verdict {
	n := float64(len(blocks))
	var sumA, sumB, squares float64
	for _, k := range blocks {
		sumA += math.Log(k.a[0]) + math.Log(k.a[1])
		sumB += math.Log(k.b[0]) + math.Log(k.b[1])
		squares += square(math.Log(k.a[1]/k.a[0])) + square(math.Log(k.b[1]/k.b[0]))
	}
	// A difference of two runs has twice the variance of one; the change is the mean of 2n runs less that of 2n others,
	// hence of variance (1/2n + 1/2n) times that of one.
	one := squares / (2 * n) / 2
	limit := quantiles[len(blocks)-1] * math.Sqrt(one/n)
	return verdict{
		name: name, unit: "us/delivery",
		before: math.Exp(sumA / (2 * n)), after: math.Exp(sumB / (2 * n)),
		change: math.Expm1((sumB - sumA) / (2 * n)), limit: math.Expm1(limit),
	}
}

func square(x float64) float64 { return x * x }

// blindFrom is the noise from which a comparison says too little to be trusted alone.
const blindFrom = 0.10

// writeVerdicts prints the comparisons and reports whether one is worse.
func writeVerdicts(w io.Writer, verdicts []verdict) (worse bool) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "compared\tunit\tbefore\tafter\tchange\tnoise\tverdict\t")
	for _, v := range verdicts {
		word := "same"
		switch {
		case v.worse():
			word, worse = "WORSE", true
		case v.better():
			word = "better"
		case v.limit > blindFrom:
			word = "too noisy"
		}
		fmt.Fprintf(table, "%s\t%s\t%.4g\t%.4g\t%+.1f %%\t%.1f %%\t%s\t\n", v.name, v.unit, v.before, v.after, v.change*100, v.limit*100, word)
	}
	table.Flush()
	return worse
}
