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

// takeJSON accounts for a message event; false if the text is another event.
func (g *generator) takeJSON(c *conn, text []byte, row *streak) bool {
	rest, ok := bytes.CutPrefix(text, jsonOpen)
	if !ok {
		return g.takeOddJSON(c, text, row)
	}
	size := len(g.topics[0])
	if len(rest) < size || !bytes.HasPrefix(rest[size:], jsonOffset) {
		return g.takeOddJSON(c, text, row)
	}
	topic := rest[:size]
	rest = rest[size+len(jsonOffset):]
	offset, digits := uint64(0), 0
	for digits < len(rest) && rest[digits]-'0' < 10 {
		offset = offset*10 + uint64(rest[digits]-'0')
		digits++
	}
	payload, ok := bytes.CutPrefix(rest[digits:], jsonData)
	if !ok || len(payload) < g.stampBytes {
		return g.takeOddJSON(c, text, row)
	}
	g.takeNumbered(c, topic, offset, g.form.get(payload), row)
	return true
}

// takeOddJSON is takeJSON for an event written in another order or with other white space.
func (g *generator) takeOddJSON(c *conn, text []byte, row *streak) bool {
	var event struct {
		Op, Topic string
		Offset    uint64
		Data      json.RawMessage
	}
	if json.Unmarshal(text, &event) != nil || event.Op != "message" {
		return false
	}
	payload := bytes.Trim(event.Data, `"`)
	if len(payload) < g.stampBytes {
		g.tally.foreign++
		return true
	}
	g.takeNumbered(c, []byte(event.Topic), event.Offset, g.form.get(payload), row)
	return true
}
