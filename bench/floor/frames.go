package floor

import (
	"encoding/binary"
	"slices"

	"rayflux/protocol"
)

const (
	typePublish = 0x03
	typeMessage = 0x86
	payloadMax  = 64 << 10
	epoch       = "floor"
)

// takeFrames acts on the whole frames at the front of b and returns the bytes used.
func (s *server) takeFrames(fd int32, b []byte) (used int) {
	c := &s.conns[fd]
	for c.phase != phaseFree {
		rest := b[used:]
		h, ok := protocol.NextFrame(rest)
		if !ok {
			break
		}
		if protocol.CheckClientFrame(h, false, inputBytes/2) != nil || !h.Fin {
			s.drop(fd)
			break
		}
		size := h.Size + int(h.Length)
		if len(rest) < size {
			break
		}
		used += size
		payload := rest[h.Size:size]
		protocol.Unmask(payload, h.Mask, 0)
		if h.Opcode == protocol.OpBinary && len(payload) > 3 && payload[0] == typePublish && payload[1] == 0 {
			s.publishBinary(c, payload)
			continue
		}
		s.takeMessage(fd, h.Opcode, payload)
	}
	return used
}

// publishBinary is the hot path in: `publish` without id is type, flags, str8 topic, kind, payload, so that a reader's
// binary frame is the same bytes with the offset put between topic and kind.
func (s *server) publishBinary(c *conn, command []byte) {
	end := 3 + int(command[2])
	if end >= len(command) {
		return
	}
	name := command[3:end]
	if c.last < 0 || s.topics[c.last].name != string(name) {
		c.last = s.topicOf(name)
	}
	t := s.touch(c.last)
	t.offset++
	if len(t.readers[protocol.FormatBinary]) > 0 {
		var offset [binary.MaxVarintLen64]byte
		n := binary.PutUvarint(offset[:], t.offset)
		view := protocol.AppendFrameHeader(t.views[protocol.FormatBinary], protocol.OpBinary, len(command)-1+n)
		view = append(view, typeMessage)
		view = append(view, command[2:end]...)
		view = append(view, offset[:n]...)
		t.views[protocol.FormatBinary] = append(view, command[end:]...)
	}
	s.appendOtherViews(t, protocol.Kind(command[end]), command[end+1:])
}

// touch marks a topic as having bytes in this pass.
func (s *server) touch(i int32) *topic {
	t := &s.topics[i]
	if !t.dirty {
		t.dirty = true
		s.dirty = append(s.dirty, i)
	}
	return t
}

// appendOtherViews renders a message for the forms that are not the binary one.
func (s *server) appendOtherViews(t *topic, kind protocol.Kind, payload []byte) {
	for f := protocol.FormatJSON; f < formats; f++ {
		if len(t.readers[f]) > 0 {
			t.views[f] = protocol.AppendMessage(t.views[f], f, t.name, t.offset, kind, payload)
		}
	}
}

// takeMessage acts on everything that is not the usual publish.
func (s *server) takeMessage(fd int32, op protocol.Opcode, payload []byte) {
	c := &s.conns[fd]
	var command protocol.Command
	var err error
	switch {
	case op == protocol.OpPing:
		s.say(fd, protocol.AppendFrame(s.answer[:0], protocol.OpPong, payload))
		return
	case op == protocol.OpPong:
		return
	case op == protocol.OpClose:
		s.drop(fd)
		return
	case c.phase == phaseClassic:
		var name []byte
		if _, name, err = protocol.ParseClassicSubscribe(payload, &s.scratch); err != nil {
			s.drop(fd)
			return
		}
		c.phase = phaseReading
		s.subscribe(fd, name)
		return
	case op == protocol.OpText:
		command, err = protocol.ParseJSONCommand(payload, &s.scratch, payloadMax)
	default:
		command, err = protocol.ParseBinaryCommand(payload, payloadMax)
	}
	if err != nil {
		s.event(fd, &protocol.Event{Op: protocol.EvError, HasID: command.HasID, ID: command.ID, Code: protocol.CodeBadRequest, Message: err.Error()})
		return
	}
	s.obey(fd, &command)
}

func (s *server) obey(fd int32, command *protocol.Command) {
	switch command.Op {
	case protocol.CmdSubscribe:
		t := s.subscribe(fd, command.Topic)
		s.event(fd, &protocol.Event{Op: protocol.EvSubscribed, HasID: command.HasID, ID: command.ID, Topic: t.name, Epoch: epoch, Offset: t.offset})
	case protocol.CmdPublish:
		t := s.publish(command.Topic, command.Kind, command.Payload)
		if command.HasID {
			s.event(fd, &protocol.Event{Op: protocol.EvPublished, HasID: true, ID: command.ID, Topic: t.name, Epoch: epoch, Offset: t.offset})
		}
	case protocol.CmdPing:
		s.event(fd, &protocol.Event{Op: protocol.EvPong, HasID: command.HasID, ID: command.ID})
	}
}

// subscribe adds a reader, after the messages that came before it in this pass have gone to the others.
func (s *server) subscribe(fd int32, name []byte) *topic {
	c := &s.conns[fd]
	i := s.topicOf(name)
	t := &s.topics[i]
	if slices.Contains(c.topics, i) {
		return t
	}
	if t.dirty {
		s.fanOut()
	}
	c.topics = append(c.topics, i)
	t.readers[c.format] = append(t.readers[c.format], fd)
	return t
}

// publish appends one message in every form that is read.
func (s *server) publish(name []byte, kind protocol.Kind, payload []byte) *topic {
	t := s.touch(s.topicOf(name))
	t.offset++
	if len(t.readers[protocol.FormatBinary]) > 0 {
		t.views[protocol.FormatBinary] = protocol.AppendMessage(t.views[protocol.FormatBinary], protocol.FormatBinary, t.name, t.offset, kind, payload)
	}
	s.appendOtherViews(t, kind, payload)
	return t
}

// event tells one connection something in its form.
func (s *server) event(fd int32, e *protocol.Event) {
	if s.conns[fd].format == protocol.FormatJSON {
		s.say(fd, protocol.AppendEventJSON(s.answer[:0], e))
		return
	}
	s.say(fd, protocol.AppendEventBinary(s.answer[:0], e))
}

// say writes b, which is s.answer, and keeps its memory.
func (s *server) say(fd int32, b []byte) {
	s.answer = b
	s.write(fd, b)
}
