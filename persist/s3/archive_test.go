package s3

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"rayflux/persist"
	"rayflux/persist/s3/s3test"
)

// batchOf is one message of a topic, with its offset for a payload.
func batchOf(topic string, offset uint64) *persist.Batch {
	payload := fmt.Sprint(offset)
	frame := append([]byte{0x82, byte(len(payload))}, payload...)
	return &persist.Batch{Bytes: frame, Runs: []persist.Run{{
		Topic: topic, Epoch: "e", Began: 1, First: offset, Count: 1, Frames: frame, Times: []persist.Time{{Index: 0, UnixMs: int64(offset)}},
	}}}
}

func TestAnArchiveOutlivesItsServer(t *testing.T) {
	withKeys(t)
	server := s3test.Start(t)
	s := open(t, Config{Bucket: s3test.Bucket, Prefix: "p", Endpoint: server.Endpoint})
	var failed atomic.Int32
	archive, err := persist.Open(persist.Config{Interval: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Done: func(_ *persist.Batch, err error) {
		if err != nil {
			failed.Add(1)
		}
	}}, s)
	if err != nil {
		t.Fatal(err)
	}
	offset := uint64(0)
	offer := func() {
		for range 100 {
			offset++
			archive.Offer(batchOf("t", offset))
		}
	}
	offer()
	if err := archive.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	offer()
	server.Restart()
	offer()
	if err := archive.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	offer()
	if err := archive.Close(t.Context()); err != nil || failed.Load() > 0 {
		t.Errorf("%d batches failed; %v", failed.Load(), err)
	}
	reader := persist.NewReader(s, persist.ReaderConfig{})
	read := uint64(0)
	for read < offset {
		page, err := reader.Read(t.Context(), "t", persist.Position{Epoch: "e", Offset: read}, 1000)
		if err != nil || page.Count == 0 {
			t.Fatalf("behind %d of %d there is %+v, %v", read, offset, page, err)
		}
		read += uint64(page.Count)
	}
	if _, err := s.Get(t.Context(), "heads/0000000002", 0, -1); !errors.Is(err, persist.ErrNotFound) {
		t.Errorf("a second life was taken: %v", err)
	}
}
