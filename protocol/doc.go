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
// servers say. view: one message in each form in which it leaves. topic, kind,
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
//	and nodes say to each other beyond this; to clients they do not exist.
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
package protocol
