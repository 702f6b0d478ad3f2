package client

import (
	"context"
	"io"
	"testing"

	"rayflux/protocol"
)

// BenchmarkDeliveries is what one delivery costs the client, from the socket to
// the consumer.
func BenchmarkDeliveries(b *testing.B) {
	c, server := newPipe(b, Options{Buffer: 1024})
	s := newSubscription(c, "bench/topic", Live())
	s.start(protocol.Position{Epoch: "E1"}, false)
	s.live = true
	c.subscriptions[s.topic] = s
	go func() {
		var out []byte
		for offset := uint64(1); offset <= uint64(b.N); offset++ {
			out = protocol.AppendMessage(out, protocol.FormatBinary, s.topic, offset, protocol.KindBinary, make([]byte, 132))
			if len(out) > 32<<10 || offset == uint64(b.N) {
				server.Write(out)
				out = out[:0]
			}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := s.Next(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPublishAsync is what one publish costs the client, from the caller
// to the socket.
func BenchmarkPublishAsync(b *testing.B) {
	c, server := newPipe(b, Options{})
	go io.Copy(io.Discard, server)
	payload := make([]byte, 132)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := c.PublishAsync(context.Background(), "bench/topic", protocol.KindBinary, payload); err != nil {
			b.Fatal(err)
		}
	}
}
