package engine

import (
	"bytes"
	"fmt"

	"rayflux/protocol"
)

// linkPeer is a balancer's end of a link to a rig.
type linkPeer struct {
	*fakeSocket
	in    inbox
	terms protocol.LinkTerms
}

var testKey = []byte("the key of the tests' cluster")

// linkConfig is testConfig for a node of a cluster.
func linkConfig(loops int) Config {
	cfg := testConfig(loops)
	cfg.Name, cfg.ClusterKey = "node-0", testKey
	return cfg
}

// newLinkPeer opens a connection on a loop and has it upgraded. It has said no hello yet.
func newLinkPeer(r *rig, loop int) *linkPeer {
	p := &linkPeer{fakeSocket: r.connect(loop)}
	p.terms = protocol.LinkTerms{PeerNonce: []byte("sixteen bytes, 1"), Version: protocol.LinkVersion, Purpose: protocol.LinkControl,
		PeerName: []byte("balancer-1"), NodeName: []byte(r.cfg.Name)}
	r.feed(p.fakeSocket, []byte(handshake("/ws", subprotocolBinary)))
	p.items() // 101 and welcome
	return p
}

// linked opens a proved link.
func linked(r *rig, loop int, purpose protocol.LinkPurpose) *linkPeer {
	r.tb.Helper()
	p := newLinkPeer(r, loop)
	p.terms.Purpose = purpose
	p.hello()
	p.prove(testKey)
	if got := p.heard(); len(got) != 1 || got[0].Op != protocol.LinkEvReady {
		r.tb.Fatalf("a link that is to be ready hears %+v", got)
	}
	return p
}

// hello says it and takes the challenge.
func (p *linkPeer) hello() {
	p.rig.tb.Helper()
	p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHello, Version: p.terms.Version, Features: protocol.LinkFeatures, Purpose: p.terms.Purpose, Name: p.terms.PeerName, Nonce: p.terms.PeerNonce})
	got := p.heard()
	if len(got) != 1 || got[0].Op != protocol.LinkEvChallenge || !bytes.Equal(got[0].Name, p.terms.NodeName) {
		p.rig.tb.Fatalf("a hello is answered with %+v", got)
	}
	p.terms.NodeNonce = got[0].Nonce
}

func (p *linkPeer) prove(key []byte) {
	p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdProof, Proof: protocol.AppendLinkProof(nil, key, protocol.LinkPeer, &p.terms)})
}

// ask sends what only links have, command what clients have too, bytes whatever it is given as one message.
func (p *linkPeer) ask(c *protocol.LinkCommand) {
	p.rig.feed(p.fakeSocket, protocol.AppendLinkCommandFrame(nil, c))
}

func (p *linkPeer) command(c *protocol.Command) {
	p.rig.feed(p.fakeSocket, protocol.AppendCommandFrame(nil, c))
}

func (p *linkPeer) bytes(b ...byte) {
	p.rig.feed(p.fakeSocket, protocol.AppendMaskedFrame(nil, protocol.OpBinary, [4]byte{}, b))
}

// items is everything that has come since the last call.
func (p *linkPeer) items() (all []item) {
	p.rig.tb.Helper()
	p.rig.settle()
	p.in.buf = append(p.in.buf, p.readSome(1<<30)...)
	for {
		it, ok, err := p.in.next()
		if err != nil {
			p.rig.tb.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, it)
	}
}

// heard is what has come since the last call, which must be events that only links have.
func (p *linkPeer) heard() (events []protocol.LinkEvent) {
	p.rig.tb.Helper()
	for _, it := range p.items() {
		ev, err := protocol.ParseLinkEvent(it.payload)
		if err != nil {
			p.rig.tb.Fatalf("%s: %v", p.line(it), err)
		}
		events = append(events, ev)
	}
	return events
}

// lines is what has come since the last call: clients' events as JSON, links' as a word and what tests look at.
func (p *linkPeer) lines() (lines []string) {
	p.rig.tb.Helper()
	for _, it := range p.items() {
		lines = append(lines, p.line(it))
	}
	return lines
}

func (p *linkPeer) line(it item) string {
	ev, err := protocol.ParseLinkEvent(it.payload)
	if it.kind != itemBinary || err != nil {
		return describeItem(&actor{form: "binary"}, it)
	}
	s := ev.Op.String()
	if ev.HasID {
		s += fmt.Sprintf(" id=%d", ev.ID)
	}
	switch ev.Op {
	case protocol.LinkEvLocated:
		return fmt.Sprintf("%s %s offset=%d head=%d start=%d whole=%v", s, ev.Topic, ev.Offset, ev.Head, ev.Start, ev.Whole)
	case protocol.LinkEvFetched:
		n := 0
		for rest := ev.Frames; len(rest) > 0; n++ {
			rest = rest[protocol.NextUnit(rest, protocol.FormatBinary):]
		}
		return fmt.Sprintf("%s %s start=%d head=%d frames=%d", s, ev.Topic, ev.Start, ev.Head, n)
	case protocol.LinkEvPage:
		return fmt.Sprintf("%s status=%d %s", s, ev.Status, ev.Body)
	case protocol.LinkEvDraining:
		return fmt.Sprintf("%s ms=%d", s, ev.AfterMs)
	}
	return s
}

// epochOf is the life of a topic that is known.
func (r *rig) epochOf(name string) string {
	return topicNamed(r, name).topics[name].epoch
}
