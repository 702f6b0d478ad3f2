// Package test shows on a real Kubernetes what deployments/ promises. "make k8s-test" runs it; nothing else does.
package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

const (
	namespace = "rayflux"
	// The lab answers on every NodePort there, whichever machine is cut off.
	front    = "ws://192.168.78.254:30083"
	patience = 3 * time.Minute
)

// lab is a cluster: RayFlux' own, made of network namespaces, or any other that has these scripts.
type lab struct {
	*testing.T
	dir string
}

func open(t *testing.T) lab {
	dir := os.Getenv("RAYFLUX_LAB_DIR")
	if dir == "" {
		t.Skip(`"make k8s-test" runs this`)
	}
	return lab{t, dir}
}

// script runs one of the lab's.
func (l lab) script(name string, args ...string) string {
	l.Helper()
	return l.run(exec.Command(filepath.Join(l.dir, name), args...))
}

func (l lab) run(cmd *exec.Cmd) string {
	l.Helper()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		l.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, said.Bytes())
	}
	return string(out)
}

func (l lab) kubectl(args ...string) string {
	l.Helper()
	return l.run(exec.Command("kubectl", append([]string{"--namespace", namespace}, args...)...))
}

// process is the lab's own word for who runs: its pid.
func (l lab) process(name string) int {
	l.Helper()
	home := os.Getenv("RAYFLUX_LAB")
	if home == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			l.Fatal(err)
		}
		home = filepath.Join(cache, "rayflux-lab")
	}
	text, err := os.ReadFile(filepath.Join(home, "run", "pid", name))
	if err != nil {
		l.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		l.Fatal(err)
	}
	return pid
}

// settled waits until as many pods as are wanted are ready.
func (l lab) settled() {
	l.Helper()
	for _, what := range []string{"statefulset/flux-node", "deployment/flux-balancer"} {
		l.kubectl("rollout", "status", what, "--timeout", patience.String())
	}
}

// helm is run rather than required, as in deployments.
const helm = "helm.sh/helm/v3/cmd/helm@v3.19.0"

// Every overlay, with every component that needs no further kinds, and what the chart makes, is accepted as it is, and without a word of
// warning.
func TestServerTakesAllManifests(t *testing.T) {
	l := open(t)
	l.apply("../overlays/production/namespace.yaml")
	chart := func(values string) *exec.Cmd {
		return exec.Command("go", "run", helm, "template", "rayflux", "../chart", "--namespace", namespace, "--kube-version", "1.34.0",
			"--values", "../chart/values-"+values+".yaml", "--set", "customMetrics.enabled=true,store.url=s3://bucket/prefix,ingress.enabled=true,ingress.host=flux.example.com")
	}
	for name, render := range map[string]*exec.Cmd{
		"minikube":             exec.Command("kubectl", "kustomize", "../overlays/minikube"),
		"production":           exec.Command("kubectl", "kustomize", "../overlays/production"),
		"lab":                  exec.Command("kubectl", "kustomize", "../overlays/lab"),
		"every component":      exec.Command("kubectl", "kustomize", "every"),
		"chart for minikube":   chart("minikube"),
		"chart for production": chart("production"),
	} {
		cmd := exec.Command("kubectl", "apply", "--dry-run=server", "-f", "-")
		cmd.Stdin = strings.NewReader(l.run(render))
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("Warning")) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		t.Logf("%s: %d objects", name, bytes.Count(out, []byte("\n")))
	}
}

func (l lab) apply(file string) { l.run(exec.Command("kubectl", "apply", "-f", file)) }

// From nothing to the first message that comes out again.
func TestFirstMessage(t *testing.T) {
	l := open(t)
	l.run(exec.Command("kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--timeout=2m"))
	l.apply("../overlays/production/namespace.yaml")
	l.kubectl("create", "secret", "generic", "flux-secrets", "--from-literal=RAYFLUX_CLUSTER_KEY=a key for the lab only",
		"--from-literal=AWS_ACCESS_KEY_ID=none", "--from-literal=AWS_SECRET_ACCESS_KEY=none")
	began := time.Now()
	l.run(exec.Command("kubectl", "apply", "-k", "../overlays/lab"))
	applied := time.Since(began)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := roundTrip(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	t.Logf("first message after %.1f s (applied after %.1f s)", time.Since(began).Seconds(), applied.Seconds())
	l.settled()
	t.Logf("all pods ready after %.1f s", time.Since(began).Seconds())
}

func roundTrip(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, front, client.Options{})
	if err != nil {
		<-time.After(50 * time.Millisecond) // nobody listens yet: the answer comes at once
		return err
	}
	defer c.Close()
	s, err := c.Subscribe(ctx, "first", client.Live())
	if err != nil {
		return err
	}
	if _, err := c.Publish(ctx, "first", protocol.KindText, []byte("message")); err != nil {
		return err
	}
	_, err = s.Next(ctx)
	return err
}

// Nothing but the pods comes and goes here, and no subscriber may notice.
func TestRollingRestart(t *testing.T) {
	l := open(t)
	for _, what := range []string{"statefulset/flux-node", "deployment/flux-balancer"} {
		traffic := begin(t)
		began := time.Now()
		l.kubectl("rollout", "restart", what)
		l.kubectl("rollout", "status", what, "--timeout", patience.String())
		took := time.Since(began)
		v := traffic.end()
		t.Logf("restart of %s in %.0f s: %s", what, took.Seconds(), v)
		v.wantZeros(t)
	}
}

// A pod that is killed takes with it what it had in memory: whoever read its topics is told, once, and nobody else is.
func TestKilledPods(t *testing.T) {
	l := open(t)
	for _, kind := range []string{"flux-node", "flux-balancer"} {
		// The newest: one that has just been replaced may still be there, on its way out.
		pod := l.kubectl("get", "pods", "-l", "app.kubernetes.io/name="+kind, "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[-1:].metadata.name}")
		traffic := begin(t)
		l.script("fault.sh", "kill9", namespace+"/"+pod)
		l.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
		traffic.stay(15 * time.Second)
		l.settled()
		v := traffic.end()
		t.Logf("%s killed: %s", pod, v)
		if kind == "flux-node" {
			v.wantNoSilentLoss(t)
		} else {
			v.wantZeros(t)
		}
	}
}

// A machine without a network: its node's topics go on elsewhere.
func TestCutMachine(t *testing.T) {
	l := open(t)
	traffic := begin(t)
	machine := strings.TrimSpace(l.kubectl("get", "pod", "flux-node-0", "-o", "jsonpath={.spec.nodeName}"))
	l.script("fault.sh", "cut", machine)
	traffic.stay(40 * time.Second)
	l.script("fault.sh", "heal", machine)
	l.settled()
	v := traffic.end()
	t.Logf("%s cut off for 40 s: %s", machine, v)
	v.wantNoSilentLoss(t)
}

// Without an API server nothing changes for clients.
func TestAPIServerAway(t *testing.T) {
	l := open(t)
	traffic := begin(t)
	if err := syscall.Kill(l.process("apiserver"), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	traffic.stay(2 * time.Minute)
	l.script("up.sh", "--nodes", "2", "--metrics")
	traffic.stay(20 * time.Second) // when machines and endpoints are looked at again
	v := traffic.end()
	t.Logf("API server away for two minutes: %s", v)
	v.wantZeros(t)
	for _, kind := range []string{"flux-node", "flux-balancer"} {
		said := l.kubectl("logs", "-l", "app.kubernetes.io/name="+kind, "--tail=-1", "--since=4m", "--prefix")
		for _, words := range []string{"cannot find nodes", "nodes are found again"} {
			t.Logf("%s: %q is said %d times", kind, words, strings.Count(said, words))
		}
	}
}

// Two nodes and two balancers come at once: balancers that know nothing yet ask nodes that have nothing yet.
func TestManyPodsAtOnce(t *testing.T) {
	l := open(t)
	least := func(n int) {
		for _, name := range []string{"flux-node", "flux-balancer"} {
			l.kubectl("patch", "hpa", name, "--patch", fmt.Sprintf(`{"spec":{"minReplicas":%d}}`, n))
		}
	}
	traffic := begin(t)
	traffic.every(5 * time.Millisecond)
	least(4)
	defer least(2)
	traffic.stay(50 * time.Second) // in which every connection is asked to leave once
	l.settled()
	v := traffic.end()
	t.Logf("scaled to %+v at once: %s", l.sizes(), v)
	v.wantZeros(t)
}

// The autoscaler's whole way, up and down, under a load that comes and goes.
func TestAutoscaling(t *testing.T) {
	l := open(t)
	traffic := begin(t)
	var picture plot
	most := sizes{}
	sample := func() sizes {
		s := l.sizes()
		most = sizes{max(most.nodes, s.nodes), max(most.balancers, s.balancers)}
		published, latency := traffic.second()
		picture.add(s, published, latency)
		return s
	}
	traffic.every(2 * time.Millisecond)
	for range 45 {
		traffic.stay(2 * time.Second)
		sample()
	}
	traffic.every(2 * time.Second)
	deadline := time.Now().Add(4 * time.Minute)
	for s := sample(); s != (sizes{2, 2}); s = sample() {
		if traffic.stay(2 * time.Second); time.Now().After(deadline) {
			t.Errorf("there are %+v pods, want 2 of each", s)
			break
		}
	}
	v := traffic.end()
	t.Logf("autoscaled from 2 to %d nodes and %d balancers, and back: %s", most.nodes, most.balancers, v)
	out := filepath.Join("..", "..", ".cache", "k8s-autoscaling.svg")
	if err := errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, picture.svg(), 0o644)); err != nil {
		t.Error(err)
	}
	if most.nodes < 3 || most.balancers < 3 {
		t.Errorf("the load made %d nodes and %d balancers, want more than 2", most.nodes, most.balancers)
	}
	v.wantZeros(t)
}

type sizes struct{ nodes, balancers int }

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
