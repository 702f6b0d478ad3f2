package protocol

import (
	"math"
	"strconv"
)

// The members of a command and of a message in a batch, and those of "from".
var (
	commandMembers = members{[]string{"op", "id", "topic", "data", "text", "base64", "ack", "from"}, MaxJSONDepth}
	fromMembers    = members{[]string{"epoch", "offset", "last", "since"}, MaxJSONDepth}
)

const (
	fieldOp = iota
	fieldID
	fieldTopic
	fieldData
	fieldText
	fieldBase64
	fieldAck
	fieldFrom
	numCommandFields
)

// ParseJSONCommand reads one command of rayflux.v1.json. The slices of the
// Command point into b or into s.Buf and are valid until either is reused.
// maxPayload is in bytes and counts the payload as it is published: the text
// of "data" without surrounding white space, the decoded "text" or "base64".
//
// The error is an *Error. The Command returned with it has the id, the op and
// the topic if they could be read, so that the answer can name them; where the
// text is not JSON at all, nothing is known.
func ParseJSONCommand(b []byte, s *Scratch, maxPayload int) (Command, error) {
	var c Command
	if e := c.readJSON(b, s, maxPayload); e != nil {
		return c, e
	}
	return c, nil
}

func (c *Command) readJSON(b []byte, s *Scratch, maxPayload int) *Error {
	s.Buf = s.Buf[:0]
	var fields [numCommandFields]field
	twice, e := commandMembers.document("command", b, fields[:], s)
	if e != nil {
		return e
	}
	if twice == "id" {
		return refuse(CodeBadRequest, "id occurs twice")
	}
	if id := fields[fieldID].raw; id != nil {
		v, ok := parseUint(id)
		if !ok || v > MaxID {
			return refuse(CodeBadRequest, "id is %s, not an integer from 0 to %d", shown(id), MaxID)
		}
		c.HasID, c.ID = true, v
	}
	if twice != "" {
		return refuse(CodeBadRequest, "%s occurs twice", twice)
	}
	if e := c.readOp(fields[fieldOp], s); e != nil {
		return e
	}
	switch c.Op {
	case CmdPing:
		return nil
	case CmdPublish:
		return c.readPublish(&fields, s, maxPayload)
	}
	if e := c.readTopic(fields[fieldTopic], s); e != nil {
		return e
	}
	if c.Op == CmdSubscribe {
		return c.From.readJSON(fields[fieldFrom], s)
	}
	return nil
}

func (c *Command) readOp(f field, s *Scratch) *Error {
	op, ok := f.str(s)
	if !ok {
		return wrongType(CodeBadRequest, "op", f)
	}
	for o := CmdSubscribe; o <= CmdPing; o++ {
		if string(op) == commandWords[o] {
			c.Op = o
			return nil
		}
	}
	return refuse(CodeUnknownOp, "op is %q, not subscribe, unsubscribe, publish or ping", shown(op))
}

func (c *Command) readTopic(f field, s *Scratch) *Error {
	topic, ok := f.str(s)
	if !ok {
		return wrongType(CodeTopicInvalid, "topic", f)
	}
	c.Topic = topic
	return topicFault(topic)
}

// wrongType is about a field that had to be a string.
func wrongType(code Code, name string, f field) *Error {
	if !f.present() {
		return refuse(code, "%s is missing", name)
	}
	return refuse(code, "%s is %s, not a string", name, shown(f.raw))
}

// readPublish reads the topic, the payload and the ack of a publish command or
// of a message in a batch.
func (c *Command) readPublish(fields *[numCommandFields]field, s *Scratch, maxPayload int) *Error {
	c.Op = CmdPublish
	if e := c.readTopic(fields[fieldTopic], s); e != nil {
		return e
	}
	if f := fields[fieldAck]; f.present() {
		switch ack, ok := f.str(s); {
		case ok && string(ack) == "stored":
			c.Stored = true
		case ok && string(ack) == "memory":
		default:
			return refuse(CodeBadRequest, `ack is %s, not "memory" or "stored"`, shown(f.raw))
		}
	}
	given := 0
	for k := fieldData; k <= fieldBase64; k++ {
		if fields[k].present() {
			given++
		}
	}
	if given == 0 {
		return refuse(CodeDataInvalid, "data, text or base64 is missing")
	}
	if given > 1 {
		return refuse(CodeBadRequest, "%d of data, text and base64 are there, not one", given)
	}
	return c.readPayload(fields, s, maxPayload)
}

func (c *Command) readPayload(fields *[numCommandFields]field, s *Scratch, maxPayload int) *Error {
	if data := fields[fieldData].raw; data != nil {
		c.Kind, c.Payload = KindJSON, data
		return payloadRoom(len(data), maxPayload)
	}
	if f := fields[fieldText]; f.present() {
		text, ok := f.str(s)
		if !ok {
			return wrongType(CodeDataInvalid, "text", f)
		}
		c.Kind, c.Payload = KindText, text
		return payloadRoom(len(text), maxPayload)
	}
	encoded, ok := fields[fieldBase64].str(s)
	if !ok {
		return wrongType(CodeDataInvalid, "base64", fields[fieldBase64])
	}
	if e := payloadRoom(base64Size(encoded), maxPayload); e != nil {
		return e
	}
	used := len(s.Buf)
	if s.Buf, ok = appendBase64Decoded(s.Buf, encoded); !ok {
		return refuse(CodeDataInvalid, "base64 is %q, not padded standard base64", shown(encoded))
	}
	c.Kind, c.Payload = KindBinary, s.Buf[used:]
	return nil
}

func payloadRoom(size, limit int) *Error {
	if size > limit {
		return tooLarge(size, limit)
	}
	return nil
}

func (from *From) readJSON(f field, s *Scratch) *Error {
	if !f.present() {
		return nil
	}
	if word, ok := f.str(s); ok && string(word) == "earliest" {
		from.Mode = FromEarliest
		return nil
	}
	if f.raw[0] != '{' {
		return unknownFrom(f)
	}
	var fields [4]field
	_, twice := fromMembers.fields(f.raw, 0, fields[:], s)
	if twice != "" {
		return refuse(CodeBadRequest, "%s occurs twice in from", twice)
	}
	epoch, offset, last, since := fields[0], fields[1], fields[2], fields[3]
	position := epoch.present() && offset.present()
	switch {
	case position && !last.present() && !since.present():
		return from.readPosition(epoch, offset, s)
	case epoch.present() || offset.present() || last.present() == since.present():
		return unknownFrom(f)
	case last.present():
		n, ok := parseUint(last.raw)
		if !ok {
			return refuse(CodeBadRequest, "last is %s, not an integer from 0 to %d", shown(last.raw), uint64(math.MaxUint64))
		}
		from.Mode, from.Last = FromLast, n
		return nil
	}
	return from.readSince(since, s)
}

func unknownFrom(f field) *Error {
	return refuse(CodeBadRequest, `from is %s, not "earliest" or an object of epoch and offset, of last, or of since`, shown(f.raw))
}

func (from *From) readPosition(epoch, offset field, s *Scratch) *Error {
	e, ok := epoch.str(s)
	if !ok {
		return wrongType(CodeBadRequest, "epoch", epoch)
	}
	if fault := epochFault(e); fault != nil {
		return fault
	}
	o, ok := parseUint(offset.raw)
	if !ok {
		return refuse(CodeBadRequest, "offset is %s, not an integer from 0 to %d", shown(offset.raw), uint64(math.MaxUint64))
	}
	from.Mode, from.Epoch, from.Offset = FromPosition, e, o
	return nil
}

func (from *From) readSince(f field, s *Scratch) *Error {
	text, ok := f.str(s)
	if !ok {
		return wrongType(CodeBadRequest, "since", f)
	}
	ms, e := timestamp(text)
	if e != nil {
		return e
	}
	from.Mode, from.Since = FromSince, ms
	return nil
}

// AppendCommandJSON appends c as the text message of rayflux.v1.json, without
// a frame. What the server would refuse is not looked for here, with one
// exception: text that is not UTF-8 comes out with U+FFFD in place of the bad
// bytes. A payload of KindJSON is copied as it is and must be valid.
func AppendCommandJSON(dst []byte, c *Command) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, c.Op.String()...)
	dst = append(dst, '"')
	if c.HasID {
		dst = append(dst, `,"id":`...)
		dst = strconv.AppendUint(dst, c.ID, 10)
	}
	if c.Op != CmdPing {
		dst = append(dst, `,"topic":`...)
		dst = AppendJSONString(dst, c.Topic)
	}
	switch c.Op {
	case CmdSubscribe:
		dst = c.From.appendJSON(dst)
	case CmdPublish:
		dst = append(dst, ',')
		if c.Kind == KindText {
			dst = append(dst, `"text":`...)
			dst = AppendJSONString(dst, c.Payload)
		} else {
			dst = AppendMessageData(dst, c.Kind, c.Payload)
		}
		if c.Stored {
			dst = append(dst, `,"ack":"stored"`...)
		}
	}
	return append(dst, '}')
}

func (from *From) appendJSON(dst []byte) []byte {
	switch from.Mode {
	case FromPosition:
		dst = append(dst, `,"from":{"epoch":`...)
		dst = AppendJSONString(dst, from.Epoch)
		dst = append(dst, `,"offset":`...)
		dst = strconv.AppendUint(dst, from.Offset, 10)
		return append(dst, '}')
	case FromEarliest:
		return append(dst, `,"from":"earliest"`...)
	case FromLast:
		dst = append(dst, `,"from":{"last":`...)
		dst = strconv.AppendUint(dst, from.Last, 10)
		return append(dst, '}')
	case FromSince:
		dst = append(dst, `,"from":{"since":"`...)
		dst = AppendTimestamp(dst, from.Since)
		return append(dst, `"}`...)
	}
	return dst
}
