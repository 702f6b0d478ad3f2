package protocol

// The array and the message are two levels more, so that a payload may nest as
// deep in a batch as elsewhere.
var batchMembers = members{[]string{"messages"}, MaxJSONDepth + 2}

// ParseBatch reads the body of POST /v1/publish: {"messages":[{"topic":"t",
// "data":…|"text":…|"base64":…,"ack":…}, …]}. The whole body is judged first:
// if it is not JSON, has no such array or more than maxMessages of them, the
// error is an *Error with CodeBadRequest or CodeBatchTooLarge, and each is
// never called, so nothing is published out of half a batch.
//
// Then each is called for every message in order, with what ParseJSONCommand
// would make of it as a publish without id, or with the *Error of that message
// alone. The slices of c point into body or into s.Buf and are valid until
// each returns. each must not use s.
func ParseBatch(body []byte, s *Scratch, maxMessages, maxPayload int, each func(i int, c Command, err error)) error {
	s.Buf = s.Buf[:0]
	var fields [1]field
	twice, e := batchMembers.document("batch", body, fields[:], s)
	if e != nil {
		return e
	}
	messages := fields[0]
	switch {
	case twice != "":
		return refuse(CodeBadRequest, "%s occurs twice", twice)
	case !messages.present():
		return refuse(CodeBadRequest, "messages is missing")
	case messages.raw[0] != '[':
		return refuse(CodeBadRequest, "messages is %s, not an array", shown(messages.raw))
	case int(messages.elements) > maxMessages:
		return refuse(CodeBatchTooLarge, "batch has %d messages, limit %d", messages.elements, maxMessages)
	}
	list := messages.raw
	at := skipSpace(list, 1)
	for i := range messages.elements {
		var c Command
		end, e := c.readBatched(list, at, s, maxPayload)
		if e != nil {
			each(int(i), c, e)
		} else {
			each(int(i), c, nil)
		}
		at, _ = nextElement(list, end, ']')
	}
	return nil
}

// readBatched reads the message at list[at]; end is the index after it. The
// text was judged before, and as many levels are allowed for here, so the walks
// cannot fail.
func (c *Command) readBatched(list []byte, at int, s *Scratch, maxPayload int) (end int, e *Error) {
	s.Buf = s.Buf[:0]
	if list[at] != '{' {
		end = skipValue(list, at, MaxJSONDepth+1)
		return end, refuse(CodeBadRequest, "message is %s, not a JSON object", shown(list[at:end]))
	}
	var fields [numCommandFields]field
	end, twice := commandMembers.fields(list, at, fields[:], s)
	if twice != "" {
		return end, refuse(CodeBadRequest, "%s occurs twice", twice)
	}
	return end, c.readPublish(&fields, s, maxPayload)
}
