package protocol

// Scratch is the memory of one loop for what cannot be a slice of its input:
// unescaped strings and decoded base64. Each parser that takes one starts over
// at its beginning, so what a parser returned is valid until the next call
// with the same Scratch.
type Scratch struct {
	Buf []byte
}

// object walks the members of one JSON object and judges the text on the way:
// a walk that ends with at >= 0 has validated all of it, unknown members
// included.
type object struct {
	text   []byte
	depth  int // how deep a value may nest
	at     int // of the next member, or after the end; ^index of the first fault
	closed bool

	// The member that next found: its key without quotes and unescaped, valid
	// until next is called again, and its value.
	key   []byte
	value field
}

// field is a member's value as it stands in the text; raw is nil if there was
// no such member.
type field struct {
	raw      []byte
	elements int32 // of an array; 32 bits keep a field, often cleared and copied, at 32 bytes
	escaped  bool  // a string with escapes in it
}

// openObject starts a walk at text[i], which must be the opening brace.
func openObject(text []byte, i, depth int) object {
	i = skipSpace(text, i+1)
	if i < len(text) && text[i] == '}' {
		return object{text: text, at: i + 1, closed: true}
	}
	return object{text: text, depth: depth, at: i}
}

// next finds the next member; false at the end and at a fault. An escaped key
// is unescaped behind the end of s.Buf, and given up by the next append there.
func (o *object) next(s *Scratch) bool {
	if o.closed || o.at < 0 {
		return false
	}
	b, first := o.text, o.at
	keyEnd, i, escaped := skipKey(b, first)
	if i < 0 {
		o.at = i
		return false
	}
	o.key = b[first+1 : keyEnd-1]
	if escaped {
		used := len(s.Buf)
		s.Buf = appendUnescaped(s.Buf, o.key)
		o.key, s.Buf = s.Buf[used:], s.Buf[:used]
	}
	first = i
	o.value = field{}
	switch {
	case i < len(b) && b[i] == '"':
		i, o.value.escaped = skipString(b, i)
	case i < len(b) && b[i] == '[':
		var n int
		i, n = skipArray(b, i, o.depth)
		o.value.elements = int32(n)
	default:
		i = skipValue(b, i, o.depth)
	}
	if i < 0 {
		o.at = i
		return false
	}
	o.value.raw = b[first:i]
	o.at, o.closed = nextElement(b, i, '}')
	return o.at >= 0
}

// members are those members of an object that mean something. A name's index
// is the index of its field.
type members struct {
	names []string
	depth int // how deep a value may nest; the object itself does not count
}

// fields walks the object at text[i] and puts the value of each known member
// into its field. end is the index after the object, or the complement of the
// index of a fault. twice is a name that occurred more than once: readers
// disagree about which one counts, so no caller accepts it.
func (m *members) fields(text []byte, i int, fields []field, s *Scratch) (end int, twice string) {
	o := openObject(text, i, m.depth)
	for o.next(s) {
		for k, name := range m.names {
			if string(o.key) != name {
				continue
			}
			if fields[k].present() {
				twice = name
			}
			fields[k] = o.value
			break
		}
	}
	return o.at, twice
}

// document is fields for a text that must be one object and nothing more; what
// names the text in errors.
func (m *members) document(what string, b []byte, fields []field, s *Scratch) (twice string, e *Error) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		if at := jsonFault(b); at >= 0 {
			return "", notJSON(CodeBadRequest, what, b, at)
		}
		return "", refuse(CodeBadRequest, "%s is %s, not a JSON object", what, shown(b[i:]))
	}
	end, twice := m.fields(b, i, fields, s)
	if end >= 0 {
		if end = skipSpace(b, end); end == len(b) {
			return twice, nil
		}
		end = ^end
	}
	return "", notJSON(CodeBadRequest, what, b, ^end)
}

func (f field) present() bool { return f.raw != nil }

func (f field) isString() bool { return len(f.raw) > 0 && f.raw[0] == '"' }

// str is what the string means: a slice of the parsed text where it has no
// escapes, else of s.Buf. ok is false if the field is absent or no string.
func (f field) str(s *Scratch) (v []byte, ok bool) {
	if !f.isString() {
		return nil, false
	}
	inside := f.raw[1 : len(f.raw)-1]
	if !f.escaped {
		return inside, true
	}
	used := len(s.Buf)
	s.Buf = appendUnescaped(s.Buf, inside)
	return s.Buf[used:len(s.Buf):len(s.Buf)], true
}
