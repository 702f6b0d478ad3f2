package protocol

import (
	"math"
	"strconv"
)

// AppendEventJSON appends e as a whole server frame (FIN, unmasked) of
// rayflux.v1.json. For an EvMessage it is what AppendMessage appends for
// FormatJSON.
func AppendEventJSON(dst []byte, e *Event) []byte {
	if e.Op == EvMessage {
		return AppendMessage(dst, FormatJSON, e.Topic, e.Offset, e.Kind, e.Payload)
	}
	const names = 90 // about what op and the names of fields take
	dst, frame := openFrame(dst, names+len(e.Topic)+len(e.Message))
	dst = append(dst, `{"op":"`...)
	dst = append(dst, e.Op.String()...)
	dst = append(dst, '"')
	if e.HasID && eventFlags[e.Op]&flagID != 0 {
		dst = appendUintField(dst, `,"id":`, e.ID)
	}
	switch e.Op {
	case EvWelcome:
		dst = appendStringField(dst, `,"session":`, e.Session)
		dst = appendStringField(dst, `,"version":`, e.Version)
		dst = appendUintField(dst, `,"ping_interval_ms":`, e.PingIntervalMs)
		dst = appendUintField(dst, `,"max_message_bytes":`, e.MaxMessageBytes)
	case EvUnsubscribed:
		dst = appendStringField(dst, `,"topic":`, e.Topic)
	case EvPublished:
		dst = e.appendPlaceFields(append(dst, ','))
	case EvSubscribed:
		dst = e.appendPlaceFields(append(dst, ','))
		dst = append(dst, `,"recovered":`...)
		dst = strconv.AppendBool(dst, e.Recovered)
		if e.Partial {
			dst = append(dst, `,"partial":true`...)
		}
	case EvGap:
		dst = e.appendGapFields(append(dst, ','))
	case EvDrain:
		dst = appendUintField(dst, `,"reconnect_after_ms":`, e.ReconnectAfterMs)
	case EvError:
		dst = appendStringField(dst, `,"code":`, string(e.Code))
		dst = appendStringField(dst, `,"message":`, e.Message)
		if e.RetryAfterMs > 0 {
			dst = appendUintField(dst, `,"retry_after_ms":`, e.RetryAfterMs)
		}
	}
	dst = append(dst, '}')
	return closeFrame(dst, frame, OpText)
}

func (e *Event) appendPlaceFields(dst []byte) []byte {
	dst = appendStringField(dst, `"topic":`, e.Topic)
	dst = appendStringField(dst, `,"epoch":`, e.Epoch)
	return appendUintField(dst, `,"offset":`, e.Offset)
}

func (e *Event) appendGapFields(dst []byte) []byte {
	dst = e.appendPlaceFields(dst)
	if e.HasMissed {
		dst = appendUintField(dst, `,"missed":`, e.Missed)
	}
	return appendStringField(dst, `,"reason":`, e.Reason)
}

func appendStringField(dst []byte, name, value string) []byte {
	return AppendJSONStringOf(append(dst, name...), value)
}

func appendUintField(dst []byte, name string, value uint64) []byte {
	return strconv.AppendUint(append(dst, name...), value, 10)
}

var eventMembers = members{depth: MaxJSONDepth, names: []string{
	"op", "topic", "offset", "data", "base64", "id", "epoch", "recovered", "partial", "missed", "reason", "code", "message",
	"retry_after_ms", "reconnect_after_ms", "session", "version", "ping_interval_ms", "max_message_bytes",
}}

const (
	eventFieldOp = iota
	eventFieldTopic
	eventFieldOffset
	eventFieldData
	eventFieldBase64
	eventFieldID
	eventFieldEpoch
	eventFieldRecovered
	eventFieldPartial
	eventFieldMissed
	eventFieldReason
	eventFieldCode
	eventFieldMessage
	eventFieldRetry
	eventFieldReconnect
	eventFieldSession
	eventFieldVersion
	eventFieldPing
	eventFieldMaxMessage
	numEventFields
)

// ParseEventJSON reads one answer or event of rayflux.v1.json, without its
// frame. Members that the op does not have are ignored, as are unknown ones.
//
// On this wire a text payload and a JSON payload that is a string look the
// same: both are a string in "data". They are reported as KindText, with the
// string's meaning as payload; any other "data" is KindJSON with the text as it
// stands. The binary protocol keeps the kinds apart.
//
// Payload is a slice of b where nothing had to be decoded. The error is an
// *Error, with CodeUnknownOp for an op that is not in the table.
func ParseEventJSON(b []byte) (Event, error) {
	in := eventReader{}
	twice, fault := eventMembers.document("event", b, in.fields[:], &in.scratch)
	if fault == nil && twice != "" {
		fault = refuse(CodeBadRequest, "%s occurs twice", twice)
	}
	if fault != nil {
		return Event{}, fault
	}
	e := in.event()
	if in.fault != nil {
		return Event{}, in.fault
	}
	return e, nil
}

// eventReader turns the members of an event into its fields; it keeps the
// first fault.
type eventReader struct {
	fields  [numEventFields]field
	scratch Scratch // not reused: what is unescaped belongs to the Event
	fault   *Error
}

func (in *eventReader) event() (e Event) {
	word := in.bytes(eventFieldOp)
	for e.Op = EvError; e.Op > EvNone && eventWords[e.Op] != string(word); {
		e.Op--
	}
	if f := in.fields[eventFieldID]; f.present() && eventFlags[e.Op]&flagID != 0 {
		e.HasID, e.ID = true, in.uint(eventFieldID, MaxID)
	}
	switch e.Op {
	case EvWelcome:
		e.Session = string(in.bytes(eventFieldSession))
		e.Version = string(in.bytes(eventFieldVersion))
		e.PingIntervalMs = in.uint(eventFieldPing, math.MaxUint64)
		e.MaxMessageBytes = in.uint(eventFieldMaxMessage, math.MaxUint64)
	case EvUnsubscribed:
		e.Topic = string(in.bytes(eventFieldTopic))
	case EvPublished:
		in.place(&e)
	case EvSubscribed:
		in.place(&e)
		e.Recovered = in.bool(eventFieldRecovered)
		e.Partial = in.fields[eventFieldPartial].present() && in.bool(eventFieldPartial)
	case EvMessage:
		in.message(&e)
	case EvGap:
		in.place(&e)
		if e.HasMissed = in.fields[eventFieldMissed].present(); e.HasMissed {
			e.Missed = in.uint(eventFieldMissed, math.MaxUint64)
		}
		e.Reason = string(in.bytes(eventFieldReason))
	case EvDrain:
		e.ReconnectAfterMs = in.uint(eventFieldReconnect, math.MaxUint64)
	case EvError:
		e.Code = Code(in.bytes(eventFieldCode))
		e.Message = string(in.bytes(eventFieldMessage))
		if in.fields[eventFieldRetry].present() {
			e.RetryAfterMs = in.uint(eventFieldRetry, math.MaxUint64)
		}
	case EvPong:
	default:
		in.fail(refuse(CodeUnknownOp, "op is %q, which is no event", shown(word)))
	}
	return e
}

func (in *eventReader) place(e *Event) {
	e.Topic = string(in.bytes(eventFieldTopic))
	e.Epoch = string(in.bytes(eventFieldEpoch))
	e.Offset = in.uint(eventFieldOffset, math.MaxUint64)
}

func (in *eventReader) message(e *Event) {
	e.Topic = string(in.bytes(eventFieldTopic))
	e.Offset = in.uint(eventFieldOffset, math.MaxUint64)
	data := in.fields[eventFieldData]
	if data.present() == in.fields[eventFieldBase64].present() {
		in.fail(refuse(CodeBadRequest, "message has not one of data and base64"))
		return
	}
	switch {
	case data.isString():
		e.Kind, e.Payload = KindText, in.bytes(eventFieldData)
	case data.present():
		e.Kind, e.Payload = KindJSON, data.raw
	default:
		encoded := in.bytes(eventFieldBase64)
		payload, ok := appendBase64Decoded(nil, encoded)
		if !ok {
			in.fail(refuse(CodeBadRequest, "base64 is %q, not padded standard base64", shown(encoded)))
		}
		e.Kind, e.Payload = KindBinary, payload
	}
}

func (in *eventReader) fail(e *Error) {
	if in.fault == nil {
		in.fault = e
	}
}

func (in *eventReader) bytes(k int) []byte {
	v, ok := in.fields[k].str(&in.scratch)
	if !ok {
		in.fail(wrongType(CodeBadRequest, eventMembers.names[k], in.fields[k]))
	}
	return v
}

func (in *eventReader) bool(k int) bool {
	switch raw := in.fields[k].raw; string(raw) {
	case "true":
		return true
	case "false":
	default:
		in.fail(refuse(CodeBadRequest, "%s is %q, not true or false", eventMembers.names[k], shown(raw)))
	}
	return false
}

func (in *eventReader) uint(k int, limit uint64) uint64 {
	raw := in.fields[k].raw
	v, ok := parseUint(raw)
	if !ok || v > limit {
		in.fail(refuse(CodeBadRequest, "%s is %q, not an integer from 0 to %d", eventMembers.names[k], shown(raw), limit))
	}
	return v
}
