package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two nodes and two balancers come at once: balancers that know nothing yet ask nodes that have nothing yet.
func TestManyPodsAtOnce(t *testing.T) {
	l := open(t)
	least := func(n int) {
		for _, name := range []string{"flux-node", "flux-balancer"} {
			l.kubectl("patch", "hpa", name, "--patch", fmt.Sprintf(`{"spec":{"minReplicas":%d}}`, n))
		}
	}
	traffic := begin(t, 0)
	traffic.every(5 * time.Millisecond)
	least(4)
	defer least(2)
	traffic.stay(50 * time.Second) // in which every connection is asked to leave once
	l.settled()
	v := traffic.end()
	l.showTraffic(fmt.Sprintf("from 2 of each to %s at once", l.sizes()), v)
	v.wantZeros(t)
}

// The autoscaler's whole way, up and down, under a load that comes and goes.
func TestAutoscaling(t *testing.T) {
	l := open(t)
	traffic := begin(t, 0)
	var picture plot
	most := sizes{}
	sample := func() {
		s := l.sizes()
		most = sizes{max(most.nodes, s.nodes), max(most.balancers, s.balancers)}
		published, latency := traffic.second()
		picture.add(s, published, latency)
	}
	traffic.every(2 * time.Millisecond)
	for range 45 {
		traffic.stay(2 * time.Second)
		sample()
	}
	traffic.every(2 * time.Second)
	if s := l.await(sizes{2, 2}, func() { sample() }); s != (sizes{2, 2}) {
		t.Errorf("there are %s, want 2 of each", s)
	}
	v := traffic.end()
	l.showTraffic(fmt.Sprintf("autoscaled from 2 to %d nodes and %d balancers, and back", most.nodes, most.balancers), v)
	out := filepath.Join("..", "..", ".cache", "k8s-autoscaling.svg")
	if err := errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, picture.svg(), 0o644)); err != nil {
		t.Error(err)
	}
	if most.nodes < 3 || most.balancers < 3 {
		t.Errorf("the load made %d nodes and %d balancers, want more than 2", most.nodes, most.balancers)
	}
	v.wantZeros(t)
}

// await looks every two seconds whether there are as many pods, and each time lets others look, too. It gives up after some minutes, and returns how
// many there are.
func (l lab) await(want sizes, look func()) sizes {
	l.Helper()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for end := time.Now().Add(2 * patience); ; <-tick.C {
		look()
		if s := l.sizes(); s == want || time.Now().After(end) {
			return s
		}
	}
}

type sizes struct{ nodes, balancers int }

func (s sizes) String() string { return fmt.Sprintf("%d nodes and %d balancers", s.nodes, s.balancers) }

func (l lab) sizes() (s sizes) {
	l.Helper()
	text := l.kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.labels.app\.kubernetes\.io/name}{"\n"}{end}`)
	for name := range strings.FieldsSeq(text) {
		switch name {
		case "flux-node":
			s.nodes++
		case "flux-balancer":
			s.balancers++
		}
	}
	return s
}

// plot is replicas, load and latency, one above the other, over time.
type plot struct {
	began  time.Time
	times  []float64
	series [4][]float64
}

func (p *plot) add(s sizes, published float64, latency time.Duration) {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	p.times = append(p.times, time.Since(p.began).Seconds())
	for i, v := range []float64{float64(s.nodes), float64(s.balancers), published, float64(latency) / 1e6} {
		p.series[i] = append(p.series[i], v)
	}
}

func (p *plot) svg() []byte {
	const width, height, left = 760, 110, 60
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width+left+20, 4*(height+30)+20)
	fmt.Fprintln(&b, `<rect width="100%" height="100%" fill="white"/>`)
	end := max(p.times[len(p.times)-1], 1)
	for i, title := range []string{"nodes", "balancers", "publishes/s", "p99 of publish to reader, ms"} {
		top := float64(20 + i*(height+30))
		most := 1.0
		for _, v := range p.series[i] {
			most = max(most, v)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" fill="#1f2937">%s</text><text x="%d" y="%.0f" text-anchor="end" fill="#6b7280">%.0f</text>`+"\n",
			left, top-4, title, left-6, top+8, most)
		fmt.Fprintf(&b, `<path d="M%d %.0fv%dh%d" fill="none" stroke="#9ca3af"/><polyline fill="none" stroke="#1d4ed8" points="`, left, top, height, width)
		for k, v := range p.series[i] {
			fmt.Fprintf(&b, "%.1f,%.1f ", left+p.times[k]/end*width, top+height-v/most*height)
		}
		fmt.Fprintln(&b, `"/>`)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#6b7280">%.0f s</text></svg>`+"\n", width+left, 4*(height+30)+10, end)
	return b.Bytes()
}
