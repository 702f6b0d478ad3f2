package protocol

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// LinkSide says whose proof one is: what one side sends is no use as the
// other's.
type LinkSide byte

const (
	LinkPeer LinkSide = iota // that dialled, and says hello
	LinkNode                 // that answers
)

var linkLabels = [...]string{LinkPeer: "rayflux link peer v1", LinkNode: "rayflux link node v1"}

// LinkTerms is what a hello and its challenge have said. Both sides prove that
// they know the cluster's key and have heard the same. No field is longer than
// 255 bytes.
type LinkTerms struct {
	PeerNonce, NodeNonce []byte
	Version              uint64
	Purpose              LinkPurpose
	PeerName, NodeName   []byte
}

// AppendLinkProof appends the proof of one side, LinkProofBytes long:
// HMAC-SHA256, keyed with key, of the side's label, str8 peer nonce, str8 node
// nonce, varint version, byte purpose, str8 peer name and str8 node name.
func AppendLinkProof(dst, key []byte, side LinkSide, t *LinkTerms) []byte {
	said := make([]byte, 0, 256)
	said = append(said, linkLabels[side]...)
	said = appendStr8(said, t.PeerNonce)
	said = appendStr8(said, t.NodeNonce)
	said = binary.AppendUvarint(said, t.Version)
	said = append(said, byte(t.Purpose))
	said = appendStr8(said, t.PeerName)
	said = appendStr8(said, t.NodeName)
	mac := hmac.New(sha256.New, key)
	mac.Write(said)
	return mac.Sum(dst)
}

// CheckLinkProof reports whether proof is that of the side, in a time that does
// not depend on how much of it is right.
func CheckLinkProof(proof, key []byte, side LinkSide, t *LinkTerms) bool {
	return hmac.Equal(proof, AppendLinkProof(nil, key, side, t))
}

// linkVersion reads the version with which name, a hello or challenge, begins,
// and refuses those that are not spoken here.
func (r *row) linkVersion(name string) (uint64, *Error) {
	v := r.uvarint("version")
	if r.fault == "" && v != LinkVersion {
		return v, refuse(CodeBadRequest, "%s: link version is %d, spoken here is %d", name, v, LinkVersion)
	}
	return v, nil
}

func (r *row) nonce() []byte {
	nonce := r.str8("nonce")
	if r.fault == "" && (len(nonce) < LinkNonceMin || len(nonce) > LinkNonceMax) {
		r.fail("nonce", "is not of 16 to 64 bytes")
	}
	return nonce
}

func (r *row) proof() []byte {
	proof := r.str8("proof")
	if r.fault == "" && len(proof) != LinkProofBytes {
		r.fail("proof", "is not of 32 bytes")
	}
	return proof
}

func appendProof(dst, proof []byte) []byte {
	if len(proof) != LinkProofBytes {
		panic("BUG: a proof is not 32 bytes")
	}
	return appendStr8(dst, proof)
}
