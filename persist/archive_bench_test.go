package persist

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkArchive brings batches of a thousand messages of a hundred topics to a store in memory.
func BenchmarkArchive(b *testing.B) {
	free := make(chan *Batch, 256)
	a, err := Open(Config{Interval: time.Second, Log: quietLog(), Done: func(batch *Batch, err error) {
		if err != nil {
			b.Error(err)
		}
		free <- batch
	}}, discardStore{NewMemory()})
	if err != nil {
		b.Fatal(err)
	}
	for range cap(free) {
		batch := &Batch{}
		for topic := range 100 {
			batch.Runs = append(batch.Runs, testRun(fmt.Sprintf("topic-%02d", topic), "epoch", 1, 1, 10, 135))
		}
		for i := range batch.Runs {
			batch.Bytes = append(batch.Bytes, batch.Runs[i].Frames...)
		}
		b.SetBytes(int64(len(batch.Bytes)))
		free <- batch
	}
	first := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		batch := <-free
		for i := range batch.Runs {
			batch.Runs[i].First = first
		}
		first += 10
		a.Offer(batch)
	}
	b.StopTimer()
	if err := a.Close(b.Context()); err != nil {
		b.Error(err)
	}
}

// discardStore keeps heads only.
type discardStore struct{ *Memory }

func (s discardStore) Create(ctx context.Context, name string, body []byte) error {
	if strings.HasPrefix(name, segmentsFolder) {
		return nil
	}
	return s.Memory.Create(ctx, name, body)
}
