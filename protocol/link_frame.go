package protocol

import "bytes"

// A link's peer masks its frames with the key zero, which changes no byte and
// so costs nothing on either side. It keeps no secret and needs none: masks are
// there to protect proxies from what scripts in browsers send.
const zeroMaskBytes = 4

// AppendCommandFrame appends c as a whole client frame of rayflux.v1.bin, masked
// with the key zero. What AppendCommandBinary says of c holds here.
func AppendCommandFrame(dst []byte, c *Command) []byte {
	const rest = 1 + 1 + 8 + 1 + 1 // type, flags, an id, the topic's length, kind: the most a publish has besides
	dst, frame := openZeroMasked(dst, rest+len(c.Topic)+len(c.Payload))
	dst = AppendCommandBinary(dst, c)
	return closeZeroMasked(dst, frame)
}

// AppendLinkCommandFrame appends c as a whole client frame, masked with the key
// zero. What AppendLinkCommand says of c holds here.
func AppendLinkCommandFrame(dst []byte, c *LinkCommand) []byte {
	dst, frame := openZeroMasked(dst, len(c.Topic)+len(c.Frames))
	dst = AppendLinkCommand(dst, c)
	return closeZeroMasked(dst, frame)
}

// openZeroMasked is openFrame for the client's side.
func openZeroMasked(dst []byte, guess int) ([]byte, framing) {
	f := framing{head: len(dst), body: len(dst) + serverHeaderSize(guess) + zeroMaskBytes}
	return append(dst, make([]byte, f.body-f.head)...), f
}

// closeZeroMasked is closeFrame for the client's side.
func closeZeroMasked(dst []byte, f framing) []byte {
	n := len(dst) - f.body
	body := f.head + serverHeaderSize(n) + zeroMaskBytes
	if body > f.body {
		dst = append(dst, make([]byte, body-f.body)...)
	}
	copy(dst[body:], dst[f.body:f.body+n])
	header := appendHeader(dst[:f.head], OpBinary, n, bitMask)
	clear(dst[len(header):body])
	return dst[:body+n]
}

// CheckLinkFrames judges the Frames of a handoff or fetched: whole server frames
// as a log has them, one behind the other, each a message of topic, with the
// offsets first, first+1 and so on. n is how many there are. The payloads are
// not judged: the node that took them did. Whoever uses NextBinaryMessage on
// bytes of another process asks here before. The error is an *Error with
// CodeBadRequest.
func CheckLinkFrames(frames, topic []byte, first uint64) (n uint64, err error) {
	for rest := frames; len(rest) > 0; n++ {
		var h Header
		if !h.parse(rest) || uint64(len(rest)-h.Size) < h.Length {
			return n, refuse(CodeBadRequest, "frame of message %d is cut short", first+n)
		}
		if h.check(false, false, len(rest)) != nil || !h.Fin || h.Opcode != OpBinary {
			return n, refuse(CodeBadRequest, "frame of message %d is not what a log has", first+n)
		}
		end := h.Size + int(h.Length)
		of, offset, _, _, err := ParseBinaryMessage(rest[h.Size:end])
		if err != nil {
			return n, err
		}
		if offset != first+n || !bytes.Equal(of, topic) {
			return n, refuse(CodeBadRequest, "message %d of %q stands where %d of %q is due", offset, shown(of), first+n, shown(topic))
		}
		rest = rest[end:]
	}
	return n, nil
}
