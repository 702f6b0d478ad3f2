package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// One topic, so many messages of this size: more than the kernel's buffers and
// the topic's log hold together, so that a reader which does not read falls off.
const (
	slowMessages = 768
	slowBlock    = 64 // messages between two waits for those who do read
	slowPayload  = 8000
)

var slowFlags = []string{"--max-message=8KiB", "--max-topic-bytes=256KiB", "--memory=128MiB", "--request-timeout=5s"}

var slowFiller = strings.Repeat("x", slowPayload)

func slowText(i int) string { return fmt.Sprintf("%06d ", i) + slowFiller }

// isSlowText compares without building the text.
func isSlowText(text []byte, i int) bool {
	number, filler, ok := strings.Cut(string(text), " ")
	return ok && number == fmt.Sprintf("%06d", i) && filler == slowFiller
}

// stream is a reader that does read: it says which messages it has got, in
// blocks, and ends with the first that is out of order.
type stream struct {
	*socket
	name string
	got  chan int
	err  error // when got is closed
}

func newStream(s *socket, name string, next func() (text []byte, err error)) *stream {
	f := &stream{socket: s, name: name, got: make(chan int, slowMessages/slowBlock)}
	go func() {
		defer close(f.got)
		for i := 1; i <= slowMessages; i++ {
			f.patient()
			text, err := next()
			if err == nil && !isSlowText(text, i) {
				err = fmt.Errorf("message %d is %.20q", i, text)
			}
			if f.err = err; err != nil {
				return
			}
			if i%slowBlock == 0 {
				f.got <- i
			}
		}
	}()
	return f
}

// nativeText reads one message in the native JSON protocol, and wants its
// offset to follow the one before.
func nativeText(s *socket) func() ([]byte, error) {
	last := uint64(0)
	return func() ([]byte, error) {
		e, err := s.event()
		if err == nil && (e.Op != "message" || e.Offset != last+1) {
			err = fmt.Errorf("%s %d came after %d", e.Op, e.Offset, last)
		}
		last++
		return bytes.Trim(e.Data, `"`), err
	}
}

func classicText(s *socket) func() ([]byte, error) {
	return func() ([]byte, error) {
		_, payload, err := s.message()
		return payload, err
	}
}

// flood publishes all the messages, as fast as the streams follow.
func flood(t *testing.T, publisher *peer, streams []*stream) {
	t.Helper()
	for i := 1; i <= slowMessages; i++ {
		publisher.tell(fmt.Sprintf(`{"op":"publish","topic":"slow","text":%q}`, slowText(i)))
		if i%slowBlock != 0 {
			continue
		}
		for _, f := range streams {
			if got, ok := <-f.got; !ok || got != i {
				t.Fatalf("%s, beside a reader that never reads: %v", f.name, f.err)
			}
		}
	}
}

// besideStalled floods a topic that the stalled reader, subscribed already, and
// a few normal ones have, who must not notice. It returns the publisher.
func besideStalled(t *testing.T, n *node) *peer {
	t.Helper()
	var streams []*stream
	for i := range 4 {
		p := n.native(t)
		p.subscribe("slow", "")
		streams = append(streams, newStream(p.socket, fmt.Sprintf("native reader %d", i), nativeText(p.socket)))
	}
	classic := n.classic(t, "slow")
	n.counted("rayflux_subscriptions", 6)
	streams = append(streams, newStream(classic.socket, "classic reader", classicText(classic.socket)))
	publisher := n.native(t)
	flood(t, publisher, streams)
	n.memoryWithin(128 << 20)
	return publisher
}

// stalledNative is a native reader that never reads what comes after its
// subscription, so far.
func stalledNative(t *testing.T, n *node) *peer {
	t.Helper()
	p := newPeer(t)(dialing{receiveBuffer: 4 << 10}.native(n.listen))
	p.subscribe("slow", "")
	return p
}

// readOn reads up to the last message of the flood, or the end of the
// connection. What comes has to be whole: each message follows the one before
// it, or a gap that says what is missing between them.
func (p *peer) readOn(next func() (event, error)) (last, missed uint64, err error) {
	p.t.Helper()
	for last < slowMessages {
		p.patient()
		e, err := next()
		switch {
		case err != nil:
			return last, missed, err
		case e.Op == "gap":
			if e.Reason != "slow" || e.Missed == nil || e.Offset != last+*e.Missed || *e.Missed == 0 {
				p.t.Fatalf("after message %d came %+v (missed %v)", last, e, e.Missed)
			}
			last, missed = e.Offset, missed+*e.Missed
		case e.Op != "message" || e.Offset != last+1 || !isSlowText(bytes.Trim(e.Data, `"`), int(e.Offset)):
			p.t.Fatalf("after message %d came %s %d %.20q", last, e.Op, e.Offset, e.Data)
		default:
			last++
		}
	}
	return last, missed, nil
}

func TestASlowReaderIsToldWhatItMissed(t *testing.T) {
	for _, policy := range []string{"skip", "latest"} {
		t.Run(policy, func(t *testing.T) {
			eachLoopCount(t, func(t *testing.T, loops int) {
				n := startNode(t, loops, append(slowFlags, "--slow="+policy)...)
				p := stalledNative(t, n)
				publisher := besideStalled(t, n)
				last, missed, err := p.readOn(p.event)
				if err != nil || missed == 0 {
					t.Fatalf("after message %d, with %d missed: %v", last, missed, err)
				}
				publisher.publish("slow", "and on")
				if e := p.hear("message"); e.Offset != slowMessages+1 || e.text() != "and on" {
					t.Errorf("it goes on with message %d %.20q", e.Offset, e.text())
				}
				n.counted(dropped("slow_"+policy), float64(missed))
				if slow := n.metrics()[disconnects("slow")]; slow != 0 {
					t.Errorf("%v were closed for being slow", slow)
				}
				t.Logf("of %d messages %d were missed", last, missed)
			})
		})
	}
}

// closedSlow wants the end of a slow reader's connection: with 4008, whose text
// names the position that is gone.
func closedSlow(t *testing.T, n *node, err error) {
	t.Helper()
	var closed *protocol.CloseError
	if !errors.As(err, &closed) || closed.Code != protocol.CloseSlow {
		t.Fatalf("it ended with %v, want close 4008", err)
	}
	mentions(t, closed.Text, ":", "gone")
	n.counted(disconnects("slow"), 1)
}

func TestASlowReaderIsClosedAndComesBackHonestly(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, append(slowFlags, "--slow=close")...)
		p := stalledNative(t, n)
		besideStalled(t, n)
		last, _, err := p.readOn(p.event)
		closedSlow(t, n, err)

		again := n.native(t)
		at := again.subscribe("slow", `"earliest"`)
		if at.Offset == 0 || at.Offset <= last {
			t.Fatalf("the oldest message is behind %d, and %d was read: it was not slow", at.Offset, last)
		}
		again.Close()
		again = n.native(t)
		if at := again.subscribe("slow", fmt.Sprintf(`{"epoch":%q,"offset":%d}`, at.Epoch, last)); *at.Recovered || at.Offset != slowMessages {
			t.Errorf("coming back after %d: %+v, want recovered false, offset %d", last, at, slowMessages)
		}
	})
}

func TestASlowClassicReaderIsClosed(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, slowFlags...) // skip: but there is no way to tell it of a gap
		p := newPeer(t)(dialing{receiveBuffer: 4 << 10}.classic(n.listen, "slow"))
		n.counted("rayflux_subscriptions", 1)
		besideStalled(t, n)
		read := classicText(p.socket)
		var err error
		for i := 1; err == nil; i++ {
			var text []byte
			if text, err = read(); err == nil && !isSlowText(text, i) {
				t.Fatalf("message %d is %.20q", i, text)
			}
		}
		closedSlow(t, n, err)
	})
}

func TestASlowEventStreamIsToldWhatItMissed(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, slowFlags...)
		p := newPeer(t)(dialing{receiveBuffer: 4 << 10}.dial(n.listen))
		p.raw(getRequest("/v1/sse?topic=slow"))
		events := p.eventStream(t)
		n.counted("rayflux_subscriptions", 1)
		publisher := besideStalled(t, n)
		next := func() (event, error) {
			e := events.next(t)
			e.data.Op = e.name
			return e.data, nil
		}
		if last, missed, err := p.readOn(next); err != nil || missed == 0 {
			t.Fatalf("after message %d, with %d missed: %v", last, missed, err)
		}
		publisher.publish("slow", "and on")
		if e := events.next(t); e.name != "message" || e.data.Offset != slowMessages+1 {
			t.Errorf("it goes on with %q %d", e.name, e.data.Offset)
		}
	})
}

func TestAReaderThatNeverReadsIsGivenUp(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, append(slowFlags, "--ping-interval=1s", "--request-timeout=1s")...)
		before := n.usage()
		stalledNative(t, n)
		besideStalled(t, n)
		// All of them fall silent now, pings included; one cannot even be pinged.
		n.counted(disconnects("ping_timeout"), 7)
		n.settled(before)
	})
}

// Whoever asks and asks and reads nothing: a chunk of requests, to be repeated,
// and why it is closed in the end.
var floods = []struct {
	name   string
	native bool
	chunk  string
	reason string
}{
	{"native publishes", true, strings.Repeat(rawFrame(fin|opText, `{"op":"publish","id":7,"topic":"flood","data":7}`), 100), "answers_full"},
	{"native publishes in fragments", true, strings.Repeat(rawFrame(opText, `{"op":"publish","id":7,`)+rawFrame(fin, `"topic":"flood","data":7}`), 100), "answers_full"},
	{"native commands that fail", true, strings.Repeat(rawFrame(fin|opText, `{}`), 1000), "answers_full"},
	{"pings", true, strings.Repeat(rawFrame(fin|opPing, "are you there?"), 1000), "answers_full"},
	{"HTTP publishes", false, strings.Repeat(postRequest("/publish", "", `{"topic":"flood","message":"x"}`), 100), "pipeline_full"},
	{"HTTP batches", false, strings.Repeat(postRequest("/v1/publish", "", `{"messages":[{"topic":"flood","text":"x"}]}`), 100), "pipeline_full"},
	{"pages of history", false, strings.Repeat(getRequest("/v1/topics/flood/messages?limit=1000"), 100), "pipeline_full"},
}

func TestWhoeverDoesNotReadAnswersIsClosed(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--memory=128MiB", "--max-answers=64KiB", "--request-timeout=1s")
		others := newBystander(t, n)
		others.publish("flood", strings.Repeat("x", 60_000))
		before := n.usage()
		for _, c := range floods {
			t.Run(c.name, func(t *testing.T) {
				dial := dialing{receiveBuffer: 4 << 10}.dial
				if c.native {
					dial = dialing{receiveBuffer: 4 << 10}.native
				}
				p, counted := newPeer(t)(dial(n.listen)), n.metrics()[disconnects(c.reason)]
				p.pour(c.chunk)
				n.counted(disconnects(c.reason), counted+1)
				others.served(t, n)
			})
		}
		n.memoryWithin(128 << 20)
		others.Close()
		before.heap += 2 << 20 // the log of the flood
		n.settled(before)
	})
}

// pour writes a chunk over and over until the connection takes no more.
func (p *peer) pour(chunk string) {
	p.t.Helper()
	began, sent := time.Now(), 0
	for {
		_, err := io.WriteString(p.socket, chunk)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > patience:
			p.t.Fatalf("the connection is open still after %d bytes", sent)
		case err != nil:
			p.t.Logf("closed after %d bytes, in %v", sent, time.Since(began))
			return
		}
		sent += len(chunk)
	}
}
