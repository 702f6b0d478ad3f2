package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rayflux/protocol"
)

// load is the traffic of the first RayFlux's own load test: every subscriber
// has one topic, every publisher posts to any topic and waits for the answer.
type load struct {
	subscribers, publishers, topics int
	lasting                         time.Duration
	least                           int // messages of all publishers, however long they take
	payload                         int // bytes
	beside                          int // subscriptions that are somebody else's
}

// What a payload begins with: its publisher, and its number among this
// publisher's messages of the topic. The rest is padding.
const (
	stampForm  = "%04d %08d "
	stampBytes = 4 + 1 + 8 + 1
	lastWord   = "that was all" // what each topic ends with
)

func loadTopic(i int) string { return fmt.Sprintf("load-%d", i) }

// account is what went wrong in one stream.
type account struct{ received, lost, repeated int }

func (a *account) add(b account) {
	a.received += b.received
	a.lost += b.lost
	a.repeated += b.repeated
}

// follow reads a classic stream up to its last word. Every publisher's numbers
// must come as 0, 1, 2, …: what comes late is both lost and repeated.
func (l load) follow(s *socket) (a account, err error) {
	next := make([]int, l.publishers)
	for {
		s.patient()
		op, payload, err := s.message()
		switch {
		case err != nil:
			return a, fmt.Errorf("after %d messages: %w", a.received, err)
		case op == protocol.OpBinary && string(payload) == lastWord:
			return a, nil
		case op != protocol.OpBinary || len(payload) != l.payload:
			return a, fmt.Errorf("message %q with opcode %d", payload, op)
		}
		publisher, err := strconv.Atoi(string(payload[:4]))
		if err != nil || publisher >= l.publishers {
			return a, fmt.Errorf("message %q", payload)
		}
		number, err := strconv.Atoi(string(payload[5:13]))
		if err != nil {
			return a, err
		}
		a.received++
		switch want := &next[publisher]; {
		case number >= *want:
			a.lost += number - *want
			*want = number + 1
		default:
			a.repeated++
		}
	}
}

// classicPublish posts one message and wants it taken.
func classicPublish(s *socket, topic, message string) error {
	body, err := json.Marshal(map[string]string{"topic": topic, "message": message})
	if err != nil {
		return err
	}
	s.patient()
	a, err := s.post("/publish", "application/json", body)
	if err == nil && (a.status != 200 || a.Status != "message accepted" || a.Offset == 0) {
		err = fmt.Errorf("publish was answered %d %s", a.status, a.body)
	}
	return err
}

// publish posts to random topics until the time is over, and counts by topic.
func (l load) publish(address string, publisher int) (sent []int, err error) {
	sent = make([]int, l.topics)
	random := rand.New(rand.NewPCG(7, uint64(publisher)))
	s, err := dialing{}.dial(address)
	if err != nil {
		return sent, err
	}
	defer s.Close()
	padding := strings.Repeat("x", l.payload-stampBytes)
	for i, end := 0, time.Now().Add(l.lasting); i < l.least/l.publishers || time.Now().Before(end); i++ {
		topic := random.IntN(l.topics)
		if err := classicPublish(s, loadTopic(topic), fmt.Sprintf(stampForm, publisher, sent[topic])+padding); err != nil {
			return sent, err
		}
		sent[topic]++
	}
	return sent, nil
}

// run loads a server and wants every subscriber to get all, once, in order.
func (l load) run(t *testing.T, n *node) {
	t.Helper()
	subscribers := make([]*socket, l.subscribers)
	together(t, l.subscribers, 32, func(i int) (err error) {
		subscribers[i], err = dialing{readAhead: 64 << 10}.classic(n.listen, loadTopic(i%l.topics))
		return err
	})
	n.counted("rayflux_subscriptions", float64(l.subscribers+l.beside))

	var streams sync.WaitGroup
	accounts := make([]account, l.subscribers)
	for i, s := range subscribers {
		streams.Go(func() {
			defer s.Close()
			var err error
			if accounts[i], err = l.follow(s); err != nil {
				t.Errorf("subscriber %d: %v", i, err)
			}
		})
	}
	began, sent := time.Now(), make([]atomic.Int64, l.topics)
	together(t, l.publishers, l.publishers, func(i int) error {
		mine, err := l.publish(n.listen, i)
		for topic, number := range mine {
			sent[topic].Add(int64(number))
		}
		return err
	})
	last := n.dial(t, dialing{})
	defer last.Close()
	for topic := range l.topics {
		if err := classicPublish(last.socket, loadTopic(topic), lastWord); err != nil {
			t.Fatal(err)
		}
	}
	streams.Wait()
	l.settle(t, accounts, sent)
	t.Logf("it took %v", time.Since(began))
}

// settle compares what came with what was sent.
func (l load) settle(t *testing.T, accounts []account, sent []atomic.Int64) {
	t.Helper()
	var all account
	published := int64(0)
	for i, a := range accounts {
		if want := int(sent[i%l.topics].Load()); a.received != want && a.lost+a.repeated == 0 {
			t.Errorf("subscriber %d got %d messages, want %d", i, a.received, want)
		}
		all.add(a)
	}
	for i := range sent {
		published += sent[i].Load()
	}
	t.Logf("%d publishers sent %d messages to %d subscribers of %d topics: %d delivered, %d lost, %d repeated",
		l.publishers, published, l.subscribers, l.topics, all.received, all.lost, all.repeated)
	if all.lost != 0 || all.repeated != 0 {
		t.Errorf("%d lost, %d repeated, want none", all.lost, all.repeated)
	}
	if published == 0 {
		t.Error("nothing was published")
	}
}

func TestClassicLoadLosesRepeatsAndReordersNothing(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		const memory = 256 << 20
		n := startNode(t, loops, "--memory=256MiB")
		before := n.usage()
		load{
			subscribers: sized(40, 160), publishers: sized(10, 40), topics: sized(5, 10),
			lasting: sized(5*time.Second, time.Minute), payload: 128,
		}.run(t, n)
		n.memoryWithin(memory)
		before.heap += 2 << 20 * int64(sized(5, 10)) // the topics' logs
		n.settled(before)
	})
}

func TestAReaderThatNeverReadsChangesNobodysStream(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		const memory = 256 << 20
		n := startNode(t, loops, "--memory=256MiB", "--max-topic-bytes=256KiB")
		stalled := newPeer(t)(dialing{receiveBuffer: 4 << 10}.classic(n.listen, loadTopic(0)))
		n.counted("rayflux_subscriptions", 1)
		load{
			subscribers: sized(100, 1000) - 1, publishers: sized(4, 40), topics: 1,
			lasting: sized(time.Second, time.Minute), payload: 1 << 10, beside: 1,
			least: 10_000, // 10 MB: more than the kernel holds for the stalled one
		}.run(t, n)
		n.memoryWithin(memory)
		n.counted(disconnects("slow"), 1)
		stalled.patient()
		if _, err := io.Copy(io.Discard, stalled.in); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the stalled reader's connection is open still")
		}
	})
}
