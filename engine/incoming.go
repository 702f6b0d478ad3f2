package engine

import (
	"errors"

	"rayflux/protocol"
)

// incomingMax is how many hand-overs to one loop may be under way. A link brings one topic after the other.
const incomingMax = 4096

// incoming is a topic that another node is handing over, as far as it has come. Its log weighs on log-memory as any, but it is
// not at home here yet. Loop-owned.
type incoming struct {
	topic *topic
	conn  *conn // that it comes on
	err   error // what is wrong with it: it will be refused
}

var errNotTaken = &protocol.Error{Code: protocol.CodeNoOwner, Message: "not taken"}

// receive takes a part of a topic that another node hands over, and the topic with the last of it.
func (s *estate) receive(e *errand) {
	cmd, err := protocol.ParseLinkCommand(e.payload)
	if err != nil {
		bug("a hand-off that was read once cannot be read again")
	}
	token := handoffToken(cmd.Token)
	in := s.incoming[token]
	if in == nil {
		if in = s.expect(e.conn, &cmd); len(s.incoming) < incomingMax || cmd.Last {
			s.incoming[token] = in
		}
	}
	if in.err == nil {
		in.err = s.extend(in, e.conn, &cmd)
	}
	if !cmd.Last {
		return
	}
	delete(s.incoming, token)
	if in.err == nil {
		in.err = s.install(in)
	}
	if in.err != nil {
		in.topic.clear(s.loop)
		s.loop.cfg.Log.Debug("topic not taken", "topic", in.topic.name, "peer", e.conn.sock.peer(), "err", in.err)
		e.err = errNotTaken
	}
	name := in.topic.name
	e.payload = []byte(name)
	s.loop.answer(e)
	if h := s.holds[name]; h != nil {
		s.try(h)
	}
}

func (s *estate) expect(c *conn, cmd *protocol.LinkCommand) *incoming {
	in := &incoming{conn: c}
	if len(s.incoming) >= incomingMax {
		in.err = errors.New("too many topics come at once")
	}
	t := s.loop.blankTopic(cmd.Topic, string(cmd.Epoch), max(cmd.Offset, 1)-1)
	t.keeps = false // until it is at home here
	if t.began = int64(cmd.TimeMs); cmd.Kept {
		t.began = int64(cmd.Began)
	}
	in.topic = t
	return in
}

// extend appends a part. What has left the sender's log meanwhile is a hole, and a log has none: it begins behind it.
func (s *estate) extend(in *incoming, c *conn, cmd *protocol.LinkCommand) error {
	l, t := s.loop, in.topic
	n, err := protocol.CheckLinkFrames(cmd.Frames, cmd.Topic, cmd.Offset)
	switch {
	case err != nil:
		return err
	case in.conn != c || t.name != string(cmd.Topic) || t.epoch != string(cmd.Epoch):
		return errors.New("the token is another hand-off's")
	case cmd.Offset <= t.head || cmd.Offset-1+n > cmd.Head || cmd.Last && cmd.Offset-1+n != cmd.Head:
		return errors.New("its messages are not in order")
	case cmd.Saved > cmd.Head: // what is taken here would not be offered
		return errors.New("more of its messages are stored than there are")
	case cmd.Offset > t.head+1: // it was offered to the sender's archive, if that keeps it
		t.clear(l)
		t.head, t.start, t.gone = cmd.Offset-1, cmd.Offset, cmd.Offset
	}
	t.stored = max(t.stored, cmd.Saved)
	if n > 0 {
		t.appendOld(l, cmd.Frames, n, min(int64(cmd.TimeMs)-l.skew, l.logMs()))
	}
	return nil
}

// install makes a topic that has come whole one of this node's, if it is to be.
func (s *estate) install(in *incoming) error {
	l, t := s.loop, in.topic
	here := l.topics[t.name]
	switch slot := s.rightful(hashOf(t.name)); {
	case slot != l.cfg.Slot:
		l.cfg.Directory.Doubt() // by the sender's view it does
		return errors.New("it does not belong here")
	case here != nil && here.moving != nil:
		return errors.New("it is being handed over from here")
	case here != nil:
		// Two nodes have owned it. Ours stays, as it is at its right place; the sender's ends.
		l.cfg.Log.Warn("a topic had two owners; the other one's messages are gone", "topic", t.name,
			"epoch", here.epoch, "messages", here.head, "other-epoch", t.epoch, "other-messages", t.head)
		t.clear(l)
		return nil
	}
	if err := l.enter(t); err != nil {
		return err
	}
	t.used, t.surveyed = l.now, t.head
	if l.keeper != nil {
		l.keeper.adopt(t)
	}
	l.wheel.start(&t.timer, l.now)
	l.metrics.handoffsReceived.Add(1)
	return nil
}

// claimed is another node's question for a topic. One that lives here is the answer itself, as soon as it is handed over.
func (s *estate) claimed(e *errand) {
	t := s.loop.topics[string(e.name)]
	if t == nil && s.loop.keeper != nil {
		t = s.loop.keeper.rouse(string(e.name))
	}
	switch {
	case t == nil:
		e.payload = e.name
		s.loop.answer(e)
	case t.moving == nil:
		s.claim(t)
	}
}

// heardSettled takes a neighbour's word that one of its loops has no topics of ours.
func (s *estate) heardSettled(e *errand) {
	cmd, err := protocol.ParseLinkCommand(e.payload)
	if err != nil {
		bug("a settled that was read once cannot be read again")
	}
	words := s.said[cmd.Slot]
	if len(words) != int(cmd.Loops) { // another process has the slot now
		words = make([]settledWord, cmd.Loops)
		s.said[cmd.Slot] = words
	}
	words[cmd.Loop] = settledWord{cmd.Fingerprint, e.conn}
	for n := range s.all() {
		if uint64(n.slot) != cmd.Slot {
			continue
		}
		n.hurry()
		if cmd.Fingerprint != s.settledIn(true) { // else it is the same view, said by one who goes away
			n.sees(cmd.Fingerprint)
		}
		if s.settled(n) {
			s.tryAll()
		}
	}
}

// unlinked is the end of a link from a neighbour: what had come of a topic is no use, and what was said does not hold.
func (s *estate) unlinked(c *conn) {
	for token, in := range s.incoming {
		if in.conn == c {
			in.topic.clear(s.loop)
			delete(s.incoming, token)
			s.changed() // who waits for it
		}
	}
	for _, words := range s.said {
		for i := range words {
			if words[i].conn == c {
				words[i] = settledWord{}
			}
		}
	}
}
