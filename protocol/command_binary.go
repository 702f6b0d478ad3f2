package protocol

import "encoding/binary"

// commandTypeEnd is where the types of commands end. All types below it have
// the same head: flags, and the id if bit 0 is set.
const commandTypeEnd = 0x10

var commandFlags = [...]byte{
	CmdSubscribe:   flagID | fromMask,
	CmdUnsubscribe: flagID,
	CmdPublish:     flagID | flagStored,
	CmdPing:        flagID,
}

// ParseBinaryCommand reads one command of rayflux.v1.bin; see the table in
// doc.go. Topic, Epoch and Payload are slices of b. maxPayload is in bytes.
// JSON payloads are checked with ValidJSON, texts as UTF-8.
//
// The error is an *Error; the Command returned with it has the id, the op and
// the topic if they could be read. That goes for the id of an unknown type
// below 0x10 as well.
func ParseBinaryCommand(b []byte, maxPayload int) (Command, error) {
	var c Command
	if e := c.readBinary(b, maxPayload); e != nil {
		return c, e
	}
	return c, nil
}

func (c *Command) readBinary(b []byte, maxPayload int) *Error {
	if len(b) == 0 {
		return refuse(CodeBadRequest, "command is empty")
	}
	op := b[0]
	if op >= commandTypeEnd {
		return unknownType(op)
	}
	r := row{rest: b[1:]}
	var flags byte
	flags, c.HasID, c.ID = r.head()
	if op < byte(CmdSubscribe) || op > byte(CmdPing) {
		return unknownType(op)
	}
	c.Op = CommandOp(op)
	if unknown := flags &^ commandFlags[op]; unknown != 0 && r.fault == "" {
		return refuse(CodeBadRequest, "%s: flags are 0x%02x, of which 0x%02x are unknown", c.Op, flags, unknown)
	}
	if c.Op == CmdPing {
		return r.end("ping")
	}
	topic := r.str8("topic")
	if r.fault != "" {
		return r.end(c.Op.String())
	}
	c.Topic = topic
	if e := topicFault(topic); e != nil {
		return e
	}
	switch c.Op {
	case CmdPublish:
		return c.readBinaryPayload(&r, flags, maxPayload)
	case CmdSubscribe:
		if e := c.From.readBinary(&r, FromMode(flags&fromMask>>fromShift), "subscribe"); e != nil {
			return e
		}
	}
	return r.end(c.Op.String())
}

func unknownType(op byte) *Error {
	return refuse(CodeUnknownOp, "command type is 0x%02x, not 0x01 (subscribe) to 0x04 (ping)", op)
}

func (c *Command) readBinaryPayload(r *row, flags byte, maxPayload int) *Error {
	kind := Kind(r.byte("kind"))
	payload := r.tail()
	if r.fault != "" {
		return r.end("publish")
	}
	if e := payloadFault(kind, payload, maxPayload); e != nil {
		return e
	}
	c.Stored = flags&flagStored != 0
	c.Kind, c.Payload = kind, payload
	return nil
}

// readBinary judges what it reads; whether r has a fault or anything left is the
// caller's to see. name is the row's.
func (from *From) readBinary(r *row, mode FromMode, name string) *Error {
	switch from.Mode = mode; mode {
	case FromLive, FromEarliest:
	case FromPosition:
		epoch, e := r.epoch()
		if e != nil {
			return e
		}
		from.Epoch, from.Offset = epoch, r.uvarint("offset")
	case FromLast:
		from.Last = r.uvarint("last")
	case FromSince:
		since := r.uvarint("since")
		if since > MaxSince {
			return refuse(CodeBadRequest, "since is %d ms, limit %d", since, int64(MaxSince))
		}
		from.Since = int64(since)
	default:
		return refuse(CodeBadRequest, "%s: from mode is %d, not 0 to 4", name, mode)
	}
	return nil
}

// AppendCommandBinary appends c as the binary message of rayflux.v1.bin,
// without a frame. What the server would refuse is not looked for here, but a
// topic or an epoch of more than 255 bytes has no encoding and panics: check
// names with CheckTopic and positions with ParsePosition first.
func AppendCommandBinary(dst []byte, c *Command) []byte {
	flags := byte(0)
	switch {
	case c.Op == CmdSubscribe:
		flags = byte(c.From.Mode) << fromShift
	case c.Op == CmdPublish && c.Stored:
		flags = flagStored
	}
	dst = appendHead(dst, byte(c.Op), flags, c.HasID, c.ID)
	if c.Op == CmdPing {
		return dst
	}
	dst = appendStr8(dst, c.Topic)
	switch c.Op {
	case CmdPublish:
		dst = append(dst, byte(c.Kind))
		dst = append(dst, c.Payload...)
	case CmdSubscribe:
		dst = c.From.appendBinary(dst)
	}
	return dst
}

func (from *From) appendBinary(dst []byte) []byte {
	switch from.Mode {
	case FromPosition:
		dst = appendStr8(dst, from.Epoch)
		return binary.AppendUvarint(dst, from.Offset)
	case FromLast:
		return binary.AppendUvarint(dst, from.Last)
	case FromSince:
		return binary.AppendUvarint(dst, uint64(from.Since))
	}
	return dst
}
