package protocol

import "testing"

// Version 1 of the link rows, for good: nodes and balancers of different ages
// meet in every rolling restart. A later version adds tables of its own and
// leaves these as they are.

var (
	linkV1Key   = []byte("secret")
	linkV1Terms = LinkTerms{
		PeerNonce: []byte("0123456789abcdef"), NodeNonce: []byte("fedcba9876543210"),
		Version: 1, Purpose: LinkControl, PeerName: []byte("b"), NodeName: []byte("n"),
	}
	linkV1Token = []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	linkV1Frame = []byte{0x82, 0x07, 0x86, 0x01, 't', 42, 0x02, 'h', 'i'}

	// By Python's hmac and hashlib.
	linkV1PeerProof = []byte{
		0x1e, 0xae, 0x8e, 0xc2, 0x12, 0x64, 0x13, 0x68, 0x8a, 0xc0, 0x7e, 0xb3, 0x86, 0x6e, 0x5e, 0x80,
		0x8b, 0x14, 0xf8, 0x22, 0xde, 0xc5, 0x6e, 0x11, 0x83, 0xe0, 0x5a, 0xd7, 0xa8, 0x84, 0x6a, 0x46,
	}
	linkV1NodeProof = []byte{
		0x26, 0x97, 0x34, 0x42, 0xb4, 0x04, 0x14, 0x9d, 0x9e, 0xc0, 0x95, 0x4b, 0x3c, 0xe9, 0x4b, 0xa8,
		0x4e, 0x93, 0x93, 0x98, 0x1d, 0x68, 0xa4, 0x95, 0x45, 0xad, 0x74, 0x1a, 0xc5, 0xe3, 0xdf, 0x1e,
	}
)

var linkV1Commands = []struct {
	hex  string
	want LinkCommand
}{
	{"10 00 01 00 01 01 62 10 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66",
		LinkCommand{Op: LinkCmdHello, Version: 1, Purpose: LinkControl, Name: []byte("b"), Nonce: []byte("0123456789abcdef")}},
	{"10 00 01 ac 02 02 00 10 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66",
		LinkCommand{Op: LinkCmdHello, Version: 1, Features: 300, Purpose: LinkStream, Nonce: []byte("0123456789abcdef")}},
	{"11 00 20 1e ae 8e c2 12 64 13 68 8a c0 7e b3 86 6e 5e 80 8b 14 f8 22 de c5 6e 11 83 e0 5a d7 a8 84 6a 46",
		LinkCommand{Op: LinkCmdProof, Proof: linkV1PeerProof}},
	{"12 01 07 01 74",
		LinkCommand{Op: LinkCmdLocate, HasID: true, ID: 7, Topic: []byte("t")}},
	{"12 03 07 01 74 02 45 31 1e",
		LinkCommand{Op: LinkCmdLocate, HasID: true, ID: 7, Topic: []byte("t"), From: From{Mode: FromPosition, Epoch: []byte("E1"), Offset: 30}}},
	{"13 01 08 01 74 02 45 31 1f 80 80 04",
		LinkCommand{Op: LinkCmdFetch, HasID: true, ID: 8, Topic: []byte("t"), Epoch: []byte("E1"), Offset: 31, Bytes: 65536}},
	{"13 03 08 01 74 02 45 31 1f 80 80 04",
		LinkCommand{Op: LinkCmdFetch, HasID: true, ID: 8, Topic: []byte("t"), Epoch: []byte("E1"), Offset: 31, Bytes: 65536, Deep: true}},
	{"14 09 09 01 74 88 f5 f2 f9 b7 33 64",
		LinkCommand{Op: LinkCmdHistory, HasID: true, ID: 9, Topic: []byte("t"), From: From{Mode: FromSince, Since: 1767366245000}, Limit: 100}},
	{"14 07 0a 01 74 03 02",
		LinkCommand{Op: LinkCmdHistory, HasID: true, ID: 10, Topic: []byte("t"), From: From{Mode: FromLast, Last: 3}, Limit: 2}},
	{"18 01 0b 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 74 02 45 31 2a 2a 88 f5 f2 f9 b7 33 82 07 86 01 74 2a 02 68 69",
		LinkCommand{Op: LinkCmdHandoff, HasID: true, ID: 11, Token: linkV1Token, Topic: []byte("t"), Epoch: []byte("E1"), Head: 42, Offset: 42,
			TimeMs: 1767366245000, Frames: linkV1Frame}},
	{"18 03 0c 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 74 02 45 31 2a 2b 00",
		LinkCommand{Op: LinkCmdHandoff, HasID: true, ID: 12, Last: true, Token: linkV1Token, Topic: []byte("t"), Epoch: []byte("E1"), Head: 42, Offset: 43}},
	{"19 00 ac 02 01 00 02",
		LinkCommand{Op: LinkCmdSettled, Fingerprint: 300, Slot: 1, Loop: 0, Loops: 2}},
	{"1a 01 0d 01 74",
		LinkCommand{Op: LinkCmdClaim, HasID: true, ID: 13, Topic: []byte("t")}},

	// With LinkFeatureStore.
	{"18 07 0c 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 74 02 45 31 2a 2b 00 88 f5 f2 f9 b7 33 28",
		LinkCommand{Op: LinkCmdHandoff, HasID: true, ID: 12, Last: true, Token: linkV1Token, Topic: []byte("t"), Epoch: []byte("E1"), Head: 42, Offset: 43,
			Kept: true, Began: 1767366245000, Saved: 40}},
}

var linkV1Events = []struct {
	hex  string
	want LinkEvent
}{
	{"90 00 01 00 01 6e 10 66 65 64 63 62 61 39 38 37 36 35 34 33 32 31 30",
		LinkEvent{Op: LinkEvChallenge, Version: 1, Name: []byte("n"), Nonce: []byte("fedcba9876543210")}},
	{"91 00 20 26 97 34 42 b4 04 14 9d 9e c0 95 4b 3c e9 4b a8 4e 93 93 98 1d 68 a4 95 45 ad 74 1a c5 e3 df 1e 00",
		LinkEvent{Op: LinkEvReady, Proof: linkV1NodeProof}},
	{"91 02 20 26 97 34 42 b4 04 14 9d 9e c0 95 4b 3c e9 4b a8 4e 93 93 98 1d 68 a4 95 45 ad 74 1a c5 e3 df 1e ac 02",
		LinkEvent{Op: LinkEvReady, Draining: true, Proof: linkV1NodeProof, Fingerprint: 300}},
	{"92 03 07 01 74 02 45 31 1e 2a 0b",
		LinkEvent{Op: LinkEvLocated, HasID: true, ID: 7, Whole: true, Topic: []byte("t"), Epoch: []byte("E1"), Offset: 30, Head: 42, Start: 11}},
	{"92 01 07 01 74 02 45 31 00 00 01",
		LinkEvent{Op: LinkEvLocated, HasID: true, ID: 7, Topic: []byte("t"), Epoch: []byte("E1"), Start: 1}},
	{"93 01 03 01 74 ac 02",
		LinkEvent{Op: LinkEvMoved, HasID: true, ID: 3, Topic: []byte("t"), Fingerprint: 300}},
	{"93 00 01 74 ac 02",
		LinkEvent{Op: LinkEvMoved, Topic: []byte("t"), Fingerprint: 300}},
	{"94 01 08 01 74 02 45 31 0b 2a 82 07 86 01 74 2a 02 68 69",
		LinkEvent{Op: LinkEvFetched, HasID: true, ID: 8, Topic: []byte("t"), Epoch: []byte("E1"), Start: 11, Head: 42, Frames: linkV1Frame}},
	{"94 01 08 01 74 02 45 31 2b 2a",
		LinkEvent{Op: LinkEvFetched, HasID: true, ID: 8, Topic: []byte("t"), Epoch: []byte("E1"), Start: 43, Head: 42}},
	{"95 01 09 c8 01 7b 7d",
		LinkEvent{Op: LinkEvPage, HasID: true, ID: 9, Status: 200, Body: []byte("{}")}},
	{"97 00 d0 8c 01",
		LinkEvent{Op: LinkEvDraining, AfterMs: 18000}},
	{"98 01 0b 01 74",
		LinkEvent{Op: LinkEvTaken, HasID: true, ID: 11, Topic: []byte("t")}},
	{"98 03 0b 01 74",
		LinkEvent{Op: LinkEvTaken, HasID: true, ID: 11, Refused: true, Topic: []byte("t")}},
	{"99 01 0d 01 74",
		LinkEvent{Op: LinkEvUnclaimed, HasID: true, ID: 13, Topic: []byte("t")}},

	// With LinkFeatureStore.
	{"92 05 07 01 74 02 45 30 0c 2a 0b",
		LinkEvent{Op: LinkEvLocated, HasID: true, ID: 7, Past: true, Topic: []byte("t"), Epoch: []byte("E0"), Offset: 12, Head: 42, Start: 11}},
	{"95 03 09 c8 01 7b 7d",
		LinkEvent{Op: LinkEvPage, HasID: true, ID: 9, Status: 200, Whole: true, Body: []byte("{}")}},
	{"9a 01 08 01 74 02 45 31 00",
		LinkEvent{Op: LinkEvTurned, HasID: true, ID: 8, Topic: []byte("t"), Epoch: []byte("E1")}},
	{"9a 03 08 01 74 02 45 30 20 02",
		LinkEvent{Op: LinkEvTurned, HasID: true, ID: 8, Topic: []byte("t"), Epoch: []byte("E0"), Offset: 32, HasMissed: true, Missed: 2}},
	{"9b 01 03",
		LinkEvent{Op: LinkEvStored, HasID: true, ID: 3}},
	{"9b 03 03 6e 6f",
		LinkEvent{Op: LinkEvStored, HasID: true, ID: 3, Refused: true, Body: []byte("no")}},
}

func TestEveryLaterVersionSpeaksLinkVersion1(t *testing.T) {
	for _, row := range linkV1Commands {
		got, err := ParseLinkCommand(unhex(t, row.hex))
		if err != nil {
			t.Fatalf("%s: %v", row.hex, err)
		}
		sameLinkCommand(t, got, row.want)
		if again := AppendLinkCommand(nil, &row.want); string(again) != string(unhex(t, row.hex)) {
			t.Errorf("command is written % x, want %s", again, row.hex)
		}
	}
	for _, row := range linkV1Events {
		got, err := ParseLinkEvent(unhex(t, row.hex))
		if err != nil {
			t.Fatalf("%s: %v", row.hex, err)
		}
		sameLinkEvent(t, got, row.want)
		if again := unframed(t, AppendLinkEvent(nil, &row.want), OpBinary); string(again) != string(unhex(t, row.hex)) {
			t.Errorf("event is written % x, want %s", again, row.hex)
		}
	}
	if got := AppendLinkProof(nil, linkV1Key, LinkPeer, &linkV1Terms); string(got) != string(linkV1PeerProof) {
		t.Errorf("the peer's proof is % x", got)
	}
	if got := AppendLinkProof(nil, linkV1Key, LinkNode, &linkV1Terms); string(got) != string(linkV1NodeProof) {
		t.Errorf("the node's proof is % x", got)
	}
}
