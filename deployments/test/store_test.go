package test

import (
	"fmt"
	"os/exec"
	"regexp"
	"testing"
	"time"
)

// keep is traffic's where there is a store: between two publishes that wait for it, which takes a second, nine that do not.
const keep = 10

// What a store is for: nothing that is in it goes with the pods, with one of them or with all.
func TestStore(t *testing.T) {
	l := open(t)
	l.stock()
	each := func(name string, test func(l lab)) { t.Run(name, func(t *testing.T) { test(lab{t, l.dir}) }) }

	each("nodes are restarted", func(l lab) {
		traffic := begin(l.T, keep)
		took := l.restart(nodes)
		v := traffic.end()
		l.showTraffic(fmt.Sprintf("with a store: `rollout restart` of %s, %.0f s", nodes, took.Seconds()), v)
		v.wantZeros(l.T)
		again := traffic.again()
		l.showAgain(again)
		again.wantZeros(l.T)
		again.wantStored(l.T)
	})

	each("a node is killed", func(l lab) {
		traffic := begin(l.T, keep)
		traffic.stay(5 * time.Second)
		l.kill("flux-node")
		traffic.stay(15 * time.Second)
		l.settled()
		v := traffic.end()
		l.showTraffic("with a store: flux-node killed", v)
		v.wantNoSilentLoss(l.T)
		again := traffic.again()
		l.showAgain(again)
		again.wantNoSilentLoss(l.T)
		again.wantStored(l.T)
		if again.begun == 0 {
			l.Error("no epoch has begun anew: that node had no topics")
		}
	})

	// Who reads meanwhile goes on where they were, from what the bucket has: no pod has anything in memory.
	each("all pods go and come back", func(l lab) {
		traffic := begin(l.T, keep)
		traffic.stay(5 * time.Second)
		l.kubectl("scale", nodes, balancers, "--replicas=0")
		l.kubectl("wait", "pod", "--all", "--for=delete", "--timeout", patience.String())
		l.kubectl("scale", nodes, balancers, "--replicas=2")
		l.settled()
		traffic.stay(5 * time.Second)
		v := traffic.end()
		l.showTraffic("with a store: scaled to 0 and back to 2 of each", v)
		v.wantZeros(l.T)
		again := traffic.again()
		l.showAgain(again)
		again.wantZeros(l.T)
		again.wantStored(l.T)
	})
}

// stock applies RayFlux with a store, and without one again when the test is over.
func (l lab) stock() {
	l.Helper()
	keys := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^export (AWS_[A-Z_]+)=(\S+)$`).FindAllStringSubmatch(l.script("s3.sh", "up"), -1) {
		keys[m[1]] = m[2]
	}
	apply := func(dir, id, secret string) {
		l.kubectl("patch", "secret", "flux-secrets", "--patch", fmt.Sprintf(`{"stringData":{"AWS_ACCESS_KEY_ID":%q,"AWS_SECRET_ACCESS_KEY":%q}}`, id, secret))
		l.run(exec.Command("kubectl", "apply", "-k", dir))
		l.kubectl("rollout", "restart", nodes, balancers)
		l.settled()
	}
	l.Cleanup(func() {
		apply("../overlays/lab", "none", "none")
		l.script("s3.sh", "down")
	})
	apply("store", keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
}

func (l lab) showAgain(v verdict) {
	l.Helper()
	l.enter("the same, read once more from `earliest`", v.zeros(), v.gapped(), fmt.Sprintf("%d of %d messages that were stored are missing", v.storedLost, v.stored))
}

// wantStored wants all that was stored in the hands of who reads it again, and no gap but where an epoch ends.
func (v verdict) wantStored(t *testing.T) {
	t.Helper()
	gaps := 0
	for _, n := range v.gaps {
		gaps += n
	}
	if v.stored == 0 || v.storedLost != 0 || gaps > v.begun {
		t.Errorf("%d of %d messages that were stored are missing, and there are %d gaps for %d epochs that began", v.storedLost, v.stored, gaps, v.begun)
	}
}
