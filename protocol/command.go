package protocol

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CommandOp is what a client asks for. The values are the type bytes of the
// binary protocol.
type CommandOp byte

const (
	CmdNone        CommandOp = 0 // not known, or not yet
	CmdSubscribe   CommandOp = 1
	CmdUnsubscribe CommandOp = 2
	CmdPublish     CommandOp = 3
	CmdPing        CommandOp = 4
)

var commandWords = [...]string{
	CmdNone: "none", CmdSubscribe: "subscribe", CmdUnsubscribe: "unsubscribe", CmdPublish: "publish", CmdPing: "ping",
}

// String is the op's word on the wire.
func (o CommandOp) String() string {
	if int(o) >= len(commandWords) {
		return "unknown"
	}
	return commandWords[o]
}

// MaxID is the largest id of a command: the largest integer that every JSON
// reader keeps exactly. The binary protocol has the same limit, so that a
// command means the same on both wires.
const MaxID = 1<<53 - 1

// Command is one command of a client, whichever way it came. Only the fields
// of its Op are set.
type Command struct {
	Op      CommandOp
	HasID   bool
	ID      uint64 // 0 to MaxID
	Topic   []byte // subscribe, unsubscribe, publish
	Kind    Kind   // publish
	Payload []byte // publish: valid for its kind
	Stored  bool   // publish: answer only when stored
	From    From   // subscribe
}

// FromMode says where a subscription starts.
type FromMode byte

const (
	FromLive     FromMode = 0 // with the next message
	FromPosition FromMode = 1 // after Epoch and Offset
	FromEarliest FromMode = 2 // with the oldest message there is
	FromLast     FromMode = 3 // with the last Last messages
	FromSince    FromMode = 4 // with the first message at or after Since
)

// From is the start of a subscription; only the fields of its Mode are set.
type From struct {
	Mode   FromMode
	Epoch  []byte
	Offset uint64
	Last   uint64
	Since  int64 // Unix time in milliseconds, 0 to MaxSince
}

// MaxSince is the last millisecond that RFC 3339 can write: the end of the
// year 9999. Times before 1970 are read as 1970, as no message is older.
const MaxSince = 253402300799999

// refuse makes the answer to a command that fails.
func refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// shownMax bounds how much of a bad value an error repeats.
const shownMax = 40

// shown is a value as errors repeat it: at most shownMax bytes of it, and
// whatever cannot be printed replaced.
func shown(value []byte) string {
	cut := value
	if len(cut) > shownMax {
		cut = cut[:shownMax]
		for !utf8.RuneStart(value[len(cut)]) && len(cut) > shownMax-utf8.UTFMax {
			cut = cut[:len(cut)-1]
		}
	}
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(cut), "?"))
	if len(cut) < len(value) {
		s += "..."
	}
	return s
}

// notJSON says where text stops being JSON.
func notJSON(code Code, what string, text []byte, at int) *Error {
	if at >= len(text) {
		return refuse(code, "%s is not valid JSON: it ends after %d bytes", what, len(text))
	}
	return refuse(code, "%s is not valid JSON at byte %d of %d: %s", what, at, len(text), shown(text[at:min(at+8, len(text))]))
}
