package persist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// What every object begins with: the magic, a byte for its kind, a byte for the version of that kind.
const (
	magic       = "RFLX"
	headerBytes = len(magic) + 2
	sumBytes    = 8
)

type kind byte

const (
	kindSegment  kind = 's'
	kindFooter   kind = 'f' // the end of a segment
	kindHead     kind = 'h'
	kindSealed   kind = 'd'
	kindClaim    kind = 'c'
	kindManifest kind = 'm'
	kindLatest   kind = 'n' // the number of the newest manifest
	kindLease    kind = 'l'
)

// formatVersion is that of all kinds, as long as none has changed.
const formatVersion = 1

func (k kind) String() string {
	switch k {
	case kindSegment:
		return "segment"
	case kindFooter:
		return "segment's footer"
	case kindHead:
		return "head"
	case kindSealed:
		return "sealed record"
	case kindClaim:
		return "claim"
	case kindManifest:
		return "manifest"
	case kindLatest:
		return "latest manifest's number"
	case kindLease:
		return "lease"
	}
	return fmt.Sprintf("object of kind %q", byte(k))
}

func appendHeader(dst []byte, k kind) []byte {
	return append(append(dst, magic...), byte(k), formatVersion)
}

// checkHeader tells what is of another program or another time from what is broken: it comes before any checksum, since a
// later version may have its checksum elsewhere.
func checkHeader(b []byte, k kind) error {
	switch {
	case len(b) < headerBytes:
		return fmt.Errorf("%v is %d bytes, too short for its header of %d", k, len(b), headerBytes)
	case string(b[:len(magic)]) != magic:
		return fmt.Errorf("%v begins with %q, not %q", k, b[:len(magic)], magic)
	case kind(b[len(magic)]) != k:
		return fmt.Errorf("want a %v, found a %v", k, kind(b[len(magic)]))
	case b[len(magic)+1] != formatVersion:
		return fmt.Errorf("%v has version %d, this program reads %d", k, b[len(magic)+1], formatVersion)
	}
	return nil
}

func appendSum(dst []byte, of []byte) []byte {
	return binary.LittleEndian.AppendUint64(dst, xxhash.Sum64(of))
}

// How bytes are packed.
const (
	codingRaw  = 0
	codingZstd = 1
	codingS2   = 2 // one block of the format, without a frame around it
)

// effort is how much time compression may take.
type effort byte

const (
	thorough effort = iota // zstd
	quick                  // S2: three times as fast as zstd at its fastest, and half as good or less
	none                   // it would be in vain
)

// Windows of 256 KiB are what a block has, and bound what a decoder holds. There is a checksum of our own around each use.
var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(blockBytes), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("BUG: zstd refuses constant options: " + err.Error())
	}
	return e
})

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("BUG: zstd refuses constant options: " + err.Error())
	}
	return d
})

// packLeast is what is stored as it is: a zstd frame's own head and tables eat what so few bytes could save.
const packLeast = 64

// appendPacked appends plain compressed, or as it is where compression saves less than a sixteenth.
func appendPacked(dst, plain []byte, e effort) (packed []byte, coding byte) {
	if len(plain) < packLeast || e == none {
		return append(dst, plain...), codingRaw
	}
	start := len(dst)
	if e == quick {
		coding = codingS2
		dst = slices.Grow(dst, s2.MaxEncodedLen(len(plain)))
		dst = dst[:start+len(s2.Encode(dst[start:cap(dst)], plain))]
	} else {
		coding = codingZstd
		dst = zstdEncoder().EncodeAll(plain, dst)
	}
	if len(dst)-start <= len(plain)-len(plain)/16 {
		return dst, coding
	}
	return append(dst[:start], plain...), codingRaw
}

// unpack is the plain bytes, of which there must be n; never more than that is allocated. With codingRaw they are packed itself.
func unpack(packed []byte, coding byte, n int) ([]byte, error) {
	switch coding {
	case codingRaw:
		if len(packed) != n {
			return nil, fmt.Errorf("is %d raw bytes, said to be %d", len(packed), n)
		}
		return packed, nil
	case codingZstd:
		plain, err := zstdDecoder().DecodeAll(packed, make([]byte, 0, n))
		if err == nil && len(plain) != n {
			err = errors.New("is shorter")
		}
		if err != nil {
			return nil, fmt.Errorf("does not unpack to %d bytes: %w", n, err)
		}
		return plain, nil
	case codingS2:
		if size, err := s2.DecodedLen(packed); err != nil || size != n {
			return nil, fmt.Errorf("does not unpack to %d bytes: it says %d (%v)", n, size, err)
		}
		plain, err := s2.Decode(make([]byte, n), packed)
		if err != nil {
			return nil, fmt.Errorf("does not unpack to %d bytes: %w", n, err)
		}
		return plain, nil
	}
	return nil, fmt.Errorf("has coding %d, this program reads %d to %d", coding, codingRaw, codingS2)
}

// appendEnvelope appends a small object around its body: header, coding, plain length, packed body, checksum of all that.
func appendEnvelope(dst []byte, k kind, body []byte) []byte {
	start := len(dst)
	dst = appendHeader(dst, k)
	at := len(dst)
	dst = binary.AppendUvarint(append(dst, codingRaw), uint64(len(body)))
	dst, coding := appendPacked(dst, body, thorough)
	dst[at] = coding
	return appendSum(dst, dst[start:])
}

// openEnvelope is the body of a small object, at most limit bytes. It may be a part of b.
func openEnvelope(b []byte, k kind, limit int) ([]byte, error) {
	if err := checkHeader(b, k); err != nil {
		return nil, err
	}
	if len(b) < headerBytes+2+sumBytes {
		return nil, fmt.Errorf("%v is cut off after %d bytes", k, len(b))
	}
	sealed, sum := b[:len(b)-sumBytes], binary.LittleEndian.Uint64(b[len(b)-sumBytes:])
	if got := xxhash.Sum64(sealed); got != sum {
		return nil, fmt.Errorf("%v: checksum is %016x, its bytes have %016x", k, sum, got)
	}
	f := fields{what: k.String(), rest: sealed[headerBytes:]}
	coding := f.byte("coding")
	n := f.uvarint("length", uint64(limit))
	if f.err != nil {
		return nil, f.err
	}
	body, err := unpack(f.rest, coding, int(n))
	if err != nil {
		return nil, fmt.Errorf("%v %w", k, err)
	}
	return body, nil
}

func appendStr8(dst []byte, s string) []byte {
	return append(append(dst, byte(len(s))), s...)
}

// fields reads what was appended, in order. After the first fault every read is zero, and err says what was wrong.
type fields struct {
	what string
	rest []byte
	err  error
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", f.what, fmt.Errorf(format, args...))
		f.rest = nil
	}
}

func (f *fields) byte(name string) byte {
	if len(f.rest) == 0 {
		f.fail("%s is cut off", name)
		return 0
	}
	b := f.rest[0]
	f.rest = f.rest[1:]
	return b
}

// uvarint is a number in its shortest form, at most limit.
func (f *fields) uvarint(name string, limit uint64) uint64 {
	v, n := binary.Uvarint(f.rest)
	switch {
	case n <= 0:
		f.fail("%s is cut off or no number", name)
		return 0
	case n > 1 && f.rest[n-1] == 0:
		f.fail("%s is not in its shortest form", name)
		return 0
	case v > limit:
		f.fail("%s is %d, limit %d", name, v, limit)
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

// varint is a signed number, as encoding/binary zigzags it.
func (f *fields) varint(name string) int64 {
	v := f.uvarint(name, math.MaxUint64)
	return int64(v>>1) ^ -int64(v&1)
}

// count is how many elements follow, each of them at least size bytes: what is made for them is bounded by what was read.
func (f *fields) count(name string, size int) int {
	return int(f.uvarint(name, uint64(len(f.rest)/size)))
}

// bytes is the next n bytes, not copied.
func (f *fields) bytes(name string, n int) []byte {
	if n > len(f.rest) {
		f.fail("%s is cut off: want %d bytes, have %d", name, n, len(f.rest))
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) uint64(name string) uint64 {
	if b := f.bytes(name, 8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (f *fields) uint32(name string) uint32 {
	if b := f.bytes(name, 4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// str8 is text of 1 to 255 bytes or, with least 0, of none.
func (f *fields) str8(name string, least int) string {
	n := int(f.byte(name))
	b := f.bytes(name, n)
	if f.err == nil && n < least {
		f.fail("%s is empty", name)
	}
	return string(b)
}

// end is the fault, if only that something follows the last field.
func (f *fields) end() error {
	if len(f.rest) > 0 {
		f.fail("%d bytes follow the last field", len(f.rest))
	}
	return f.err
}
