package client

import (
	"errors"
	"math/rand/v2"
	"time"

	"rayflux/protocol"
)

// backoff paces reconnecting. It draws from the whole range below a bound that
// doubles ("full jitter"): the thousands of clients that lose one server at
// the same moment come back spread evenly, not in waves.
type backoff struct {
	min, max time.Duration
	failures uint // in a row
}

// after is how long to wait before the next attempt, given why the last one
// failed: never less than the server advised.
func (b *backoff) after(failure error) time.Duration {
	wait := b.next()
	var told *protocol.Error
	if errors.As(failure, &told) {
		wait = max(wait, told.RetryAfter)
	}
	return wait
}

func (b *backoff) next() time.Duration {
	bound := b.max
	if shifted := b.min << b.failures; b.failures < 32 && shifted>>b.failures == b.min {
		bound = min(shifted, b.max)
	}
	b.failures++
	return rand.N(bound) + 1
}

// reset starts over, after a connection that proved good.
func (b *backoff) reset() { b.failures = 0 }
