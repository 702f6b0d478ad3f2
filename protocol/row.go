package protocol

import (
	"encoding/binary"
	"math/bits"
)

// Bits of the flags byte. Bit 0 is the same in every row that may have an id;
// the others belong to their row.
const (
	flagID = 0x01

	fromShift = 1 // subscribe: bits 1 to 3 are the FromMode
	fromMask  = 0x0e

	flagStored    = 0x02 // publish
	flagRecovered = 0x02 // subscribed
	flagPartial   = 0x04 // subscribed
	flagMissed    = 0x02 // gap, turned
	flagRetry     = 0x02 // error
	flagDeep      = 0x02 // fetch
	flagLast      = 0x02 // handoff
	flagKept      = 0x04 // handoff
	flagDraining  = 0x02 // ready
	flagWhole     = 0x02 // located, page
	flagPast      = 0x04 // located
	flagRefused   = 0x02 // taken, stored
)

// row takes the fields of one row of the binary table off the front of a
// message. After the first fault every field reads as zero, so a caller may
// read a whole row and look once.
type row struct {
	rest  []byte
	field string // the field in which the first fault lies
	fault string // "" as long as there is none
}

func (r *row) fail(field, fault string) {
	if r.fault == "" {
		r.field, r.fault = field, fault
	}
	r.rest = nil
}

func (r *row) byte(field string) byte {
	if len(r.rest) == 0 {
		r.fail(field, "is cut short")
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

func (r *row) uvarint(field string) uint64 {
	v, n := uvarint(r.rest)
	if n <= 0 {
		if n == 0 {
			r.fail(field, "is cut short")
		} else {
			r.fail(field, "is not a varint of 64 bits in its shortest form")
		}
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// str8 is a slice of the message.
func (r *row) str8(field string) []byte {
	n := int(r.byte(field))
	if n > len(r.rest) {
		r.fail(field, "is cut short")
		return nil
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

// take is a slice of the message of n bytes.
func (r *row) take(field string, n int) []byte {
	if n > len(r.rest) {
		r.fail(field, "is cut short")
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// topic reads a topic and judges it, epoch an epoch. One that is cut short is
// nil without an error: end tells.
func (r *row) topic() ([]byte, *Error) {
	topic := r.str8("topic")
	if r.fault != "" {
		return nil, nil
	}
	return topic, topicFault(topic)
}

func (r *row) epoch() ([]byte, *Error) {
	epoch := r.str8("epoch")
	if r.fault != "" {
		return nil, nil
	}
	return epoch, epochFault(epoch)
}

// head reads the flags byte and the id if there is one. hasID is false for an
// id that could not be read.
func (r *row) head() (flags byte, hasID bool, id uint64) {
	flags = r.byte("flags")
	if flags&flagID != 0 {
		if id = r.uvarint("id"); id > MaxID {
			r.fail("id", "is more than 9007199254740991")
		}
	}
	if r.fault != "" {
		return flags, false, 0
	}
	return flags, flags&flagID != 0, id
}

// end is the last thing to be read of a row without a payload: nothing may
// follow. It returns the first fault of the whole row; name is the row's.
func (r *row) end(name string) *Error {
	if r.fault != "" {
		return refuse(CodeBadRequest, "%s: %s %s", name, r.field, r.fault)
	}
	if len(r.rest) > 0 {
		return refuse(CodeBadRequest, "%s: %d bytes follow the last field", name, len(r.rest))
	}
	return nil
}

// tail is all that is left, for rows whose last field is "to the end".
func (r *row) tail() []byte {
	t := r.rest
	r.rest = nil
	return t
}

// uvarint reads an unsigned varint in its shortest form, which is the only one
// allowed: two spellings of one value would let two messages differ that are
// the same. n is its length; 0: b ends inside it; -1: it is something else.
func uvarint(b []byte) (v uint64, n int) {
	for i, c := range b {
		if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
			return 0, -1
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// uvarintSize is how many bytes v takes.
func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// appendStr8 panics for what one length byte cannot say. Topics and epochs are
// checked long before they come here.
func appendStr8[S string | []byte](dst []byte, s S) []byte {
	if len(s) > 0xff {
		panic("BUG: a str8 field of more than 255 bytes")
	}
	dst = append(dst, byte(len(s)))
	return append(dst, s...)
}

// appendHead appends type, flags and the id if there is one.
func appendHead(dst []byte, kind, flags byte, hasID bool, id uint64) []byte {
	if !hasID {
		return append(dst, kind, flags)
	}
	return binary.AppendUvarint(append(dst, kind, flags|flagID), id)
}
