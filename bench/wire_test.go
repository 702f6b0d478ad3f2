package bench

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"rayflux/protocol"
)

func TestResponseIsTakenWholeOrNotAtAll(t *testing.T) {
	const response = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\ncontent-length:  7\r\n\r\nsorry!!"
	for at := range response {
		if status, _, n, err := takeResponse([]byte(response[:at])); n != 0 || err != nil {
			t.Fatalf("cut at %d: status %d, %d bytes, %v; want none yet", at, status, n, err)
		}
	}
	status, body, n, err := takeResponse([]byte(response + "HTTP/1.1 200"))
	if status != 503 || string(body) != "sorry!!" || n != len(response) || err != nil {
		t.Errorf("status %d, body %q, %d bytes, %v", status, body, n, err)
	}
}

func TestBrokenResponseIsAnError(t *testing.T) {
	for _, response := range []string{
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1\r\n\r\n",
		"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		strings.Repeat("x", responseHeadMax+1),
	} {
		if _, _, n, err := takeResponse([]byte(response)); err == nil {
			t.Errorf("%.40q: %d bytes taken, want an error", response, n)
		}
	}
}

func TestUpgradeAnswerIsJudged(t *testing.T) {
	head := upgradeRequest("127.0.0.1:1", WireBinary)
	good, _, err := protocol.Upgrade(head, []string{"rayflux.v1.bin"})
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		if n, err := takeUpgrade(good[:at], WireBinary); n != 0 || err != nil {
			t.Fatalf("cut at %d: %d bytes, %v; want none yet", at, n, err)
		}
	}
	if n, err := takeUpgrade(append(good, 0x82), WireBinary); n != len(good) || err != nil {
		t.Errorf("%d bytes, %v; want %d", n, err, len(good))
	}
	if _, err := takeUpgrade([]byte("HTTP/1.1 503 Busy\r\n\r\n{}"), WireBinary); err == nil || !strings.Contains(err.Error(), "503 Busy") {
		t.Errorf("refused upgrade: %v", err)
	}
	if _, err := takeUpgrade(bytes.Replace(good, []byte("Accept: "), []byte("Accept: x"), 1), WireBinary); err == nil {
		t.Error("wrong accept key is taken")
	}
	plain, _, err := protocol.Upgrade(head, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeUpgrade(plain, WireBinary); err == nil {
		t.Error("missing subprotocol is taken")
	}
	if _, err := takeUpgrade(plain, WireClassic); err != nil {
		t.Errorf("classic without subprotocol: %v", err)
	}
}

func TestPublishFrameIsWhatTheServerParses(t *testing.T) {
	want := stamp{due: 1, seq: 2, origin: originOf(4, 3)}
	for _, s := range []Scenario{{}, {Wire: WireJSON}, {Publish: PublishHTTP}, {PayloadBytes: 65_536}} {
		s = s.withDefaults()
		frame, stampAt := publishFrame(s, "host", "topic")
		s.stampForm().put(frame[stampAt:], want)
		var topic, payload []byte
		if s.Publish == PublishHTTP {
			_, body, _ := bytes.Cut(frame, []byte("\r\n\r\n"))
			if length := fmt.Sprintf("Content-Length: %d\r\n", len(body)); !bytes.Contains(frame, []byte(length)) {
				t.Errorf("%q lacks %q", frame, length)
			}
			var scratch protocol.Scratch
			var err error
			if topic, payload, err = protocol.ParseClassicPublish(body, &scratch, payloadBytesMax); err != nil {
				t.Fatal(err)
			}
		} else {
			h, _ := protocol.NextFrame(frame)
			command, err := protocol.ParseBinaryCommand(frame[h.Size:], payloadBytesMax)
			if err != nil {
				t.Fatal(err)
			}
			topic, payload = command.Topic, command.Payload
		}
		if string(topic) != "topic" || len(payload) != s.PayloadBytes || s.stampForm().get(payload) != want {
			t.Errorf("%+v: topic %q, %d bytes, stamp %+v", s.counts(), topic, len(payload), s.stampForm().get(payload))
		}
	}
}
