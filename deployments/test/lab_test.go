// Package test shows on a real Kubernetes what deployments/ promises. "make k8s-test" runs it; nothing else does.
package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

	nodes     = "statefulset/flux-node"
	balancers = "deployment/flux-balancer"
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
	l := lab{t, dir}
	t.Cleanup(func() {
		if t.Failed() {
			l.show(t.Name(), "FAILED")
		}
	})
	return l
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
	for _, what := range []string{nodes, balancers} {
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
	all := 0
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
		all += bytes.Count(out, []byte("\n"))
	}
	l.show("server-side dry run of every overlay and of the chart", fmt.Sprintf("%d objects, no warning", all))
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
	first := time.Since(began)
	l.settled()
	l.show("`kubectl apply` to the first message", fmt.Sprintf("%.1f s, %.1f of them kubectl's own; all pods are ready after %.1f s", first.Seconds(), applied.Seconds(), time.Since(began).Seconds()))
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
	for _, what := range []string{nodes, balancers} {
		traffic := begin(t, 0)
		took := l.restart(what)
		v := traffic.end()
		l.showTraffic(fmt.Sprintf("`rollout restart` of %s, %.0f s", what, took.Seconds()), v)
		v.wantZeros(t)
	}
}

// restart replaces all pods of a kind, and returns how long that took.
func (l lab) restart(what string) time.Duration {
	l.Helper()
	began := time.Now()
	l.kubectl("rollout", "restart", what)
	l.kubectl("rollout", "status", what, "--timeout", patience.String())
	return time.Since(began)
}

// A pod that is killed takes with it what it had in memory: whoever read its topics is told, once, and nobody else is.
func TestKilledPods(t *testing.T) {
	l := open(t)
	for _, kind := range []string{"flux-node", "flux-balancer"} {
		traffic := begin(t, 0)
		l.kill(kind)
		traffic.stay(15 * time.Second)
		l.settled()
		v := traffic.end()
		l.showTraffic(kind+" killed (SIGKILL, pod deleted by force)", v)
		if kind == "flux-node" {
			v.wantNoSilentLoss(t)
		} else {
			v.wantZeros(t)
		}
	}
}

// kill ends a pod as a lost machine would: its process has no last word, and nobody waits for it.
func (l lab) kill(kind string) {
	l.Helper()
	// The newest: one that has just been replaced may still be there, on its way out.
	pod := l.kubectl("get", "pods", "-l", "app.kubernetes.io/name="+kind, "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[-1:].metadata.name}")
	l.script("fault.sh", "kill9", namespace+"/"+pod)
	l.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
}
