// Package client talks to a RayFlux node or balancer.
//
// Its one idea: a subscription is a position that moves, not a connection. The
// client keeps one connection and replaces it when it breaks; every
// subscription then asks for what follows the last delivery it queued. So the
// consumer sees one sequence, each offset once and in order, across any number
// of connections and servers. Where the server cannot continue it, one
// delivery with a Gap says so; nothing is skipped in silence.
//
//	c, err := client.Dial(ctx, "ws://127.0.0.1:8083", client.Options{})
//	s, err := c.Subscribe(ctx, "prices", client.Live())
//	for {
//		d, err := s.Next(ctx) // d.Gap tells of a hole
//	}
//	at, err := c.Publish(ctx, "prices", protocol.KindJSON, []byte(`{"eur":1.08}`))
//
// # What is promised for a publish
//
// A publish is sent at most once. An error is one of three things: it was
// refused (*protocol.Error), it was never sent (the context's error or
// ErrClosed), or nobody knows (ErrOutcomeUnknown: the connection broke, or the
// caller gave up, between sending and answer). What to do about the third is
// the application's to know, so the client does not send again by itself. A
// publish made between two connections waits for the next one.
//
// # Consumers that do not keep up
//
// A subscription queues Options.Buffer deliveries. When its queue is full the
// client stops reading the connection, for all subscriptions and answers on
// it, until Next makes room: memory stays bounded, TCP holds the server back,
// and the server's policy for slow readers (skip with a gap, latest, or close
// with 4008 and resume) decides what is lost. Two things follow:
//
//   - A goroutine that consumes should not wait in Publish for long: the
//     answer may be behind deliveries for which it alone can make room. Publish
//     from another goroutine, with PublishAsync, or on a second Client.
//   - Subscriptions that must not hold each other up belong on Clients of
//     their own.
//
// # Goroutines and ownership
//
// A client has two goroutines. One connects, reads and hands on (run); nothing
// else reads a socket, and it alone moves a subscription's position. One writes
// (writeLoop): it takes all that has gathered since its last write and sends it
// at once, so that many publishers share few system calls. All other calls run
// on the caller's goroutine and meet those two at three locks, always taken in
// this order: Client.mu, then conn.mu or Subscription.mu.
//
// A server is taken for dead when nothing was received for two and a half of
// the ping intervals its welcome announced; a ping of the client's own after
// half of that keeps one that is merely quiet.
package client
