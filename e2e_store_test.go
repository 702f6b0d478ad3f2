package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/persist/s3/s3test"
	"rayflux/protocol"
)

// These tests are of nodes with a store, as processes: what outlives them, and what those who connect are told.

// shelf is nodes with one store. Clients connect to the front.
type shelf struct {
	t     *testing.T
	at    string // the store, as --store has it
	front *node
	nodes []*node
	start func(slot int) // starts a node that has ended, at its old address
}

// startShelf starts a node with a store; behind says that there are three, and a balancer in front of them.
func startShelf(t *testing.T, at string, behind bool, flags ...string) *shelf {
	t.Helper()
	s := &shelf{t: t, at: at}
	flags = append([]string{"--store=" + at, "--snapshot-interval=50ms"}, flags...)
	if behind {
		c, start := startNeighbours(t, 3, 1, 1, flags...)
		s.front, s.nodes, s.start = c.balancers[0], c.nodes, start
		return s
	}
	s.nodes = make([]*node, 1)
	address := freeAddresses(t, 1)[0]
	s.start = func(slot int) {
		t.Helper()
		s.nodes[slot] = startServer(t, "", "node", address, 2, flags...)
		s.front = s.nodes[slot]
	}
	s.start(0)
	return s
}

// eachShelf runs a test against a node, and against a cluster, with a store in a directory.
func eachShelf(t *testing.T, flags []string, test func(t *testing.T, s *shelf)) {
	for name, behind := range map[string]bool{"a node": false, "a balancer and three nodes": true} {
		t.Run(name, func(t *testing.T) { test(t, startShelf(t, "dir:"+t.TempDir(), behind, flags...)) })
	}
}

// restart ends all nodes, one after the other, each as end does, and starts them again.
func (s *shelf) restart(end func(*node)) {
	s.t.Helper()
	for _, n := range s.nodes {
		end(n)
	}
	for slot := range s.nodes {
		s.start(slot)
	}
}

// holds is what the store has of a topic, as an operator sees it: a payload a line.
func (s *shelf) holds(topic string) []string {
	s.t.Helper()
	exit, out, complaints := said(s.t, "snapshot", "cat", topic, "--store="+s.at)
	if exit != exitClean {
		s.t.Fatalf("snapshot cat: exit status %d: %s", exit, complaints)
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// store publishes a text and wants to hear that it is stored.
func (p *peer) store(topic, text string) event {
	p.t.Helper()
	return p.ask(fmt.Sprintf(`{"op":"publish","id":1,"topic":%q,"text":%q,"ack":"stored"}`, topic, text), "published")
}

func (n *node) client(t testing.TB) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl, err := client.Dial(ctx, "ws://"+n.listen, client.Options{MaxBackoff: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func TestWhatIsAnsweredStoredIsInTheStore(t *testing.T) {
	eachShelf(t, nil, func(t *testing.T, s *shelf) {
		n, topic := s.front, "kept"
		cl := n.client(t)
		web := n.dial(t, dialing{})
		native := n.native(t)
		for i, publish := range []func() (protocol.Position, error){
			func() (protocol.Position, error) {
				e := native.store(topic, "1")
				return protocol.Position{Epoch: e.Epoch, Offset: e.Offset}, nil
			},
			func() (protocol.Position, error) {
				return cl.Publish(t.Context(), topic, protocol.KindText, []byte("2"), client.AckStored())
			},
			func() (protocol.Position, error) {
				a, err := web.post("/v1/topics/"+topic+"/messages?ack=stored", "text/plain", []byte("3"))
				return protocol.Position{Epoch: a.Epoch, Offset: a.Offset}, err
			},
			func() (protocol.Position, error) {
				a, err := web.post("/v1/publish", "application/json", fmt.Appendf(nil, `{"messages":[{"topic":%q,"text":"4","ack":"stored"}]}`, topic))
				if err != nil || len(a.Results) != 1 {
					return protocol.Position{}, fmt.Errorf("answered %s (%v)", a.body, err)
				}
				return protocol.Position{Epoch: a.Results[0].Epoch, Offset: a.Results[0].Offset}, nil
			},
		} {
			at, err := publish()
			if err != nil || at.Offset != uint64(i+1) {
				t.Fatalf("publish %d is at %v (%v)", i+1, at, err)
			}
			if held := s.holds(topic); len(held) != i+1 || held[i] != fmt.Sprint(i+1) {
				t.Errorf("publish %d was answered, and the store holds %q", i+1, held)
			}
		}
	})
}

// Answers that come from memory do not wait for those that come from the store.
func TestAnswersOvertakeThoseThatWaitForTheStore(t *testing.T) {
	eachShelf(t, []string{"--snapshot-interval=1h"}, func(t *testing.T, s *shelf) {
		p := s.front.native(t)
		p.tell(`{"op":"publish","id":7,"topic":"t","text":"waits","ack":"stored"}`)
		if e := p.publish("t", "does not"); *e.ID != 1 || e.Offset != 2 {
			t.Errorf("heard %+v", e)
		}
		for _, n := range s.nodes {
			n.end() // stores what there is
		}
		if held := s.holds("t"); !slices.Equal(held, []string{"waits", "does not"}) {
			t.Errorf("the store holds %q", held)
		}
	})
}

func TestARestartGoesOnWithTheNextOffset(t *testing.T) {
	eachShelf(t, nil, func(t *testing.T, s *shelf) {
		epochs := map[string]string{}
		p := s.front.native(t)
		for _, topic := range spread("again") {
			for i := range 3 {
				epochs[topic] = p.publish(topic, fmt.Sprint(i+1)).Epoch
			}
		}
		p.Close()
		s.restart((*node).end)
		p = s.front.native(t)
		for _, topic := range spread("again") {
			if e := p.publish(topic, "4"); e.Epoch != epochs[topic] || e.Offset != 4 {
				t.Errorf("%s: published at %s, want %s:4", topic, e.position(), epochs[topic])
			}
			start := p.subscribe(topic, `"earliest"`)
			if start.Epoch != epochs[topic] || start.Offset != 0 || !*start.Recovered {
				t.Errorf("%s: subscribed %+v", topic, start)
			}
			for i := range 4 {
				if e := p.hear("message"); e.Offset != uint64(i+1) || e.text() != fmt.Sprint(i+1) {
					t.Fatalf("%s: message %d is %d %s", topic, i+1, e.Offset, e.Data)
				}
			}
		}
	})
}

// What was stored when a node is killed can be read, in its own epoch; who was connected is told that another one has begun.
func TestAKilledNodeLeavesWhatWasStored(t *testing.T) {
	eachShelf(t, nil, func(t *testing.T, s *shelf) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		p, topic := s.front.native(t), "left"
		sub, err := s.front.client(t).Subscribe(ctx, topic, client.Live())
		if err != nil {
			t.Fatal(err)
		}
		next := func(offset uint64) client.Delivery {
			t.Helper()
			d, err := sub.Next(ctx)
			if err != nil || d.Position.Offset != offset {
				t.Fatalf("the subscriber got %+v (%v), want %d", d, err, offset)
			}
			return d
		}
		old := ""
		for i := range 3 {
			old = p.store(topic, fmt.Sprint(i+1)).Epoch
			next(uint64(i + 1))
		}
		p.Close()
		s.restart((*node).kill)
		p = s.front.native(t)
		fresh := p.store(topic, "after").Epoch
		if fresh == old {
			t.Fatal("the epoch of a killed node goes on")
		}
		if d := next(0); d.Gap == nil || d.Gap.Reason != protocol.GapReset || d.Position.Epoch != fresh {
			t.Errorf("the subscriber got %+v, want a reset", d)
		}
		if d := next(1); string(d.Payload) != "after" {
			t.Errorf("the subscriber got %+v", d)
		}
		start := p.subscribe(topic, fmt.Sprintf(`{"epoch":%q,"offset":1}`, old))
		if *start.Recovered || !start.Partial {
			t.Errorf("of an epoch that has ended one is told %+v", start)
		}
		for i := 2; i <= 3; i++ {
			if e := p.hear("message"); e.text() != fmt.Sprint(i) {
				t.Errorf("message %d is %+v", i, e)
			}
		}
		if e := p.hear("gap"); e.Reason != "reset" || e.Epoch != fresh || e.Offset != 0 {
			t.Errorf("told %+v", e)
		}
		if e := p.hear("message"); e.text() != "after" {
			t.Errorf("then %+v", e)
		}
	})
}

// The log holds the end of what is asked for, the store has it all; messages go on while it is read.
func TestReadersGoFromTheStoreToMemoryAndOn(t *testing.T) {
	flags := []string{"--max-message=1KiB", "--max-topic-bytes=4KiB"}
	eachShelf(t, flags, func(t *testing.T, s *shelf) {
		const count = 60
		text := func(offset uint64) string { return fmt.Sprintf("%d %0500d", offset, 0) }
		publisher, topic, epoch := s.front.native(t), "long", ""
		var noon time.Time
		for i := range uint64(count) {
			if i == count/2 {
				// Times are told to the millisecond.
				for noon = time.Now().Add(2 * time.Millisecond); time.Now().Before(noon.Add(2 * time.Millisecond)); {
				}
			}
			epoch = publisher.publish(topic, text(i+1)).Epoch
		}
		head := uint64(count)
		for _, c := range []struct {
			from string
			back uint64 // messages
		}{
			{`"earliest"`, count},
			{`{"last":40}`, 40},
			{fmt.Sprintf(`{"epoch":%q,"offset":7}`, epoch), count - 7},
			{fmt.Sprintf(`{"since":%q}`, noon.UTC().Format("2006-01-02T15:04:05.000Z")), count / 2},
			{fmt.Sprintf(`{"epoch":%q,"offset":0}`, epoch), count},
		} {
			first := head - c.back - (head - count) + 1
			if strings.Contains(c.from, "last") {
				first = head - c.back + 1
			}
			p := s.front.native(t)
			if start := p.subscribe(topic, c.from); !*start.Recovered || start.Epoch != epoch || start.Offset != first-1 {
				t.Errorf("from %s: subscribed %+v, want %d", c.from, start, first-1)
			}
			publisher.tell(fmt.Sprintf(`{"op":"publish","topic":%q,"text":%q}`, topic, text(head+1)))
			head++
			for offset := first; offset <= head; offset++ {
				if e := p.hear("message"); e.Offset != offset || e.text() != text(offset) {
					t.Fatalf("from %s: message %d is %+v", c.from, offset, e)
				}
			}
			p.Close()
		}

		source := "store"
		if s.front != s.nodes[0] {
			source = "owner"
		}
		s.front.counted(`rayflux_recoveries_total{result="recovered",source="`+source+`"}`, 5)

		messages, _ := s.front.historyOf(t, topic)
		for i, m := range messages {
			if m.Offset != uint64(i+1) || m.text() != text(m.Offset) {
				t.Fatalf("page: message %d is %+v", i+1, m)
			}
		}
		if len(messages) != int(head) {
			t.Errorf("history has %d messages, want %d", len(messages), head)
		}

		p := s.front.dial(t, dialing{})
		p.raw("GET /v1/sse?topic=" + topic + " HTTP/1.1\r\nHost: rayflux.test\r\nLast-Event-ID: " + epoch + ":3\r\n\r\n")
		stream := p.eventStream(t)
		for offset := uint64(4); offset <= head; offset++ {
			if e := stream.next(t); e.data.Offset != offset || e.data.text() != text(offset) {
				t.Fatalf("event stream: message %d is %+v", offset, e)
			}
		}
	})
}

func TestOnlyTopicsThatMatchAreKept(t *testing.T) {
	eachShelf(t, []string{"--persist=kept.*,also"}, func(t *testing.T, s *shelf) {
		p := s.front.native(t)
		for _, topic := range []string{"kept.1", "also"} {
			p.store(topic, "x")
		}
		if e := p.ask(`{"op":"publish","id":3,"topic":"not","text":"x","ack":"stored"}`, "error"); e.Code != string(protocol.CodeNotPersisted) {
			t.Errorf("told %+v", e)
		}
		p.publish("not", "x")
		web := s.front.dial(t, dialing{})
		a, err := web.post("/v1/topics/not/messages?ack=stored", "text/plain", []byte("x"))
		if err != nil || a.Error.Code != string(protocol.CodeNotPersisted) {
			t.Errorf("over HTTP told %d %s (%v)", a.status, a.body, err)
		}
		for _, n := range s.nodes {
			n.end()
		}
		exit, out, _ := said(t, "snapshot", "ls", "--store="+s.at)
		if exit != exitClean || strings.Contains(out, "not ") || !strings.Contains(out, "also ") || !strings.Contains(out, "kept.1 ") {
			t.Errorf("exit status %d, the store has\n%s", exit, out)
		}
	})
}

func TestADirectoryThatCannotBeWrittenIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below"), "/proc/nowhere"} {
		exit, _, complaints := said(t, "node", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--store=dir:"+path)
		if exit != exitFailed || !strings.Contains(complaints, path) || !strings.Contains(complaints, "store dir:") {
			t.Errorf("%s: exit status %d, it said %q", path, exit, complaints)
		}
	}
}

// A bucket that cannot be used keeps nobody from publishing and reading.
func TestAServerStartsWithoutItsBucket(t *testing.T) {
	server := s3test.Start(t)
	const region = "eu-west-9" // none of the server's
	for _, c := range []struct {
		name, at, set string
		says          []string
	}{
		{"another bucket", "s3://nowhere/x", "", []string{"nowhere"}},
		{"wrong secret", "s3://" + s3test.Bucket, "AWS_SECRET_ACCESS_KEY=wrong", []string{s3test.Bucket, "refuses access"}},
		{"wrong region", "s3://" + s3test.Bucket, "AWS_REGION=" + region, []string{s3test.Bucket, "asked in region " + region, s3test.Region}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, line := range append(server.Environment(), c.set) {
				if name, value, ok := strings.Cut(line, "="); ok {
					t.Setenv(name, value)
				}
			}
			s := startShelf(t, c.at, false, "--stored-timeout=1s", "--drain-timeout=1s")
			p := s.front.native(t)
			p.subscribe("t", "")
			if e := p.ask(`{"op":"publish","id":1,"topic":"t","text":"x","ack":"stored"}`, "message"); e.text() != "x" {
				t.Errorf("heard %+v", e)
			}
			if e := p.hear("error"); e.Code != string(protocol.CodeStoreUnavailable) {
				t.Errorf("told %+v", e)
			}
			p.tell(`{"op":"publish","topic":"t","text":"y"}`)
			if e := p.hear("message"); e.Offset != 2 {
				t.Errorf("heard %+v", e)
			}
			eventually(t, func() string {
				words := s.front.lastWords()
				for _, want := range append(c.says, "the store fails") {
					if !strings.Contains(words, want) {
						return "it did not mention " + want + ": " + words
					}
				}
				return ""
			})
			s.front.signal(syscall.SIGTERM)
			if code := s.front.exit(); code != exitFailed {
				t.Errorf("exit status %d, and its messages could not be stored", code)
			}
		})
	}
}

// What is broken is a hole. Whatever is not is read.
func TestABrokenSegmentIsAHole(t *testing.T) {
	for name, spoil := range map[string]func(body []byte) []byte{
		"flipped": func(body []byte) []byte { body[len(body)/2] ^= 1; return body },
		"cut":     func(body []byte) []byte { return body[:len(body)/2] },
		"foreign": func([]byte) []byte { return []byte("something else") },
		"empty":   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			s := startShelf(t, "dir:"+directory, false)
			p := s.front.native(t)
			p.store("whole", "1")
			p.store("broken", "1")
			epoch := p.store("whole", "2").Epoch
			p.store("broken", "2")
			segments, err := filepath.Glob(filepath.Join(directory, "segments", "*", "*"))
			if err != nil || len(segments) != 4 {
				t.Fatalf("segments are %q (%v)", segments, err)
			}
			s.front.end()
			slices.Sort(segments)
			body, err := os.ReadFile(segments[1])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(segments[1], spoil(body), 0o600); err != nil {
				t.Fatal(err)
			}
			s.start(0)
			p = s.front.native(t)
			if start := p.subscribe("whole", fmt.Sprintf(`{"epoch":%q,"offset":0}`, epoch)); !*start.Recovered {
				t.Errorf("told %+v", start)
			}
			p.hear("message")
			p.hear("message")
			p.subscribe("broken", `"earliest"`)
			e, err := p.event()
			if err != nil {
				t.Fatal(err)
			}
			if e.Op == "gap" {
				e = p.hear("message")
			}
			if e.Op != "message" || e.text() != "2" {
				t.Errorf("heard %+v, want what can be read", e)
			}
			relative, err := filepath.Rel(directory, segments[1])
			if err != nil {
				t.Fatal(err)
			}
			mentions(t, s.front.lastWords(), "cannot be used", filepath.ToSlash(relative))
			if n := s.front.metrics()["rayflux_store_faults_total"]; n == 0 {
				t.Error("nothing is counted")
			}
		})
	}
}

// useS3 has servers that are started from now on use a bucket of their own.
func useS3(t *testing.T) (server *s3test.Server, at string) {
	t.Helper()
	server = s3test.Start(t)
	for _, line := range server.Environment() {
		name, value, _ := strings.Cut(line, "=")
		t.Setenv(name, value)
	}
	return server, "s3://" + s3test.Bucket + "/cluster"
}

func TestWhatABucketCannotTakeIsToldAndCounted(t *testing.T) {
	server, at := useS3(t)
	s := startShelf(t, at, false, "--snapshot-bytes=64KiB", "--snapshot-backlog=256KiB", "--max-topic-bytes=64KiB", "--max-message=1KiB", "--stored-timeout=1s")
	p := s.front.native(t)
	const topic = "away"
	stored := []uint64{p.store(topic, "1").Offset}
	server.Pause()
	const count = 2000
	pad := strings.Repeat("x", 500)
	refused := map[uint64]bool{}
	for i := range count {
		ack := ""
		if i%100 == 0 {
			ack = `,"ack":"stored"`
		}
		p.tell(fmt.Sprintf(`{"op":"publish","id":%d,"topic":%q,"text":%q%s}`, i+2, topic, fmt.Sprintf("%d %s", i+2, pad), ack))
	}
	for range count {
		p.patient()
		e, err := p.event()
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Op == "error" && e.Code == string(protocol.CodeStoreUnavailable):
			refused[*e.ID] = true
		case e.Op != "published" || e.Offset != *e.ID:
			t.Fatalf("answered %+v", e)
		case *e.ID%100 == 2:
			stored = append(stored, e.Offset)
		}
	}
	if len(refused) == 0 {
		t.Error("nobody was told that the store is away")
	}
	server.Resume()
	eventually(t, func() string {
		p.tell(fmt.Sprintf(`{"op":"publish","id":9999,"topic":%q,"text":"back","ack":"stored"}`, topic))
		p.patient()
		e, err := p.event()
		if err != nil {
			t.Fatal(err)
		}
		if e.Op != "published" {
			return fmt.Sprintf("the store is back, and it is answered %+v", e)
		}
		stored = append(stored, e.Offset)
		return ""
	})
	givenUp := s.front.metrics()["rayflux_store_given_up_messages_total"]
	if givenUp == 0 {
		t.Error("nothing was given up: the test does not test much")
	}
	mentions(t, s.front.lastWords(), "messages will not be stored")

	// All that was answered is there, all that is missing is told.
	reader := s.front.native(t)
	start := reader.subscribe(topic, `"earliest"`)
	at0, missed, seen := start.Offset, uint64(0), map[uint64]bool{}
	for last := stored[len(stored)-1]; at0 < last; {
		e, err := reader.event()
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Op == "gap":
			missed += e.Offset - at0
		case e.Op != "message" || e.Offset != at0+1:
			t.Fatalf("after %d came %+v", at0, e)
		default:
			seen[e.Offset] = true
		}
		at0 = e.Offset
	}
	for _, offset := range stored {
		if !seen[offset] {
			t.Errorf("message %d was answered stored, and is not there", offset)
		}
	}
	if missed == 0 || float64(missed) > givenUp { // those that are in memory still are read
		t.Errorf("a reader is told that %d messages are missing, %v were given up", missed, givenUp)
	}
	t.Logf("%d answers of store_unavailable, %v messages given up, %d read", len(refused), givenUp, len(seen))
}

// Everything is replaced, one after the other, while every topic is published to and read.
func TestRollingRestartWithABucketIsNotSeen(t *testing.T) {
	_, at := useS3(t)
	c, start := startNeighbours(t, 3, 0, 1, "--store="+at)
	var addresses []string
	for _, n := range c.nodes {
		addresses = append(addresses, n.listen)
	}
	fronts := freeAddresses(t, 2)
	balancer := func(i int) *node {
		t.Helper()
		return startServer(t, "", "balancer", fronts[i], 1, "--cluster-key="+testKey, "--memory=256MiB", "--drain-timeout=2s", "--hold-timeout=10s",
			"--nodes=static:"+strings.Join(addresses, ","))
	}
	c.balancers = []*node{balancer(0), balancer(1)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := c.readAll(ctx, c.client(1))
	p := c.publishAll(c.client(0))
	before := p.moreThan(t, nil, 20)
	before = c.rollNodes(p, before, start)
	for i := range c.balancers {
		c.balancers[i].end()
		c.balancers[i] = balancer(i)
		before = p.moreThan(t, before, 20)
	}
	p.stop()
	p.done.Wait()
	r.reaches(t, p.last)
	seen, gaps := r.judge(t)
	for i := range p.all {
		for at := range p.all[i] {
			if at.Epoch != p.last[i].Epoch {
				t.Errorf("%s began anew: %v and %v", clusterTopic(i), at, p.last[i])
			}
			if !r.seen[clusterTopic(i)][at] {
				t.Errorf("%v of %s was taken, and never read", at, clusterTopic(i))
			}
		}
	}
	t.Logf("%d messages read of %d topics, %d gaps, a topic was away for %v at most", seen, len(before), gaps, p.away())
	if gaps > 0 {
		t.Errorf("readers were told of %d gaps", gaps)
	}

	// The store has the whole of it, too.
	for _, n := range c.nodes {
		n.end()
	}
	for i := range 3 {
		exit, out, complaints := said(t, "snapshot", "cat", clusterTopic(i), "--output=json", "--store="+at)
		offset := uint64(0)
		for line := range strings.Lines(out) {
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Offset != offset+1 || strings.Contains(line, `"gap"`) {
				t.Fatalf("%s: after %d the store has %s (%v)", clusterTopic(i), offset, line, err)
			}
			offset++
		}
		if exit != exitClean || offset < p.last[i].Offset {
			t.Errorf("%s: exit status %d, the store ends with %d, want %v: %s", clusterTopic(i), exit, offset, p.last[i], complaints)
		}
	}
}
