package protocol

import "encoding/binary"

const (
	eventTypeBit = 0x80
	typeMessage  = eventTypeBit | byte(EvMessage)
)

// The flags each row may have. A message has no flags byte.
var eventFlags = [...]byte{
	EvWelcome:      0,
	EvSubscribed:   flagID | flagRecovered | flagPartial,
	EvUnsubscribed: flagID,
	EvPublished:    flagID,
	EvPong:         flagID,
	EvGap:          flagMissed,
	EvDrain:        0,
	EvError:        flagID | flagRetry,
}

// AppendEventBinary appends e as a whole server frame (FIN, unmasked) of
// rayflux.v1.bin. Strings other than Message and Payload must be at most 255
// bytes; longer ones have no encoding and panic.
func AppendEventBinary(dst []byte, e *Event) []byte {
	if e.Op == EvMessage {
		return appendBinaryMessage(dst, e.Topic, e.Offset, e.Kind, e.Payload)
	}
	dst, frame := openFrame(dst, len(e.Topic)+len(e.Message))
	flags := e.flags()
	dst = appendHead(dst, eventTypeBit|byte(e.Op), flags, e.HasID && eventFlags[e.Op]&flagID != 0, e.ID)
	switch e.Op {
	case EvWelcome:
		dst = appendStr8(dst, e.Session)
		dst = appendStr8(dst, e.Version)
		dst = binary.AppendUvarint(dst, e.PingIntervalMs)
		dst = binary.AppendUvarint(dst, e.MaxMessageBytes)
	case EvUnsubscribed:
		dst = appendStr8(dst, e.Topic)
	case EvSubscribed, EvPublished:
		dst = e.appendPlace(dst)
	case EvGap:
		dst = e.appendPlace(dst)
		if e.HasMissed {
			dst = binary.AppendUvarint(dst, e.Missed)
		}
		dst = appendStr8(dst, e.Reason)
	case EvDrain:
		dst = binary.AppendUvarint(dst, e.ReconnectAfterMs)
	case EvError:
		dst = appendStr8(dst, string(e.Code))
		if e.RetryAfterMs > 0 {
			dst = binary.AppendUvarint(dst, e.RetryAfterMs)
		}
		dst = append(dst, e.Message...)
	}
	return closeFrame(dst, frame, OpBinary)
}

// flags is the flags byte without the id's bit.
func (e *Event) flags() (flags byte) {
	switch {
	case e.Op == EvSubscribed && e.Recovered:
		flags |= flagRecovered
	case e.Op == EvGap && e.HasMissed:
		flags |= flagMissed
	case e.Op == EvError && e.RetryAfterMs > 0:
		flags |= flagRetry
	}
	if e.Op == EvSubscribed && e.Partial {
		flags |= flagPartial
	}
	return flags
}

// appendPlace appends where in a topic something is.
func (e *Event) appendPlace(dst []byte) []byte {
	dst = appendStr8(dst, e.Topic)
	dst = appendStr8(dst, e.Epoch)
	return binary.AppendUvarint(dst, e.Offset)
}

// ParseBinaryMessage reads a message event of rayflux.v1.bin, without its
// frame. topic and payload are slices of b. It is for readers of a stream to
// whom the string in an Event would be the only allocation. The error is an
// *Error with CodeBadRequest.
func ParseBinaryMessage(b []byte) (topic []byte, offset uint64, kind Kind, payload []byte, err error) {
	r := row{rest: b}
	if r.byte("type") != typeMessage {
		r.fail("type", "is not 0x86")
	}
	topic = r.str8("topic")
	offset = r.uvarint("offset")
	kind = Kind(r.byte("kind"))
	if !kind.known() {
		r.fail("kind", "is not 1 (json), 2 (text) or 3 (binary)")
	}
	payload = r.tail()
	if e := r.end("message"); e != nil {
		return nil, 0, 0, nil, e
	}
	return topic, offset, kind, payload, nil
}

// ParseEventBinary reads one answer or event of rayflux.v1.bin, without its
// frame. Payload is a slice of b; the strings are copies. The error is an
// *Error, with CodeUnknownOp for a type that is not in the table.
func ParseEventBinary(b []byte) (Event, error) {
	var e Event
	if len(b) > 0 && b[0] == typeMessage {
		topic, offset, kind, payload, err := ParseBinaryMessage(b)
		if err != nil {
			return e, err
		}
		return Event{Op: EvMessage, Topic: string(topic), Offset: offset, Kind: kind, Payload: payload}, nil
	}
	if fault := e.readBinary(b); fault != nil {
		return Event{}, fault
	}
	return e, nil
}

func (e *Event) readBinary(b []byte) *Error {
	if len(b) == 0 {
		return refuse(CodeBadRequest, "event is empty")
	}
	e.Op = EventOp(b[0] &^ eventTypeBit)
	if b[0]&eventTypeBit == 0 || e.Op == EvNone || e.Op > EvError {
		return refuse(CodeUnknownOp, "event type is 0x%02x, not 0x81 (welcome) to 0x89 (error)", b[0])
	}
	r := row{rest: b[1:]}
	var flags byte
	flags, e.HasID, e.ID = r.head()
	if unknown := flags &^ eventFlags[e.Op]; unknown != 0 && r.fault == "" {
		return refuse(CodeBadRequest, "%s: flags are 0x%02x, of which 0x%02x are unknown", e.Op, flags, unknown)
	}
	switch e.Op {
	case EvWelcome:
		e.Session = string(r.str8("session"))
		e.Version = string(r.str8("version"))
		e.PingIntervalMs = r.uvarint("ping_interval_ms")
		e.MaxMessageBytes = r.uvarint("max_message_bytes")
	case EvUnsubscribed:
		e.Topic = string(r.str8("topic"))
	case EvSubscribed:
		e.Recovered, e.Partial = flags&flagRecovered != 0, flags&flagPartial != 0
		e.readPlace(&r)
	case EvPublished:
		e.readPlace(&r)
	case EvGap:
		e.readPlace(&r)
		if e.HasMissed = flags&flagMissed != 0; e.HasMissed {
			e.Missed = r.uvarint("missed")
		}
		e.Reason = string(r.str8("reason"))
	case EvDrain:
		e.ReconnectAfterMs = r.uvarint("reconnect_after_ms")
	case EvError:
		e.Code = Code(r.str8("code"))
		if flags&flagRetry != 0 {
			if e.RetryAfterMs = r.uvarint("retry_after_ms"); e.RetryAfterMs == 0 {
				r.fail("retry_after_ms", "is there but 0")
			}
		}
		e.Message = string(r.tail())
	}
	return r.end(e.Op.String())
}

func (e *Event) readPlace(r *row) {
	e.Topic = string(r.str8("topic"))
	e.Epoch = string(r.str8("epoch"))
	e.Offset = r.uvarint("offset")
}
