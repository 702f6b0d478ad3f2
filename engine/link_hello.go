package engine

import (
	"bytes"
	"crypto/rand"
	"maps"
	"sync"
	"time"

	"rayflux/protocol"
)

// nodeNonceBytes is as many random bytes as the proof has.
const nodeNonceBytes = protocol.LinkProofBytes

// greets reports whether a message is one of the two by which a connection becomes a link. Without a cluster key none is:
// they are types that clients do not have, like all other rows of links.
func (l *loop) greets(message []byte) bool {
	if len(l.cfg.ClusterKey) == 0 || len(message) == 0 || l.up != nil { // a balancer has nothing that nodes have
		return false
	}
	op := protocol.LinkCommandOp(message[0])
	return op == protocol.LinkCmdHello || op == protocol.LinkCmdProof
}

// greet takes a hello or the proof of one.
func (r *nativeRole) greet(c *conn, message []byte) {
	cmd, err := protocol.ParseLinkCommand(message)
	switch {
	case err != nil:
		r.refuse(c, false, 0, err.(*protocol.Error))
	case cmd.Op == protocol.LinkCmdProof:
		r.prove(c, cmd.Proof)
	case r.greeting != nil:
		r.refuse(c, false, 0, badCommand("hello: it was said before, and a proof is awaited"))
	default:
		r.challenge(c, &cmd)
	}
}

func badCommand(text string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeBadRequest, Message: text}
}

func (r *nativeRole) challenge(c *conn, hello *protocol.LinkCommand) {
	nonce := make([]byte, nodeNonceBytes)
	_, _ = rand.Read(nonce) // it never fails; not the loop's own, which can be guessed
	r.greeting = &protocol.LinkTerms{
		PeerNonce: bytes.Clone(hello.Nonce), NodeNonce: nonce, Version: hello.Version, Purpose: hello.Purpose,
		PeerName: bytes.Clone(hello.Name), NodeName: []byte(c.loop.cfg.Name),
	}
	r.features = hello.Features
	c.tellLink(&protocol.LinkEvent{Op: protocol.LinkEvChallenge, Version: protocol.LinkVersion, Features: protocol.LinkFeatures,
		Name: r.greeting.NodeName, Nonce: nonce})
}

// prove makes the connection a link if the proof is right, and ends it if not.
func (r *nativeRole) prove(c *conn, proof []byte) {
	l := c.loop
	terms := r.greeting
	if terms == nil {
		r.refuse(c, false, 0, badCommand("proof: no hello came before it"))
		return
	}
	if !protocol.CheckLinkProof(proof, l.cfg.ClusterKey, protocol.LinkPeer, terms) {
		if name := string(terms.PeerName); l.shared.strangers.allow(name, l.now) {
			l.cfg.Log.Warn("link refused: "+protocol.ReasonUnauthorized.String(), "name", name, "peer", c.sock.peer())
		}
		r.refuse(c, false, 0, &protocol.Error{Code: protocol.CodeUnauthorized, Message: "the proof is not of this cluster's key"})
		c.fail(protocol.ReasonUnauthorized, "")
		return
	}
	fingerprint := uint64(0)
	if l.cfg.Directory != nil {
		if fingerprint = l.cfg.Directory.View().Fingerprint; fingerprint == 0 {
			// It owns nothing yet, and a peer that were let in would take it for a lone node as long as the link lasts.
			r.greeting = nil
			r.refuse(c, false, 0, &protocol.Error{Code: protocol.CodeNoOwner, RetryAfter: retryAdvised, Message: "this node has not found the others yet"})
			return
		}
	}
	ready := protocol.LinkEvent{Op: protocol.LinkEvReady, Draining: l.shared.draining.Load(), Fingerprint: fingerprint,
		Proof: protocol.AppendLinkProof(nil, l.cfg.ClusterKey, protocol.LinkNode, terms)}
	n := r.native
	n.phased = r.features&protocol.LinkFeatureStore != 0
	l.link(c, n, terms)
	c.tellLink(&ready)
}

// seldom decides what is logged of things that happen as often as others like, under as many names: each name once in a
// while, and no more than so many names. Locked; allow is safe from any goroutine.
type seldom struct {
	mu   sync.Mutex
	last map[string]int64 // by name, when it was last logged
}

const (
	seldomEach  = int64(time.Minute)
	seldomNames = 64
)

// allow reports whether something is to be logged now, in nanoseconds of the loops' clock.
func (q *seldom) allow(name string, now int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.last, func(_ string, at int64) bool { return now-at >= seldomEach })
	if _, known := q.last[name]; known || len(q.last) >= seldomNames {
		return false
	}
	if q.last == nil {
		q.last = make(map[string]int64)
	}
	q.last[name] = now
	return true
}
