package deployments

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// expressions are all that a dashboard or an alert asks, by where it stands.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(read(t, "observe/dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = strings.ReplaceAll(target.Expr, "$__rate_interval", "10s")
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read(t, "observe/rules.yml"), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r.Expr
		}
	}
	return all
}

// Prometheus itself scrapes a balancer and two nodes, and is asked everything that dashboard and alerts ask.
func TestPrometheusUnderstandsEveryExpression(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip(`there is no Prometheus here (Debian: "apt install prometheus")`)
	}
	if out, err := exec.Command("promtool", "check", "rules", "observe/rules.yml").CombinedOutput(); err != nil {
		t.Errorf("promtool: %v: %s", err, out)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "rayflux")
	if out, err := exec.Command("go", "build", "-o", program, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	balancer, nodes := startDev(t, program)
	config := fmt.Sprintf("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n- {job_name: flux-node, static_configs: [{targets: [%s]}]}\n"+
		"- {job_name: flux-balancer, static_configs: [{targets: [%s]}]}\n", strings.Join(nodes, ", "), balancer)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPrometheus(t, dir)
	p.await(t, `count(up == 1) == 3`)
	p.await(t, `count(rate(rayflux_messages_published_total[10s])) == 3`)

	metric := regexp.MustCompile(`\b(rayflux|process)_[a-z_]+[a-z]`)
	for where, expression := range expressions(t) {
		for _, name := range metric.FindAllString(expression, -1) {
			missing := name == "rayflux_cpu_throttled_seconds_total" // of containers
			if n, err := p.query(name); err != nil || n == 0 && !missing {
				t.Errorf("%s: %s has %d series (%v)", where, name, n, err)
			}
		}
		if _, err := p.query(expression); err != nil {
			t.Errorf("%s: %s: %v", where, expression, err)
		}
	}
}

func start(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return bufio.NewScanner(said)
}

// startDev is where the operators' ports of a whole cluster are.
func startDev(t *testing.T, program string) (balancer string, nodes []string) {
	t.Helper()
	for lines := start(t, exec.Command(program, "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store=dir:"+t.TempDir())); lines.Scan(); {
		if m := regexp.MustCompile(`msg=ready .* admin=(\S+) .*node-admins=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			return m[1], strings.Split(m[2], ",")
		}
	}
	t.Fatal("it is not ready")
	return "", nil
}

type prometheus string // its address

func startPrometheus(t *testing.T, dir string) prometheus {
	t.Helper()
	lines := start(t, exec.Command("prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address=127.0.0.1:0"))
	address := regexp.MustCompile(`msg="?Listening on"? address=(\S+)`)
	var at prometheus
	for at == "" && lines.Scan() {
		if m := address.FindStringSubmatch(lines.Text()); m != nil {
			at = prometheus(m[1])
		}
	}
	if at == "" {
		t.Fatal("Prometheus does not listen")
	}
	go func() {
		for lines.Scan() { // or it would wait for a reader
		}
	}()
	return at
}

// query is how many series an expression has.
func (p prometheus) query(expression string) (series int, err error) {
	response, err := http.Get("http://" + string(p) + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return len(answer.Data.Result), nil
}

func (p prometheus) await(t *testing.T, expression string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		n, err := p.query(expression)
		if n > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s stays untrue (%v)", expression, err)
		}
	}
}
