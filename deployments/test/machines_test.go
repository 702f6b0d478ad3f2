package test

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A machine without a network: its node's topics go on elsewhere.
func TestCutMachine(t *testing.T) {
	l := open(t)
	traffic := begin(t, 0)
	machine := strings.TrimSpace(l.kubectl("get", "pod", "flux-node-0", "-o", "jsonpath={.spec.nodeName}"))
	l.script("fault.sh", "cut", machine)
	traffic.stay(40 * time.Second)
	l.script("fault.sh", "heal", machine)
	l.settled()
	v := traffic.end()
	l.showTraffic("machine with a node and a balancer cut off for 40 s", v)
	v.wantNoSilentLoss(t)
}

// Machines are emptied one after the other, as for a new kernel, and the budgets let one pod of each kind go at a time: the second has all of them
// when its turn comes.
func TestDrainedMachines(t *testing.T) {
	l := open(t)
	machines := strings.Fields(l.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))
	t.Cleanup(func() {
		for _, machine := range machines {
			l.kubectl("uncordon", machine)
		}
	})
	l.most(2) // a pod that the autoscaler adds would make room in the budget
	defer l.most(5)
	l.settled()
	pods := 0
	for _, machine := range machines[:2] {
		pods = len(strings.Fields(l.kubectl("get", "pods", "--field-selector", "spec.nodeName="+machine, "-o", "jsonpath={.items[*].metadata.name}")))
		traffic := begin(t, 0)
		least := l.watchBudgets()
		began := time.Now()
		said := l.kubectl("drain", machine, "--ignore-daemonsets", "--timeout", patience.String())
		took := time.Since(began)
		l.settled()
		l.kubectl("uncordon", machine)
		healthy := least()
		v := traffic.end()
		l.showTraffic(fmt.Sprintf("`kubectl drain` of a machine that has %d of 4 pods, %.0f s", pods, took.Seconds()), v)
		v.wantZeros(t)
		if n := strings.Count(said, " evicted"); n != pods {
			t.Errorf("%s: %d of %d pods were evicted: %s", machine, n, pods, said)
		}
		for _, kind := range []string{"flux-node", "flux-balancer"} {
			if n := healthy[kind]; n < 1 || pods == 4 && n > 1 {
				t.Errorf("%s: %d of 2 %s were healthy all the time, want 1", machine, n, kind)
			}
		}
	}
	if pods != 4 {
		t.Errorf("the last machine had %d pods, want all 4", pods)
	}
}

// most is how many pods of each kind the autoscaler may make.
func (l lab) most(n int) {
	l.Helper()
	for _, name := range []string{"flux-node", "flux-balancer"} {
		l.kubectl("patch", "hpa", name, "--patch", fmt.Sprintf(`{"spec":{"maxReplicas":%d}}`, n))
	}
}

// watchBudgets notes how many pods of each kind are healthy until the function is called that it returns, which tells the least.
func (l lab) watchBudgets() (least func() map[string]int) {
	l.Helper()
	watch := exec.Command("kubectl", "--namespace", namespace, "get", "pdb", "--watch", "-o", `jsonpath={.metadata.name}{" "}{.status.currentHealthy}{"\n"}`)
	lines, err := watch.StdoutPipe()
	if err == nil {
		err = watch.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	seen := make(chan map[string]int)
	go func() {
		healthy := map[string]int{}
		for s := bufio.NewScanner(lines); s.Scan(); {
			var name string
			var n int
			if _, err := fmt.Sscan(s.Text(), &name, &n); err != nil {
				continue // the last line is cut off
			}
			if before, ok := healthy[name]; !ok || n < before {
				healthy[name] = n
			}
		}
		seen <- healthy
	}()
	return func() map[string]int {
		_ = watch.Process.Kill() // it has ended by itself, then
		healthy := <-seen
		_ = watch.Wait() // killed
		return healthy
	}
}

// Without an API server nothing changes for clients.
func TestAPIServerAway(t *testing.T) {
	l := open(t)
	traffic := begin(t, 0)
	// The controllers end with it, as they do wherever they elect a leader: they cannot tell that they still are it. Those that come back know
	// that they have not heard of any machine yet, rather than that all are lost.
	for _, name := range []string{"apiserver", "controller-manager"} {
		if err := syscall.Kill(l.process(name), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	traffic.stay(2 * time.Minute)
	l.script("up.sh", "--nodes", "2", "--metrics")
	traffic.stay(20 * time.Second) // when machines and endpoints are looked at again
	v := traffic.end()
	l.showTraffic("API server stopped for 2 minutes", v)
	v.wantZeros(t)
	for _, kind := range []string{"flux-node", "flux-balancer"} {
		said := l.kubectl("logs", "-l", "app.kubernetes.io/name="+kind, "--tail=-1", "--since=4m", "--prefix")
		for _, words := range []string{"cannot find nodes", "nodes are found again"} {
			t.Logf("%s: %q is said %d times", kind, words, strings.Count(said, words))
		}
	}
}
