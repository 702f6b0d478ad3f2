package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// eventStream reads Server-Sent Events as a browser does.
type eventStream struct {
	*peer
	id    string // the last one
	retry int    // milliseconds, the last one
}

// streamEvent is one event with data.
type streamEvent struct {
	name string
	id   string // in force when it was dispatched
	data event
}

// eventStream takes the head of the response.
func (p *peer) eventStream(t testing.TB) *eventStream {
	t.Helper()
	status, err := p.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		t.Fatalf("the stream was answered %q (%v)", status, err)
	}
	typed := false
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		typed = typed || line == "Content-Type: text/event-stream\r\n"
		if line == "\r\n" {
			break
		}
	}
	if !typed {
		t.Error("the stream has another Content-Type than text/event-stream")
	}
	return &eventStream{peer: p}
}

// block reads lines up to the empty one: any of event, data, id and retry.
func (s *eventStream) block() (e streamEvent, data string, err error) {
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return e, "", err
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			e.id = s.id
			return e, data, nil
		case field == "event":
			e.name = value
		case field == "data":
			data += value
		case field == "id":
			s.id = value
		case field == "retry":
			s.retry, _ = strconv.Atoi(value)
		}
	}
}

// next is the next event with data; ids and times to retry are taken on the way.
func (s *eventStream) next(t testing.TB) streamEvent {
	t.Helper()
	for {
		s.patient()
		e, data, err := s.block()
		if err != nil {
			t.Fatalf("event stream: %v", err)
		}
		if data == "" {
			continue
		}
		if err := json.Unmarshal([]byte(data), &e.data); err != nil {
			t.Fatalf("event %q with data %q: %v", e.name, data, err)
		}
		return e
	}
}
