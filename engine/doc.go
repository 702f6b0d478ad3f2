// Package engine decides who gets which bytes.
//
// # The one idea
//
// A topic is a log of finished binary frames, cut into batches. Everybody
// downstream is a cursor into it: a live socket, a slow socket, one that comes
// back. A message is encoded once, at the end of its topic's log, where it
// stays. A flush seals what was appended since the last one into a batch and
// hands it, by reference, to every loop that has subscribers of the topic; a
// loop then writes to each of its connections all the ranges it is owed, in one
// gathering write. Formats other than the log's own are rendered once per batch
// ([batch.render]), not per subscriber.
//
// The path of a message is the order of the files:
//
//	reactor     bytes come in from gnet; the one file that imports it
//	conn        a connection: its buffers, its way out, its end
//	http*, websocket, native, classic, sse, link*
//	            what a connection is being; parses and answers
//	home        what is asked of a topic, in the loop that owns it
//	estate, neighbour, incoming, hold, leaving
//	            in a node of a cluster: whose the topic is, and how it gets there
//	directory, upstream, follow, flight, fetch
//	            in a balancer: the same questions, answered by the node that
//	            owns the topic, and the messages that come from there
//	owner, uplink
//	            the links to other nodes that either makes
//	topic, chunk
//	            the log
//	archive, keeper, dormant, stored, recall
//	            in a node with a store: how messages get there, and back
//	batch       a sealed stretch of it, under way
//	pass        sealing, handing over, writing
//	mirror      one loop's subscribers of one topic
//	cursor      a subscription that is behind and reads the log
//	mailbox     between loops
//	survey      which topics are busy, for operators
//	loop, wheel, server
//	            when all of this happens
//
// # Threads
//
// There are Config.Loops event loops, each a goroutine of its own on a thread of
// its own. What a loop owns has no lock and is touched by nobody else:
//
//	owned by a loop                    reached from elsewhere by
//	its connections and roles          mailAnswer
//	its subscriptions and mirrors      mailAnswer, mailBatch, mailStale, mailReset,
//	                                   mailMoved
//	its links to other nodes           mailView, mailUnlinked
//	the topics at home there           mailErrand, mailSurvey
//	its chunks and batches             a batch's bytes are read, never changed,
//	                                   by loops that hold a reference
//	its batches for the archive        mailSaved; read by the archive until then
//	its questions to the archive       mailArchived
//	its wheels, pools, scratch         nobody
//
// A topic's home is a fixed hash of its name. A command for a topic at home
// elsewhere travels there as an errand and comes back with its outcome, so that
// one topic's commands on one connection are answered in order. Mail is written
// into parcels, one per receiving loop and round, each pushed with one atomic
// operation; parcels and batches go back to their makers the same way. With one
// loop all this is a function call.
//
// The words that loops share are the mailboxes' stack heads, a batch's reference
// count, the counters in metrics and shared, and a survey's results.
//
// # Two sources
//
// Where a topic's messages come from is the one difference between a node and a
// balancer. In a node a publish gives them their offset ([topic.append]). In a
// balancer they come from the owner ([upstream]), each topic by one subscription
// on a link that is a connection of its home loop's, and are appended as they
// came ([topic.appendFrame]). Everything downstream is the same. Which of them a
// loop has is told by loop.up and loop.estate: a balancer's, a clustered node's,
// or neither.
//
// # Readers that are behind
//
// When the kernel takes no more, a connection's subscriptions stop where they
// are: a cursor is an offset and pins nothing. The rest of a message that is
// half out is copied. A retry, a millisecond later and then more seldom, reads
// on from the log, at the topic's home. The same code serves a subscriber that
// asked for older messages. A cursor whose messages have left the log is moved
// or ended by the topic's [SlowPolicy], and its reader is told.
//
// # What is kept
//
// A node with a store has one more cursor into every log ([keeper]): four times an
// interval, or when there is much of it, what is new is copied into a batch and
// offered to the [Archive], and what a log drops is offered first. The archive is
// goroutines elsewhere; it answers by mail. A reader whose messages have left the
// log, or are of an earlier epoch, asks it through an [inquiry], one page after
// the other, and is the same cursor as before. Only who recovers reads that deep:
// a live reader that is slow falls off the log as ever. When an epoch has no more
// messages a [turn] says where the cursor goes on. Topics that are forgotten leave
// their epoch and offset behind (dormant), and so does a node that ends in good
// order.
//
// # Links
//
// A connection whose hello proved the cluster's key is a link: another server,
// which stands for many clients. It is a connection as others are, with rows of
// its own ([linkRole]) by which it asks what a topic's home knows: where a
// subscription would begin, a stretch of the log, a page of history. It skips
// where a client might be closed, and no drain waits for it.
//
// # Topics that go to another node
//
// A node that knows of others ([estate]) hands topics over: those that belong to
// another, and all when it drains. A topic is sealed, its log sent, and once the
// other node may have it nothing is ever accepted for it here again: an epoch has
// one owner at any time. Commands for it wait until then, and are told where it
// is. A node that is not in the view any more keeps its links until that is done.
// Whoever should have a topic, and has not, asks the others before it begins
// it anew.
//
// # Memory
//
// Logs, views and topics come out of Config.LogMemory, split evenly over the
// loops; past a loop's share its least recently written chunks go, whosever they
// are. Half-read requests, answers and half-written frames come out of
// Config.BufferMemory; a connection that would go past it is ended. Mail between
// loops is bounded by Config.MailMemory: a loop that is that far behind is
// neither asked nor handed batches, and its subscribers read the log when they
// can.
package engine
