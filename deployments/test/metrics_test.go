package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// prometheus-adapter is built rather than required, as helm is run: its dependencies are not ours.
const (
	adapterModule = "sigs.k8s.io/prometheus-adapter"
	adapter       = adapterModule + "/cmd/adapter"
	adapterAt     = "v0.12.0"
)

// hostAddress is this machine as the cluster sees it.
const hostAddress = "192.168.79.1"

// The autoscaler reads connections and publishes per second of each pod, and goes by them: processors are not what makes it add pods here. Prometheus
// and the adapter run beside the cluster. Debian's Prometheus cannot ask Kubernetes for pods; they are told to it, with the labels that
// components/monitoring has the operator give them.
func TestCustomMetrics(t *testing.T) {
	l := open(t)
	if _, err := exec.LookPath("prometheus"); err != nil {
		l.show("autoscaled by custom metrics", "left out: no prometheus on this machine")
		t.Skip(err)
	}
	dir := t.TempDir()
	program := buildAdapter(l, dir)
	targets := filepath.Join(dir, "targets.json")
	scraped := l.scrape(dir, targets)
	l.adapt(dir, program, scraped)

	l.run(exec.Command("kubectl", "apply", "-k", "metrics"))
	defer func() {
		l.run(exec.Command("kubectl", "apply", "-k", "../overlays/lab"))
		l.await(sizes{2, 2}, func() {})
	}()
	traffic := begin(t, 0)
	traffic.every(10 * time.Millisecond)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	most, seen := sizes{}, ""
	for end := time.Now().Add(patience); (most.nodes < 3 || most.balancers < 3 || strings.Contains(seen, "unknown")) && time.Now().Before(end); <-tick.C {
		l.tell(targets)
		s := l.sizes()
		most = sizes{max(most.nodes, s.nodes), max(most.balancers, s.balancers)}
		seen = l.kubectl("get", "hpa")
	}
	v := traffic.end()
	t.Log(seen)
	l.showTraffic("autoscaled by connections and publishes per second: from 2 of each to "+most.String(), v)
	if most.nodes < 3 || most.balancers < 3 || strings.Contains(seen, "unknown") {
		t.Errorf("connections and publishes made %s, want more than 2 of each: %s", most, seen)
	}
	v.wantZeros(t)
}

// buildAdapter builds in a module of its own, since "go run" asks for versions that no proxy need have.
func buildAdapter(l lab, dir string) (program string) {
	l.Helper()
	program = filepath.Join(dir, "adapter")
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), fmt.Appendf(nil, "module adapter\n\ngo 1.22\n\nrequire %s %s\n", adapterModule, adapterAt), 0o600); err != nil {
		l.Fatal(err)
	}
	build := exec.Command("go", "build", "-mod=mod", "-o", program, adapter)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	l.run(build)
	return program
}

// scrape has a Prometheus ask every target on its operators' port, and returns its address.
func (l lab) scrape(dir, targets string) string {
	l.Helper()
	l.tell(targets)
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "global: {scrape_interval: 2s, scrape_timeout: 1s}\nscrape_configs:\n- {job_name: rayflux, file_sd_configs: [{files: [%s]}]}\n", targets), 0o600); err != nil {
		l.Fatal(err)
	}
	return l.start(regexp.MustCompile(`msg="?Listening on"? address=(\S+)`), "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
}

// tell writes the pods that there are now as Prometheus' targets, all at once.
func (l lab) tell(targets string) {
	l.Helper()
	type target struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	var all []target
	for _, p := range l.pods() {
		all = append(all, target{[]string{p.admin}, map[string]string{"namespace": namespace, "pod": p.name}})
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(targets+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(targets+".new", targets)
	}
	if err != nil {
		l.Fatal(err)
	}
}

// adapt has an adapter serve custom.metrics.k8s.io to the cluster.
func (l lab) adapt(dir, program, scraped string) {
	l.Helper()
	free, err := net.Listen("tcp", hostAddress+":0")
	if err != nil {
		l.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	kubeconfig := os.Getenv("KUBECONFIG")
	l.start(regexp.MustCompile(`Serving securely on (\S+)`), program, "--config=../observe/adapter.yaml", "--prometheus-url=http://"+scraped, "--metrics-relist-interval=5s", "--v=2",
		"--bind-address="+hostAddress, fmt.Sprint("--secure-port=", port), "--cert-dir="+dir,
		"--lister-kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig)
	objects := filepath.Join(dir, "objects.yaml")
	if err := os.WriteFile(objects, fmt.Appendf(nil, `
{apiVersion: v1, kind: Service, metadata: {name: custom-metrics, namespace: kube-system}, spec: {ports: [{name: https, port: 443}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: custom-metrics, namespace: kube-system, labels: {kubernetes.io/service-name: custom-metrics}}
addressType: IPv4
ports: [{name: https, port: %d}]
endpoints: [{addresses: [%s]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.custom.metrics.k8s.io}
spec: {group: custom.metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true, service: {name: custom-metrics, namespace: kube-system}}
`, port, hostAddress), 0o600); err != nil {
		l.Fatal(err)
	}
	l.apply(objects)
	l.Cleanup(func() { l.run(exec.Command("kubectl", "delete", "-f", objects)) })
}

// start runs a program until the test is over, and returns what it says in a line of its log.
func (l lab) start(says *regexp.Regexp, program string, args ...string) string {
	l.Helper()
	cmd := exec.Command(program, args...)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines, last := bufio.NewScanner(said), ""
	for lines.Scan() {
		if m := says.FindStringSubmatch(lines.Text()); m != nil {
			go func() {
				for lines.Scan() { // or it would wait for a reader
				}
			}()
			return m[1]
		}
		last = lines.Text()
	}
	l.Fatalf("%s has ended before it said %s: %s", program, says, last)
	return ""
}
