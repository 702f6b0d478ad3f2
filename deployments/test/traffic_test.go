package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rayflux/client"
	"rayflux/protocol"
)

const (
	topics  = 20
	readers = 3 // of each topic, each with a connection of its own
	pause   = 100 * time.Millisecond
)

// traffic is publishers, one for each topic, and readers who check what they see of them.
type traffic struct {
	*testing.T
	ctx     context.Context
	cancel  context.CancelFunc
	topics  []*told
	readers []*reader
	stop    chan struct{}
	ended   sync.WaitGroup
	pace    atomic.Int64 // nanoseconds between two publishes

	lock      sync.Mutex
	latencies *hdrhistogram.Histogram // of all, ms/10
	recent    *hdrhistogram.Histogram // the same, since second was called last
	published int
	looked    time.Time
}

// told is what one topic's publisher has said, and what it was answered.
type told struct {
	name            string
	taken           []bool // by number; read by others after it has ended
	failed, unknown int
	slowest         time.Duration
}

// reader is one subscriber of one topic.
type reader struct {
	topic     *told
	seen      []bool
	delivered int
	repeated  int
	reordered int
	gaps      map[string]int
	gapped    bool
	silence   time.Duration
}

const lastWord = "end"

func begin(t *testing.T) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &traffic{T: t, ctx: ctx, cancel: cancel, stop: make(chan struct{}), looked: time.Now(),
		latencies: hdrhistogram.New(1, 1e6, 3), recent: hdrhistogram.New(1, 1e6, 3)}
	t.Cleanup(cancel)
	r.pace.Store(int64(pause))
	run := strconv.FormatInt(time.Now().UnixNano(), 36) // topics that nobody has used
	for i := range topics {
		topic := &told{name: fmt.Sprintf("lab/%s/%d", run, i)}
		r.topics = append(r.topics, topic)
		for range readers {
			c := r.dial()
			s, err := c.Subscribe(ctx, topic.name, client.Live())
			if err != nil {
				t.Fatal(err)
			}
			reading := &reader{topic: topic, gaps: map[string]int{}}
			r.readers = append(r.readers, reading)
			r.ended.Go(func() { r.read(reading, s) })
		}
	}
	for _, topic := range r.topics {
		c := r.dial()
		r.ended.Go(func() { r.publish(topic, c) })
	}
	r.stay(2 * time.Second)
	return r
}

func (r *traffic) dial() *client.Client {
	r.Helper()
	c, err := client.Dial(r.ctx, front, client.Options{MaxBackoff: time.Second})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return c
}

// stay lets it run for a while.
func (r *traffic) stay(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}

// every is the time between two publishes of each topic, from now on.
func (r *traffic) every(d time.Duration) { r.pace.Store(int64(d)) }

func (r *traffic) publish(topic *told, c *client.Client) {
	for {
		select {
		case <-r.stop:
			for {
				if _, err := c.Publish(r.ctx, topic.name, protocol.KindText, []byte(lastWord)); err == nil || r.ctx.Err() != nil {
					return
				}
			}
		case <-time.After(time.Duration(r.pace.Load())):
		}
		began := time.Now()
		_, err := c.Publish(r.ctx, topic.name, protocol.KindText, fmt.Appendf(nil, "%d %d", len(topic.taken), began.UnixNano()))
		topic.taken = append(topic.taken, err == nil)
		topic.slowest = max(topic.slowest, time.Since(began))
		switch {
		case errors.Is(err, client.ErrOutcomeUnknown):
			topic.unknown++
		case err != nil:
			topic.failed++
		default:
			r.lock.Lock()
			r.published++
			r.lock.Unlock()
		}
	}
}

func (r *traffic) read(reading *reader, s *client.Subscription) {
	last, heard := -1, time.Now()
	for {
		d, err := s.Next(r.ctx)
		if err != nil {
			if r.ctx.Err() == nil {
				r.Errorf("%s: %v", reading.topic.name, err)
			}
			return
		}
		if d.Gap != nil {
			reading.gaps[d.Gap.Reason]++
			reading.gapped = true
			continue
		}
		if string(d.Payload) == lastWord {
			return
		}
		reading.silence = max(reading.silence, time.Since(heard))
		heard = time.Now()
		number, sent, _ := strings.Cut(string(d.Payload), " ")
		n, err := strconv.Atoi(number)
		at, timeErr := strconv.ParseInt(sent, 10, 64)
		if err != nil || timeErr != nil {
			r.Errorf("%s: message %q", reading.topic.name, d.Payload)
			return
		}
		r.lock.Lock()
		for _, h := range []*hdrhistogram.Histogram{r.latencies, r.recent} {
			_ = h.RecordValue(min(max((heard.UnixNano()-at)/1e5, 1), 1e6)) // a value within its bounds
		}
		r.lock.Unlock()
		for len(reading.seen) <= n {
			reading.seen = append(reading.seen, false)
		}
		reading.delivered++
		switch {
		case reading.seen[n]:
			reading.repeated++
		case n < last:
			reading.reordered++
		}
		reading.seen[n] = true
		last = max(last, n)
	}
}

// second is publishes a second and the p99 of latency, since it was asked last.
func (r *traffic) second() (published float64, p99 time.Duration) {
	r.lock.Lock()
	defer r.lock.Unlock()
	published = float64(r.published) / time.Since(r.looked).Seconds()
	p99 = time.Duration(r.recent.ValueAtPercentile(99)) * 1e5
	r.published, r.looked = 0, time.Now()
	r.recent.Reset()
	return published, p99
}

// verdict is what became of all messages.
type verdict struct {
	taken, failed, unknown, delivered int
	lost, repeated, reordered         int
	toldOf                            int // lost, after the reader was told of a gap
	gaps                              map[string]int
	slowest, silence, usual           time.Duration // usual: of the readers' longest silences, the median
	p50, p99                          time.Duration
}

// end stops it, and waits until every reader has seen its topic's last word.
func (r *traffic) end() verdict {
	r.Helper()
	close(r.stop)
	defer time.AfterFunc(patience, r.cancel).Stop()
	r.ended.Wait()
	if r.ctx.Err() != nil {
		r.Error("not every reader has seen the last word")
	}
	v := verdict{gaps: map[string]int{}}
	for _, t := range r.topics {
		for _, taken := range t.taken {
			if taken {
				v.taken++
			}
		}
		v.failed += t.failed
		v.unknown += t.unknown
		v.slowest = max(v.slowest, t.slowest)
	}
	var silences []time.Duration
	for _, reading := range r.readers {
		silences = append(silences, reading.silence)
		v.delivered += reading.delivered
		v.repeated += reading.repeated
		v.reordered += reading.reordered
		v.silence = max(v.silence, reading.silence)
		for reason, n := range reading.gaps {
			v.gaps[reason] += n
		}
		for n, taken := range reading.topic.taken {
			switch {
			case !taken || n < len(reading.seen) && reading.seen[n]:
			case reading.gapped:
				v.toldOf++
			default:
				v.lost++
			}
		}
	}
	slices.Sort(silences)
	v.usual = silences[len(silences)/2]
	v.p50 = time.Duration(r.latencies.ValueAtPercentile(50)) * 1e5
	v.p99 = time.Duration(r.latencies.ValueAtPercentile(99)) * 1e5
	return v
}

func (v verdict) String() string {
	return fmt.Sprintf("%d published (%d refused, %d unknown, slowest %.1f s), %d delivered, %d lost, %d repeated, %d reordered, gaps %v (%d messages); longest silence %.1f s (half of the readers: %.1f s), latency p50 %.1f ms, p99 %.0f ms",
		v.taken, v.failed, v.unknown, v.slowest.Seconds(), v.delivered, v.lost, v.repeated, v.reordered, v.gaps, v.toldOf, v.silence.Seconds(), v.usual.Seconds(),
		v.p50.Seconds()*1e3, v.p99.Seconds()*1e3)
}

func (v verdict) wantZeros(t *testing.T) {
	t.Helper()
	if v.lost != 0 || v.repeated != 0 || v.reordered != 0 || len(v.gaps) != 0 || v.delivered == 0 {
		t.Errorf("want nothing lost, repeated or reordered, and no gaps")
	}
}

func (v verdict) wantNoSilentLoss(t *testing.T) {
	t.Helper()
	if v.lost != 0 || v.repeated != 0 || v.reordered != 0 || v.delivered == 0 {
		t.Errorf("want nothing lost without a word, repeated or reordered")
	}
}
