package protocol

var (
	classicPublishMembers   = members{[]string{"topic", "message"}, MaxJSONDepth}
	classicSubscribeMembers = members{[]string{"subscriber_id", "topic"}, MaxJSONDepth}
)

// ParseClassicPublish reads the body of POST /publish, {"topic":"t",
// "message":"text"}; the message is of KindText. Both must be strings and not
// empty; unknown members are ignored. topic and message point into body or
// into s.Buf. maxPayload is in bytes of the unescaped message. The error is an
// *Error: CodeBadRequest, CodeTopicInvalid or CodeMessageTooLarge.
func ParseClassicPublish(body []byte, s *Scratch, maxPayload int) (topic, message []byte, err error) {
	topic, message, e := readClassic("publish request", body, &classicPublishMembers, s)
	if e == nil {
		e = topicFault(topic)
	}
	if e == nil {
		e = payloadRoom(len(message), maxPayload)
	}
	if e != nil {
		return nil, nil, e
	}
	return topic, message, nil
}

// ParseClassicSubscribe reads the first message on /subscribe,
// {"subscriber_id":"x","topic":"t"}, by the same rules. The error is an *Error:
// CodeBadRequest or CodeTopicInvalid.
func ParseClassicSubscribe(b []byte, s *Scratch) (subscriberID, topic []byte, err error) {
	subscriberID, topic, e := readClassic("subscribe request", b, &classicSubscribeMembers, s)
	if e == nil {
		e = topicFault(topic)
	}
	if e != nil {
		return nil, nil, e
	}
	return subscriberID, topic, nil
}

// readClassic reads an object of two strings that must be there and not empty.
func readClassic(what string, b []byte, known *members, s *Scratch) (first, second []byte, e *Error) {
	s.Buf = s.Buf[:0]
	var fields [2]field
	twice, e := known.document(what, b, fields[:], s)
	if e != nil {
		return nil, nil, e
	}
	if twice != "" {
		return nil, nil, refuse(CodeBadRequest, "%s occurs twice", twice)
	}
	var values [2][]byte
	for k, name := range known.names {
		v, ok := fields[k].str(s)
		if !ok {
			return nil, nil, wrongType(CodeBadRequest, name, fields[k])
		}
		if len(v) == 0 {
			return nil, nil, refuse(CodeBadRequest, "%s is empty", name)
		}
		values[k] = v
	}
	return values[0], values[1], nil
}
