package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// metrics are the samples of one scrape, by name and labels as they are
// written: rayflux_disconnects_total{reason="slow"}.
type metrics map[string]float64

// operators talks to the operators' ports. A connection a request, so that
// none is left among the descriptors that a test counts.
var operators = http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

func (n *node) metrics() metrics {
	n.t.Helper()
	response, err := operators.Get("http://" + n.admin + "/metrics")
	if err != nil {
		n.t.Fatalf("metrics: %v; it said %s", err, n.lastWords())
	}
	defer response.Body.Close()
	m := metrics{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			m[name] = v
		}
	}
	return m
}

// counted waits until a metric has the value, as a client may see the end of
// something before the server has counted it.
func (n *node) counted(name string, want float64) {
	n.t.Helper()
	eventually(n.t, func() string {
		if got := n.metrics()[name]; got != want {
			return name + " is " + strconv.FormatFloat(got, 'f', -1, 64) + ", want " + strconv.FormatFloat(want, 'f', -1, 64)
		}
		return ""
	})
}

func disconnects(reason string) string { return `rayflux_disconnects_total{reason="` + reason + `"}` }

func dropped(reason string) string { return `rayflux_messages_dropped_total{reason="` + reason + `"}` }

// status asks one of the probes; 0 is no answer.
func (n *node) status(path string) int {
	client := http.Client{Timeout: time.Second, Transport: operators.Transport}
	response, err := client.Get("http://" + n.admin + path)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// collect makes the process collect its garbage.
func (n *node) collect() {
	n.t.Helper()
	response, err := operators.Get("http://" + n.admin + "/debug/pprof/heap?gc=1")
	if err != nil {
		n.t.Fatalf("collect: %v; it said %s", err, n.lastWords())
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

func TestMetricsAddUpAfterAKnownExchange(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--max-message=1KiB")
		const messages, readers = 10, 5
		sent, received := knownExchange(t, n, messages)
		for name, want := range map[string]float64{
			"rayflux_connections":                                              0,
			"rayflux_subscriptions":                                            0,
			"rayflux_topics":                                                   1,
			"rayflux_messages_published_total":                                 messages,
			"rayflux_messages_delivered_total":                                 readers * messages,
			"rayflux_flush_messages_sum":                                       messages,
			"rayflux_http_requests_total":                                      6 + 4, // five upgrades and the stream; posts
			"rayflux_bytes_received_total":                                     float64(sent),
			"rayflux_bytes_sent_total":                                         float64(received),
			`rayflux_recoveries_total{result="recovered",source="memory"}`:     3,
			`rayflux_recoveries_total{result="not_recovered",source="memory"}`: 0,
			dropped("too_large"):                                               1,
			dropped("invalid"):                                                 1,
			disconnects("client_closed"):                                       6, // the stream's too
			disconnects("http_closed"):                                         1,
			disconnects("peer_reset"):                                          0,
		} {
			n.counted(name, want)
		}
	})
}

// knownExchange has three native readers from the start, a classic one and a
// stream read ten messages: five published over WebSocket, three by classic
// posts and two in a batch. One more of each of the first and the last is
// refused. It returns the bytes of all connections, who have left.
func knownExchange(t *testing.T, n *node, messages int) (sent, received int) {
	t.Helper()
	var natives []*peer
	for range 3 {
		p := n.native(t)
		p.subscribe("known", `"earliest"`)
		natives = append(natives, p)
	}
	classic, stream, publisher, poster := n.classic(t, "known"), n.dial(t, dialing{}), n.native(t), n.dial(t, dialing{})
	stream.raw(getRequest("/v1/sse?topic=known"))
	events := stream.eventStream(t)
	n.counted("rayflux_subscriptions", 5)
	n.counted("rayflux_connections", 7)

	for range 5 {
		publisher.publish("known", "over WebSocket")
	}
	publisher.ask(`{"op":"publish","id":1,"topic":"known","text":"`+strings.Repeat("x", 1025)+`"}`, "error")
	for range 3 {
		if err := classicPublish(poster.socket, "known", "over HTTP"); err != nil {
			t.Fatal(err)
		}
	}
	batch := `{"messages":[{"topic":"known","text":"a"},{"topic":"known","text":"b"},{"topic":"known"}]}`
	if a, err := poster.post("/v1/publish", "application/json", []byte(batch)); err != nil || a.status != 200 {
		t.Fatalf("batch: %d %s (%v)", a.status, a.body, err)
	}
	for range messages {
		for _, p := range natives {
			p.hear("message")
		}
		if _, _, err := classic.message(); err != nil {
			t.Fatal(err)
		}
		events.next(t)
	}
	events.reach(t, 1, fmt.Sprintf(":%d", messages))

	sockets := append(natives, classic, publisher)
	for _, p := range sockets {
		if err := p.send(protocol.OpClose, []byte{0x03, 0xe8}); err != nil {
			t.Fatal(err)
		}
		p.hearClose(protocol.CloseNormal)
	}
	stream.Close()
	poster.Close()
	n.counted("rayflux_connections", 0)
	for _, p := range append(sockets, stream, poster) {
		sent, received = sent+p.sent, received+p.received
	}
	return sent, received
}
