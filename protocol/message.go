package protocol

import (
	"unicode/utf8"

	"github.com/valyala/bytebufferpool"
)

// Message is one whole text or binary message, or one control frame.
type Message struct {
	Opcode  Opcode // OpContinuation (0): there is no message yet
	Payload []byte // unmasked; valid until the next call of Next, and no longer than Next's b
}

// MessageReader joins frames into messages (RFC 6455 §5.4). It belongs to one
// connection and its loop. It keeps none of the bytes it is shown, except the
// fragments of an unfinished message, in pooled memory; an idle reader is two
// words. The zero value reads what a client sends.
type MessageReader struct {
	// fragments is nil outside a fragmented message. After the last fragment
	// it holds the message just returned, until the next call.
	fragments *bytebufferpool.ByteBuffer
	text      UTF8   // of fragments, when opcode is OpText
	opcode    Opcode // of the unfinished message; 0: there is none
	server    bool   // the peer is a server: frames must not be masked
}

// fragmentMemory is a pool of its own, so that its sizes are learned from
// messages that come in fragments and from nothing else.
var fragmentMemory bytebufferpool.Pool

// NewServerMessageReader returns a reader of what a server sends.
func NewServerMessageReader() MessageReader { return MessageReader{server: true} }

// Next takes the first message from b: it consumed n bytes of it and unmasked
// them in place. With m.Opcode 0 there is no message yet: n counts the
// fragments that were taken, and the bytes after them are an unfinished frame,
// untouched, to be shown again with more behind them. A control frame between
// fragments is returned as it comes.
//
// limit is the most payload bytes of a whole message; it is judged when the
// header is there, before the payload. Text is checked as it comes: broken
// UTF-8 fails in the frame that breaks it. err is a *CloseError, after which
// only Reset may be called.
func (r *MessageReader) Next(b []byte, limit int) (m Message, n int, err error) {
	if r.fragments != nil && r.opcode == 0 {
		r.Reset()
	}
	for {
		var h Header
		if !h.parse(b[n:]) {
			return Message{}, n, nil
		}
		room := limit
		if r.opcode != 0 {
			room -= r.fragments.Len()
		}
		if err := h.check(!r.server, r.opcode != 0, room); err != nil {
			return Message{}, n, err
		}
		rest := b[n+h.Size:]
		if uint64(len(rest)) < h.Length {
			return Message{}, n, nil
		}
		payload := rest[:h.Length]
		Unmask(payload, h.Mask, 0)
		n += h.Size + len(payload)
		if h.Fin && h.Opcode != OpContinuation {
			if h.Opcode == OpText && !utf8.Valid(payload) {
				return Message{}, n, errTextInvalid
			}
			return Message{h.Opcode, payload}, n, nil
		}
		m, err = r.join(&h, payload)
		if err != nil || m.Opcode != 0 {
			return m, n, err
		}
	}
}

// errTextInvalid is what text that is not UTF-8 is told (RFC 6455 §8.1).
var errTextInvalid = &CloseError{CloseInvalidUTF8, "text message is not valid UTF-8"}

// join adds a checked fragment; m is the message if that was its last one.
func (r *MessageReader) join(h *Header, payload []byte) (m Message, err error) {
	if h.Opcode != OpContinuation {
		r.opcode = h.Opcode
		r.text = UTF8{}
		r.fragments = fragmentMemory.Get()
	}
	if r.opcode == OpText {
		if !r.text.Write(payload) || h.Fin && !r.text.Complete() {
			return Message{}, errTextInvalid
		}
	}
	r.fragments.B = append(r.fragments.B, payload...)
	if !h.Fin {
		return Message{}, nil
	}
	m = Message{r.opcode, r.fragments.B}
	r.opcode = 0
	return m, nil
}

// Reset forgets an unfinished message and gives its memory back. A reader that
// was reset reads the start of a message.
func (r *MessageReader) Reset() {
	if r.fragments != nil {
		fragmentMemory.Put(r.fragments)
		r.fragments = nil
	}
	r.opcode = 0
}

// Held is how much memory, in bytes, the reader holds for an unfinished
// message, so that its owner can account for it. The memory of a message that
// was returned is given back first: that message is no longer valid.
func (r *MessageReader) Held() int {
	if r.fragments == nil {
		return 0
	}
	if r.opcode == 0 {
		r.Reset()
		return 0
	}
	return cap(r.fragments.B)
}
