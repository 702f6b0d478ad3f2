package bench

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"rayflux/protocol"
)

func natsBed(t testing.TB) *bed {
	return newBed(t, Scenario{Topics: 2, Subscribers: 2, Publishers: 2, Subscriptions: 2, Wire: WireNATS, Publish: PublishNATS, PayloadBytes: 64})
}

// natsText is what a NATS server says for one delivery, without its frame.
func (b *bed) natsText(topic int, seq uint64) string {
	payload := bytes.Repeat([]byte{'\r'}, b.s.PayloadBytes) // a payload may look like the end of a line
	b.form.put(payload, stamp{seq: seq, origin: originOf(b.run, uint32(topic))})
	return fmt.Sprintf("MSG %s %d %d\r\n%s\r\n", b.topics[topic], topic+1, len(payload), payload)
}

func natsFrame(text ...string) []byte {
	return protocol.AppendFrame(nil, protocol.OpBinary, []byte(strings.Join(text, "")))
}

func TestNATSMessagesOfOneFrameAreAllCounted(t *testing.T) {
	b := natsBed(t)
	stream := natsFrame(b.natsText(0, 0), b.natsText(0, 1), "PING\r\n", b.natsText(1, 0), b.natsText(0, 2))
	stream = append(stream, natsFrame(b.natsText(1, 1), "+OK\r\n")...)
	for at := range stream {
		b.rewind()
		b.feed(stream, at)
		if b.tally != (tally{delivered: 5}) || b.trouble.any() || len(b.c.tail) != 0 {
			t.Fatalf("cut at %d: %+v %s", at, b.tally, b.trouble.first())
		}
	}
}

func TestNATSFrameOverTheHotPathsLimitIsTaken(t *testing.T) {
	b := natsBed(t)
	var text []string
	for seq := range uint64(1000) {
		text = append(text, b.natsText(0, seq))
	}
	if b.feed(natsFrame(text...)); b.tally != (tally{delivered: 1000}) || b.trouble.any() {
		t.Errorf("%+v %s", b.tally, b.trouble.first())
	}
}

func TestNATSTroubleIsReported(t *testing.T) {
	whole := natsBed(t).natsText(0, 0)
	for _, test := range []struct{ text, remark string }{
		{"-ERR 'Slow Consumer'\r\n", "Slow Consumer"},
		{whole[:len(whole)-1], "not whole"},
		{"PIN", "not whole"},
		{"MSG bench-00000 1 99999999999999999999\r\nx\r\n", "not whole"},
	} {
		b := natsBed(t)
		b.feed(natsFrame(test.text))
		if !strings.Contains(b.trouble.first(), test.remark) {
			t.Errorf("%q: %q, want %q", test.text, b.trouble.first(), test.remark)
		}
	}
}

func TestNATSMessageOfAnotherTopicIsForeign(t *testing.T) {
	b := natsBed(t)
	b.feed(natsFrame(strings.Replace(b.natsText(0, 0), b.topics[0], b.topics[1], 1)))
	if b.tally.foreign != 1 {
		t.Errorf("%+v", b.tally)
	}
}

func TestNATSPingIsAnsweredAndPongOpens(t *testing.T) {
	b := natsBed(t)
	b.c.phase = phaseSubscribing
	b.feed(natsFrame("INFO {\"server_id\":\"x\"}\r\n", "PING\r\n"))
	sent := make([]byte, 64)
	n := max(0, readNow(b.peer, sent))
	if h, ok := protocol.NextFrame(sent[:n]); !ok || !h.Masked || string(sent[h.Size:n]) != "PONG\r\n" {
		t.Errorf("ping answered with %q", sent[:n])
	}
	if b.feed(natsFrame("PONG\r\n")); b.c.phase != phaseLive || b.trouble.any() {
		t.Errorf("phase %d, %s", b.c.phase, b.trouble.first())
	}
}

func readNow(fd int, b []byte) int {
	n, _ := read(fd, b)
	return n
}

func TestNATSPublishHoldsItsStamp(t *testing.T) {
	s := Scenario{Wire: WireNATS, Publish: PublishNATS}.withDefaults()
	frame, stampAt := publishFrame(s, "host", "topic")
	want := stamp{due: 1, seq: 2, origin: originOf(4, 3)}
	s.stampForm().put(frame[stampAt:], want)
	h, ok := protocol.NextFrame(frame)
	body, isPublish := strings.CutPrefix(string(frame[h.Size:]), "PUB topic 128\r\n")
	payload, ended := strings.CutSuffix(body, "\r\n")
	if !ok || !h.Masked || !isPublish || !ended || len(payload) != 128 || stampBinary.get([]byte(payload)) != want {
		t.Errorf("%q", frame)
	}
}
