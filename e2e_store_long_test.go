package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

// Minutes of load on nodes with a store, for the figures in docs/snapshots.md: make store-long.

func onDemand(t *testing.T) {
	t.Helper()
	if os.Getenv("RAYFLUX_STORE_LONG") == "" {
		t.Skip("takes minutes; RAYFLUX_STORE_LONG=1 runs it")
	}
}

// keepers publish to topics of their own, one message at a time, and note which were answered as stored.
type keepers struct {
	mu     sync.Mutex
	stored []map[protocol.Position]string // by topic
	failed int
	done   sync.WaitGroup
	stop   context.CancelFunc
}

func keptTopic(i int) string { return fmt.Sprintf("kept-%d", i) }

func keepPublishing(cl *client.Client, topics int) *keepers {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keepers{stored: make([]map[protocol.Position]string, topics), stop: cancel}
	for i := range topics {
		k.stored[i] = map[protocol.Position]string{}
		k.done.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				text := fmt.Sprintf("%d of %d", n, i)
				at, err := cl.Publish(ctx, keptTopic(i), protocol.KindText, []byte(text), client.AckStored())
				k.mu.Lock()
				if err == nil {
					k.stored[i][at] = text
				} else {
					k.failed++
				}
				k.mu.Unlock()
			}
		})
	}
	return k
}

func (k *keepers) count() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, of := range k.stored {
		n += len(of)
	}
	return n
}

func (k *keepers) reaches(t *testing.T, count int) {
	t.Helper()
	eventually(t, func() string {
		if n := k.count(); n < count {
			return fmt.Sprintf("%d messages are stored, want %d", n, count)
		}
		return ""
	})
}

// judge compares the store with what was answered: each of these is there, and what is missing between them is told.
func (k *keepers) judge(t *testing.T, at string) (held, gaps int) {
	t.Helper()
	for i, stored := range k.stored {
		exit, out, complaints := said(t, "snapshot", "cat", keptTopic(i), "--output=json", "--store="+at)
		if exit != exitClean {
			t.Fatalf("snapshot cat: exit status %d: %s", exit, complaints)
		}
		there := map[protocol.Position]string{}
		var last protocol.Position
		for line := range strings.Lines(out) {
			var e struct {
				event
				Gap *struct{ Reason string } `json:"gap"`
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if p := (protocol.Position{Epoch: e.Epoch, Offset: e.Offset}); e.Gap == nil {
				if last.Epoch != "" && (p.Epoch != last.Epoch || p.Offset != last.Offset+1) {
					t.Errorf("%s: %v follows %v, and no gap is told", keptTopic(i), p, last)
				}
				there[p], last = e.text(), p
			} else {
				gaps++
				last = p
			}
		}
		held += len(there)
		for p, text := range stored {
			if there[p] != text {
				t.Errorf("%s: %v was answered stored as %q, and the store has %q", keptTopic(i), p, text, there[p])
			}
		}
	}
	return held, gaps
}

// A node is killed at moments that nobody chose, most of them within a flush.
func TestNothingStoredIsLostByKills(t *testing.T) {
	onDemand(t)
	const kills, topics, seed = 200, 20, 7
	s := startShelf(t, "dir:"+t.TempDir(), false, "--snapshot-interval=10ms")
	k := keepPublishing(s.front.client(t), topics)
	random := rand.New(rand.NewPCG(seed, seed))
	for range kills {
		k.reaches(t, k.count()+1)
		time.Sleep(time.Duration(random.IntN(150_000)) * time.Microsecond) // the moment
		s.nodes[0].kill()
		s.start(0)
	}
	k.reaches(t, k.count()+topics)
	k.stop()
	k.done.Wait()

	// A reader of the last process gets them as well.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, read := s.front.client(t), 0
	for i, stored := range k.stored {
		sub, err := cl.Subscribe(ctx, keptTopic(i), client.Earliest())
		if err != nil {
			t.Fatal(err)
		}
		for left := len(stored); left > 0; {
			d, err := sub.Next(ctx)
			if err != nil {
				t.Fatalf("%s: %d of %d stored messages never came: %v", keptTopic(i), left, len(stored), err)
			}
			if text, ok := stored[d.Position]; ok && d.Gap == nil {
				if text != string(d.Payload) {
					t.Errorf("%s: %v is %q, want %q", keptTopic(i), d.Position, d.Payload, text)
				}
				left--
			}
			read++
		}
		_ = sub.Close(ctx)
	}
	s.front.end()
	held, gaps := k.judge(t, s.at)
	t.Logf("seed %d: %d kills; %d messages answered stored, %d publishes without an answer, %d messages in the store, %d gaps told, %d deliveries",
		seed, kills, k.count(), k.failed, held, gaps, read)
	exit, out, complaints := said(t, "snapshot", "verify", "--store="+s.at)
	t.Logf("verify: %s%s", out, complaints)
	if exit != exitClean {
		t.Errorf("verify: exit status %d", exit)
	}
}

// A store that is away for two minutes delays, and loses nothing that there is room for.
func TestABucketThatIsAwayForTwoMinutes(t *testing.T) {
	onDemand(t)
	server, at := useS3(t)
	s := startShelf(t, at, false, "--snapshot-interval=1s")
	k := keepPublishing(s.front.client(t), 10)
	k.reaches(t, 20)
	plain := s.front.client(t)
	const away = 2 * time.Minute
	server.Pause()
	began, published := time.Now(), 0
	var slowest time.Duration
	for ; time.Since(began) < away; published++ {
		if published%2000 == 0 && time.Since(began) > away/2 && published > 0 { // half of the time it hangs, then it is gone
			server.Stop()
		}
		asked := time.Now()
		if _, err := plain.Publish(t.Context(), "meanwhile", protocol.KindText, fmt.Appendf(nil, "%d", published)); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(asked))
		time.Sleep(2 * time.Millisecond) // a rate
	}
	server.Stop()
	server.Restart()
	back := time.Now()
	k.reaches(t, k.count()+10)
	recovered := time.Since(back)
	k.stop()
	k.done.Wait()
	m := s.front.metrics()
	s.front.end()
	held, gaps := k.judge(t, at)
	if n := len(s.holds("meanwhile")); n != published || m["rayflux_store_given_up_messages_total"] != 0 {
		t.Errorf("%d of %d messages of meanwhile are stored, %v were given up", n, published, m["rayflux_store_given_up_messages_total"])
	}
	t.Logf("%d messages from memory meanwhile, the slowest in %v; %d were answered stored, %d not in time, %d are there, %d gaps; stored again after %v",
		published, slowest.Round(time.Microsecond), k.count(), k.failed, held, gaps, recovered.Round(time.Millisecond))
}

// requests is what nodes have asked their store, by what.
func requests(nodes ...*node) map[string]float64 {
	all := map[string]float64{}
	for _, n := range nodes {
		for name, v := range n.metrics() {
			if rest, ok := strings.CutPrefix(name, `rayflux_store_requests_total{op="`); ok {
				op, _, _ := strings.Cut(rest, `"`)
				all[op] += v
			}
			if rest, ok := strings.CutPrefix(name, `rayflux_store_bytes_total{op="`); ok {
				op, _, _ := strings.Cut(rest, `"`)
				all[op+" bytes"] += v
			}
		}
	}
	return all
}

func less(a, b map[string]float64) map[string]float64 {
	d := map[string]float64{}
	for name, v := range a {
		if v != b[name] {
			d[name] = v - b[name]
		}
	}
	return d
}

// publishMany publishes messages to topics in turn, as fast as they are taken, and stored: no more of them wait for the store than the
// backlog has room for.
func publishMany(t *testing.T, n *node, topics, each, size int) {
	t.Helper()
	var failed atomic.Int64
	ctx := t.Context()
	const publishers = 4
	text := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(text)
	for i := range text { // 6 bits of each byte are random, as of text in base64
		text[i] = 64 + text[i]&63
	}
	together(t, publishers, publishers, func(p int) error {
		cl, err := client.Dial(ctx, "ws://"+n.listen, client.Options{OnError: func(error) { failed.Add(1) }})
		if err != nil {
			return err
		}
		defer cl.Close()
		payload := make([]byte, size)
		unsure := 0 // bytes
		for k := range each {
			for i := p; i < topics; i += publishers {
				copy(payload, text[(k*7919+i*104729)%(len(text)-size):])
				copy(payload, fmt.Sprintf("%d of %d ", k+1, i))
				topic := fmt.Sprintf("fill-%d", i)
				switch unsure += size; {
				case unsure > 8<<20:
					unsure = 0
					_, err = cl.Publish(ctx, topic, protocol.KindBinary, payload, client.AckStored())
				case (k*topics+i)%512 == 0 || k == each-1: // nothing is left behind
					_, err = cl.Publish(ctx, topic, protocol.KindBinary, payload)
				default:
					err = cl.PublishAsync(ctx, topic, protocol.KindBinary, payload)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if lost := n.metrics()["rayflux_store_given_up_messages_total"]; failed.Load() > 0 || lost > 0 {
		t.Errorf("%d publishes failed, %v messages were given up", failed.Load(), lost)
	}
}

// A cluster that has never seen a topic reads it from the store.
func TestOfflineDelivery(t *testing.T) {
	onDemand(t)
	const topics, each, size = 1000, 1000, 1000
	s := startShelf(t, "dir:"+t.TempDir(), false, "--snapshot-interval=1s")
	began := time.Now()
	publishMany(t, s.front, topics, each, size)
	wrote := time.Since(began)
	s.front.end()
	c, _ := startNeighbours(t, 3, 1, 1, "--store="+s.at)
	cl := c.client(0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, topic := range []int{17, 500, 999} {
		before := requests(c.nodes...)
		began = time.Now()
		sub, err := cl.Subscribe(ctx, fmt.Sprintf("fill-%d", topic), client.Earliest())
		if err != nil {
			t.Fatal(err)
		}
		var first time.Duration
		for k := range each {
			d, err := sub.Next(ctx)
			if err != nil || d.Gap != nil || d.Position.Offset != uint64(k+1) || !bytes.HasPrefix(d.Payload, fmt.Appendf(nil, "%d of %d ", k+1, topic)) {
				t.Fatalf("message %d is %+v (%v)", k+1, d, err)
			}
			if k == 0 {
				first = time.Since(began)
			}
		}
		all := time.Since(began)
		asked := less(requests(c.nodes...), before)
		t.Logf("%d MB in %d topics written in %v; one of %d messages: the first after %v, all after %v, with requests %v",
			topics*each*size/1_000_000, topics, wrote.Round(time.Millisecond), each, first.Round(time.Millisecond), all.Round(time.Millisecond), asked)
		if asked["list"] != 0 {
			t.Errorf("reading a topic has listed the store %v times", asked["list"])
		}
	}
}

// What one core reads from the store and writes to a socket.
func TestReplayRate(t *testing.T) {
	onDemand(t)
	const each, size = 2_000_000, 100
	s := startShelf(t, "dir:"+t.TempDir(), false, "--snapshot-interval=1s")
	publishMany(t, s.front, 1, each, size)
	s.restart((*node).end)
	cpu := func() float64 {
		return s.front.metrics()["process_cpu_seconds_total"]
	}
	before, asked, began := cpu(), requests(s.front), time.Now()
	read := replay(t, s.front, "fill-0", each, size)
	took, used := time.Since(began), cpu()-before
	t.Logf("%d messages of %d bytes in %v, %.2f s of processor time: %.0f messages/s, %.0f messages/s per core, %.0f bytes each on the wire, requests %v",
		each, size, took.Round(time.Millisecond), used, each/took.Seconds(), each/used, float64(read)/each, less(requests(s.front), asked))
}

// replay reads a topic in the binary protocol from its begin, and returns the bytes that came.
func replay(t *testing.T, n *node, topic string, messages, size int) (read int) {
	t.Helper()
	p := newPeer(t)(dialing{readAhead: 1 << 20}.dial(n.listen))
	if err := p.upgrade("/ws", "rayflux.v1.bin"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.message(); err != nil {
		t.Fatal(err)
	}
	command := protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe, HasID: true, Topic: []byte(topic), From: protocol.From{Mode: protocol.FromEarliest}})
	if err := p.send(protocol.OpBinary, command); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.message(); err != nil { // subscribed
		t.Fatal(err)
	}
	// Only the last message is looked at: the reader is not to be what is measured.
	last := fmt.Appendf(nil, "%d of 0 ", messages)
	buffer, tail := make([]byte, 1<<20), []byte(nil)
	for !bytes.Contains(tail, last) {
		p.patient()
		k, err := p.in.Read(buffer)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatalf("it ended after %d bytes", read)
		}
		read += k
		tail = append(tail[:0:0], slices.Concat(tail, buffer[:k])...)
		tail = tail[max(0, len(tail)-size-64):]
	}
	if want := messages * size; read < want {
		t.Errorf("%d bytes came, want more than %d", read, want)
	}
	return read
}

// What it costs to keep a million messages.
func TestCostOfAMillionMessages(t *testing.T) {
	onDemand(t)
	for _, topics := range []int{10, 10_000} {
		s := startShelf(t, "dir:"+t.TempDir(), false, "--snapshot-interval=1s")
		began := time.Now()
		publishMany(t, s.front, topics, 1_000_000/topics, 135)
		took := time.Since(began)
		eventually(t, func() string {
			if n := s.front.metrics()["rayflux_store_backlog_bytes"]; n != 0 {
				return fmt.Sprintf("%v bytes are not stored", n)
			}
			return ""
		})
		m := s.front.metrics()
		t.Logf("%d topics, a million messages of 135 bytes in %v: %v; %.0f MB of frames, %.0f MB of segments", topics, took.Round(time.Millisecond), requests(s.front),
			m["rayflux_store_segment_frames_bytes_total"]/1e6, m["rayflux_store_segment_bytes_total"]/1e6)
		s.front.signal(syscall.SIGTERM)
		s.front.exit()
	}
}
