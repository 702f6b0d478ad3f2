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
	keep    int // every so many publishes of a topic one waits until it is stored; 0: none does
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
	at              []protocol.Position // by number, without an epoch if it was not taken; read by others after it has ended
	stored          map[string]uint64   // by epoch, the last offset that was answered as stored
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
	epochs    []string // one after the other
	silence   time.Duration
}

const lastWord = "end"

// begin starts it; keep is traffic's.
func begin(t *testing.T, keep int) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &traffic{T: t, keep: keep, ctx: ctx, cancel: cancel, stop: make(chan struct{}), looked: time.Now(),
		latencies: hdrhistogram.New(1, 1e6, 3), recent: hdrhistogram.New(1, 1e6, 3)}
	t.Cleanup(cancel)
	r.pace.Store(int64(pause))
	run := strconv.FormatInt(time.Now().UnixNano(), 36) // topics that nobody has used
	for i := range topics {
		topic := &told{name: fmt.Sprintf("lab/%s/%d", run, i), stored: map[string]uint64{}}
		r.topics = append(r.topics, topic)
		for range readers {
			r.readers = append(r.readers, r.follow(topic, client.Live()))
		}
	}
	for _, topic := range r.topics {
		c := r.dial()
		r.ended.Go(func() { r.publish(topic, c) })
	}
	r.stay(2 * time.Second)
	return r
}

// follow starts a reader.
func (r *traffic) follow(topic *told, from client.From) *reader {
	r.Helper()
	s, err := r.dial().Subscribe(r.ctx, topic.name, from)
	if err != nil {
		r.Fatal(err)
	}
	reading := &reader{topic: topic, gaps: map[string]int{}}
	r.ended.Go(func() { r.read(reading, s) })
	return reading
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
		began, n := time.Now(), len(topic.at)
		var options []client.PublishOption
		if r.keep > 0 && n%r.keep == 0 {
			options = append(options, client.AckStored())
		}
		at, err := c.Publish(r.ctx, topic.name, protocol.KindText, fmt.Appendf(nil, "%d %d", n, began.UnixNano()), options...)
		topic.at = append(topic.at, at)
		topic.slowest = max(topic.slowest, time.Since(began))
		switch {
		case errors.Is(err, client.ErrOutcomeUnknown):
			topic.unknown++
		case err != nil:
			topic.failed++
		default:
			if len(options) > 0 {
				topic.stored[at.Epoch] = at.Offset
			}
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
			continue
		}
		if len(reading.epochs) == 0 || reading.epochs[len(reading.epochs)-1] != d.Position.Epoch {
			reading.epochs = append(reading.epochs, d.Position.Epoch)
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
	stored, storedLost                int // answered as stored, or before one of its epoch that was; of these, not seen by a reader
	gaps                              map[string]int
	begun                             int           // epochs that began while a reader read its topic
	slowest, silence, usual           time.Duration // usual: of the readers' longest silences, the median
	p50, p99                          time.Duration
}

// end stops it, and waits until every reader has seen its topic's last word.
func (r *traffic) end() verdict {
	r.Helper()
	close(r.stop)
	r.wait()
	return r.judge(r.readers)
}

// again reads every topic once more, from its first message. It is for after the end.
func (r *traffic) again() verdict {
	r.Helper()
	var anew []*reader
	for _, topic := range r.topics {
		anew = append(anew, r.follow(topic, client.Earliest()))
	}
	r.wait()
	return r.judge(anew)
}

func (r *traffic) wait() {
	r.Helper()
	defer time.AfterFunc(patience, r.cancel).Stop()
	r.ended.Wait()
	if r.ctx.Err() != nil {
		r.Error("not every reader has seen the last word")
	}
}

func (r *traffic) judge(all []*reader) verdict {
	v := verdict{gaps: map[string]int{}}
	for _, t := range r.topics {
		for _, at := range t.at {
			if at.Epoch != "" {
				v.taken++
			}
			if at.Epoch != "" && at.Offset <= t.stored[at.Epoch] {
				v.stored++
			}
		}
		v.failed += t.failed
		v.unknown += t.unknown
		v.slowest = max(v.slowest, t.slowest)
	}
	var silences []time.Duration
	for _, reading := range all {
		silences = append(silences, reading.silence)
		v.delivered += reading.delivered
		v.repeated += reading.repeated
		v.reordered += reading.reordered
		v.begun += max(0, len(reading.epochs)-1)
		v.silence = max(v.silence, reading.silence)
		for reason, n := range reading.gaps {
			v.gaps[reason] += n
		}
		for n, at := range reading.topic.at {
			if at.Epoch == "" || n < len(reading.seen) && reading.seen[n] {
				continue
			}
			if at.Offset <= reading.topic.stored[at.Epoch] {
				v.storedLost++
			}
			if len(reading.gaps) > 0 {
				v.toldOf++
			} else {
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

// zeros are the numbers that everybody looks for.
func (v verdict) zeros() string {
	return fmt.Sprintf("%d, %d, %d of %d", v.lost, v.repeated, v.reordered, v.delivered)
}

func (v verdict) gapped() string {
	if len(v.gaps) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s (%d messages)", strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(v.gaps), "map["), "]"), v.toldOf)
}

func (v verdict) noticed() string {
	return fmt.Sprintf("longest silence %.1f s (half of the readers: %.1f s); %d published, the slowest in %.1f s, %d refused, %d unknown; p50 %.1f ms, p99 %.0f ms",
		v.silence.Seconds(), v.usual.Seconds(), v.taken, v.slowest.Seconds(), v.failed, v.unknown, v.p50.Seconds()*1e3, v.p99.Seconds()*1e3)
}

func (v verdict) wantZeros(t *testing.T) {
	t.Helper()
	if v.lost != 0 || v.repeated != 0 || v.reordered != 0 || len(v.gaps) != 0 || v.begun != 0 || v.delivered == 0 {
		t.Errorf("want nothing lost, repeated or reordered, no gaps and the same epochs, got %+v", v)
	}
}

func (v verdict) wantNoSilentLoss(t *testing.T) {
	t.Helper()
	if v.lost != 0 || v.repeated != 0 || v.reordered != 0 || v.delivered == 0 {
		t.Errorf("want nothing lost without a word, repeated or reordered, got %+v", v)
	}
}
