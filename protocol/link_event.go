package protocol

import "encoding/binary"

// LinkEventOp is what a node says on a link, beyond what it says to clients.
// The values are the type bytes.
type LinkEventOp byte

const (
	LinkEvChallenge LinkEventOp = 0x90
	LinkEvReady     LinkEventOp = 0x91
	LinkEvLocated   LinkEventOp = 0x92
	LinkEvMoved     LinkEventOp = 0x93
	LinkEvFetched   LinkEventOp = 0x94
	LinkEvPage      LinkEventOp = 0x95
	LinkEvDraining  LinkEventOp = 0x97
	LinkEvTaken     LinkEventOp = 0x98
	LinkEvUnclaimed LinkEventOp = 0x99
	LinkEvTurned    LinkEventOp = 0x9a
	LinkEvStored    LinkEventOp = 0x9b
)

const linkEventFirst = eventTypeBit | linkCommandFirst

var linkEvents = [...]linkRow{
	LinkEvChallenge - linkEventFirst: {"challenge", 0},
	LinkEvReady - linkEventFirst:     {"ready", flagDraining},
	LinkEvLocated - linkEventFirst:   {"located", flagID | flagWhole | flagPast},
	LinkEvMoved - linkEventFirst:     {"moved", flagID},
	LinkEvFetched - linkEventFirst:   {"fetched", flagID},
	LinkEvPage - linkEventFirst:      {"page", flagID | flagWhole},
	LinkEvDraining - linkEventFirst:  {"draining", 0},
	LinkEvTaken - linkEventFirst:     {"taken", flagID | flagRefused},
	LinkEvUnclaimed - linkEventFirst: {"unclaimed", flagID},
	LinkEvTurned - linkEventFirst:    {"turned", flagID | flagMissed},
	LinkEvStored - linkEventFirst:    {"stored", flagID | flagRefused},
}

// String is the op's word in the table; "unknown" if it is not there.
func (o LinkEventOp) String() string {
	if word := linkRowOf(linkEvents[:], linkEventFirst, byte(o)).word; word != "" {
		return word
	}
	return "unknown"
}

// LinkEvent is one answer or event of a node that clients do not get. Only the
// fields of its Op are set and written.
type LinkEvent struct {
	Op    LinkEventOp
	HasID bool   // located, moved, fetched, page, taken, unclaimed, turned, stored
	ID    uint64 // 0 to MaxID

	Version  uint64 // challenge: LinkVersion
	Features uint64 // challenge: LinkFeature bits
	Name     []byte // challenge: how the node calls itself, in logs
	Nonce    []byte // challenge: LinkNonceMin to LinkNonceMax bytes, never used twice
	Proof    []byte // ready: LinkProofBytes, see AppendLinkProof
	Draining bool   // ready: the node is going away

	Fingerprint uint64 // ready: of the node's view, 0 if it has none; moved

	Topic  []byte // located, moved, fetched, taken, unclaimed, turned
	Epoch  []byte // located, fetched, turned
	Offset uint64 // located, turned: before the first message to come
	Start  uint64 // located, fetched: of the oldest message kept, Head+1 if there is none
	Head   uint64 // located, fetched: of the newest message
	Whole  bool   // located: all that was asked for is there; page: it will always have the same messages
	Past   bool   // located: the epoch is an earlier one, which begins the answer, and Start and Head are the present one's

	HasMissed bool   // turned: it is known how many messages of the epoch that was asked for are missing
	Missed    uint64 // turned: how many
	Frames    []byte // fetched: as CheckLinkFrames wants them, which nobody has asked yet

	Status int    // page: of an HTTP answer, 100 to 599
	Body   []byte // page: of the same; stored: why not, in UTF-8

	AfterMs uint64 // draining: until the node closes
	Refused bool   // taken, stored
}

// AppendLinkEvent appends e as a whole server frame. Fields that have no
// encoding panic: strings of more than 255 bytes, a proof of the wrong length.
func AppendLinkEvent(dst []byte, e *LinkEvent) []byte {
	known := linkRowOf(linkEvents[:], linkEventFirst, byte(e.Op))
	dst, frame := openFrame(dst, len(e.Topic)+len(e.Frames)+len(e.Body))
	dst = appendHead(dst, byte(e.Op), e.flags(), e.HasID && known.flags&flagID != 0, e.ID)
	switch e.Op {
	case LinkEvChallenge:
		dst = binary.AppendUvarint(dst, e.Version)
		dst = binary.AppendUvarint(dst, e.Features)
		dst = appendStr8(dst, e.Name)
		dst = appendStr8(dst, e.Nonce)
	case LinkEvReady:
		dst = appendProof(dst, e.Proof)
		dst = binary.AppendUvarint(dst, e.Fingerprint)
	case LinkEvLocated:
		dst = appendStr8(dst, e.Topic)
		dst = appendStr8(dst, e.Epoch)
		dst = binary.AppendUvarint(dst, e.Offset)
		dst = binary.AppendUvarint(dst, e.Head)
		dst = binary.AppendUvarint(dst, e.Start)
	case LinkEvMoved:
		dst = appendStr8(dst, e.Topic)
		dst = binary.AppendUvarint(dst, e.Fingerprint)
	case LinkEvFetched:
		dst = appendStr8(dst, e.Topic)
		dst = appendStr8(dst, e.Epoch)
		dst = binary.AppendUvarint(dst, e.Start)
		dst = binary.AppendUvarint(dst, e.Head)
		dst = append(dst, e.Frames...)
	case LinkEvPage:
		dst = binary.AppendUvarint(dst, uint64(e.Status))
		dst = append(dst, e.Body...)
	case LinkEvStored:
		dst = append(dst, e.Body...)
	case LinkEvDraining:
		dst = binary.AppendUvarint(dst, e.AfterMs)
	case LinkEvTaken, LinkEvUnclaimed:
		dst = appendStr8(dst, e.Topic)
	case LinkEvTurned:
		dst = appendStr8(dst, e.Topic)
		dst = appendStr8(dst, e.Epoch)
		dst = binary.AppendUvarint(dst, e.Offset)
		if e.HasMissed {
			dst = binary.AppendUvarint(dst, e.Missed)
		}
	}
	return closeFrame(dst, frame, OpBinary)
}

// flags is the flags byte without the id's bit.
func (e *LinkEvent) flags() (flags byte) {
	set := func(is bool, flag byte) {
		if is {
			flags |= flag
		}
	}
	switch e.Op {
	case LinkEvReady:
		set(e.Draining, flagDraining)
	case LinkEvLocated:
		set(e.Whole, flagWhole)
		set(e.Past, flagPast)
	case LinkEvPage:
		set(e.Whole, flagWhole)
	case LinkEvTaken, LinkEvStored:
		set(e.Refused, flagRefused)
	case LinkEvTurned:
		set(e.HasMissed, flagMissed)
	}
	return flags
}

// ParseLinkEvent reads one answer or event of a link that clients do not get,
// without its frame; see the table in doc.go. The fields are slices of b.
// Frames are not looked into. The error is an *Error, with CodeUnknownOp for a
// type that is not in the table.
func ParseLinkEvent(b []byte) (LinkEvent, error) {
	var e LinkEvent
	if fault := e.read(b); fault != nil {
		return LinkEvent{}, fault
	}
	return e, nil
}

func (e *LinkEvent) read(b []byte) *Error {
	if len(b) == 0 {
		return refuse(CodeBadRequest, "event is empty")
	}
	known := linkRowOf(linkEvents[:], linkEventFirst, b[0])
	if known.word == "" {
		return refuse(CodeUnknownOp, "event type is 0x%02x, which links do not have", b[0])
	}
	e.Op = LinkEventOp(b[0])
	r := row{rest: b[1:]}
	var flags byte
	flags, e.HasID, e.ID = r.head()
	if unknown := flags &^ known.flags; unknown != 0 && r.fault == "" {
		return refuse(CodeBadRequest, "%s: flags are 0x%02x, of which 0x%02x are unknown", e.Op, flags, unknown)
	}
	if fault := e.readFields(&r, flags); fault != nil {
		return fault
	}
	return r.end(e.Op.String())
}

func (e *LinkEvent) readFields(r *row, flags byte) (fault *Error) {
	switch e.Op {
	case LinkEvChallenge:
		if e.Version, fault = r.linkVersion("challenge"); fault != nil {
			return fault
		}
		e.Features = r.uvarint("features")
		e.Name = r.str8("name")
		e.Nonce = r.nonce()
		return nil
	case LinkEvReady:
		e.Draining = flags&flagDraining != 0
		e.Proof = r.proof()
		e.Fingerprint = r.uvarint("fingerprint")
		return nil
	case LinkEvPage:
		e.Whole = flags&flagWhole != 0
		return e.readPage(r)
	case LinkEvDraining:
		e.AfterMs = r.uvarint("ms")
		return nil
	case LinkEvStored:
		e.Refused = flags&flagRefused != 0
		e.Body = r.tail()
		return nil
	}
	if e.Topic, fault = r.topic(); fault != nil {
		return fault
	}
	switch e.Op {
	case LinkEvLocated:
		e.Whole = flags&flagWhole != 0
		e.Past = flags&flagPast != 0
		e.Epoch, fault = r.epoch()
		e.Offset = r.uvarint("offset")
		e.Head = r.uvarint("head")
		e.Start = r.uvarint("start")
	case LinkEvMoved:
		e.Fingerprint = r.uvarint("fingerprint")
	case LinkEvFetched:
		e.Epoch, fault = r.epoch()
		e.Start = r.uvarint("start")
		e.Head = r.uvarint("head")
		e.Frames = r.tail()
	case LinkEvTaken:
		e.Refused = flags&flagRefused != 0
	case LinkEvTurned:
		e.Epoch, fault = r.epoch()
		e.Offset = r.uvarint("offset")
		if e.HasMissed = flags&flagMissed != 0; e.HasMissed {
			e.Missed = r.uvarint("missed")
		}
	}
	return fault
}

func (e *LinkEvent) readPage(r *row) *Error {
	status := r.uvarint("status")
	if r.fault != "" {
		return nil
	}
	if status < 100 || status > 599 {
		return refuse(CodeBadRequest, "page: status is %d, not 100 to 599", status)
	}
	e.Status, e.Body = int(status), r.tail()
	return nil
}

// ParseBinaryPublished reads a published event of rayflux.v1.bin, without its
// frame. topic and epoch are slices of b. It is for a link, where the strings
// in an Event would be two allocations for each publish. The error is an
// *Error with CodeBadRequest.
func ParseBinaryPublished(b []byte) (hasID bool, id uint64, topic, epoch []byte, offset uint64, err error) {
	r := row{rest: b}
	if r.byte("type") != eventTypeBit|byte(EvPublished) {
		r.fail("type", "is not 0x84")
	}
	flags, hasID, id := r.head()
	if flags&^flagID != 0 {
		r.fail("flags", "has unknown bits")
	}
	topic = r.str8("topic")
	epoch = r.str8("epoch")
	offset = r.uvarint("offset")
	if e := r.end("published"); e != nil {
		return false, 0, nil, nil, 0, e
	}
	return hasID, id, topic, epoch, offset, nil
}
