package engine

import (
	"encoding/json"
	"fmt"
	"strings"

	"rayflux/protocol"
)

// simPeer is one client of the simulation and, at the same time, the judge of what it is sent: it knows the protocol's
// promises and nothing of how the engine keeps them.
type simPeer struct {
	sim    *sim
	number int
	kind   peerKind
	sock   *fakeSocket
	node   *rig // it is at a node, past the balancer; nil: it is not
	in     inbox
	toSend []byte

	nextID   uint64
	awaiting map[uint64]*await   // native: commands with an id
	queues   map[string][]*await // native: the same, by topic, in the order in which they were sent
	requests []*await            // HTTP: requests without an answer
	mute     int                 // publishes without id, each of which may fail without saying which

	topics   []string // SSE: in URL order; classic: the one
	readings map[string]*reading
	unmarked bool // SSE: messages came since the last block of positions

	stalled int  // steps for which it reads nothing
	leaving bool // it has said goodbye, or the server may
	done    bool // its connection is over
}

type peerKind uint8

const (
	peerJSON peerKind = iota
	peerBinary
	peerClassic
	peerSSE
	peerHTTP
	numPeerKinds
)

// await is a command or a request that is to be answered.
type await struct {
	op     string
	id     uint64
	topic  string
	from   protocol.From
	asked  place // of a subscribe from a position
	serial []int // what it publishes
}

// reading is what one subscriber was promised: the next offset of the epoch, and no other.
type reading struct {
	active bool
	epoch  string
	next   uint64
	asked  place // SSE: where it was to resume
	fresh  bool  // SSE: nothing came since
	serial int   // classic: the last message
	known  bool
	past   map[string]uint64 // in a cluster: the next offset of epochs that have ended, and may come back
}

// receive judges everything that has come.
func (p *simPeer) receive(b []byte) error {
	p.in.buf = append(p.in.buf, b...)
	for {
		it, ok, err := p.in.next()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		switch {
		case it.kind == itemPing:
			p.toSend = protocol.AppendMaskedFrame(p.toSend, protocol.OpPong, [4]byte{1, 2, 3, 4}, it.payload)
		case it.kind == itemClose:
			err = p.closeFrame(it.payload)
		case it.kind == itemResponse && p.kind != peerHTTP:
			err = p.greeting(it)
		case p.kind == peerHTTP:
			err = p.response(it)
		case p.kind == peerClassic:
			err = p.classicMessage(it)
		case p.kind == peerSSE:
			err = p.block(string(it.payload))
		default:
			err = p.native(it)
		}
		if err != nil {
			return fmt.Errorf("%w\n\tin %.200q", err, it.payload)
		}
	}
}

func (p *simPeer) greeting(it item) error {
	want := 101
	if p.kind == peerSSE {
		want = 200
	}
	if it.status == 503 && (p.sim.mayStarve() || p.sim.draining()) {
		p.leaving = true
		return nil
	}
	if it.status != want {
		return fmt.Errorf("status %d, want %d", it.status, want)
	}
	return nil
}

func (p *simPeer) closeFrame(payload []byte) error {
	p.leaving = true
	code, text, err := protocol.ParseClose(payload)
	switch code {
	case protocol.CloseNormal, protocol.CloseNoStatus, protocol.CloseTryLater:
		return err
	case protocol.CloseGoingAway:
		if p.sim.draining() {
			return err
		}
	case protocol.CloseSlow:
		if p.kind == peerClassic || p.sim.mayClose() {
			return nil
		}
	}
	return fmt.Errorf("closed with %d %q", code, text)
}

func (p *simPeer) native(it item) (err error) {
	var ev protocol.Event
	switch {
	case p.kind == peerJSON && it.kind == itemText:
		ev, err = protocol.ParseEventJSON(it.payload)
	case p.kind == peerBinary && it.kind == itemBinary:
		ev, err = protocol.ParseEventBinary(it.payload)
	default:
		return fmt.Errorf("a frame of kind %d", it.kind)
	}
	if err != nil {
		return err
	}
	switch ev.Op {
	case protocol.EvWelcome, protocol.EvDrain:
		return nil
	case protocol.EvMessage:
		return p.message(&ev)
	case protocol.EvGap:
		return p.gap(&ev)
	}
	return p.answer(&ev)
}

// answer finds the command that an event answers, and holds the two together.
func (p *simPeer) answer(ev *protocol.Event) error {
	if !ev.HasID {
		if p.mute--; ev.Op != protocol.EvError || p.mute < 0 {
			return fmt.Errorf("%v without an id", ev.Op)
		}
		return nil
	}
	a := p.awaiting[ev.ID]
	if a == nil {
		return fmt.Errorf("%v for id %d, which nobody waits for", ev.Op, ev.ID)
	}
	delete(p.awaiting, ev.ID)
	if a.op == "ping" {
		if ev.Op != protocol.EvPong {
			return fmt.Errorf("a ping was answered with %v", ev.Op)
		}
		return nil
	}
	queue := p.queues[a.topic]
	for i, q := range queue {
		if q != a {
			continue
		}
		if i > 0 && !(ev.Op == protocol.EvError && p.sim.mayOverload()) {
			return fmt.Errorf("%v %q, id %d, was answered before %s, id %d", a.op, a.topic, a.id, queue[0].op, queue[0].id)
		}
		p.queues[a.topic] = append(queue[:i:i], queue[i+1:]...)
	}
	if ev.Op == protocol.EvError {
		return p.refused(a, ev)
	}
	if ev.Topic != a.topic {
		return fmt.Errorf("%v of topic %q answers id %d, which is about %q", ev.Op, ev.Topic, a.id, a.topic)
	}
	switch {
	case a.op == "publish" && ev.Op == protocol.EvPublished:
		if p.sim.truth.sent[a.serial[0]].tooLong {
			return fmt.Errorf("a message past the limit was published")
		}
		return p.sim.truth.define(place{ev.Topic, ev.Epoch, ev.Offset}, a.serial[0])
	case a.op == "subscribe" && ev.Op == protocol.EvSubscribed:
		return p.subscribed(a, ev)
	case a.op == "unsubscribe" && ev.Op == protocol.EvUnsubscribed:
		r := p.readings[a.topic]
		if r == nil || !r.active {
			return fmt.Errorf("unsubscribed from %q without a subscription", a.topic)
		}
		r.active = false
		return nil
	}
	return fmt.Errorf("%s was answered with %v", a.op, ev.Op)
}

// refused checks that a command had a reason to fail.
func (p *simPeer) refused(a *await, ev *protocol.Event) error {
	active := p.readings[a.topic] != nil && p.readings[a.topic].active
	ok := false
	switch ev.Code {
	case protocol.CodeOverloaded:
		ok = p.sim.mayOverload() || a.op == "publish" && p.sim.cluster != nil && p.sim.cfg.MaxInFlight < 100
	case protocol.CodeNoOwner:
		ok = a.op != "unsubscribe" && (p.sim.mayLose() || p.sim.mayMove())
	case protocol.CodeOutcomeUnknown:
		ok = a.op == "publish" && p.sim.mayLose()
	case protocol.CodeTooManyTopics:
		ok = a.op != "unsubscribe" && p.sim.cfg.MaxTopics < len(p.sim.topics)
	case protocol.CodeMessageTooLarge:
		ok = a.op == "publish" && p.sim.truth.sent[a.serial[0]].tooLong
	case protocol.CodeTooManySubscriptions:
		ok = a.op == "subscribe" && (!active || p.sim.mayOverload()) && p.sim.cfg.MaxSubscriptions < len(p.sim.topics)
	case protocol.CodeAlreadySubscribed:
		ok = a.op == "subscribe" && (active || p.sim.mayRefuse())
	case protocol.CodeNotSubscribed:
		ok = a.op == "unsubscribe" && (!active || p.sim.mayOverload())
	}
	if !ok {
		return fmt.Errorf("%s %q was refused: %s %s", a.op, a.topic, ev.Code, ev.Message)
	}
	return nil
}

func (p *simPeer) subscribed(a *await, ev *protocol.Event) error {
	r := p.readings[a.topic]
	if r != nil && r.active {
		return fmt.Errorf("subscribed to %q twice", a.topic)
	}
	p.readings[a.topic] = &reading{active: true, epoch: ev.Epoch, next: ev.Offset + 1}
	t := p.sim.topicThen(a.topic)
	taken, known := p.sim.truth.taken[place{ev.Topic, ev.Epoch, ev.Offset}]
	switch {
	case a.from.Mode == protocol.FromPosition && ev.Recovered && (ev.Epoch != a.asked.epoch || ev.Offset != a.asked.offset):
		return fmt.Errorf("recovered from %s:%d at %s:%d", a.asked.epoch, a.asked.offset, ev.Epoch, ev.Offset)
	case a.from.Mode == protocol.FromPosition && !ev.Recovered && t != nil && t.epoch == a.asked.epoch && t.start <= a.asked.offset+1:
		return fmt.Errorf("not recovered from %s:%d, though the log begins at %d", a.asked.epoch, a.asked.offset, t.start)
	case a.from.Mode == protocol.FromEarliest && ev.Recovered && ev.Offset != 0:
		return fmt.Errorf("the earliest, whole, begin after %d", ev.Offset)
	case a.from.Mode == protocol.FromSince && known && ev.Recovered && taken >= a.from.Since:
		return fmt.Errorf("since %d begins after %d, which was taken at %d", a.from.Since, ev.Offset, taken)
	case a.from.Mode == protocol.FromLive && ev.Recovered:
		return fmt.Errorf("recovered without having asked")
	}
	return nil
}

func (p *simPeer) message(ev *protocol.Event) error {
	r := p.readings[ev.Topic]
	if r == nil || !r.active {
		return fmt.Errorf("a message of %q without a subscription", ev.Topic)
	}
	if ev.Offset != r.next {
		return fmt.Errorf("offset %d of %q, want %d", ev.Offset, ev.Topic, r.next)
	}
	r.next++
	r.fresh, p.unmarked = false, true
	serial, err := p.sim.truth.saw(ev.Topic, ev.Kind, ev.Payload)
	if err != nil {
		return err
	}
	return p.sim.truth.define(place{ev.Topic, r.epoch, ev.Offset}, serial)
}

func (p *simPeer) gap(ev *protocol.Event) error {
	r := p.readings[ev.Topic]
	if r == nil || !r.active {
		return fmt.Errorf("a gap of %q without a subscription", ev.Topic)
	}
	if ev.Reason == protocol.GapReset && p.sim.mayReset() {
		return p.anotherLife(ev, r)
	}
	p.sim.gaps++
	t := p.sim.topicThen(ev.Topic)
	switch {
	case ev.Reason != protocol.GapSlow || !ev.HasMissed || ev.Missed == 0 || ev.Epoch != r.epoch:
		return fmt.Errorf("gap %+v in epoch %s", ev, r.epoch)
	case r.next+ev.Missed-1 != ev.Offset:
		return fmt.Errorf("gap of %d up to %d, next was %d", ev.Missed, ev.Offset, r.next)
	case t != nil && t.epoch == r.epoch && t.start <= r.next:
		return fmt.Errorf("gap from %d on, though the log still has that", r.next)
	case p.sim.policy(ev.Topic) == SlowClose && (p.sim.shelf == nil || !p.sim.mayLose()): // what nobody has any more is skipped
		return fmt.Errorf("gap, though the policy is to close")
	}
	r.next = ev.Offset + 1
	return nil
}

// anotherLife says that a topic's epoch has ended: once, and with what the reader has of the new one left out.
func (p *simPeer) anotherLife(ev *protocol.Event, r *reading) error {
	p.sim.resets++
	if r.past == nil {
		r.past = map[string]uint64{}
	}
	r.past[r.epoch] = r.next
	if ev.HasMissed || ev.Epoch == r.epoch || ev.Offset+1 < r.past[ev.Epoch] {
		return fmt.Errorf("reset %+v in epoch %s, with %d of the new one", ev, r.epoch, r.past[ev.Epoch])
	}
	r.epoch, r.next, r.fresh = ev.Epoch, ev.Offset+1, false
	return nil
}

// classicMessage has no offset: that nothing is missing is seen by where the messages before and after it are.
func (p *simPeer) classicMessage(it item) error {
	topic := p.topics[0]
	if it.kind != itemBinary {
		return fmt.Errorf("a frame of kind %d", it.kind)
	}
	serial, err := p.sim.truth.saw(topic, 0, it.payload)
	if err != nil {
		return err
	}
	r := p.readings[topic]
	before, now := p.sim.truth.where[r.serial], p.sim.truth.where[serial]
	if r.known && before != (place{}) && now != (place{}) && (now.epoch != before.epoch || now.offset != before.offset+1) {
		return fmt.Errorf("message at %v after the one at %v", now, before)
	}
	r.serial, r.known = serial, true
	return nil
}

// block takes one SSE block.
func (p *simPeer) block(text string) error {
	first, data, _ := strings.Cut(text, "\n")
	data = strings.TrimPrefix(data, "data: {")
	switch {
	case first == ":" || strings.HasPrefix(first, "retry: "):
		return nil
	case strings.HasPrefix(first, "id: "):
		return p.positions(strings.TrimPrefix(first, "id: "))
	case first == "event: refused":
		if p.leaving = true; !p.sim.mayRefuse() {
			return fmt.Errorf("the stream was refused")
		}
		return nil
	case first == "event: message":
		ev, err := protocol.ParseEventJSON([]byte(`{"op":"message",` + data))
		if err != nil {
			return err
		}
		return p.message(&ev)
	case first == "event: gap":
		ev, err := protocol.ParseEventJSON([]byte(`{"op":"gap",` + data))
		if err != nil {
			return err
		}
		if r := p.readings[ev.Topic]; ev.Reason == protocol.GapReset && !p.sim.mayReset() || r != nil && r.fresh && r.asked != (place{}) {
			return p.reset(&ev)
		}
		return p.gap(&ev)
	}
	return fmt.Errorf("no such block")
}

// reset says that a stream could not go on where it was to.
func (p *simPeer) reset(ev *protocol.Event) error {
	r := p.readings[ev.Topic]
	if r == nil || r.asked == (place{}) || !r.fresh {
		return fmt.Errorf("reset of a topic that was not to be resumed")
	}
	sameEpoch := ev.Epoch == r.asked.epoch && ev.Offset >= r.asked.offset
	if sameEpoch != (ev.Reason == protocol.GapSlow) || sameEpoch && ev.Missed != ev.Offset-r.asked.offset {
		return fmt.Errorf("gap %+v for a stream that was to go on behind %s:%d", ev, r.asked.epoch, r.asked.offset)
	}
	t := p.sim.topicThen(ev.Topic)
	if t != nil && t.epoch == r.asked.epoch && t.start <= r.asked.offset+1 {
		return fmt.Errorf("reset, though the log still has what is behind %s:%d", r.asked.epoch, r.asked.offset)
	}
	r.active, r.fresh, r.epoch, r.next = true, false, ev.Epoch, ev.Offset+1
	return nil
}

// positions is the block that a reader resumes by: it must say what has come, no more and no less.
func (p *simPeer) positions(ids string) error {
	parts := strings.Split(ids, ",")
	if len(parts) != len(p.topics) {
		return fmt.Errorf("%d positions for %d topics", len(parts), len(p.topics))
	}
	for i, part := range parts {
		r := p.readings[p.topics[i]]
		if part == "" {
			if r.active {
				return fmt.Errorf("the position of %q is gone", p.topics[i])
			}
			continue
		}
		epoch, offset, err := protocol.ParsePosition([]byte(part))
		if err != nil {
			return err
		}
		if !r.active {
			r.active, r.epoch, r.next = true, string(epoch), offset+1
		}
		if string(epoch) != r.epoch || offset != r.next-1 {
			return fmt.Errorf("position of %q is %s, the reader has all up to %s:%d", p.topics[i], part, r.epoch, r.next-1)
		}
	}
	p.unmarked = false
	return nil
}

// response takes one HTTP answer.
func (p *simPeer) response(it item) error {
	if it.status == 100 {
		return nil
	}
	if len(p.requests) == 0 {
		if p.leaving = true; it.status == 503 {
			return nil
		}
		return fmt.Errorf("status %d, but nothing was asked", it.status)
	}
	a := p.requests[0]
	p.requests = p.requests[1:]
	if v, _ := headerValue(it.header, "Connection"); v == "close" {
		p.leaving = true
	}
	if it.status != 200 {
		return p.failedResponse(a, it)
	}
	var body struct {
		Topic, Epoch string
		Offset       uint64
		Results      []struct {
			Epoch  string
			Offset uint64
			Error  *struct{ Code protocol.Code }
		}
		Messages []json.RawMessage
	}
	if err := json.Unmarshal(it.payload, &body); err != nil {
		return err
	}
	switch a.op {
	case "publish":
		if body.Topic != a.topic {
			return fmt.Errorf("published to %q, meant %q", body.Topic, a.topic)
		}
		return p.sim.truth.define(place{a.topic, body.Epoch, body.Offset}, a.serial[0])
	case "batch":
		if len(body.Results) != len(a.serial) {
			return fmt.Errorf("%d results for %d messages", len(body.Results), len(a.serial))
		}
		for i, res := range body.Results {
			m := p.sim.truth.sent[a.serial[i]]
			switch {
			case res.Error != nil:
				if !m.tooLong && !p.sim.mayRefuse() {
					return fmt.Errorf("message %d of a batch was refused: %s", i, res.Error.Code)
				}
			default:
				if err := p.sim.truth.define(place{m.topic, res.Epoch, res.Offset}, a.serial[i]); err != nil {
					return err
				}
			}
		}
	case "history":
		return p.page(a, body.Epoch, body.Messages)
	}
	return nil
}

func (p *simPeer) failedResponse(a *await, it item) error {
	code := struct {
		Error struct {
			Code    protocol.Code
			Message string
		}
	}{}
	if err := json.Unmarshal(it.payload, &code); err != nil {
		return err
	}
	switch c := code.Error.Code; {
	case c == protocol.CodeMessageTooLarge && a.op == "publish" && p.sim.truth.sent[a.serial[0]].tooLong:
	case strings.Contains(code.Error.Message, "wait for the one before"): // it pipelines without restraint
	case c == protocol.CodeOutcomeUnknown && p.leaving: // the same, while the first of it is under way
	case it.status == 503 && (p.sim.mayRefuse() || p.sim.mayStarve()):
	case a.op == "history" && (it.status == 404 || it.status == 409):
	case a.op == "batch" && c == protocol.CodeBatchTooLarge:
	default:
		return fmt.Errorf("%s %q: status %d, code %s", a.op, a.topic, it.status, c)
	}
	return nil
}

func (p *simPeer) page(a *await, epoch string, messages []json.RawMessage) error {
	last := uint64(0)
	for _, raw := range messages {
		ev, err := protocol.ParseEventJSON([]byte(`{"op":"message","topic":` + string(protocol.AppendJSONStringOf(nil, a.topic)) + `,` + string(raw[1:])))
		if err != nil {
			return err
		}
		if last != 0 && ev.Offset != last+1 {
			return fmt.Errorf("history: offset %d after %d", ev.Offset, last)
		}
		last = ev.Offset
		serial, err := p.sim.truth.saw(a.topic, ev.Kind, ev.Payload)
		if err == nil {
			err = p.sim.truth.define(place{a.topic, epoch, ev.Offset}, serial)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
