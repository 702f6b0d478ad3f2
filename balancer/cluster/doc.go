// Package cluster says where topics live.
//
// # The one idea
//
// A cluster is a row of slots, and a topic belongs to a slot by its name alone: [Choice] of [Hash] of the name. So
// whoever knows the same slots sends a topic to the same node, and nobody has to be asked. Slots come and go at the
// row's end, where that moves one topic in N; a slot in the middle whose node is away stays a slot, and only its topics
// go to their next choice.
//
// Who has which slot is found out by a [Source] and kept as an [engine.View] by a [Directory], for the engine's loops
// to read. The path is the order of the files:
//
//	source, static, dns    a source: who has which slot
//	view                   slots to a view
//	directory              the view that counts now
//	place                  a topic's slots, best first
//
// # Threads
//
// A Source is used by one goroutine, that of the Directory it was given to; all that is slow happens there. A
// Directory's methods are safe from any goroutine and never block, but for Close. Views are shared and never changed.
package cluster
