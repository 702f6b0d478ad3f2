package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestTopShowsWhatServersDo(t *testing.T) {
	n, quiet := startNode(t, 2), startNode(t, 1)
	const topic = "top \u202e \\ topic"
	reader := n.native(t)
	reader.subscribe(topic, `"earliest"`)

	cmd := command(t, "", "top", "--once", "--output=json", "--interval=500ms",
		"--admin="+n.admin+","+quiet.admin, "--admin=127.0.0.1:1")
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	publisher := n.native(t)
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v: %s", err, complaints.String())
			}
			running = false
		default:
			publisher.publish(topic, "x")
			reader.hear("message")
		}
	}

	type line struct {
		Type, Address, Role, State, Reason, Topic string
		Connections, Subscriptions, Processes     int
		Resident                                  float64  `json:"resident_bytes"`
		Published                                 float64  `json:"published_per_second"`
		Delivered                                 float64  `json:"delivered_per_second"`
		Messages                                  float64  `json:"messages_per_second"`
		P99                                       *float64 `json:"publish_to_write_p99_seconds"`
	}
	found := map[string]line{}
	for text := range strings.Lines(out.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		found[l.Type+" "+l.Address] = l
	}
	busy, idle, away := found["process "+n.admin], found["process "+quiet.admin], found["process 127.0.0.1:1"]
	if busy.State != "ready" || busy.Role != "node" || busy.Connections != 2 || busy.Subscriptions != 1 ||
		busy.Resident == 0 || busy.Published <= 0 || busy.Delivered <= 0 || busy.P99 == nil {
		t.Errorf("the busy node is %+v", busy)
	}
	if idle.State != "ready" || idle.Published != 0 || idle.P99 != nil {
		t.Errorf("the idle node is %+v", idle)
	}
	if away.State != "unreachable" || !strings.Contains(away.Reason, "refused") {
		t.Errorf("the missing node is %+v", away)
	}
	if total := found["total "]; total.Processes != 2 || total.Published != busy.Published || total.Connections != 2 {
		t.Errorf("the total is %+v", total)
	}
	if l := found["topic "+n.admin]; l.Topic != topic || l.Messages <= 0 {
		t.Errorf("the topic is %+v", l)
	}
}
