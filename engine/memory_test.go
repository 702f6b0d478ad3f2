package engine

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// heap is what lives on the heap now.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestManyTopicsOfOneMessageAreSmall holds the books of the logs against the heap: a topic of one message of 100 bytes
// must be charged what it costs, and 100,000 of them must leave room in the smallest of servers.
func TestManyTopicsOfOneMessageAreSmall(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("it measures memory")
	}
	const topics = 100_000
	cfg := testConfig(1)
	cfg.LogMemory = 400 << 20
	before := heap()
	r := newRig(t, cfg, 1)
	l := r.loops[0]
	payload := strings.Repeat("x", 100)
	for i := range topics {
		put(r, l, fmt.Sprintf("a/topic/of/some/length/%06d", i), payload)
	}
	real, charged := heap()-before, l.logBytes()
	t.Logf("%d topics of one message: %d bytes each on the heap, %d charged; %d MiB in all", topics, real/topics, charged/topics, real>>20)
	if len(l.topics) != topics || l.metrics.published.Load() != topics {
		t.Fatalf("%d topics", len(l.topics))
	}
	if real > 120<<20 {
		t.Errorf("%d topics take %d MiB, limit 120", topics, real>>20)
	}
	if real > charged*110/100 || real < charged*90/100 {
		t.Errorf("%d bytes are charged, %d taken: off by more than a tenth", charged, real)
	}
	runtime.KeepAlive(r)
}

// TestIdleConnectionsAreSmall prints what connections cost, and fails when that is more than the budget reckons with.
func TestIdleConnectionsAreSmall(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("it measures memory")
	}
	const connections = 20_000
	for _, kind := range []string{"http", "binary", "subscribed"} {
		cfg := testConfig(1)
		cfg.MaxConnections = connections
		before := heap()
		r := newRig(t, cfg, 1)
		hello := []byte(handshake("/ws", subprotocolBinary))
		subscribe := maskedText(`{"op":"subscribe","topic":"t"}`)
		for range connections {
			s := forget(r.connect(0))
			switch kind {
			case "binary":
				r.feed(s, hello)
			case "subscribed":
				r.feed(s, []byte(handshake("/ws", subprotocolJSON)))
				r.feed(s, subscribe)
			}
		}
		each := (heap() - before) / connections
		t.Logf("an idle %s connection: %d bytes on the heap, the test's socket included", kind, each)
		if each > connectionCost {
			t.Errorf("an idle %s connection takes %d bytes, the budget reckons with %d", kind, each, connectionCost)
		}
		runtime.KeepAlive(r)
	}
}

// TestLogsStayWithinTheirShareOfTheHeap fills the logs three times over.
func TestLogsStayWithinTheirShareOfTheHeap(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("it measures memory")
	}
	cfg := testConfig(1)
	cfg.LogMemory = 64 << 20
	before := heap()
	r := newRig(t, cfg, 1)
	l := r.loops[0]
	rng := rand.New(rand.NewPCG(3, 4))
	text := strings.Repeat("x", 4096)
	for sum := int64(0); sum < 3*cfg.LogMemory; {
		n := rng.IntN(len(text))
		put(r, l, fmt.Sprintf("t%d", rng.IntN(1<<rng.IntN(12))), text[:n])
		sum += int64(n)
		if sum%100 == 0 {
			r.auditMemory(l)
		}
	}
	r.audit()
	real := heap() - before
	t.Logf("logs of %d MiB: %d bytes charged, %d on the heap", cfg.LogMemory>>20, l.logBytes(), real)
	if most := cfg.LogMemory + cfg.LogMemory/16 + 2<<20; real > most {
		t.Errorf("the heap has %d bytes, want at most %d: the logs, and the pool of chunks", real, most)
	}
	if l.logBytes() < cfg.LogMemory*9/10 {
		t.Errorf("only %d bytes of %d are used", l.logBytes(), cfg.LogMemory)
	}
	runtime.KeepAlive(r)
}
