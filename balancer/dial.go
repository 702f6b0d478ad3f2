package balancer

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gobwas/ws"

	"rayflux/engine"
	"rayflux/protocol"
)

const (
	path         = "/ws"
	subprotocol  = "rayflux.v1.bin"
	nonceBytes   = 32
	greetingMax  = 4 << 10 // of one message before the link is ready
	keepAliveEnd = 30 * time.Second
)

// Dialer makes links to nodes and proves the cluster key on them, and has the nodes prove it. Safe from any goroutine; its
// fields never change.
type Dialer struct {
	Name    string        // how this process calls itself in the nodes' logs
	Key     []byte        // the cluster key
	Timeout time.Duration // from dialling to a link that is ready
}

// Dial makes a link; it is ready for use. Its errors say what the node said, if it said something.
func (d Dialer) Dial(ctx context.Context, address string, purpose protocol.LinkPurpose) (engine.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	upgrade := ws.Dialer{Protocols: []string{subprotocol}, NetDial: tcp}
	conn, early, handshake, err := upgrade.Dial(ctx, "ws://"+address+path)
	if err != nil {
		return engine.Link{}, err
	}
	g := greeting{conn: conn, in: early}
	if g.in == nil {
		g.in = bufio.NewReader(conn)
	}
	if handshake.Protocol != subprotocol {
		conn.Close()
		return engine.Link{}, fmt.Errorf("it does not speak %s", subprotocol)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	link, err := g.greet(d, purpose)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no ready link within %v: %w", d.Timeout, err)
		}
		return engine.Link{}, err
	}
	return link, conn.SetDeadline(time.Time{})
}

// tcp dials with keep-alives, for the time in which nobody asks for a sign of life.
func tcp(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: keepAliveEnd}
	return dialer.DialContext(ctx, network, address)
}

// greeting is a link before it is ready.
type greeting struct {
	conn net.Conn
	in   *bufio.Reader
}

// greet says hello, answers the node's challenge, and checks its proof.
func (g *greeting) greet(d Dialer, purpose protocol.LinkPurpose) (engine.Link, error) {
	var nonce [nonceBytes]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return engine.Link{}, err
	}
	if _, err := g.message(); err != nil { // welcome
		return engine.Link{}, err
	}
	err := g.say(protocol.LinkCommand{Op: protocol.LinkCmdHello, Version: protocol.LinkVersion, Features: protocol.LinkFeatures, Purpose: purpose,
		Name: []byte(d.Name), Nonce: nonce[:]})
	if err != nil {
		return engine.Link{}, err
	}
	challenge, err := g.event(protocol.LinkEvChallenge)
	if err != nil {
		return engine.Link{}, err
	}
	terms := protocol.LinkTerms{PeerNonce: nonce[:], NodeNonce: challenge.Nonce, Version: protocol.LinkVersion, Purpose: purpose,
		PeerName: []byte(d.Name), NodeName: challenge.Name}
	if err := g.say(protocol.LinkCommand{Op: protocol.LinkCmdProof, Proof: protocol.AppendLinkProof(nil, d.Key, protocol.LinkPeer, &terms)}); err != nil {
		return engine.Link{}, err
	}
	ready, err := g.event(protocol.LinkEvReady)
	if err != nil {
		return engine.Link{}, err
	}
	if !protocol.CheckLinkProof(ready.Proof, d.Key, protocol.LinkNode, &terms) {
		return engine.Link{}, errors.New("it does not know the cluster key")
	}
	rest, err := g.in.Peek(g.in.Buffered())
	return engine.Link{Conn: g.conn, Early: rest, Draining: ready.Draining, Fingerprint: ready.Fingerprint,
		Features: challenge.Features}, err
}

func (g *greeting) say(cmd protocol.LinkCommand) error {
	_, err := g.conn.Write(protocol.AppendLinkCommandFrame(nil, &cmd))
	return err
}

// event is the node's next message, which has to be of that kind.
func (g *greeting) event(want protocol.LinkEventOp) (protocol.LinkEvent, error) {
	payload, err := g.message()
	if err != nil {
		return protocol.LinkEvent{}, err
	}
	ev, err := protocol.ParseLinkEvent(payload)
	if err == nil && ev.Op != want {
		err = fmt.Errorf("it answers %s where %s is due", ev.Op, want)
	}
	return ev, err
}

// message is the node's next message. An error that the node tells is an error here.
func (g *greeting) message() ([]byte, error) {
	header, err := ws.ReadHeader(g.in)
	if err != nil {
		return nil, fmt.Errorf("it hung up: %w", err)
	}
	if header.Length > greetingMax {
		return nil, fmt.Errorf("it sends %d bytes before the link is ready, limit %d", header.Length, greetingMax)
	}
	payload := make([]byte, header.Length)
	if _, err := io.ReadFull(g.in, payload); err != nil {
		return nil, err
	}
	switch header.OpCode {
	case ws.OpBinary:
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(payload)
		return nil, fmt.Errorf("it closed the link: %d %s", code, reason)
	default:
		return nil, fmt.Errorf("it sends a frame of opcode %#x before the link is ready", header.OpCode)
	}
	if ev, err := protocol.ParseEventBinary(payload); err == nil && ev.Op == protocol.EvError {
		if ev.Code == protocol.CodeUnknownOp {
			return nil, errors.New("it takes no links: it has no cluster key, or is older than they are")
		}
		return nil, &protocol.Error{Code: ev.Code, Message: ev.Message}
	}
	return payload, nil
}
