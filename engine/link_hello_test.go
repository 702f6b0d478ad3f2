package engine

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// fixedView is a Directory that never changes.
type fixedView struct{ view View }

func (d *fixedView) View() *View                             { return &d.view }
func (d *fixedView) Choice(_ uint64, attempt, slots int) int { return attempt % slots }
func (d *fixedView) Doubt()                                  {}
func (d *fixedView) Watch() <-chan struct{}                  { return nil }

func (r *rig) linksAccepted() (n int64) {
	for _, l := range r.loops {
		n += l.metrics.links.Load()
	}
	return n
}

func TestAHelloThatIsProvedMakesALink(t *testing.T) {
	for _, tt := range []struct {
		directory   Directory
		draining    bool
		fingerprint uint64
	}{{nil, false, 0}, {&fixedView{View{Fingerprint: 77}}, true, 77}} {
		cfg := linkConfig(3)
		cfg.Directory = tt.directory
		r := newRig(t, cfg, 1)
		p := newLinkPeer(r, 1)
		p.hello()
		if len(p.terms.NodeNonce) < 16 {
			t.Errorf("the node's nonce is %d bytes", len(p.terms.NodeNonce))
		}
		r.shared.draining.Store(tt.draining)
		p.prove(testKey)
		got := p.heard()
		if len(got) != 1 || got[0].Op != protocol.LinkEvReady || got[0].Draining != tt.draining || got[0].Fingerprint != tt.fingerprint {
			t.Fatalf("a proof is answered with %+v", got)
		}
		if !protocol.CheckLinkProof(got[0].Proof, testKey, protocol.LinkNode, &p.terms) {
			t.Error("the node does not prove that it knows the key")
		}
		if n := r.linksAccepted(); n != 1 {
			t.Errorf("%d links are counted", n)
		}
		r.hangUp(p.fakeSocket)
		r.auditRest()
		if n := r.linksAccepted(); n != 0 {
			t.Errorf("%d links are counted after the end", n)
		}
	}
}

// A link that were made before a node has a view would be one to a node of its own for as long as it lasts.
func TestANodeWithoutAViewIsNotLinked(t *testing.T) {
	directory := &fixedView{}
	cfg := linkConfig(1)
	cfg.Directory = directory
	r := newRig(t, cfg, 1)
	p := newLinkPeer(r, 0)
	p.hello()
	p.prove(testKey)
	wantLines(t, p.lines(), `binary {"op":"error","code":"no_owner","message":"this node has not found the others yet","retry_after_ms":1000}`)
	if n := r.linksAccepted(); n != 0 {
		t.Errorf("%d links are counted", n)
	}
	directory.view.Fingerprint = 77
	p.hello()
	p.prove(testKey)
	if got := p.heard(); len(got) != 1 || got[0].Op != protocol.LinkEvReady || got[0].Fingerprint != 77 {
		t.Errorf("with a view it says %+v", got)
	}
}

func TestNoTwoChallengesAreTheSame(t *testing.T) {
	r := newRig(t, linkConfig(1), 1)
	seen := map[string]bool{}
	for range 10 {
		p := newLinkPeer(r, 0)
		p.hello()
		seen[string(p.terms.NodeNonce)] = true
	}
	if len(seen) != 10 {
		t.Errorf("ten challenges have %d nonces", len(seen))
	}
}

// A link may begin anywhere in what is read at once, also with a hello in fragments: what follows belongs to the link.
func TestALinkGoesOnInTheSameBytes(t *testing.T) {
	r := newRig(t, linkConfig(1), 1)
	p := newLinkPeer(r, 0)
	p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("before")})
	p.items()
	p.hello()
	proof := protocol.AppendLinkCommand(nil, &protocol.LinkCommand{Op: protocol.LinkCmdProof,
		Proof: protocol.AppendLinkProof(nil, testKey, protocol.LinkPeer, &p.terms)})
	stream := append([]byte{0x02, 0x80 | 10, 0, 0, 0, 0}, proof[:10]...)
	stream = append(append(stream, 0x80, 0x80|byte(len(proof)-10), 0, 0, 0, 0), proof[10:]...)
	stream = protocol.AppendLinkCommandFrame(stream, &protocol.LinkCommand{Op: protocol.LinkCmdLocate, HasID: true, ID: 1, Topic: []byte("t")})
	stream = append(stream, 0x82, 0x80|2) // and half a ping
	r.feed(p.fakeSocket, stream)
	r.audit()
	r.feed(p.fakeSocket, []byte{0, 0, 0, 0, 4, 0})
	r.audit()
	want := []string{"ready", "located id=1 t offset=0 head=0 start=1 whole=false", `binary {"op":"pong"}`}
	if got := p.lines(); !slices.Equal(got, want) {
		t.Errorf("heard %q", got)
	}
	p.command(&protocol.Command{Op: protocol.CmdUnsubscribe, Topic: []byte("before")})
	if got := p.lines(); !slices.Equal(got, []string{`binary {"op":"unsubscribed","topic":"before"}`}) {
		t.Errorf("heard %q of what was subscribed to before", got)
	}
	r.audit()
}

func TestWhatIsNoHello(t *testing.T) {
	nonce := strings.Repeat("n", 16)
	hello := func(version byte) []byte { return []byte("\x10\x00" + string(version) + "\x00\x01\x01b\x10" + nonce) }
	const bad = `binary {"op":"error","code":"bad_request","message":"`
	for _, tt := range []struct {
		name     string
		messages [][]byte
		want     []string // after the challenges
	}{
		{"two of them", [][]byte{hello(1), hello(1)}, []string{bad + `hello: it was said before, and a proof is awaited"}`}},
		{"proof first", [][]byte{append([]byte{0x11, 0, 32}, make([]byte, 32)...)}, []string{bad + `proof: no hello came before it"}`}},
		{"another version", [][]byte{hello(2)}, []string{bad + `hello: link version is 2, spoken here is 1"}`}},
		{"a short nonce", [][]byte{[]byte("\x10\x00\x01\x00\x01\x01b\x01n")}, []string{bad + `hello: nonce is not of 16 to 64 bytes"}`}},
		{"a short proof", [][]byte{hello(1), {0x11, 0, 1, 7}}, []string{bad + `proof: proof is not of 32 bytes"}`}},
		{"a question before it is a link", [][]byte{hello(1), {0x12, 1, 7, 1, 't'}, {0x1a, 1, 7, 1, 't'}}, []string{
			`binary {"op":"error","code":"unknown_op","message":"command type is 0x12, not 0x01 (subscribe) to 0x04 (ping)"}`,
			`binary {"op":"error","code":"unknown_op","message":"command type is 0x1a, not 0x01 (subscribe) to 0x04 (ping)"}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, linkConfig(1), 1)
			p := newLinkPeer(r, 0)
			for _, m := range tt.messages {
				p.bytes(m...)
			}
			got := slices.DeleteFunc(p.lines(), func(line string) bool { return line == "challenge" })
			if !slices.Equal(got, tt.want) {
				t.Errorf("heard %q", got)
			}
			p.command(&protocol.Command{Op: protocol.CmdPing})
			if got := p.lines(); !slices.Equal(got, []string{`binary {"op":"pong"}`}) {
				t.Errorf("afterwards it hears %q", got)
			}
			r.audit()
		})
	}
}

func TestWithoutAClusterKeyThereAreNoLinks(t *testing.T) {
	for _, key := range [][]byte{nil, {}} {
		cfg := linkConfig(1)
		cfg.ClusterKey = key
		r := newRig(t, cfg, 1)
		p := newLinkPeer(r, 0)
		p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHello, Version: 1, Purpose: protocol.LinkControl, Nonce: p.terms.PeerNonce})
		p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdProof, Proof: make([]byte, 32)})
		got := p.lines()
		for i, line := range got {
			if want := fmt.Sprintf(`binary {"op":"error","code":"unknown_op","message":"command type is 0x1%d, not 0x01 (subscribe) to 0x04 (ping)"}`, i); line != want {
				t.Errorf("heard %s", line)
			}
		}
		if len(got) != 2 {
			t.Errorf("heard %q", got)
		}
	}
}

// JSON has no hello, and its binary messages are refused as ever.
func TestAHelloNeedsTheBinaryProtocol(t *testing.T) {
	r := newRig(t, linkConfig(1), 1)
	s := r.connect(0)
	r.feed(s, []byte(handshake("/ws", subprotocolJSON)))
	r.feed(s, protocol.AppendMaskedFrame(nil, protocol.OpBinary, [4]byte{}, []byte{0x10, 0, 1}))
	if got := string(s.readSome(1 << 20)); !strings.Contains(got, "takes text messages") {
		t.Errorf("heard %q", got)
	}
}

// logged keeps the lines of a log.
type logged struct{ lines []string }

func (g *logged) Enabled(context.Context, slog.Level) bool { return true }
func (g *logged) WithAttrs([]slog.Attr) slog.Handler       { return g }
func (g *logged) WithGroup(string) slog.Handler            { return g }
func (g *logged) Handle(_ context.Context, record slog.Record) error {
	if record.Level < slog.LevelWarn {
		return nil
	}
	line := record.Message
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	g.lines = append(g.lines, line)
	return nil
}

func TestAWrongKeyEndsTheConnectionAndIsLoggedOnceAMinute(t *testing.T) {
	log := &logged{}
	cfg := linkConfig(2)
	cfg.Log = slog.New(log)
	r := newRig(t, cfg, 1)
	try := func(name string, loop int) {
		p := newLinkPeer(r, loop)
		p.terms.PeerName = []byte(name)
		p.hello()
		p.prove([]byte("another key"))
		want := []string{`binary {"op":"error","code":"unauthorized","message":"the proof is not of this cluster's key"}`, `close 1008 "wrong cluster key"`}
		if got := p.lines(); !slices.Equal(got, want) {
			t.Fatalf("heard %q", got)
		}
		r.hangUp(p.fakeSocket)
	}
	for i := range 5 {
		try("a", i%2)
	}
	try("b", 0)
	r.advance(61 * time.Second)
	try("a", 1)
	want := []string{"link refused: wrong cluster key name=a peer=test", "link refused: wrong cluster key name=b peer=test", "link refused: wrong cluster key name=a peer=test"}
	if !slices.Equal(log.lines, want) {
		t.Errorf("the log has %q", log.lines)
	}
	ended := uint64(0)
	for _, l := range r.loops {
		ended += l.metrics.disconnects[protocol.ReasonUnauthorized].Load()
	}
	if ended != 7 || r.linksAccepted() != 0 {
		t.Errorf("%d connections are counted as ended for it, %d links", ended, r.linksAccepted())
	}

	for i := range 1000 {
		try(strings.Repeat("x", 200)+fmt.Sprint(i), 0)
	}
	if n := len(r.shared.strangers.last); n > seldomNames || len(log.lines) > 3+seldomNames {
		t.Errorf("%d names are remembered, %d lines logged", n, len(log.lines))
	}
	for _, line := range log.lines {
		if bytes.Contains([]byte(line), testKey) {
			t.Error("the key is in the log")
		}
	}
	r.auditRest()
}
