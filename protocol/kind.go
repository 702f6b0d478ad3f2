package protocol

// Kind says what a message's payload is. The values are the kind byte of the
// binary protocol.
type Kind byte

const (
	KindJSON   Kind = 1 // one JSON value, the text exactly as the publisher sent it
	KindText   Kind = 2 // UTF-8
	KindBinary Kind = 3 // any bytes
)

var kindNames = [...]string{KindJSON: "json", KindText: "text", KindBinary: "binary"}

// String is the kind's word on the wire and on the command line.
func (k Kind) String() string {
	if !k.known() {
		return "unknown"
	}
	return kindNames[k]
}

func (k Kind) known() bool { return k >= KindJSON && k <= KindBinary }

// ParseKind is the kind whose word is s; ok is false if there is none.
func ParseKind[S string | []byte](s S) (k Kind, ok bool) {
	for k = KindJSON; k <= KindBinary; k++ {
		if string(s) == kindNames[k] {
			return k, true
		}
	}
	return 0, false
}

// CheckPayload returns nil if payload may be published as kind: at most limit
// bytes, and valid JSON (depth at most MaxJSONDepth) or valid UTF-8 where the
// kind says so. Otherwise the error is an *Error with CodeMessageTooLarge,
// CodeDataInvalid, or CodeBadRequest for a kind that does not exist.
//
// Every payload passes through here or through ParseJSONCommand before it is
// put into a log: that is what lets the views embed it without looking again.
func CheckPayload(kind Kind, payload []byte, limit int) error {
	if e := payloadFault(kind, payload, limit); e != nil {
		return e
	}
	return nil
}

func payloadFault(kind Kind, payload []byte, limit int) *Error {
	if !kind.known() {
		return refuse(CodeBadRequest, "kind is %d, not 1 (json), 2 (text) or 3 (binary)", kind)
	}
	if len(payload) > limit {
		return tooLarge(len(payload), limit)
	}
	switch kind {
	case KindJSON:
		if at := jsonFault(payload); at >= 0 {
			return notJSON(CodeDataInvalid, "payload", payload, at)
		}
	case KindText:
		if at := utf8Fault(payload); at >= 0 {
			return refuse(CodeDataInvalid, "text payload is not UTF-8 at byte %d of %d", at, len(payload))
		}
	}
	return nil
}

func tooLarge(size, limit int) *Error {
	return refuse(CodeMessageTooLarge, "payload is %d bytes, limit %d", size, limit)
}
