package protocol

import "encoding/binary"

// LinkVersion is the version of the link rows that this package speaks. A
// hello or challenge of another one is refused: what follows the version may be
// anything there.
const LinkVersion = 1

// What hello and challenge say that their sender understands, a bit for each. A
// peer is sent nothing that it has not said it understands.
const (
	LinkFeatureStore = 1 << 0 // what came with the store: located past, turned, stored, handoff kept

	LinkFeatures = LinkFeatureStore // of this program
)

// LinkCommandOp is what the peer that dialled a link asks of the node, beyond
// what clients ask. The values are the type bytes.
type LinkCommandOp byte

const (
	LinkCmdHello   LinkCommandOp = 0x10
	LinkCmdProof   LinkCommandOp = 0x11
	LinkCmdLocate  LinkCommandOp = 0x12
	LinkCmdFetch   LinkCommandOp = 0x13
	LinkCmdHistory LinkCommandOp = 0x14
	LinkCmdHandoff LinkCommandOp = 0x18
	LinkCmdSettled LinkCommandOp = 0x19
	LinkCmdClaim   LinkCommandOp = 0x1a
)

// The types of link commands. All of them have the head that those of clients
// have, those to come as well.
const (
	linkCommandFirst = commandTypeEnd
	linkCommandEnd   = 0x30
)

// linkRow is what is fixed of a row: its word, "" for a type that is not in the
// table, and the flags it may have.
type linkRow struct {
	word  string
	flags byte
}

var linkCommands = [...]linkRow{
	LinkCmdHello - linkCommandFirst:   {"hello", 0},
	LinkCmdProof - linkCommandFirst:   {"proof", 0},
	LinkCmdLocate - linkCommandFirst:  {"locate", flagID | fromMask},
	LinkCmdFetch - linkCommandFirst:   {"fetch", flagID | flagDeep},
	LinkCmdHistory - linkCommandFirst: {"history", flagID | fromMask},
	LinkCmdHandoff - linkCommandFirst: {"handoff", flagID | flagLast | flagKept},
	LinkCmdSettled - linkCommandFirst: {"settled", 0},
	LinkCmdClaim - linkCommandFirst:   {"claim", flagID},
}

func linkRowOf(table []linkRow, first, op byte) linkRow {
	if op < first || int(op-first) >= len(table) {
		return linkRow{}
	}
	return table[op-first]
}

// String is the op's word in the table; "unknown" if it is not there.
func (o LinkCommandOp) String() string {
	if word := linkRowOf(linkCommands[:], linkCommandFirst, byte(o)).word; word != "" {
		return word
	}
	return "unknown"
}

// LinkPurpose is what a link is for.
type LinkPurpose byte

const (
	LinkControl  LinkPurpose = 1 // publishes, questions and their answers
	LinkStream   LinkPurpose = 2 // subscriptions and what comes of them
	LinkTransfer LinkPurpose = 3 // topics handed over from node to node
)

var linkPurposes = [...]string{LinkControl: "control", LinkStream: "stream", LinkTransfer: "transfer"}

func (p LinkPurpose) known() bool { return p >= LinkControl && p <= LinkTransfer }

// String is the purpose's word for logs and errors.
func (p LinkPurpose) String() string {
	if !p.known() {
		return "unknown"
	}
	return linkPurposes[p]
}

// Limits of the fields of a hello and of what answers it, in bytes.
const (
	LinkNonceMin   = 16
	LinkNonceMax   = 64
	LinkProofBytes = 32 // of an HMAC-SHA256
	LinkTokenBytes = 16
	LinkSlotMax    = 1<<16 - 1
	LinkLoopsMax   = 1 << 16
)

// LinkCommand is one command of a link's peer that clients do not have. Only
// the fields of its Op are set and written.
type LinkCommand struct {
	Op    LinkCommandOp
	HasID bool   // locate, fetch, history, handoff, claim
	ID    uint64 // 0 to MaxID

	Version  uint64      // hello: LinkVersion
	Features uint64      // hello: LinkFeature bits
	Purpose  LinkPurpose // hello
	Name     []byte      // hello: how the peer calls itself, in logs
	Nonce    []byte      // hello: LinkNonceMin to LinkNonceMax bytes, never used twice
	Proof    []byte      // proof: LinkProofBytes, see AppendLinkProof

	Topic  []byte // locate, fetch, history, handoff, claim
	From   From   // locate, history
	Epoch  []byte // fetch, handoff
	Offset uint64 // fetch: of the first message wanted; handoff: of the first in Frames, Head+1 if there is none
	Bytes  uint64 // fetch: of frames, at most; one message may be more
	Deep   bool   // fetch: the reader recovers, and may have what only the store has
	Limit  uint64 // history: messages, at most

	Token  []byte // handoff: LinkTokenBytes
	Last   bool   // handoff: the topic is handed over with this
	Head   uint64 // handoff
	TimeMs uint64 // handoff: Unix time in ms of the first message in Frames, 0 to MaxSince
	Kept   bool   // handoff: the topic is one that the store keeps, and the next two are there
	Began  uint64 // handoff: Unix time in ms at which the epoch began, 0 to MaxSince
	Saved  uint64 // handoff: messages up to this offset are in the store
	Frames []byte // handoff: as CheckLinkFrames wants them, which nobody has asked yet

	Fingerprint uint64 // settled: of the peer's view
	Slot        uint64 // settled: the peer's in that view, 0 to LinkSlotMax
	Loop, Loops uint64 // settled: which of the peer's loops this goes for, of how many: at most LinkLoopsMax
}

// ParseLinkCommand reads one command of a link that clients do not have; see
// the table in doc.go. The fields are slices of b. Frames are not looked into.
//
// The error is an *Error; the LinkCommand returned with it has the id, the op
// and the topic if they could be read. That goes for the id of an unknown type
// from 0x10 to 0x2f as well.
func ParseLinkCommand(b []byte) (LinkCommand, error) {
	var c LinkCommand
	if e := c.read(b); e != nil {
		return c, e
	}
	return c, nil
}

func (c *LinkCommand) read(b []byte) *Error {
	if len(b) == 0 {
		return refuse(CodeBadRequest, "command is empty")
	}
	if b[0] < linkCommandFirst || b[0] >= linkCommandEnd {
		return unknownLinkType(b[0])
	}
	r := row{rest: b[1:]}
	var flags byte
	flags, c.HasID, c.ID = r.head()
	known := linkRowOf(linkCommands[:], linkCommandFirst, b[0])
	if known.word == "" {
		return unknownLinkType(b[0])
	}
	c.Op = LinkCommandOp(b[0])
	if unknown := flags &^ known.flags; unknown != 0 && r.fault == "" {
		return refuse(CodeBadRequest, "%s: flags are 0x%02x, of which 0x%02x are unknown", c.Op, flags, unknown)
	}
	switch c.Op {
	case LinkCmdHello:
		return c.readHello(&r)
	case LinkCmdProof:
		c.Proof = r.proof()
		return r.end("proof")
	case LinkCmdSettled:
		return c.readSettled(&r)
	case LinkCmdHandoff:
		return c.readHandoff(&r, flags)
	}
	var e *Error
	if c.Topic, e = r.topic(); e != nil {
		return e
	}
	switch c.Op {
	case LinkCmdLocate:
		e = c.From.readBinary(&r, FromMode(flags&fromMask>>fromShift), "locate")
	case LinkCmdHistory:
		e = c.From.readBinary(&r, FromMode(flags&fromMask>>fromShift), "history")
		c.Limit = r.uvarint("limit")
	case LinkCmdFetch:
		c.Deep = flags&flagDeep != 0
		c.Epoch, e = r.epoch()
		c.Offset = r.uvarint("offset")
		c.Bytes = r.uvarint("bytes")
	}
	if e != nil {
		return e
	}
	return r.end(c.Op.String())
}

func unknownLinkType(op byte) *Error {
	return refuse(CodeUnknownOp, "command type is 0x%02x, which links do not have", op)
}

func (c *LinkCommand) readHello(r *row) *Error {
	var e *Error
	if c.Version, e = r.linkVersion("hello"); e != nil {
		return e
	}
	c.Features = r.uvarint("features")
	c.Purpose = LinkPurpose(r.byte("purpose"))
	if r.fault == "" && !c.Purpose.known() {
		return refuse(CodeBadRequest, "hello: purpose is %d, not 1 (control), 2 (stream) or 3 (transfer)", byte(c.Purpose))
	}
	c.Name = r.str8("name")
	c.Nonce = r.nonce()
	return r.end("hello")
}

func (c *LinkCommand) readSettled(r *row) *Error {
	c.Fingerprint = r.uvarint("fingerprint")
	c.Slot = r.uvarint("slot")
	c.Loop = r.uvarint("loop")
	c.Loops = r.uvarint("loops")
	if r.fault == "" && (c.Slot > LinkSlotMax || c.Loops > LinkLoopsMax || c.Loop >= c.Loops) {
		return refuse(CodeBadRequest, "settled: slot is %d and loop is %d of %d, limit %d and %d", c.Slot, c.Loop, c.Loops, LinkSlotMax, LinkLoopsMax)
	}
	return r.end("settled")
}

func (c *LinkCommand) readHandoff(r *row, flags byte) *Error {
	c.Last = flags&flagLast != 0
	c.Token = r.take("token", LinkTokenBytes)
	var e *Error
	if c.Topic, e = r.topic(); e != nil {
		return e
	}
	if c.Epoch, e = r.epoch(); e != nil {
		return e
	}
	c.Head = r.uvarint("head")
	c.Offset = r.uvarint("offset")
	if c.TimeMs = r.uvarint("time_ms"); c.TimeMs > MaxSince {
		return refuse(CodeBadRequest, "handoff: time_ms is %d, limit %d", c.TimeMs, int64(MaxSince))
	}
	if c.Kept = flags&flagKept != 0; c.Kept {
		if c.Began = r.uvarint("began_ms"); c.Began > MaxSince {
			return refuse(CodeBadRequest, "handoff: began_ms is %d, limit %d", c.Began, int64(MaxSince))
		}
		c.Saved = r.uvarint("saved")
	}
	c.Frames = r.tail()
	return r.end("handoff")
}

// AppendLinkCommand appends c as a binary message, without a frame. What the
// node would refuse is not looked for here, but fields that have no encoding
// panic: strings of more than 255 bytes, a proof or token of the wrong length.
func AppendLinkCommand(dst []byte, c *LinkCommand) []byte {
	known := linkRowOf(linkCommands[:], linkCommandFirst, byte(c.Op))
	flags := byte(0)
	switch {
	case known.flags&fromMask == fromMask:
		flags = byte(c.From.Mode) << fromShift
	case c.Op == LinkCmdFetch && c.Deep:
		flags = flagDeep
	case c.Op == LinkCmdHandoff:
		if c.Last {
			flags = flagLast
		}
		if c.Kept {
			flags |= flagKept
		}
	}
	dst = appendHead(dst, byte(c.Op), flags, c.HasID && known.flags&flagID != 0, c.ID)
	switch c.Op {
	case LinkCmdHello:
		dst = binary.AppendUvarint(dst, c.Version)
		dst = binary.AppendUvarint(dst, c.Features)
		dst = append(dst, byte(c.Purpose))
		dst = appendStr8(dst, c.Name)
		return appendStr8(dst, c.Nonce)
	case LinkCmdProof:
		return appendProof(dst, c.Proof)
	case LinkCmdSettled:
		dst = binary.AppendUvarint(dst, c.Fingerprint)
		dst = binary.AppendUvarint(dst, c.Slot)
		dst = binary.AppendUvarint(dst, c.Loop)
		return binary.AppendUvarint(dst, c.Loops)
	case LinkCmdHandoff:
		return c.appendHandoff(dst)
	}
	dst = appendStr8(dst, c.Topic)
	switch c.Op {
	case LinkCmdLocate:
		dst = c.From.appendBinary(dst)
	case LinkCmdHistory:
		dst = c.From.appendBinary(dst)
		dst = binary.AppendUvarint(dst, c.Limit)
	case LinkCmdFetch:
		dst = appendStr8(dst, c.Epoch)
		dst = binary.AppendUvarint(dst, c.Offset)
		dst = binary.AppendUvarint(dst, c.Bytes)
	}
	return dst
}

func (c *LinkCommand) appendHandoff(dst []byte) []byte {
	if len(c.Token) != LinkTokenBytes {
		panic("BUG: a hand-off's token is not 16 bytes")
	}
	dst = append(dst, c.Token...)
	dst = appendStr8(dst, c.Topic)
	dst = appendStr8(dst, c.Epoch)
	dst = binary.AppendUvarint(dst, c.Head)
	dst = binary.AppendUvarint(dst, c.Offset)
	dst = binary.AppendUvarint(dst, c.TimeMs)
	if c.Kept {
		dst = binary.AppendUvarint(dst, c.Began)
		dst = binary.AppendUvarint(dst, c.Saved)
	}
	return append(dst, c.Frames...)
}
