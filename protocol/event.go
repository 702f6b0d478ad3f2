package protocol

// EventOp is what a server says: the answers to commands, and the events that
// nobody asked for. With eventTypeBit they are the type bytes of the binary
// protocol.
type EventOp byte

const (
	EvNone         EventOp = 0 // not known
	EvWelcome      EventOp = 1
	EvSubscribed   EventOp = 2
	EvUnsubscribed EventOp = 3
	EvPublished    EventOp = 4
	EvPong         EventOp = 5
	EvMessage      EventOp = 6
	EvGap          EventOp = 7
	EvDrain        EventOp = 8
	EvError        EventOp = 9
)

var eventWords = [...]string{
	EvNone: "none", EvWelcome: "welcome", EvSubscribed: "subscribed", EvUnsubscribed: "unsubscribed",
	EvPublished: "published", EvPong: "pong", EvMessage: "message", EvGap: "gap", EvDrain: "drain", EvError: "error",
}

// String is the op's word on the wire.
func (o EventOp) String() string {
	if int(o) >= len(eventWords) {
		return "unknown"
	}
	return eventWords[o]
}

// Why a gap came about.
const (
	GapSlow  = "slow"  // this subscriber was too slow, the messages exist
	GapReset = "reset" // the topic's epoch ended, or a stored part of it is missing
)

// Event is one answer or event. Only the fields of its Op are meant and
// written; the comment behind each says which those are.
type Event struct {
	Op    EventOp
	HasID bool   // subscribed, unsubscribed, published, pong, error
	ID    uint64 // 0 to MaxID

	Topic  string // subscribed, unsubscribed, published, message, gap
	Epoch  string // subscribed, published, gap
	Offset uint64 // subscribed, published, message, gap

	Recovered bool // subscribed
	Partial   bool // subscribed

	Kind    Kind   // message
	Payload []byte // message: of the encoders' caller; from a parser valid as long as its input is

	HasMissed bool   // gap
	Missed    uint64 // gap: how many messages were skipped, if HasMissed
	Reason    string // gap: GapSlow or GapReset; readers allow for more

	Code         Code   // error
	Message      string // error
	RetryAfterMs uint64 // error: 0 if there is no advice

	ReconnectAfterMs uint64 // drain

	Session         string // welcome
	Version         string // welcome
	PingIntervalMs  uint64 // welcome
	MaxMessageBytes uint64 // welcome
}
