package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rayflux/client"
)

// The shape of the first RayFlux' benchmark: 200 users, of whom four in five read and the others publish over HTTP as fast as they
// are answered, on 10 topics.
const (
	classicTopics     = 10
	classicReaders    = 160
	classicPublishers = 40
	classicFor        = 20 * time.Second // less than what a connection of the lab is left alone for
)

func TestFirstBenchmark(t *testing.T) {
	l := open(t)
	l.settled()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var delivered atomic.Int64
	var readers sync.WaitGroup
	run := fmt.Sprint("classic/", time.Now().UnixNano())
	for i := range classicReaders {
		c, err := client.Dial(ctx, front, client.Options{Buffer: 4096})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := c.Subscribe(ctx, fmt.Sprint(run, "/", i%classicTopics), client.Live())
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			for {
				d, err := s.Next(ctx)
				switch {
				case err != nil:
					return
				case d.Gap != nil:
					t.Errorf("gap: %+v", *d.Gap)
				default:
					delivered.Add(1)
				}
			}
		})
	}
	var lock sync.Mutex
	latencies := hdrhistogram.New(1, 60e6, 3) // µs
	failed := 0
	var publishers sync.WaitGroup
	began := time.Now()
	for i := range classicPublishers {
		publishers.Go(func() {
			own := hdrhistogram.New(1, 60e6, 3)
			wrong := 0
			publisher := http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second} // a connection of its own
			defer publisher.CloseIdleConnections()
			url := strings.Replace(front, "ws:", "http:", 1) + "/publish"
			body := fmt.Appendf(nil, `{"topic":"%s/%d","message":"%s"}`, run, i%classicTopics, strings.Repeat("x", 64))
			for time.Since(began) < classicFor {
				sent := time.Now()
				response, err := publisher.Post(url, "application/json", bytes.NewReader(body))
				if err != nil {
					wrong++
					continue
				}
				_, err = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK {
					wrong++
				}
				_ = own.RecordValue(max(time.Since(sent).Microseconds(), 1)) // within a client's time
			}
			lock.Lock()
			latencies.Merge(own)
			failed += wrong
			lock.Unlock()
		})
	}
	publishers.Wait()
	took := time.Since(began).Seconds()
	n := delivered.Load()
	cancel()
	readers.Wait()
	ms := func(us float64) float64 { return us / 1e3 }
	t.Logf("%d users, %d topics, %+v pods: %.0f publishes/s, %.0f deliveries/s; request %.2f ms on average, p95 %.0f, p99 %.0f; %d of %d failed",
		classicReaders+classicPublishers, classicTopics, l.sizes(), float64(latencies.TotalCount())/took, float64(n)/took,
		ms(latencies.Mean()), ms(float64(latencies.ValueAtQuantile(95))), ms(float64(latencies.ValueAtQuantile(99))), failed, latencies.TotalCount())
	t.Log("the first RayFlux: 5,974 requests/s, 86.91 ms on average, p95 160, p99 210; none failed")
	if failed > 0 || n == 0 {
		t.Errorf("%d requests failed, %d messages were delivered", failed, n)
	}
}
