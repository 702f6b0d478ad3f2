// Package protocol is what bytes mean: frames, handshake, HTTP heads, commands,
// events, positions, codes.
//
// # The idea
//
// Bytes in, values out; values in, bytes appended. There is no socket here, no
// clock, no goroutine and no state but what a caller holds in its hands
// (MessageReader, ChunkedBody, Scratch). Hence:
//
//   - An incomplete input is a result, not an error: what reads a stream
//     (frames, request heads, chunks, logs) says so and is called again with
//     more. What reads one whole message (commands, events, batches) has
//     nothing to wait for: there, cut short is malformed.
//   - First comes parsing, then judging. NextFrame says what a header is,
//     CheckClientFrame whether a client may send it.
//   - Parsers return slices of their input, or of a Scratch where something had
//     to be decoded, and copy nothing. How long they are valid is said at each.
//     Encoders append to dst. None allocates on success, and tests fail if one
//     does; ParseEventJSON and ParseEventBinary, which make strings for
//     clients, are the exception.
//   - What a publisher sent is judged once, on the way in: CheckTopic,
//     CheckPayload, the command parsers. On the way out it is embedded as it is.
//     That is safe because valid JSON cannot end the value that it is in, and
//     all else is escaped or length-prefixed.
//   - Errors are values with a type: *Error is told to the client and the
//     connection lives, *CloseError ends a WebSocket, *HTTPError answers a
//     request.
//
// Nothing here is owned by anyone: all functions are safe from any goroutine,
// on different memory. MessageReader, ChunkedBody and Scratch belong to one
// connection or loop.
//
// # The path of a message
//
// frame, message, utf8: WebSocket bytes to whole messages. http, query, upgrade:
// requests, and how one becomes a WebSocket. scan, escape, object: JSON text.
// row: binary fields. command, classic, batch: what clients ask. event: what
// servers say. link: what servers ask of each other. view: one message in each form in which it leaves. topic, kind,
// position, timestamp, code: the words that all of them use.
//
// # rayflux.v1.bin
//
// One message of the WebSocket is one row of this table. Integers are unsigned
// varints (LEB128, as in encoding/binary) in their shortest form; any other
// form is refused. str8 is one length byte and that many bytes. After the type
// byte comes a flags byte, and then, if its bit 0 is set, the id as a varint of
// at most 2^53-1; only message (0x86) has neither. Bits that a row does not
// name must be zero. Nothing may follow the last field, except where it goes
// "to the end". Names, limits and meaning are those of rayflux.v1.json.
//
// Below each row stands an example: the bytes, and the same as JSON. A test
// reads both from here.
//
//	type  row          flags                    fields after flags and id
//
//	0x01  subscribe    0x01 id, bits 1-3 from   str8 topic, start
//	                   from 0 live              start: nothing
//	                   from 1 position          start: str8 epoch, varint offset
//	                   from 2 earliest          start: nothing
//	                   from 3 last              start: varint count
//	                   from 4 since             start: varint Unix time in ms, at most 253402300799999
//	      01 01 07 01 74
//	      {"op":"subscribe","id":7,"topic":"t"}
//	      01 02 01 74 02 45 31 1e
//	      {"op":"subscribe","topic":"t","from":{"epoch":"E1","offset":30}}
//	      01 05 ac 02 01 74
//	      {"op":"subscribe","id":300,"topic":"t","from":"earliest"}
//	      01 06 01 74 0a
//	      {"op":"subscribe","topic":"t","from":{"last":10}}
//	      01 08 01 74 88 f5 f2 f9 b7 33
//	      {"op":"subscribe","topic":"t","from":{"since":"2026-01-02T15:04:05.000Z"}}
//
//	0x02  unsubscribe  0x01 id                  str8 topic
//	      02 01 02 01 74
//	      {"op":"unsubscribe","id":2,"topic":"t"}
//
//	0x03  publish      0x01 id, 0x02 stored     str8 topic, byte kind, payload to the end
//	                   kind 1 json, 2 text, 3 binary
//	      03 03 03 01 74 01 7b 22 61 22 3a 31 7d
//	      {"op":"publish","id":3,"topic":"t","data":{"a":1},"ack":"stored"}
//	      03 00 01 74 02 68 69
//	      {"op":"publish","topic":"t","text":"hi"}
//	      03 00 01 74 03 00 ff
//	      {"op":"publish","topic":"t","base64":"AP8="}
//
//	0x04  ping         0x01 id
//	      04 01 00
//	      {"op":"ping","id":0}
//
//	0x05 to 0x0f are free for commands to come, with the same head: the id of one
//	that is unknown is echoed. 0x10 to 0x2f and 0x90 to 0xaf are what balancers
//	and nodes say to each other beyond this (Links, below); to clients they do
//	not exist.
//
//	0x81  welcome      none                     str8 session, str8 version,
//	                                            varint ping_interval_ms, varint max_message_bytes
//	      81 00 01 73 02 76 31 a8 c3 01 80 80 04
//	      {"op":"welcome","session":"s","version":"v1","ping_interval_ms":25000,"max_message_bytes":65536}
//
//	0x82  subscribed   0x01 id, 0x02 recovered, str8 topic, str8 epoch, varint offset
//	                   0x04 partial
//	      82 03 01 01 74 02 45 31 29
//	      {"op":"subscribed","id":1,"topic":"t","epoch":"E1","offset":41,"recovered":true}
//	      82 04 01 74 02 45 31 00
//	      {"op":"subscribed","topic":"t","epoch":"E1","offset":0,"recovered":false,"partial":true}
//
//	0x83  unsubscribed 0x01 id                  str8 topic
//	      83 01 02 01 74
//	      {"op":"unsubscribed","id":2,"topic":"t"}
//
//	0x84  published    0x01 id                  str8 topic, str8 epoch, varint offset
//	      84 01 03 01 74 02 45 31 2a
//	      {"op":"published","id":3,"topic":"t","epoch":"E1","offset":42}
//
//	0x85  pong         0x01 id
//	      85 01 04
//	      {"op":"pong","id":4}
//
//	0x86  message      no flags, no id          str8 topic, varint offset, byte kind, payload to the end
//	      86 01 74 2a 01 7b 22 61 22 3a 31 7d
//	      {"op":"message","topic":"t","offset":42,"data":{"a":1}}
//	      86 01 74 2b 02 68 69
//	      {"op":"message","topic":"t","offset":43,"data":"hi"}
//	      86 01 74 ac 02 03 00 ff
//	      {"op":"message","topic":"t","offset":300,"base64":"AP8="}
//
//	0x87  gap          0x02 missed              str8 topic, str8 epoch, varint offset,
//	                                            varint missed if flagged, str8 reason
//	      87 02 01 74 02 45 31 39 0f 04 73 6c 6f 77
//	      {"op":"gap","topic":"t","epoch":"E1","offset":57,"missed":15,"reason":"slow"}
//	      87 00 01 74 02 45 32 00 05 72 65 73 65 74
//	      {"op":"gap","topic":"t","epoch":"E2","offset":0,"reason":"reset"}
//
//	0x88  drain        none                     varint reconnect_after_ms
//	      88 00 aa 0e
//	      {"op":"drain","reconnect_after_ms":1834}
//
//	0x89  error        0x01 id, 0x02 retry      str8 code, varint retry_after_ms (at least 1) if
//	                                            flagged, message in UTF-8 to the end
//	      89 03 03 0c 72 61 74 65 5f 6c 69 6d 69 74 65 64 fa 01 6e 6f
//	      {"op":"error","id":3,"code":"rate_limited","message":"no","retry_after_ms":250}
//
// # Links
//
// Balancers reach nodes, and nodes each other, over links: connections to the
// public port with rayflux.v1.bin, whose frames are masked with the key zero.
// Both ends know the cluster's key and prove it, and neither sends it. The peer
// that dialled says hello, the node answers with a challenge, the peer with a
// proof, the node with ready, which proves the same of the node:
//
//	proof = HMAC-SHA256(key, label, str8 peer nonce, str8 node nonce,
//	                    varint version, byte purpose, str8 peer name, str8 node name)
//
// The labels are "rayflux link peer v1" and "rayflux link node v1", without a
// length. From ready on both ends understand these rows beside those above,
// which have the same form; before it, and to everybody else, they do not exist.
// Frames are whole server frames of messages, as a log has them, with offsets
// that follow each other (CheckLinkFrames). A fingerprint is that of a view of
// the cluster; 0: there is none.
//
//	locate     where does a subscription with this start begin?
//	located    offset is before the first message to come, head the newest,
//	           start the oldest kept, head+1 if there is none; whole: all that
//	           was asked for is there
//	fetch      messages from an offset on; deep: for a reader that recovers, who
//	           may have what only the store has
//	fetched    none if the first one wanted is gone or not there yet, or the
//	           epoch is another one
//	history    a page of history for a client that asked by HTTP
//	page       the HTTP answer to it
//	moved      with id: that command was not carried out, the topic is at
//	           another node. Without: the subscription has ended for that reason
//	draining   the node closes in so many ms: new topics go elsewhere
//	handoff    a topic, or the next part of it, is the receiver's from now on
//	taken      the answer to it
//	settled    all topics of that loop which are the receiver's in this view were
//	           handed over; good until the link ends. Who is going away says the
//	           complement of the fingerprint, in the view without itself
//	claim      whoever has this topic is to hand it over: is it the receiver?
//	unclaimed  it is not
//	turned     the answer to fetch in the place of fetched: of the epoch that
//	           was asked for there is nothing from that offset on, and the
//	           reader goes on behind this offset of this epoch, which is the
//	           same one if messages in between are lost
//	stored     the message of the publish with that id, which was answered
//	           before, is in the store; refused: not in time
//
// Features are what both ends have to know of before it is used. Bit 0 is
// located past, page whole, turned, stored, handoff kept and fetch deep.
//
//	type  row          flags                    fields after flags and id
//
//	0x10  hello        none                     varint version (1), varint features (0), byte purpose,
//	                                            str8 name, str8 nonce (16 to 64 bytes)
//	                                            purpose 1 control, 2 stream, 3 transfer
//	      10 00 01 00 01 01 62 10 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66
//	      hello version=1 features=0 purpose=control name="b" nonce="0123456789abcdef"
//	      10 00 01 ac 02 02 00 10 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66
//	      hello version=1 features=300 purpose=stream name="" nonce="0123456789abcdef"
//
//	0x11  proof        none                     str8 proof (32 bytes)
//	      11 00 20 1e ae 8e c2 12 64 13 68 8a c0 7e b3 86 6e 5e 80 8b 14 f8 22 de c5 6e 11 83 e0 5a d7 a8 84 6a 46
//	      proof key="secret"
//
//	0x12  locate       0x01 id, bits 1-3 from   str8 topic, start as in subscribe
//	      12 01 07 01 74
//	      locate id=7 topic="t" from=live
//	      12 03 07 01 74 02 45 31 1e
//	      locate id=7 topic="t" from=E1:30
//
//	0x13  fetch        0x01 id, 0x02 deep       str8 topic, str8 epoch, varint offset of the first wanted,
//	                                            varint bytes at most
//	      13 01 08 01 74 02 45 31 1f 80 80 04
//	      fetch id=8 topic="t" epoch="E1" offset=31 bytes=65536
//	      13 03 08 01 74 02 45 31 1f 80 80 04
//	      fetch id=8 topic="t" epoch="E1" offset=31 bytes=65536 deep
//
//	0x14  history      0x01 id, bits 1-3 from   str8 topic, start as in subscribe, varint limit
//	      14 09 09 01 74 88 f5 f2 f9 b7 33 64
//	      history id=9 topic="t" from=since:1767366245000 limit=100
//	      14 07 0a 01 74 03 02
//	      history id=10 topic="t" from=last:3 limit=2
//
//	0x18  handoff      0x01 id, 0x02 last,      16 bytes token, str8 topic, str8 epoch, varint head,
//	                   0x04 kept                varint offset, varint time_ms,
//	                                            if kept varint began_ms, varint saved,
//	                                            frames to the end
//	                                            of the first message in frames: its offset (head+1
//	                                            if there is none), its Unix time in ms; of a topic
//	                                            that the store keeps: when its epoch began, and up
//	                                            to which offset it is in the store
//	      18 01 0b 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 74 02 45 31 2a 2a 88 f5 f2 f9 b7 33 82 07 86 01 74 2a 02 68 69
//	      handoff id=11 last=false topic="t" epoch="E1" head=42 offset=42 time_ms=1767366245000 frames="82 07 86 01 74 2a 02 68 69"
//	      18 03 0c 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 74 02 45 31 2a 2b 00
//	      handoff id=12 last=true topic="t" epoch="E1" head=42 offset=43 time_ms=0 frames=""
//	      18 07 0c 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 74 02 45 31 2a 2b 00 88 f5 f2 f9 b7 33 28
//	      handoff id=12 last=true topic="t" epoch="E1" head=42 offset=43 time_ms=0 began_ms=1767366245000 saved=40 frames=""
//
//	0x19  settled      none                     varint fingerprint, varint slot, varint loop, varint loops
//	                                            of the one that says it: its slot in that view,
//	                                            which of its loops, how many it has
//	      19 00 ac 02 01 00 02
//	      settled fingerprint=300 slot=1 loop=0 loops=2
//
//	0x1a  claim        0x01 id                  str8 topic
//	      1a 01 0d 01 74
//	      claim id=13 topic="t"
//
//	0x90  challenge    none                     varint version (1), varint features (0), str8 name,
//	                                            str8 nonce (16 to 64 bytes)
//	      90 00 01 00 01 6e 10 66 65 64 63 62 61 39 38 37 36 35 34 33 32 31 30
//	      challenge version=1 features=0 name="n" nonce="fedcba9876543210"
//
//	0x91  ready        0x02 draining            str8 proof (32 bytes), varint fingerprint
//	      91 00 20 26 97 34 42 b4 04 14 9d 9e c0 95 4b 3c e9 4b a8 4e 93 93 98 1d 68 a4 95 45 ad 74 1a c5 e3 df 1e 00
//	      ready key="secret" draining=false fingerprint=0
//	      91 02 20 26 97 34 42 b4 04 14 9d 9e c0 95 4b 3c e9 4b a8 4e 93 93 98 1d 68 a4 95 45 ad 74 1a c5 e3 df 1e ac 02
//	      ready key="secret" draining=true fingerprint=300
//
//	0x92  located      0x01 id, 0x02 whole,     str8 topic, str8 epoch, varint offset, varint head, varint start
//	                   0x04 past                past: the epoch is not the one that head and start are of
//	      92 03 07 01 74 02 45 31 1e 2a 0b
//	      located id=7 whole=true topic="t" epoch="E1" offset=30 head=42 start=11
//	      92 01 07 01 74 02 45 31 00 00 01
//	      located id=7 whole=false topic="t" epoch="E1" offset=0 head=0 start=1
//	      92 05 07 01 74 02 45 30 0c 2a 0b
//	      located id=7 whole=false past topic="t" epoch="E0" offset=12 head=42 start=11
//
//	0x93  moved        0x01 id                  str8 topic, varint fingerprint
//	      93 01 03 01 74 ac 02
//	      moved id=3 topic="t" fingerprint=300
//	      93 00 01 74 ac 02
//	      moved topic="t" fingerprint=300
//
//	0x94  fetched      0x01 id                  str8 topic, str8 epoch, varint start, varint head,
//	                                            frames to the end
//	      94 01 08 01 74 02 45 31 0b 2a 82 07 86 01 74 2a 02 68 69
//	      fetched id=8 topic="t" epoch="E1" start=11 head=42 frames="82 07 86 01 74 2a 02 68 69"
//	      94 01 08 01 74 02 45 31 2b 2a
//	      fetched id=8 topic="t" epoch="E1" start=43 head=42 frames=""
//
//	0x95  page         0x01 id, 0x02 whole      varint status, body to the end
//	      95 01 09 c8 01 7b 7d
//	      page id=9 status=200 body="{}"
//	      95 03 09 c8 01 7b 7d
//	      page id=9 status=200 whole body="{}"
//
//	0x97  draining     none                     varint ms
//	      97 00 d0 8c 01
//	      draining ms=18000
//
//	0x98  taken        0x01 id, 0x02 refused    str8 topic
//	      98 01 0b 01 74
//	      taken id=11 refused=false topic="t"
//	      98 03 0b 01 74
//	      taken id=11 refused=true topic="t"
//
//	0x99  unclaimed    0x01 id                  str8 topic
//	      99 01 0d 01 74
//	      unclaimed id=13 topic="t"
//
//	0x9a  turned       0x01 id, 0x02 missed     str8 topic, str8 epoch, varint offset, varint missed if flagged
//	      9a 01 08 01 74 02 45 31 00
//	      turned id=8 topic="t" epoch="E1" offset=0
//	      9a 03 08 01 74 02 45 30 20 02
//	      turned id=8 topic="t" epoch="E0" offset=32 missed=2
//
//	0x9b  stored       0x01 id, 0x02 refused    to the end: why not, in UTF-8
//	      9b 01 03
//	      stored id=3 refused=false body=""
//	      9b 03 03 6e 6f
//	      stored id=3 refused=true body="no"
package protocol
