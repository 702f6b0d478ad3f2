package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"rayflux/protocol"
)

// truth is what the simulation knows to have been published, and where. Every payload names itself by a serial number,
// so whoever sees a message, by whatever way, can be held against what was sent and against all who saw it before.
type truth struct {
	sent   []sentMessage // by serial number
	at     map[place]int // which message has a position
	places []place       // in the order in which they became known
	where  []place       // by serial number; the zero place: not known
	taken  map[place]int64
	tapped map[tapAt]place // the newest message seen in a log
}

// tapAt is one log of a topic: its owner's, or a balancer's.
type tapAt struct {
	loop *loop
	name string
}

// place is what names one payload in the whole server, for ever.
type place struct {
	topic, epoch string
	offset       uint64
}

type sentMessage struct {
	topic   string
	kind    protocol.Kind
	payload []byte
	tooLong bool
	peer    int // who sent it
}

func newTruth() *truth {
	return &truth{at: map[place]int{}, taken: map[place]int64{}, tapped: map[tapAt]place{}}
}

// compose makes a payload of about size bytes that names itself.
func (tr *truth) compose(rng *rand.Rand, peer int, topic string, kind protocol.Kind, size, limit int) (serial int) {
	serial = len(tr.sent)
	var some strings.Builder
	for range min(size, 100) {
		some.WriteString(letters[rng.IntN(len(letters))])
	}
	filler := strings.Repeat(some.String(), 1+size/100)
	var payload []byte
	switch kind {
	case protocol.KindJSON:
		payload = append(strconv.AppendInt([]byte(`{"n":`), int64(serial), 10), `,"x":`...)
		payload = append(protocol.AppendJSONStringOf(payload, filler), '}')
	case protocol.KindText:
		payload = fmt.Appendf(nil, "n=%d %s\n", serial, filler)
	default:
		payload = append(binary.BigEndian.AppendUint64([]byte{0xff}, uint64(serial)), filler...)
	}
	tr.sent = append(tr.sent, sentMessage{topic, kind, payload, len(payload) > limit, peer})
	tr.where = append(tr.where, place{})
	return serial
}

// letters are what payloads are made of: plain ones, and those that some wire has to escape.
var letters = strings.Split("abcdefghijklmnop \"\\\t\u00e9\u20ac\u2028", "")

// serialOf reads a payload's name.
func serialOf(payload []byte) (serial int, err error) {
	switch {
	case len(payload) >= 9 && payload[0] == 0xff:
		return int(binary.BigEndian.Uint64(payload[1:])), nil
	case bytes.HasPrefix(payload, []byte(`{"n":`)):
		_, err = fmt.Sscanf(string(payload), `{"n":%d`, &serial)
	default:
		_, err = fmt.Sscanf(string(payload), "n=%d", &serial)
	}
	return serial, err
}

// saw checks that a payload is one that was sent, unchanged, to that topic.
func (tr *truth) saw(topic string, kind protocol.Kind, payload []byte) (serial int, err error) {
	serial, err = serialOf(payload)
	if err != nil || serial < 0 || serial >= len(tr.sent) {
		return 0, fmt.Errorf("a payload nobody sent: %.80q", payload)
	}
	m := &tr.sent[serial]
	if m.topic != topic || !bytes.Equal(m.payload, payload) || kind != 0 && m.kind != kind || m.tooLong {
		return 0, fmt.Errorf("message %d of topic %q, kind %v, %.60q came as topic %q, kind %v, %.60q", serial, m.topic, m.kind, m.payload, topic, kind, payload)
	}
	return serial, nil
}

// define says that a message has a position. Whoever says so first is believed; all others must agree.
func (tr *truth) define(p place, serial int) error {
	if p.offset == 0 || p.epoch == "" {
		return fmt.Errorf("message %d has position %s:%d", serial, p.epoch, p.offset)
	}
	if before, ok := tr.at[p]; ok && before != serial {
		return fmt.Errorf("topic %q, position %s:%d is message %d, and was %d", p.topic, p.epoch, p.offset, serial, before)
	}
	if before := tr.where[serial]; before != (place{}) && before != p {
		return fmt.Errorf("message %d is at %v, and was at %v", serial, p, before)
	}
	if tr.where[serial] == (place{}) {
		tr.at[p], tr.where[serial] = serial, p
		tr.places = append(tr.places, p)
	}
	return nil
}

// tap reads what is new in the logs of a loop, and when it was taken.
func (tr *truth) tap(l *loop, names []string) error {
	for _, name := range names { // not by the map, whose order no seed repeats
		t, seen := l.topics[name], tr.tapped[tapAt{l, name}]
		if t == nil || seen.epoch == t.epoch && seen.offset == t.head {
			continue
		}
		from := t.start
		if seen.epoch == t.epoch {
			from = max(from, seen.offset+1)
		}
		var err error
		t.walk(from, func(c *chunk, offset uint64, kind protocol.Kind, payload, _ []byte) bool {
			p := place{name, t.epoch, offset}
			var serial int
			if offset != from {
				err = fmt.Errorf("topic %q: offset %d in the log, want %d", name, offset, from)
			} else if serial, err = tr.saw(name, kind, payload); err == nil {
				err = tr.define(p, serial)
			}
			if l.up == nil {
				tr.taken[p] = c.timeOf(uint32(offset - c.first))
			}
			from++
			return err == nil
		})
		if err != nil {
			return err
		}
		tr.tapped[tapAt{l, name}] = place{name, t.epoch, t.head}
	}
	return nil
}

// ordered checks that one connection's messages to one topic have rising offsets.
func (tr *truth) ordered() error {
	type stream struct {
		peer         int
		topic, epoch string
	}
	last := map[stream]uint64{}
	for serial, m := range tr.sent {
		p := tr.where[serial]
		if p == (place{}) {
			continue
		}
		s := stream{m.peer, m.topic, p.epoch}
		if p.offset <= last[s] {
			return fmt.Errorf("message %d of connection %d is at %v, after one at %d", serial, m.peer, p, last[s])
		}
		last[s] = p.offset
	}
	return nil
}
