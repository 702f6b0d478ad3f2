package protocol

import (
	"fmt"
	"time"
)

// Code is the word by which an answer on the wire says why a command or a
// request failed. Clients branch on it, so a word is never renamed.
type Code string

// What a command can be told, over WebSocket as over HTTP.
const (
	CodeBadRequest           Code = "bad_request"
	CodeUnknownOp            Code = "unknown_op"
	CodeTopicInvalid         Code = "topic_invalid"
	CodeDataInvalid          Code = "data_invalid"
	CodeMessageTooLarge      Code = "message_too_large"
	CodeAlreadySubscribed    Code = "already_subscribed"
	CodeNotSubscribed        Code = "not_subscribed"
	CodeTooManySubscriptions Code = "too_many_subscriptions"
	CodeTooManyTopics        Code = "too_many_topics"
	CodeUnauthorized         Code = "unauthorized"
	CodeForbidden            Code = "forbidden"
	CodeRateLimited          Code = "rate_limited"
	CodeOverloaded           Code = "overloaded"
	CodeNoOwner              Code = "no_owner"
	CodeNotPersisted         Code = "not_persisted"
	CodeStoreUnavailable     Code = "store_unavailable"
	CodeOutcomeUnknown       Code = "outcome_unknown"
	CodeDraining             Code = "draining"
	CodeInternal             Code = "internal"
	CodeEpochUnknown         Code = "epoch_unknown"
)

// What only an HTTP request can be told.
const (
	CodeNotFound                  Code = "not_found"
	CodeMethodNotAllowed          Code = "method_not_allowed"
	CodeTimeout                   Code = "timeout"
	CodeLengthRequired            Code = "length_required"
	CodeBatchTooLarge             Code = "batch_too_large"
	CodeUnsupportedMedia          Code = "unsupported_media_type"
	CodeExpectationFailed         Code = "expectation_failed"
	CodeUpgradeRequired           Code = "upgrade_required"
	CodeHeaderTooLarge            Code = "header_too_large"
	CodeUnsupportedTransferCoding Code = "unsupported_transfer_coding"
	CodeUnsupportedVersion        Code = "unsupported_http_version"
)

// Status is the HTTP status of an answer that carries c; 500 for a word that
// is not in the table. A topic_invalid in a batch stays inside the batch's 200.
func (c Code) Status() int {
	switch c {
	case CodeBadRequest, CodeUnknownOp, CodeTopicInvalid, CodeDataInvalid, CodeTooManySubscriptions:
		return 400
	case CodeUnauthorized:
		return 401
	case CodeForbidden:
		return 403
	case CodeNotFound:
		return 404
	case CodeMethodNotAllowed:
		return 405
	case CodeTimeout:
		return 408
	case CodeAlreadySubscribed, CodeNotSubscribed, CodeNotPersisted, CodeEpochUnknown:
		return 409
	case CodeLengthRequired:
		return 411
	case CodeMessageTooLarge, CodeBatchTooLarge:
		return 413
	case CodeUnsupportedMedia:
		return 415
	case CodeExpectationFailed:
		return 417
	case CodeUpgradeRequired:
		return 426
	case CodeRateLimited:
		return 429
	case CodeHeaderTooLarge:
		return 431
	case CodeUnsupportedTransferCoding:
		return 501
	case CodeTooManyTopics, CodeOverloaded, CodeNoOwner, CodeStoreUnavailable, CodeOutcomeUnknown, CodeDraining:
		return 503
	case CodeUnsupportedVersion:
		return 505
	}
	return 500
}

// Error is what a failed command is told; the connection lives on.
type Error struct {
	Code       Code
	Message    string
	RetryAfter time.Duration // 0: no advice is given
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// HTTPError is a request that is answered with an error status. Where bytes
// that follow could be misread as another request, which is every error of
// NextHead, ChunkedBody and Upgrade, the connection closes after the answer.
type HTTPError struct {
	Status     int
	Code       Code
	Message    string
	Allow      string        // the Allow header of a 405: method names joined by ", "
	RetryAfter time.Duration // the Retry-After header, rounded up to seconds; 0: none
}

// HTTP is e as the answer to an HTTP request; the connection may live on.
func (e *Error) HTTP() *HTTPError {
	return &HTTPError{Status: e.Code.Status(), Code: e.Code, Message: e.Message, RetryAfter: e.RetryAfter}
}

func (e *HTTPError) Error() string {
	return fmt.Sprintf("http %d %s: %s", e.Status, e.Code, e.Message)
}

// CloseError ends a WebSocket: Code and Text go into the close frame.
type CloseError struct {
	Code CloseCode
	Text string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("websocket close %d: %s", e.Code, e.Text)
}

// Reason is why a connection that e ends has ended; ReasonProtocol for a code
// that reading never gives.
func (e *CloseError) Reason() Reason {
	for r := ReasonProtocol; r <= ReasonInternal; r++ {
		if reasons[r].close == e.Code {
			return r
		}
	}
	return ReasonProtocol
}

// CloseCode is the status of a close frame (RFC 6455 §7.4).
type CloseCode uint16

const (
	CloseNormal      CloseCode = 1000
	CloseGoingAway   CloseCode = 1001
	CloseProtocol    CloseCode = 1002
	CloseUnsupported CloseCode = 1003
	CloseNoStatus    CloseCode = 1005 // never on the wire: the close frame was empty
	CloseAbnormal    CloseCode = 1006 // never on the wire: there was no close frame
	CloseInvalidUTF8 CloseCode = 1007
	ClosePolicy      CloseCode = 1008
	CloseTooBig      CloseCode = 1009
	CloseInternal    CloseCode = 1011
	CloseRestart     CloseCode = 1012
	CloseTryLater    CloseCode = 1013
	CloseSlow        CloseCode = 4008 // ours: a slow reader whose cursor cannot be saved
)

// OnWire reports whether a close frame may carry c: the codes of RFC 6455
// §7.4.1 and their later IANA entries (1012 to 1014) that are not reserved for
// local use, and the ranges of libraries and applications.
func (c CloseCode) OnWire() bool {
	switch {
	case c >= 3000 && c <= 4999:
		return true
	case c >= 1000 && c <= 1014:
		return c != 1004 && c != CloseNoStatus && c != CloseAbnormal
	}
	return false
}

// Reason is why a connection ended or a message was dropped. Its close code,
// metric label and log word all come from the one table below.
type Reason byte

const (
	// ReasonNone is the zero value: nothing ended and nothing was dropped.
	ReasonNone Reason = iota

	ReasonClientClosed     // the client sent a close frame
	ReasonPeerReset        // end of stream or reset, without a close frame
	ReasonDrain            // this process is going away
	ReasonProtocol         // RFC 6455 was broken
	ReasonUnsupported      // a data type this endpoint does not take
	ReasonInvalidUTF8      // text that is not UTF-8
	ReasonPolicy           // a rule of ours was broken
	ReasonTooBig           // a message past the size limit
	ReasonInternal         // our fault
	ReasonOverCapacity     // --max-connections
	ReasonAnswersFull      // answers left unread past --max-answers
	ReasonSlow             // a cursor fell off the log and may not skip
	ReasonHandshakeTimeout // no complete request head in --handshake-timeout
	ReasonRequestTimeout   // no complete body in --request-timeout
	ReasonPingTimeout      // nothing was heard for too long
	ReasonHTTP             // an HTTP exchange ended as it should
	ReasonHTTPError        // an HTTP exchange ended with an error that closes
	ReasonPipelineFull     // too many pipelined requests without reading answers
	ReasonUnauthorized     // a link's peer has another cluster key
	ReasonMoved            // a topic that was subscribed to is another node's now

	ReasonDropSlowSkip      // slow reader moved to the head
	ReasonDropSlowLatest    // slow reader left with the newest message only
	ReasonDropOverloaded    // publish refused: no memory or no room in a queue
	ReasonDropTooLarge      // publish refused: payload past --max-message
	ReasonDropTooManyTopics // publish refused: --max-topics
	ReasonDropInvalid       // publish refused: malformed
	ReasonDropDraining      // publish refused: this process is going away
	ReasonDropNoOwner       // publish refused: no node owns the topic
	ReasonDropUnknown       // publish not answered by the node that owns the topic: it may have been taken

	// NumReasons is the length of a table indexed by Reason.
	NumReasons
)

// reasons holds, per Reason, the close code, the metric label, and the words
// for logs and for the text of the close frame. A reason that can only end a
// connection before it is a WebSocket has CloseAbnormal; a drop has 0.
var reasons = [NumReasons]struct {
	close CloseCode
	label string
	words string
}{
	ReasonNone: {0, "none", "none"},

	ReasonClientClosed:     {CloseNormal, "client_closed", "closed by the client"},
	ReasonPeerReset:        {CloseAbnormal, "peer_reset", "connection lost"},
	ReasonDrain:            {CloseGoingAway, "drain", "going away"},
	ReasonProtocol:         {CloseProtocol, "protocol", "protocol error"},
	ReasonUnsupported:      {CloseUnsupported, "unsupported", "unsupported data"},
	ReasonInvalidUTF8:      {CloseInvalidUTF8, "invalid_utf8", "invalid UTF-8"},
	ReasonPolicy:           {ClosePolicy, "policy", "policy violation"},
	ReasonTooBig:           {CloseTooBig, "too_big", "message too big"},
	ReasonInternal:         {CloseInternal, "internal", "internal error"},
	ReasonOverCapacity:     {CloseTryLater, "over_capacity", "over capacity"},
	ReasonAnswersFull:      {CloseTryLater, "answers_full", "too many unread answers"},
	ReasonSlow:             {CloseSlow, "slow", "slow reader"},
	ReasonHandshakeTimeout: {CloseAbnormal, "handshake_timeout", "handshake timeout"},
	ReasonRequestTimeout:   {CloseAbnormal, "request_timeout", "request timeout"},
	ReasonPingTimeout:      {CloseGoingAway, "ping_timeout", "ping timeout"},
	ReasonHTTP:             {CloseAbnormal, "http_closed", "http exchange ended"},
	ReasonHTTPError:        {CloseAbnormal, "http_error", "http error"},
	ReasonPipelineFull:     {CloseAbnormal, "pipeline_full", "too many pipelined requests"},
	ReasonUnauthorized:     {ClosePolicy, "unauthorized", "wrong cluster key"},
	ReasonMoved:            {CloseRestart, "moved", "a topic is at another node now"},

	ReasonDropSlowSkip:      {0, "slow_skip", "slow reader skipped to the head"},
	ReasonDropSlowLatest:    {0, "slow_latest", "slow reader kept the latest only"},
	ReasonDropOverloaded:    {0, "overloaded", "overloaded"},
	ReasonDropTooLarge:      {0, "too_large", "message too large"},
	ReasonDropTooManyTopics: {0, "too_many_topics", "too many topics"},
	ReasonDropInvalid:       {0, "invalid", "invalid message"},
	ReasonDropDraining:      {0, "draining", "draining"},
	ReasonDropNoOwner:       {0, "no_owner", "no owner"},
	ReasonDropUnknown:       {0, "outcome_unknown", "outcome unknown"},
}

// CloseCode is what a close frame sent for r carries; check OnWire first, as
// some reasons end connections that never became WebSockets.
func (r Reason) CloseCode() CloseCode { return reasons[r].close }

// Label is the value of the metric label "reason".
func (r Reason) Label() string { return reasons[r].label }

// String is what logs say, and the text of the close frame.
func (r Reason) String() string { return reasons[r].words }

// IsDrop reports whether r is about a message rather than a connection.
func (r Reason) IsDrop() bool { return r >= ReasonDropSlowSkip && r < NumReasons }
