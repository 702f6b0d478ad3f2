package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// historyOf reads all of a topic, page by page.
func (n *node) historyOf(t testing.TB, topic string) (messages []event, epoch string) {
	t.Helper()
	p := n.dial(t, dialing{})
	defer p.Close()
	from := "earliest"
	for {
		a := p.page("/v1/topics/" + topic + "/messages?limit=1000&from=" + from)
		if len(a.Messages) == 0 {
			return messages, a.Epoch
		}
		messages, from = append(messages, a.Messages...), a.Next
	}
}

// page wants a page of history.
func (p *peer) page(target string) answer {
	p.t.Helper()
	p.patient()
	a, err := p.get(target)
	if err != nil || a.status != 200 {
		p.t.Fatalf("%s was answered %d %s (%v)", target, a.status, a.body, err)
	}
	return a
}

// offsets is the messages of a page in short.
func (a answer) offsets() string {
	var b strings.Builder
	for _, m := range a.Messages {
		fmt.Fprintf(&b, "%d ", m.Offset)
	}
	return b.String()
}

// spread is topics that are at home on different loops, if there are any.
func spread(name string) []string {
	var topics []string
	for i := range 6 {
		topics = append(topics, fmt.Sprintf("%s-%d", name, i))
	}
	return topics
}

// twenty publishes "1" to "20" with a pause in the middle, and returns the
// epoch, and a time within the pause.
func twenty(p *peer, topic string) (epoch string, noon time.Time) {
	for i := 1; i <= 20; i++ {
		if i == 11 {
			time.Sleep(3 * time.Millisecond) // times are told to the millisecond
			noon = time.Now()
			time.Sleep(3 * time.Millisecond)
		}
		epoch = p.publish(topic, fmt.Sprint(i)).Epoch
	}
	return epoch, noon
}

func TestASubscriptionStartsWhereItIsAsked(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		publisher := n.native(t)
		for _, topic := range spread("start") {
			epoch, noon := twenty(publisher, topic)
			head := uint64(20)
			at := func(offset uint64) func() uint64 { return func() uint64 { return offset } }
			back := func(messages uint64) func() uint64 { return func() uint64 { return head - messages } }
			for _, c := range []struct {
				from      string
				after     func() uint64
				recovered bool
			}{
				{`"earliest"`, at(0), true},
				{`{"last":5}`, back(5), true},
				{`{"last":0}`, back(0), true},
				{`{"last":1000}`, at(0), true},
				{fmt.Sprintf(`{"since":%q}`, noon.UTC().Format("2006-01-02T15:04:05.000Z")), at(10), true},
				{fmt.Sprintf(`{"since":%q}`, noon.In(time.FixedZone("", 5400)).Format("2006-01-02T15:04:05.000Z07:00")), at(10), true},
				{`{"since":"2001-01-01T00:00:00Z"}`, at(0), true},
				{fmt.Sprintf(`{"since":%q}`, noon.Add(time.Hour).UTC().Format(time.RFC3339)), back(0), true},
				{fmt.Sprintf(`{"epoch":%q,"offset":7}`, epoch), at(7), true},
				{fmt.Sprintf(`{"epoch":%q,"offset":0}`, epoch), at(0), true},
				{fmt.Sprintf(`{"epoch":%q,"offset":20}`, epoch), at(20), true},
				{fmt.Sprintf(`{"epoch":%q,"offset":1000}`, epoch), back(0), false},
				{`{"epoch":"another","offset":7}`, back(0), false},
				{"", back(0), false},
			} {
				p := n.native(t)
				after := c.after()
				start := p.subscribe(topic, c.from)
				if start.Topic != topic || start.Epoch != epoch || start.Offset != after || *start.Recovered != c.recovered {
					t.Errorf("from %s: %s, recovered %v; want %s:%d, %v", c.from, start.position(), *start.Recovered, epoch, after, c.recovered)
				}
				for offset := after + 1; offset <= head; offset++ {
					if m := p.hear("message"); m.Offset != offset || m.text() != fmt.Sprint(offset) {
						t.Fatalf("from %s: message %d %s, want %d", c.from, m.Offset, m.Data, offset)
					}
				}
				head++
				p.tell(fmt.Sprintf(`{"op":"publish","topic":%q,"text":"%d"}`, topic, head)) // its own comes back
				if m := p.hear("message"); m.Offset != head {
					t.Fatalf("from %s: live message %d, want %d", c.from, m.Offset, head)
				}
				p.Close()
			}
		}
	})
}

func TestHistoryComesInPages(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		publisher, p := n.native(t), n.dial(t, dialing{})
		for _, topic := range spread("pages") {
			epoch, noon := twenty(publisher, topic)
			path := "/v1/topics/" + topic + "/messages?"
			since := "since=" + noon.UTC().Format("2006-01-02T15:04:05.000Z")
			for _, c := range []struct{ query, offsets, next string }{
				{"", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 ", ":20"},
				{"limit=3", "1 2 3 ", ":3"},
				{"from=earliest&limit=3", "1 2 3 ", ":3"},
				{"limit=3&from=" + epoch + ":3", "4 5 6 ", ":6"},
				{"from=" + epoch + ":18", "19 20 ", ":20"},
				{"from=" + epoch + ":20", "", ":20"},
				{"from=" + epoch + ":99", "", ":20"},
				{"last=2", "19 20 ", ":20"},
				{"last=4&limit=2", "17 18 ", ":18"},
				{since + "&limit=2", "11 12 ", ":12"},
			} {
				a := p.page(path + c.query)
				if a.Topic != topic || a.Epoch != epoch || a.Head != 20 || a.offsets() != c.offsets || a.Next != epoch+c.next {
					t.Errorf("%s: %s, next %s; want %s, next %s", c.query, a.offsets(), a.Next, c.offsets, epoch+c.next)
				}
			}
			for _, m := range p.page(path).Messages {
				at, err := time.Parse("2006-01-02T15:04:05.000Z", m.Time)
				if err != nil || time.Since(at) > time.Minute || at.After(noon) != (m.Offset > 10) {
					t.Errorf("message %d was taken at %q (%v), the pause was at %v", m.Offset, m.Time, err, noon)
				}
			}
			a, err := p.get(path + "from=another:3")
			if err != nil || a.status != 409 || a.Error.Code != "epoch_unknown" || a.Epoch != epoch || a.Head != 20 {
				t.Errorf("an epoch that is not known: %d %s (%v)", a.status, a.body, err)
			}
			mentions(t, a.Error.Message, "another", epoch)
		}
	})
}

func TestAnEventStreamResumesBehindItsLastID(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		publisher := n.native(t)
		topics := spread("sse")
		open := func(id string) *eventStream {
			p := n.dial(t, dialing{})
			p.raw("GET /v1/sse?topic=" + strings.Join(topics, "&topic=") + " HTTP/1.1\r\n" + hostField + "Last-Event-ID: " + id + "\r\n\r\n")
			return p.eventStream(t)
		}
		publish := func(offset int) {
			for _, topic := range topics {
				publisher.publish(topic, fmt.Sprint(offset))
			}
		}
		s := open("")
		s.reach(t, len(topics), ":0")
		publish(1)
		s.expect(t, len(topics), 1)
		for offset := 2; offset < 8; offset += 2 {
			s.reach(t, len(topics), fmt.Sprintf(":%d", offset-1))
			id := s.id
			s.Close()
			publish(offset) // nobody is there
			s = open(id)
			s.expect(t, len(topics), offset)
			publish(offset + 1)
			s.expect(t, len(topics), offset+1)
		}
		if s.retry == 0 {
			t.Error("the stream does not say when to come back")
		}

		s.reach(t, len(topics), ":7")
		first, rest, _ := strings.Cut(s.id, ",")
		_, offset, _ := strings.Cut(first, ":")
		s = open("another:" + offset + "," + rest)
		if e := s.next(t); e.name != "gap" || e.data.Topic != topics[0] || e.data.Reason != "reset" || e.data.Offset != 7 {
			t.Errorf("a position of another epoch brings %q %+v, want a gap to 7", e.name, e.data)
		}
	})
}

// expect wants the message at offset of every topic next, in any order of the
// topics.
func (s *eventStream) expect(t testing.TB, topics, offset int) {
	t.Helper()
	seen := map[string]bool{}
	for range topics {
		e := s.next(t)
		if e.name != "message" || e.data.Offset != uint64(offset) || e.data.text() != fmt.Sprint(offset) || seen[e.data.Topic] {
			t.Fatalf("%s %d of %s, want message %d", e.name, e.data.Offset, e.data.Topic, offset)
		}
		seen[e.data.Topic] = true
	}
}

// reach reads on, through blocks without events, until all positions of the id
// end in offset.
func (s *eventStream) reach(t testing.TB, topics int, offset string) {
	t.Helper()
	for strings.Count(s.id+",", offset+",") < topics {
		e, data, err := s.block()
		if err != nil || data != "" {
			t.Fatalf("at %s, waiting for %s: event %q (%v)", s.id, offset, e.name, err)
		}
	}
}

func TestABatchIsAnsweredMessageByMessage(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--max-message=1KiB")
		reader := n.native(t)
		reader.subscribe("batch", "")
		p := n.dial(t, dialing{})
		body := `{"messages":[{"topic":"batch","data":{"n":1}},{"topic":"$no","text":"x"},{"topic":"batch","text":"two"},
			{"topic":"batch","text":"` + strings.Repeat("x", 1025) + `"},{"topic":"batch","base64":"!"},7,
			{"topic":"batch","text":"x","ack":"stored"},{"topic":"other","base64":"AQI="},{"topic":"batch","text":"three"}]}`
		a, err := p.post("/v1/publish", "application/json", []byte(body))
		if err != nil || a.status != 200 {
			t.Fatalf("answered %d %s (%v)", a.status, a.body, err)
		}
		var said []string
		for _, r := range a.Results {
			if r.Error != nil {
				said = append(said, r.Error.Code)
			} else {
				said = append(said, fmt.Sprint(r.Offset))
			}
		}
		if got, want := strings.Join(said, " "), "1 topic_invalid 2 message_too_large data_invalid bad_request not_persisted 1 3"; got != want {
			t.Errorf("results %s, want %s", got, want)
		}
		for i, want := range []string{`{"n":1}`, `"two"`, `"three"`} {
			if m := reader.hear("message"); string(m.Data) != want || m.Offset != uint64(i+1) {
				t.Errorf("message %d is %s, want %s", m.Offset, m.Data, want)
			}
		}
		a, err = p.post("/v1/publish", "application/json", []byte(`{"messages":[{"topic":"batch","text":"no"}`))
		if err != nil || a.status != 400 {
			t.Errorf("half a batch was answered %d %s (%v)", a.status, a.body, err)
		}
		reader.publish("elsewhere", "x") // and not a message before it
		n.counted("rayflux_messages_published_total", 5)
	})
}

func TestEveryProtocolCarriesEveryKind(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		native, classic, stream, p := n.native(t), n.classic(t, "kinds"), n.dial(t, dialing{}), n.dial(t, dialing{})
		native.subscribe("kinds", "")
		stream.raw(getRequest("/v1/sse?topic=kinds"))
		events := stream.eventStream(t)
		n.counted("rayflux_subscriptions", 3)
		for i, c := range []struct{ contentType, payload, data, base64 string }{
			{"application/json", "{\"a\":\r\n[1,null]}", "{\"a\":\r\n[1,null]}", ""},
			{"application/json; charset=utf-8", `"quoted"`, `"quoted"`, ""},
			{"text/plain", "line\nbreak \"\u2028\x00", `"line\nbreak \"\u2028\u0000"`, ""},
			{"application/octet-stream", "\x00\xff\n", "", "AP8K"},
			{"image/png", "", "", ""},
		} {
			a, err := p.post("/v1/topics/kinds/messages", c.contentType, []byte(c.payload))
			if err != nil || a.status != 200 || a.Topic != "kinds" || a.Offset != uint64(i+1) {
				t.Fatalf("%q was answered %d %s (%v)", c.payload, a.status, a.body, err)
			}
			if m := native.hear("message"); string(m.Data) != c.data || m.Base64 != c.base64 {
				t.Errorf("%q came as %s %q, want %s %q", c.payload, m.Data, m.Base64, c.data, c.base64)
			}
			classic.hearPayload(c.payload)
			spaced := strings.NewReplacer("\r", " ", "\n", " ").Replace(c.data)
			if e := events.next(t); string(e.data.Data) != spaced || e.data.Base64 != c.base64 {
				t.Errorf("%q was streamed as %s %q, want %s %q", c.payload, e.data.Data, e.data.Base64, spaced, c.base64)
			}
		}
	})
}

func TestRequestsAndMessagesMayComeInPieces(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		reader, native, p := n.native(t), n.native(t), n.dial(t, dialing{})
		reader.subscribe("pieces", "")
		pieces := func(p *peer, want string, each ...string) {
			t.Helper()
			for _, piece := range each {
				p.raw(piece) // Go sends every write at once
			}
			if m := reader.hear("message"); m.text() != want {
				t.Errorf("message %q, want %q", m.text(), want)
			}
		}
		const head = "POST /v1/topics/pieces/messages HTTP/1.1\r\n" + hostField + textField
		pieces(p, "a body", head[:30], head[30:]+"Content-Le", "ngth: 6\r\n", "\r\na b", "ody")
		pieces(p, "chunks of it", head, "Transfer-Encoding: chunked\r\n\r\n", "6;x=y\r\nchunks\r", "\n6\r\n of it\r\n0\r\nTrailer: t\r\n\r\n")
		for range 2 {
			if a := p.hearAnswer(); a.status != 200 {
				t.Errorf("answered %d %s", a.status, a.body)
			}
		}
		p.raw(head + "Content-Length: 6\r\nExpect: 100-continue\r\n\r\n")
		if line, err := p.in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("expecting to be asked for the body, it was %q (%v)", line, err)
		}
		_, _ = p.in.ReadString('\n')
		pieces(p, "asked!", "asked!")

		frame := rawFrame(fin|opText, `{"op":"publish","topic":"pieces","text":"a frame"}`)
		pieces(native, "a frame", frame[:1], frame[1:7], frame[7:])
		pieces(native, "fragments", rawFrame(opText, `{"op":"publish",`), rawFrame(fin|opPing, "p"), rawFrame(0, `"topic":"pieces",`), rawFrame(0, ""), rawFrame(fin, `"text":"fragments"}`))
		if op, payload, err := native.frame(); err != nil || op != protocol.OpPong || string(payload) != "p" {
			t.Errorf("a ping between fragments was answered %q with opcode %d (%v)", payload, op, err)
		}
	})
}

func TestAnswersComeInOrder(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		topics := spread("order")
		const rounds = 100

		p := n.dial(t, dialing{}) // HTTP, pipelined: in the order of the requests
		var requests strings.Builder
		for i := range rounds * len(topics) {
			requests.WriteString(postRequest("/v1/topics/"+topics[i%len(topics)]+"/messages", textField, fmt.Sprint(i)))
		}
		go p.raw(requests.String())
		for i := range rounds * len(topics) {
			p.patient()
			if a := p.hearAnswer(); a.Topic != topics[i%len(topics)] || a.Offset != uint64(i/len(topics)+1) {
				t.Fatalf("answer %d is %s", i, a.body)
			}
		}

		native := n.native(t) // WebSocket: in the order of the commands of a topic
		var commands []string
		for i := range rounds * len(topics) {
			commands = append(commands, fmt.Sprintf(`{"op":"publish","id":%d,"topic":%q,"text":"x"}`, i, topics[i%len(topics)]))
		}
		go native.tell(commands...)
		last := map[string]uint64{}
		for range commands {
			native.patient()
			e := native.hear("published")
			want := last[e.Topic]
			if last[e.Topic]++; *e.ID/uint64(len(topics)) != want || e.Offset != rounds+want+1 {
				t.Fatalf("%s: id %d got offset %d, want %d next", e.Topic, *e.ID, e.Offset, rounds+want+1)
			}
		}
	})
}

func TestPubAndSubOfTheBinaryItself(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		run := func(input string, args ...string) string {
			t.Helper()
			cmd := command(t, "", append(args, "--server=ws://"+n.listen)...)
			cmd.Stdin = strings.NewReader(input)
			var complaints strings.Builder
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%q: %v: %s", args, err, complaints.String())
			}
			return string(out)
		}
		var lines strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&lines, "line %d\n", i)
		}
		for _, topic := range spread("cli") {
			positions := strings.Fields(run(lines.String(), "pub", topic, "-"))
			if len(positions) != 1000 || !strings.HasSuffix(positions[999], ":1000") {
				t.Fatalf("pub printed %d positions, the last %q", len(positions), positions[len(positions)-1])
			}
			if got := run("", "sub", topic, "--from=earliest", "--count=1000"); got != lines.String() {
				t.Errorf("sub printed %d bytes, want %d", len(got), lines.Len())
			}
			if got := run("", "sub", topic, "--from="+positions[997], "--count=2"); got != "line 998\nline 999\n" {
				t.Errorf("sub printed %q", got)
			}
		}
	})
}
