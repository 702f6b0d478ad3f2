package bench

import (
	"bytes"
	"encoding/json"
)

// The usual shape of a message event is recognised by its first bytes, so that its payload is not parsed; every other text
// goes to the JSON parser.

var (
	jsonOpen   = []byte(`{"op":"message","topic":"`)
	jsonOffset = []byte(`","offset":`)
	jsonData   = []byte(`,"data":"`)
)

// takeJSON accounts for one message event; false if the text is another event.
func (g *generator) takeJSON(c *conn, text []byte, run *burst) bool {
	rest, ok := bytes.CutPrefix(text, jsonOpen)
	if !ok {
		return g.takeOddJSON(c, text, run)
	}
	size := len(g.topics[0])
	if len(rest) < size || !bytes.HasPrefix(rest[size:], jsonOffset) {
		return g.takeOddJSON(c, text, run)
	}
	topic := rest[:size]
	rest = rest[size+len(jsonOffset):]
	offset, digits := uint64(0), 0
	for digits < len(rest) && rest[digits]-'0' < 10 {
		offset = offset*10 + uint64(rest[digits]-'0')
		digits++
	}
	payload, ok := bytes.CutPrefix(rest[digits:], jsonData)
	if !ok {
		return g.takeOddJSON(c, text, run)
	}
	g.takeNamed(c, topic, offset, payload, run)
	return true
}

// takeOddJSON is takeJSON for a message event written in another order or with other white space.
func (g *generator) takeOddJSON(c *conn, text []byte, run *burst) bool {
	var event struct {
		Op, Topic string
		Offset    uint64
		Data      json.RawMessage
	}
	if json.Unmarshal(text, &event) != nil || event.Op != "message" {
		return false
	}
	g.takeNamed(c, []byte(event.Topic), event.Offset, bytes.Trim(event.Data, `"`), run)
	return true
}

// takeNamed accounts for a payload that came with its topic and offset.
func (g *generator) takeNamed(c *conn, topic []byte, offset uint64, payload []byte, run *burst) {
	slot := g.takePayload(c, payload, run)
	if slot < 0 {
		return
	}
	if string(topic) != g.topics[(int(c.first)+slot)%len(g.topics)] {
		g.tally.foreign++
	}
	c.offsets[slot].take(&g.tally, offset)
}
