package protocol

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// nilIfEmpty makes the slices of v, a pointer to a struct, compare by meaning.
func nilIfEmpty(v any) {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		switch f := s.Field(i); {
		case f.Kind() == reflect.Slice && f.Len() == 0:
			f.SetZero()
		case f.Kind() == reflect.Struct:
			nilIfEmpty(f.Addr().Interface())
		}
	}
}

func sameLinkCommand(t testing.TB, got, want LinkCommand) {
	t.Helper()
	nilIfEmpty(&got)
	nilIfEmpty(&want)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("command is\n%+v, want\n%+v", got, want)
	}
}

func sameLinkEvent(t testing.TB, got, want LinkEvent) {
	t.Helper()
	nilIfEmpty(&got)
	nilIfEmpty(&want)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("event is\n%+v, want\n%+v", got, want)
	}
}

// linkWords is a row as doc.go writes it below its bytes.
func linkWords(t testing.TB, b []byte) string {
	t.Helper()
	if b[0]&eventTypeBit == 0 {
		c, err := ParseLinkCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		return linkCommandWords(&c)
	}
	e, err := ParseLinkEvent(b)
	if err != nil {
		t.Fatal(err)
	}
	return linkEventWords(&e)
}

func idWords(word string, hasID bool, id uint64) string {
	if hasID {
		return fmt.Sprintf("%s id=%d", word, id)
	}
	return word
}

// proofWords names the key of a proof instead of repeating it.
func proofWords(proof, want []byte) string {
	if bytes.Equal(proof, want) {
		return fmt.Sprintf("key=%q", linkV1Key)
	}
	return fmt.Sprintf("proof=%x", proof)
}

func linkCommandWords(c *LinkCommand) string {
	s := idWords(c.Op.String(), c.HasID, c.ID)
	switch c.Op {
	case LinkCmdHello:
		return fmt.Sprintf("%s version=%d features=%d purpose=%s name=%q nonce=%q", s, c.Version, c.Features, c.Purpose, c.Name, c.Nonce)
	case LinkCmdProof:
		return s + " " + proofWords(c.Proof, linkV1PeerProof)
	case LinkCmdLocate:
		return fmt.Sprintf("%s topic=%q from=%s", s, c.Topic, fromWords(&c.From))
	case LinkCmdFetch:
		deep := ""
		if c.Deep {
			deep = " deep"
		}
		return fmt.Sprintf("%s topic=%q epoch=%q offset=%d bytes=%d%s", s, c.Topic, c.Epoch, c.Offset, c.Bytes, deep)
	case LinkCmdHistory:
		return fmt.Sprintf("%s topic=%q from=%s limit=%d", s, c.Topic, fromWords(&c.From), c.Limit)
	case LinkCmdHandoff:
		kept := ""
		if c.Kept {
			kept = fmt.Sprintf(" began_ms=%d saved=%d", c.Began, c.Saved)
		}
		return fmt.Sprintf("%s last=%v topic=%q epoch=%q head=%d offset=%d time_ms=%d%s frames=%q", s, c.Last, c.Topic, c.Epoch, c.Head, c.Offset, c.TimeMs,
			kept, fmt.Sprintf("% x", c.Frames))
	case LinkCmdSettled:
		return fmt.Sprintf("%s fingerprint=%d slot=%d loop=%d loops=%d", s, c.Fingerprint, c.Slot, c.Loop, c.Loops)
	}
	return fmt.Sprintf("%s topic=%q", s, c.Topic)
}

func fromWords(from *From) string {
	switch from.Mode {
	case FromLive:
		return "live"
	case FromPosition:
		return string(AppendPosition(nil, string(from.Epoch), from.Offset))
	case FromLast:
		return fmt.Sprintf("last:%d", from.Last)
	case FromSince:
		return fmt.Sprintf("since:%d", from.Since)
	}
	return "earliest"
}

func linkEventWords(e *LinkEvent) string {
	s := idWords(e.Op.String(), e.HasID, e.ID)
	switch e.Op {
	case LinkEvChallenge:
		return fmt.Sprintf("%s version=%d features=%d name=%q nonce=%q", s, e.Version, e.Features, e.Name, e.Nonce)
	case LinkEvReady:
		return fmt.Sprintf("%s %s draining=%v fingerprint=%d", s, proofWords(e.Proof, linkV1NodeProof), e.Draining, e.Fingerprint)
	case LinkEvLocated:
		past := ""
		if e.Past {
			past = " past"
		}
		return fmt.Sprintf("%s whole=%v%s topic=%q epoch=%q offset=%d head=%d start=%d", s, e.Whole, past, e.Topic, e.Epoch, e.Offset, e.Head, e.Start)
	case LinkEvMoved:
		return fmt.Sprintf("%s topic=%q fingerprint=%d", s, e.Topic, e.Fingerprint)
	case LinkEvFetched:
		return fmt.Sprintf("%s topic=%q epoch=%q start=%d head=%d frames=%q", s, e.Topic, e.Epoch, e.Start, e.Head, fmt.Sprintf("% x", e.Frames))
	case LinkEvPage:
		whole := ""
		if e.Whole {
			whole = " whole"
		}
		return fmt.Sprintf("%s status=%d%s body=%q", s, e.Status, whole, e.Body)
	case LinkEvDraining:
		return fmt.Sprintf("%s ms=%d", s, e.AfterMs)
	case LinkEvTaken:
		return fmt.Sprintf("%s refused=%v topic=%q", s, e.Refused, e.Topic)
	case LinkEvTurned:
		s = fmt.Sprintf("%s topic=%q epoch=%q offset=%d", s, e.Topic, e.Epoch, e.Offset)
		if e.HasMissed {
			s = fmt.Sprintf("%s missed=%d", s, e.Missed)
		}
		return s
	case LinkEvStored:
		return fmt.Sprintf("%s refused=%v body=%q", s, e.Refused, e.Body)
	}
	return fmt.Sprintf("%s topic=%q", s, e.Topic)
}

func TestLinkCommandsThatFail(t *testing.T) {
	id7 := LinkCommand{HasID: true, ID: 7}
	with := func(c LinkCommand, op LinkCommandOp, topic string) LinkCommand {
		c.Op, c.Topic = op, []byte(topic)
		return c
	}
	nonce := " 10" + strings.Repeat(" 61", 16)
	for _, tt := range []struct {
		name, hex string
		code      Code
		word      string
		want      LinkCommand
	}{
		{"nothing", "", CodeBadRequest, "empty", LinkCommand{}},
		{"a client's type", "04 01 07", CodeUnknownOp, "0x04", LinkCommand{}},
		{"an event's type", "91 01 07", CodeUnknownOp, "0x91", LinkCommand{}},
		{"unknown type, id echoed", "15 01 07 ff", CodeUnknownOp, "0x15", id7},
		{"unknown type past the table, id echoed", "2f 01 07", CodeUnknownOp, "0x2f", id7},
		{"type past the links'", "30 01 07", CodeUnknownOp, "0x30", LinkCommand{}},
		{"unknown flags", "1a 03 07 01 74", CodeBadRequest, "0x02 are unknown", with(id7, LinkCmdClaim, "")},
		{"a hello with an id", "10 01 07 01", CodeBadRequest, "0x01 are unknown", with(id7, LinkCmdHello, "")},
		{"another version", "10 00 02 ff ff", CodeBadRequest, "link version is 2, spoken here is 1", LinkCommand{Op: LinkCmdHello, Version: 2}},
		{"purpose 0", "10 00 01 00 00 00" + nonce, CodeBadRequest, "purpose is 0", LinkCommand{Op: LinkCmdHello}},
		{"purpose 4", "10 00 01 00 04 00" + nonce, CodeBadRequest, "purpose is 4", LinkCommand{Op: LinkCmdHello}},
		{"nonce too short", "10 00 01 00 01 00 0f" + strings.Repeat(" 61", 15), CodeBadRequest, "16 to 64", LinkCommand{Op: LinkCmdHello}},
		{"nonce too long", "10 00 01 00 01 00 41" + strings.Repeat(" 61", 65), CodeBadRequest, "16 to 64", LinkCommand{Op: LinkCmdHello}},
		{"bytes after hello", "10 00 01 00 01 00" + nonce + "00", CodeBadRequest, "follow", LinkCommand{Op: LinkCmdHello}},
		{"proof too short", "11 00 1f" + strings.Repeat(" 61", 31), CodeBadRequest, "32 bytes", LinkCommand{Op: LinkCmdProof}},
		{"no topic", "12 01 07 00", CodeTopicInvalid, "empty", with(id7, LinkCmdLocate, "")},
		{"reserved topic", "1a 01 07 01 24", CodeTopicInvalid, `"$"`, with(id7, LinkCmdClaim, "$")},
		{"mode of from", "12 0b 07 01 74", CodeBadRequest, "locate: from mode is 5", with(id7, LinkCmdLocate, "t")},
		{"epoch of a start", "14 03 07 01 74 01 2e 00 01", CodeBadRequest, "letters", with(id7, LinkCmdHistory, "t")},
		{"epoch", "13 01 07 01 74 00 01 01", CodeBadRequest, "epoch is 0 bytes", with(id7, LinkCmdFetch, "t")},
		{"epoch begun after 9999", "18 05 07" + strings.Repeat(" 61", 16) + "01 74 01 45 00 01 00 80 b8 ff 90 fd ce 39 00", CodeBadRequest, "began_ms", with(id7, LinkCmdHandoff, "t")},
		{"offset not in shortest form", "13 01 07 01 74 01 45 81 00 01", CodeBadRequest, "fetch: offset", with(id7, LinkCmdFetch, "t")},
		{"bytes after locate", "12 01 07 01 74 00", CodeBadRequest, "1 bytes follow", with(id7, LinkCmdLocate, "t")},
		{"time after 9999", "18 01 07" + strings.Repeat(" 61", 16) + "01 74 01 45 00 01 80 b8 ff 90 fd ce 39", CodeBadRequest, "limit 253402300799999", with(id7, LinkCmdHandoff, "t")},
		{"loop that is none", "19 00 01 00 02 02", CodeBadRequest, "loop is 2 of 2", LinkCommand{Op: LinkCmdSettled}},
		{"slot past the limit", "19 00 01 80 80 04 00 01", CodeBadRequest, "slot is 65536", LinkCommand{Op: LinkCmdSettled}},
		{"token cut", "18 01 07 61", CodeBadRequest, "token is cut short", with(id7, LinkCmdHandoff, "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseLinkCommand(unhex(t, tt.hex))
			wantError(t, err, tt.code, tt.word)
			if got.Op == LinkCmdHello && tt.want.Version == 0 { // only what is promised is compared
				got = LinkCommand{Op: got.Op, HasID: got.HasID, ID: got.ID}
			}
			got.From, got.Proof, got.Epoch, got.Offset, got.Bytes, got.Limit = From{}, nil, nil, 0, 0, 0
			got.Token, got.TimeMs, got.Kept, got.Began = nil, 0, false, 0
			got.Fingerprint, got.Slot, got.Loop, got.Loops = 0, 0, 0, 0
			sameLinkCommand(t, got, tt.want)
		})
	}
}

func TestLinkEventsThatAreNone(t *testing.T) {
	for _, tt := range []struct {
		hex  string
		code Code
		word string
	}{
		{"", CodeBadRequest, "empty"},
		{"89 00", CodeUnknownOp, "0x89"}, {"96 00", CodeUnknownOp, "0x96"}, {"9c 00", CodeUnknownOp, "0x9c"}, {"10 00", CodeUnknownOp, "0x10"},
		{"97 02 01", CodeBadRequest, "0x02 are unknown"}, {"97 01 01 01", CodeBadRequest, "0x01 are unknown"},
		{"90 00 03 00", CodeBadRequest, "challenge: link version is 3, spoken here is 1"},
		{"90 00 01 00 00 00", CodeBadRequest, "16 to 64"},
		{"91 00 00 00", CodeBadRequest, "32 bytes"},
		{"95 00 63", CodeBadRequest, "status is 99"}, {"95 00 d8 04", CodeBadRequest, "status is 600"},
		{"93 00 00 01", CodeTopicInvalid, "empty"}, {"92 00 01 74 00 00 00 01", CodeBadRequest, "epoch is 0 bytes"},
		{"94 00 01 74 01 2f 01 00", CodeBadRequest, "letters"},
		{"99 00 01 74 00", CodeBadRequest, "follow"},
	} {
		_, err := ParseLinkEvent(unhex(t, tt.hex))
		wantError(t, err, tt.code, tt.word)
	}
}

func TestLinkRowsCutShort(t *testing.T) {
	for _, row := range linkV1Commands {
		b := unhex(t, row.hex)
		tail := len(b) - len(row.want.Frames) // what goes to the end can be cut unseen
		eachCut(b, func(cut []byte) {
			c, err := ParseLinkCommand(cut)
			if len(cut) < tail && err == nil {
				t.Errorf("% x cut to % x is accepted", b, cut)
			}
			if len(cut) >= tail && (err != nil || !bytes.Equal(c.Frames, cut[tail:])) {
				t.Errorf("% x cut to % x is %+v, %v", b, cut, c, err)
			}
		})
	}
	for _, row := range linkV1Events {
		b := unhex(t, row.hex)
		tail := len(b) - len(row.want.Frames) - len(row.want.Body)
		eachCut(b, func(cut []byte) {
			e, err := ParseLinkEvent(cut)
			if len(cut) < tail && err == nil {
				t.Errorf("% x cut to % x is accepted", b, cut)
			}
			if len(cut) >= tail && (err != nil || string(e.Frames)+string(e.Body) != string(cut[tail:])) {
				t.Errorf("% x cut to % x is %+v, %v", b, cut, e, err)
			}
		})
	}
}

func TestLinkOpsAndPurposesHaveWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{LinkCmdClaim.String(), "claim"}, {LinkCommandOp(0x15).String(), "unknown"}, {LinkCommandOp(0x04).String(), "unknown"}, {LinkCommandOp(0xff).String(), "unknown"},
		{LinkEvTaken.String(), "taken"}, {LinkEventOp(0x96).String(), "unknown"}, {LinkEventOp(0).String(), "unknown"},
		{LinkTransfer.String(), "transfer"}, {LinkPurpose(0).String(), "unknown"}, {LinkPurpose(4).String(), "unknown"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s, want %s", tt.got, tt.want)
		}
	}
}

// maskedBody is the message in frame, which must be one whole final frame of a
// client, masked with the key zero, with nothing behind it.
func maskedBody(t testing.TB, frame []byte) []byte {
	t.Helper()
	h, ok := NextFrame(frame)
	if !ok || CheckClientFrame(h, false, len(frame)) != nil || !h.Fin || h.Opcode != OpBinary || h.Mask != [4]byte{} ||
		h.Size+int(h.Length) != len(frame) {
		t.Fatalf("%+v is not the header of one whole client frame of %d bytes", h, len(frame))
	}
	return frame[h.Size:]
}

// The length of a frame is guessed before it is written; both sides of each
// border of the header's lengths must come out right.
func TestZeroMaskedFramesAreAsMaskedOnes(t *testing.T) {
	for n := 0; n < 70_000; n += 1 + n/40 {
		payload := bytes.Repeat([]byte{'x'}, n)
		client := Command{Op: CmdPublish, HasID: n%2 == 0, ID: uint64(n), Topic: []byte("t"), Kind: KindText, Payload: payload}
		link := LinkCommand{Op: LinkCmdHandoff, Token: linkV1Token, Topic: []byte("t"), Epoch: []byte("E1"), Frames: payload}
		for _, f := range []struct{ got, body []byte }{
			{AppendCommandFrame([]byte("before"), &client), AppendCommandBinary(nil, &client)},
			{AppendLinkCommandFrame([]byte("before"), &link), AppendLinkCommand(nil, &link)},
		} {
			if want := AppendMaskedFrame([]byte("before"), OpBinary, [4]byte{}, f.body); !bytes.Equal(f.got, want) {
				t.Fatalf("a payload of %d bytes is framed as % x…, want % x…", n, f.got[:24], want[:24])
			}
		}
	}
	dst := bytes.Repeat([]byte{0xff}, 64)[:0] // the key is written, not left as it was
	if got := maskedBody(t, AppendCommandFrame(dst, &Command{Op: CmdPing})); !bytes.Equal(got, []byte{4, 0}) {
		t.Errorf("ping is written % x", got)
	}
}

func TestLinkFramesAreJudged(t *testing.T) {
	var frames []byte
	for i := range uint64(3) {
		frames = AppendMessage(frames, FormatBinary, "t", 126+i, KindText, bytes.Repeat([]byte("x"), 60*int(i)))
	}
	if n, err := CheckLinkFrames(frames, []byte("t"), 126); n != 3 || err != nil {
		t.Errorf("%d frames, %v", n, err)
	}
	if n, err := CheckLinkFrames(nil, []byte("t"), 1); n != 0 || err != nil {
		t.Errorf("%d frames in nothing, %v", n, err)
	}
	whole := map[int]bool{0: true}
	for at := 0; at < len(frames); {
		_, _, _, n := NextBinaryMessage(frames[at:])
		at += n
		whole[at] = true
	}
	eachCut(frames, func(cut []byte) {
		if _, err := CheckLinkFrames(cut, []byte("t"), 126); (err == nil) != whole[len(cut)] {
			t.Errorf("cut to %d bytes: %v", len(cut), err)
		}
	})
	for _, tt := range []struct {
		frames []byte
		first  uint64
		word   string
	}{
		{frames, 125, `message 126 of "t" stands where 125 of "t" is due`},
		{AppendMessage(nil, FormatBinary, "u", 1, KindText, nil), 1, `message 1 of "u"`},
		{AppendFrame(nil, OpText, linkV1Frame[2:]), 42, "not what a log has"},
		{AppendMaskedFrame(nil, OpBinary, [4]byte{}, linkV1Frame[2:]), 42, "not what a log has"},
		{append([]byte{0x82, 126, 0, 7}, linkV1Frame[2:]...), 42, "not what a log has"},
		{append([]byte{0x02}, linkV1Frame[1:]...), 42, "not what a log has"},
		{AppendEventBinary(nil, &Event{Op: EvPong}), 1, "not 0x86"},
		{[]byte{0x82, 5, 0x86, 1, 't', 1, 9}, 1, "kind"},
		{[]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1, "cut short"},
	} {
		_, err := CheckLinkFrames(tt.frames, []byte("t"), tt.first)
		wantError(t, err, CodeBadRequest, tt.word)
	}
}

func TestPublishedIsReadInPlace(t *testing.T) {
	b := unframed(t, AppendEventBinary(nil, &Event{Op: EvPublished, HasID: true, ID: 300, Topic: "t", Epoch: "E1", Offset: 42}), OpBinary)
	hasID, id, topic, epoch, offset, err := ParseBinaryPublished(b)
	if err != nil || !hasID || id != 300 || string(topic) != "t" || string(epoch) != "E1" || offset != 42 {
		t.Errorf("%v, %d, %q, %q, %d, %v", hasID, id, topic, epoch, offset, err)
	}
	eachCut(b, func(cut []byte) {
		if _, _, _, _, _, err := ParseBinaryPublished(cut); err == nil {
			t.Errorf("% x is accepted", cut)
		}
	})
	for hex, word := range map[string]string{
		"82 00 01 74 02 45 31 00": "0x84", "84 02 01 74 02 45 31 00": "unknown bits", "84 00 01 74 02 45 31 00 00": "follow",
	} {
		_, _, _, _, _, err := ParseBinaryPublished(unhex(t, hex))
		wantError(t, err, CodeBadRequest, word)
	}
}

func TestOnlyTheRightProofPasses(t *testing.T) {
	peer := AppendLinkProof([]byte("before"), linkV1Key, LinkPeer, &linkV1Terms)[len("before"):]
	if len(peer) != LinkProofBytes || !CheckLinkProof(peer, linkV1Key, LinkPeer, &linkV1Terms) {
		t.Fatalf("the proof % x of %d bytes does not pass", peer, len(peer))
	}
	for name, change := range map[string]func(terms *LinkTerms){
		"peer nonce": func(terms *LinkTerms) { terms.PeerNonce = []byte("0123456789abcdeF") },
		"node nonce": func(terms *LinkTerms) { terms.NodeNonce = []byte("Fedcba9876543210") },
		"version":    func(terms *LinkTerms) { terms.Version = 2 },
		"purpose":    func(terms *LinkTerms) { terms.Purpose = LinkStream },
		"peer name":  func(terms *LinkTerms) { terms.PeerName = nil },
		"node name":  func(terms *LinkTerms) { terms.NodeName = []byte("b") },
		"nothing is moved from one field to the next": func(terms *LinkTerms) {
			terms.PeerName, terms.NodeName = []byte("bn"), nil
		},
	} {
		terms := linkV1Terms
		change(&terms)
		if CheckLinkProof(peer, linkV1Key, LinkPeer, &terms) {
			t.Errorf("%s: another one passes", name)
		}
	}
	switch {
	case CheckLinkProof(peer, []byte("Secret"), LinkPeer, &linkV1Terms):
		t.Error("another key passes")
	case CheckLinkProof(peer, linkV1Key, LinkNode, &linkV1Terms):
		t.Error("the peer's proof passes for the node's")
	case CheckLinkProof(peer[:31], linkV1Key, LinkPeer, &linkV1Terms) || CheckLinkProof(nil, linkV1Key, LinkPeer, &linkV1Terms):
		t.Error("a part of a proof passes")
	}
}

func TestReadingAndWritingLinkRowsDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 1024)
	for _, row := range linkV1Commands {
		b := unhex(t, row.hex)
		wantNoAllocs(t, row.hex, func() {
			c, err := ParseLinkCommand(b)
			if err != nil {
				t.Fatal(err)
			}
			dst = AppendLinkCommand(dst[:0], &c)
			dst = AppendLinkCommandFrame(dst[:0], &c)
		})
	}
	for _, row := range linkV1Events {
		b := unhex(t, row.hex)
		wantNoAllocs(t, row.hex, func() {
			e, err := ParseLinkEvent(b)
			if err != nil {
				t.Fatal(err)
			}
			dst = AppendLinkEvent(dst[:0], &e)
		})
	}
	publish := Command{Op: CmdPublish, HasID: true, ID: 7, Topic: []byte("t"), Kind: KindText, Payload: bytes.Repeat([]byte("x"), 130)}
	published := unframed(t, AppendEventBinary(nil, &Event{Op: EvPublished, Topic: "t", Epoch: "E1"}), OpBinary)
	wantNoAllocs(t, "a publish and its answer", func() {
		dst = AppendCommandFrame(dst[:0], &publish)
		if _, _, _, _, _, err := ParseBinaryPublished(published); err != nil {
			t.Fatal(err)
		}
	})
	wantNoAllocs(t, "CheckLinkFrames", func() {
		if _, err := CheckLinkFrames(linkV1Frame, publish.Topic, 42); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzLinkRows: what is accepted has no other encoding, nothing is kept of it
// but what it says, and frames that pass can be walked as a log is.
func FuzzLinkRows(f *testing.F) {
	for _, row := range linkV1Commands {
		f.Add(unhex(f, row.hex))
	}
	for _, row := range linkV1Events {
		f.Add(unhex(f, row.hex))
	}
	f.Add(linkV1Frame)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseLinkCommand(b)
		if err != nil {
			wantError(t, err, err.(*Error).Code)
		} else if again := AppendLinkCommand(nil, &c); !bytes.Equal(again, b) {
			t.Fatalf("% x was read and is written % x", b, again)
		} else if got := maskedBody(t, AppendLinkCommandFrame(nil, &c)); !bytes.Equal(got, b) {
			t.Fatalf("% x is framed as % x", b, got)
		}
		e, err := ParseLinkEvent(b)
		if err != nil {
			wantError(t, err, err.(*Error).Code)
		} else if again := unframed(t, AppendLinkEvent(nil, &e), OpBinary); !bytes.Equal(again, b) {
			t.Fatalf("% x was read and is written % x", b, again)
		}
		if hasID, id, topic, epoch, offset, err := ParseBinaryPublished(b); err == nil {
			ev := Event{Op: EvPublished, HasID: hasID, ID: id, Topic: string(topic), Epoch: string(epoch), Offset: offset}
			if again := unframed(t, AppendEventBinary(nil, &ev), OpBinary); !bytes.Equal(again, b) {
				t.Fatalf("% x was read and is written % x", b, again)
			}
		}
		fuzzLinkFrames(t, b)
	})
}

func fuzzLinkFrames(t *testing.T, frames []byte) {
	first, topic := uint64(1), []byte("t")
	if h, ok := NextFrame(frames); ok && h.Length <= uint64(len(frames)-h.Size) { // suit what is there, or few would pass
		if of, offset, _, _, err := ParseBinaryMessage(frames[h.Size : h.Size+int(h.Length)]); err == nil {
			topic, first = of, offset
		}
	}
	n, err := CheckLinkFrames(frames, topic, first)
	if err != nil {
		wantError(t, err, CodeBadRequest)
		return
	}
	rest := frames
	for i := range n {
		offset, kind, payload, size := NextBinaryMessage(rest)
		if offset != first+i || size == 0 {
			t.Fatalf("message %d has offset %d and %d bytes", first+i, offset, size)
		}
		if again := AppendMessage(nil, FormatBinary, string(topic), offset, kind, payload); !bytes.Equal(again, rest[:size]) {
			t.Fatalf("% x is written % x", rest[:size], again)
		}
		rest = rest[size:]
	}
	if len(rest) > 0 {
		t.Fatalf("%d bytes are left", len(rest))
	}
}
