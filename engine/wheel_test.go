package engine

import (
	"math/rand/v2"
	"testing"
)

// ring is a timer that notes when it went off.
type ring struct {
	timer  timer
	fired  []int64 // by the loop's clock
	expire func()
}

type ringOwner struct{ *ring }

func (o ringOwner) expire(l *loop) {
	o.fired = append(o.fired, l.now)
	if o.ring.expire != nil {
		o.ring.expire()
	}
}

func newRing() *ring {
	r := &ring{}
	r.timer.owner = ringOwner{r}
	return r
}

// wheelBench is a wheel of 8 slots of 16 ns with a clock.
type wheelBench struct {
	wheel
	loop loop
}

func newWheelBench() *wheelBench {
	return &wheelBench{wheel: newWheel(4, 8, 1000), loop: loop{now: 1000}}
}

func (b *wheelBench) at(now int64, limit int) {
	b.loop.now = now
	b.advance(&b.loop, now, limit)
}

func TestTimerFiresAtTheFirstTickNotBeforeItsTime(t *testing.T) {
	for _, after := range []int64{0, 1, 15, 16, 17, 100, 127, 128, 129, 1000, 5000} {
		b, r := newWheelBench(), newRing()
		b.start(&r.timer, 1000+after)
		for now := int64(1000); now < 1000+after; now++ {
			b.at(now, 100)
			if len(r.fired) > 0 {
				t.Fatalf("a timer of %d ns fired after %d", after, now-1000)
			}
			if b.first > 1000+after+16 {
				t.Fatalf("a timer of %d ns: the wheel wants to be called %d ns after", after, b.first-1000)
			}
		}
		b.at(1000+after+16, 100)
		if len(r.fired) != 1 || r.timer.set() || b.first != never {
			t.Fatalf("a timer of %d ns fired %d times; first %d", after, len(r.fired), b.first)
		}
	}
}

func TestStoppedTimerDoesNotFire(t *testing.T) {
	b, r := newWheelBench(), newRing()
	r.timer.stop() // not set: nothing happens
	b.start(&r.timer, 1050)
	r.timer.stop()
	b.at(5000, 100)
	if len(r.fired) != 0 || r.timer.set() {
		t.Fatal("a stopped timer fired")
	}
}

func TestTimerStartedAgainForgetsItsFirstTime(t *testing.T) {
	b, r := newWheelBench(), newRing()
	b.start(&r.timer, 1020)
	b.start(&r.timer, 3000)
	b.at(2900, 100)
	if len(r.fired) != 0 {
		t.Fatal("fired at its first time")
	}
	b.at(3020, 100)
	if len(r.fired) != 1 {
		t.Fatalf("fired %d times", len(r.fired))
	}
}

func TestWheelLeavesWhatIsPastTheLimitForTheNextCall(t *testing.T) {
	b := newWheelBench()
	var rings []*ring
	for range 25 {
		r := newRing()
		rings = append(rings, r)
		b.start(&r.timer, 1100)
	}
	for _, want := range []int{10, 20, 25, 25} {
		b.at(1200, 10)
		fired := 0
		for _, r := range rings {
			fired += len(r.fired)
		}
		if fired != want {
			t.Fatalf("%d timers fired, want %d", fired, want)
		}
		if want < 25 && b.first > 1200 {
			t.Fatalf("timers are left, but the wheel wants its call at %d", b.first)
		}
	}
}

func TestTimerMayStartItselfAgainWhenItFires(t *testing.T) {
	b, r := newWheelBench(), newRing()
	r.expire = func() { b.start(&r.timer, b.loop.now+1) }
	b.start(&r.timer, 1001)
	for now := int64(1000); now < 2000; now += 16 {
		b.at(now, 100)
	}
	if n := len(r.fired); n < 50 || n > 63 {
		t.Fatalf("a timer of one tick fired %d times in 62 ticks", n)
	}
	// Due at once, over and over: the limit ends it.
	r.expire = func() { b.start(&r.timer, 0) }
	before := len(r.fired)
	b.at(3000, 7)
	if n := len(r.fired) - before; n != 7 {
		t.Fatalf("fired %d times in a call of at most 7", n)
	}
}

func TestTimerMayStopItsNeighbourWhenItFires(t *testing.T) {
	b, first, second, third := newWheelBench(), newRing(), newRing(), newRing()
	first.expire = func() { second.timer.stop() }
	for _, r := range []*ring{first, second, third} {
		b.start(&r.timer, 1040)
	}
	b.at(1060, 100)
	if len(first.fired) != 1 || len(second.fired) != 0 || len(third.fired) != 1 {
		t.Fatalf("fired %d, %d and %d times", len(first.fired), len(second.fired), len(third.fired))
	}
}

func TestWheelAgreesWithAListOfTimes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	b := newWheelBench()
	rings := make([]*ring, 40)
	due := make([]int64, len(rings)) // 0: not set
	for i := range rings {
		rings[i] = newRing()
		rings[i].expire = func() { due[i] = 0 }
	}
	now := int64(1000)
	for range 20_000 {
		switch i := rng.IntN(len(rings)); rng.IntN(4) {
		case 0, 1:
			due[i] = now + rng.Int64N(pick[int64](rng, 20, 200, 2000))
			b.start(&rings[i].timer, due[i])
		case 2:
			rings[i].timer.stop()
			due[i] = 0
		default:
			now += rng.Int64N(pick[int64](rng, 5, 100, 3000))
			before := append([]int64(nil), due...)
			b.at(now, 1000)
			for i, at := range before {
				fired := at != 0 && due[i] == 0
				if fired && now < at || at != 0 && !fired && now >= at+32 { // a tick, and one if it began at its end
					t.Fatalf("timer due at %d, now %d: fired %v", at, now, fired)
				}
			}
		}
		for _, at := range due {
			if at != 0 && b.first > max(at, now)+16 {
				t.Fatalf("a timer is due at %d, the wheel wants its call at %d", at, b.first)
			}
		}
	}
}
