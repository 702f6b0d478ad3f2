package engine

import (
	"sync/atomic"
	"time"

	"rayflux/persist"
	"rayflux/protocol"
)

// errand is a command of a connection on its way to its topic's home loop, and the outcome on its way back. On one loop
// it never leaves the loop's scratch copy; between loops it is copied into a parcel.
type errand struct {
	conn *conn
	sub  *subscription
	op   errandOp
	kind protocol.Kind
	slot int32  // which message of an HTTP batch
	id   uint64 // the client's, if hasID
	hash uint64
	size int // history: messages wanted; read of the archive, fetch: bytes, at most

	hasID, stored bool
	phased        bool   // stored: answered at once, and once more when it is (opStored)
	deep          bool   // read, fetch: a reader that recovers, who may read what only the archive has
	recovers      bool   // read: the same, whether this server has the archive or another one
	past          string // read: an earlier epoch, that of offset; back: where the reader begins in one. "": the topic's own

	// Going. Valid until the parcel is recycled, or the bytes the command was parsed from are.
	name    []byte
	payload []byte // back: rendered messages
	from    protocol.From

	// Back.
	topic  *topic
	epoch  string // of what was published or subscribed to; a topic's own may have changed since
	offset uint64 // published: the message's; subscribed, located: before the first to come; read: the last one in payload
	head   uint64 // the topic's newest message
	start  uint64 // the topic's oldest message kept
	whole  bool   // all that was asked for is there
	turn   *turn  // read, fetched: in the place of messages
	status int    // history: of the answer in payload, where its owner has written it; 0: a page
	err    *protocol.Error
}

type errandOp uint8

const (
	opPublish     errandOp = iota
	opSubscribe            // attaches the connection's loop
	opUnsubscribe          // answered after all that was asked before
	opLeave                // the same without an answer: the connection is gone
	opRead                 // more messages for a subscription that is not live
	opHistory              // a page for an HTTP client, who may be another server's
	opLocate               // where a subscription of another server would begin
	opFetch                // a stretch of the log for another server
	opStored               // only an answer: a message that was published before is stored
	opRefuse               // nothing: refused already, but to be answered after all that was asked before
	opHandoff              // a part of a topic that another node hands over; payload is the command
	opClaim                // another node wants a topic handed over
	opSettled              // to every loop: another node has no topics of ours; payload is the command
	opUnlinked             // to every loop: the link on which such things came has ended
)

type mailKind uint8

const (
	mailErrand   mailKind = iota // to a home loop
	mailAnswer                   // back from it
	mailBatch                    // to a mirror
	mailStale                    // to a mirror: batches were withheld, read the log
	mailReset                    // to a mirror: its topic's epoch has ended
	mailMoved                    // to a mirror: its topic is at another node now
	mailView                     // the directory has another view
	mailUnlinked                 // a link could not be made
	mailDrain
	mailSaved    // the archive has a batch, or never will
	mailArchived // it answers an inquiry
	mailInherit  // where topics stood that this node goes on with
	mailSeal     // take nothing more, and say where the topics stand
	mailSurvey   // of the topics: begin, or go on
)

// mail is one letter of a parcel.
type mail struct {
	kind   mailKind
	errand errand
	mirror *mirror
	batch  *batch
	topic  *topic  // mailReset: that of the new epoch; errand.head is where it stands, errand.offset what is known of it
	link   *uplink // mailUnlinked
	err    error   // mailUnlinked, mailSaved

	saved   *persist.Batch          // mailSaved
	inquiry *inquiry                // mailArchived
	sealed  chan<- []persist.Sealed // mailSeal
	stood   []persist.Sealed        // mailInherit
}

// Parcels start small and keep what they grow to: a loop that looks away for a moment finds one for each round of the
// others.
const (
	parcelMails = 64
	parcelsKept = 64
	parcelBytes = 64 << 10
	mailCost    = 400
	parcelCost  = 64 + parcelMails/8*mailCost + parcelBytes/32
)

// parcel is the mail of one round from one loop to another, with the bytes its letters refer to. Pushed with one atomic
// operation, and sent back to its maker to be filled again.
type parcel struct {
	mails []mail
	bytes []byte
	cost  int64 // what it counts against mail-memory while under way
	maker *loop
	next  *parcel
}

// keep copies b into the parcel, where it lives until the receiver has read the parcel.
func (p *parcel) keep(b []byte) []byte {
	n := len(p.bytes)
	p.bytes = append(p.bytes, b...)
	return p.bytes[n:len(p.bytes):len(p.bytes)]
}

// fits reports whether one more letter with so many bytes can join. An empty parcel takes anything.
func (p *parcel) fits(n int) bool {
	return len(p.mails) == 0 || (len(p.mails) < parcelMails && len(p.bytes)+n <= parcelBytes)
}

// mailbox is how other loops and goroutines reach a loop.
type mailbox struct {
	arrived atomic.Pointer[parcel] // a stack, newest first
	emptied atomic.Pointer[parcel] // this loop's own parcels, read by their receivers
	pending atomic.Int64           // cost of what has arrived and is not yet read
	woken   atomic.Bool            // a wake-up is under way: the next one is needless
}

func push(stack *atomic.Pointer[parcel], p *parcel) {
	for {
		p.next = stack.Load()
		if stack.CompareAndSwap(p.next, p) {
			return
		}
	}
}

// send hands a parcel to another loop, and wakes it if nobody has yet.
func (to *loop) send(p *parcel) {
	to.mailbox.pending.Add(p.cost)
	push(&to.mailbox.arrived, p)
	if !to.mailbox.woken.Swap(true) {
		to.waker.wake()
	}
}

// newParcel is an empty parcel of this loop's.
func (l *loop) newParcel() *parcel {
	if l.parcels == nil {
		l.parcels = l.mailbox.emptied.Swap(nil)
		// After a stall there are many, and each would grow in time: the rest is left to the garbage collector.
		last := l.parcels
		for n := 1; last != nil && n < parcelsKept; n++ {
			last = last.next
		}
		if last != nil {
			last.next = nil
		}
	}
	p := l.parcels
	if p == nil {
		return &parcel{mails: make([]mail, 0, parcelMails/8), bytes: make([]byte, 0, parcelBytes/32), maker: l}
	}
	l.parcels, p.next = p.next, nil
	return p
}

// letter adds a letter to the outgoing parcel for another loop and returns it to be filled in. n is the bytes it will
// keep; cost is what it pins elsewhere.
func (l *loop) letter(to *loop, kind mailKind, n int, cost int64) (*parcel, *mail) {
	p := l.outbox[to.index]
	if p != nil && !p.fits(n) {
		l.outbox[to.index] = nil
		to.send(p)
		p = nil
	}
	if p == nil {
		p = l.newParcel()
		p.cost = parcelCost
		l.outbox[to.index] = p
		l.outgoing = true
	}
	p.cost += int64(n) + cost + mailCost
	p.mails = append(p.mails, mail{kind: kind})
	return p, &p.mails[len(p.mails)-1]
}

// post sends an errand to its home loop.
func (l *loop) post(to *loop, e *errand) {
	p, m := l.letter(to, mailErrand, len(e.name)+len(e.payload)+len(e.from.Epoch), 0)
	m.errand = *e
	m.errand.name = p.keep(e.name)
	m.errand.payload = p.keep(e.payload)
	m.errand.from.Epoch = p.keep(e.from.Epoch)
}

// answer brings an errand's outcome to the connection that asked: at once on its own loop, by mail on another.
func (l *loop) answer(e *errand) {
	to := e.conn.loop
	if to == l {
		e.conn.answered(e)
		return
	}
	p, m := l.letter(to, mailAnswer, len(e.payload), 0)
	m.errand = *e
	m.errand.name, m.errand.from.Epoch = nil, nil
	m.errand.payload = p.keep(e.payload)
}

// crowded reports whether another loop is so far behind with its mail that nothing more may be asked of it.
func (l *loop) crowded(to *loop) bool {
	return to != l && to.mailbox.pending.Load() > l.mailMax
}

// dispatch pushes what this round wrote to other loops.
func (l *loop) dispatch() {
	if !l.outgoing {
		return
	}
	l.outgoing = false
	for i, p := range l.outbox {
		if p != nil {
			l.outbox[i] = nil
			l.peers[i].send(p)
		}
	}
}

// readMailMax is how long a loop reads its mail before its connections have their turn again.
const readMailMax = 5 * int64(time.Millisecond)

// readMail handles what has arrived, in order of each sender. What it does not get to is read by the next call.
func (l *loop) readMail() {
	// Cleared before the mailbox is taken: a parcel pushed after the take finds the flag down and wakes us again.
	l.mailbox.woken.Store(false)
	newest := l.mailbox.arrived.Swap(nil)
	var oldest *parcel
	for newest != nil {
		newest, newest.next, oldest = newest.next, oldest, newest
	}
	at := &l.unread
	for *at != nil {
		at = &(*at).next
	}
	*at = oldest
	for l.unread != nil {
		p := l.unread
		l.unread = p.next
		l.readParcel(p)
		if l.unread != nil && l.clock()-l.now > readMailMax {
			l.mailbox.woken.Store(true)
			l.waker.wake()
			return
		}
	}
}

// readParcel handles one parcel and sends it back to its maker.
func (l *loop) readParcel(p *parcel) {
	for i := range p.mails {
		l.readLetter(&p.mails[i])
	}
	l.mailbox.pending.Add(-p.cost)
	poison(p.bytes)
	clear(p.mails)
	if cap(p.bytes) > 2*parcelBytes {
		p.bytes = make([]byte, 0, parcelBytes/32) // one large message must not keep its parcel large
	}
	p.mails, p.bytes, p.cost = p.mails[:0], p.bytes[:0], 0
	if p.maker != nil {
		push(&p.maker.mailbox.emptied, p)
	}
}

func (l *loop) readLetter(m *mail) {
	switch m.kind {
	case mailErrand:
		l.execute(&m.errand)
	case mailAnswer:
		m.errand.conn.answered(&m.errand)
	case mailBatch:
		m.mirror.deliver(l, m.batch)
	case mailStale:
		m.mirror.strand(l)
	case mailReset:
		m.mirror.reset(l, m.topic, m.errand.offset, m.errand.head)
	case mailMoved:
		m.mirror.moved(l)
	case mailView:
		l.look()
	case mailUnlinked:
		m.link.owner.unlinked(m.link, m.err)
	case mailDrain:
		l.drain()
	case mailSaved:
		l.keeper.saved(m.saved, m.err)
	case mailArchived:
		l.keeper.archived(m.inquiry)
	case mailInherit:
		l.keeper.inherit(m.stood)
	case mailSeal:
		l.keeper.seal(m.sealed)
	case mailSurvey:
		l.surveyOn()
	}
}
