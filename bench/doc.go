// Package bench measures a RayFlux server in another process: deliveries per second, server CPU per delivery, latency,
// and whether every subscriber saw every message once and in order.
//
// # The one idea
//
// A fan-out server spends its time in the kernel's write, so a generator that spends more than a few nanoseconds on each
// received message measures itself. This one is a single thread around one epoll descriptor: a read takes up to a quarter
// of a megabyte into one shared buffer, frames are stepped over by their headers, and of each payload only the 24-byte
// stamp at its front is looked at. Nothing is copied but the frame cut by the end of a read. Publishes are encoded once,
// before the run, and only their stamps are written again; their masking key is zero, which is legal and costs nothing.
//
// # What is checked
//
// Every payload names its lane (one publisher's stream into one topic), its number in that lane and the time it was due.
// Each subscriber checks each lane for holes, repeats and reordering, and RayFlux's own offsets where the wire carries
// them. A gap, an error or a closed connection is counted and its first text kept; none is ever ignored.
//
// # Closed and open loop
//
// In a closed loop each publisher keeps a fixed number of publishes in flight, and a publish leaves the window when all
// its deliveries have arrived: it shows what the server can do at most. In an open loop publishes are due at fixed times
// whatever the server does, and latency runs from the time a publish was due, not from the time it could be sent: a server
// that falls behind shows it (no coordinated omission).
//
// # Plans
//
// [Run] measures one scenario on a server that runs. A [Plan] is a whole campaign: it starts a fresh server for every
// measurement, takes contenders in turn and everything again, and reports medians between the least and the greatest
// value, because what else the machine does is never the same twice. [FloorName] is the contender all others are compared
// with: what the kernel leaves of a server that does nothing else (package floor). A search looks for the highest rate of
// an open loop that a server sustains; a sweep draws latency against throughput.
//
// # Threading
//
// Everything in a generator belongs to the thread that called [Run]. System calls bypass the runtime's bookkeeping and
// block for at most waitMax, so another goroutine of the process may have to wait that long for a garbage collection.
//
// # Ownership
//
//	buffer             owner and lifetime
//	generator.input    the thread; overwritten by the next read of any connection
//	conn.tail          the connection; the start of a frame whose end has not arrived
//	publisher.ring     the publisher; encoded once, stamps overwritten once the kernel has taken the bytes
package bench
