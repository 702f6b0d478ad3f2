// Package balancer is the way from a balancer to its nodes: it makes the links that the engine's loops then own.
//
// A link is dialled on a goroutine of its own (name look-ups, slow networks and the proof of the cluster key take their
// time there), and handed to a loop when it is ready; from then on it is one more connection of that loop. Which node a
// topic belongs to is told by package balancer/cluster. What a balancer does with its links, one subscription for each
// topic however many readers there are, lines of commands that keep their order when a topic moves, is the engine's:
// engine/upstream.go.
package balancer
