// Command gws is a broadcast server on github.com/lxzan/gws, written the way its documentation does it: a goroutine per
// connection, a [gws.Broadcaster] per message. It speaks as much of rayflux.v1.bin as the scenarios of package bench need
// (subscribe, publish without id, message), so that they load it with the wire they load RayFlux with. It keeps no log, no
// position and no limit, and its clients are trusted.
//
// It is a module of its own: RayFlux does not need gws.
//
//	gws -listen 127.0.0.1:8080
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"slices"
	"sync"

	"github.com/lxzan/gws"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	// Compression is off by default; buffers are the library's own sizes.
	server := gws.NewServer(&hub{topics: map[string]*topic{}}, &gws.ServerOption{SubProtocols: []string{"rayflux.v1.bin"}})
	log.Fatal(server.Run(*listen))
}

// hub knows the topics. Safe from any goroutine.
type hub struct {
	gws.BuiltinEventHandler
	mu     sync.RWMutex
	topics map[string]*topic
}

// topic is who reads it and how many messages it had. Safe from any goroutine: its lock is held while a message is handed
// to all readers' queues, so that all see one order.
type topic struct {
	mu      sync.Mutex
	offset  uint64
	readers []*gws.Conn
}

func (h *hub) topicOf(name []byte) *topic {
	h.mu.RLock()
	t := h.topics[string(name)]
	h.mu.RUnlock()
	if t != nil {
		return t
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if t = h.topics[string(name)]; t == nil {
		t = &topic{}
		h.topics[string(name)] = t
	}
	return t
}

func (h *hub) OnClose(c *gws.Conn, _ error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, t := range h.topics {
		t.mu.Lock()
		t.readers = slices.DeleteFunc(t.readers, func(r *gws.Conn) bool { return r == c })
		t.mu.Unlock()
	}
}

// What the table of rayflux.v1.bin calls them.
const (
	typeSubscribe  = 0x01
	typePublish    = 0x03
	typeSubscribed = 0x82
	typeMessage    = 0x86
)

func (h *hub) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if err := h.take(c, m.Bytes()); err != nil {
		c.WriteClose(1002, []byte(err.Error()))
	}
}

// take obeys one command: type, flags, varint id if flag 1 is set, str8 topic, and for a publish kind and payload.
func (h *hub) take(c *gws.Conn, b []byte) error {
	if len(b) < 3 || b[1] > 1 {
		return errors.New("not a command known here")
	}
	kind, rest, head := b[0], b[2:], 2
	if b[1] == 1 {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return errors.New("broken id")
		}
		rest, head = rest[n:], 2+n
	}
	if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
		return errors.New("broken topic")
	}
	name, body := rest[:1+int(rest[0])], rest[1+int(rest[0]):] // the name with its length byte, as an answer has it
	switch {
	case kind == typeSubscribe:
		h.topicOf(name).subscribe(c, b[1:head], name)
	case kind == typePublish && head == 2:
		h.topicOf(name).publish(name, body)
	default:
		return fmt.Errorf("command %#x is not known here", kind)
	}
	return nil
}

// subscribe answers with the flags and id the command had, before the first message can follow.
func (t *topic) subscribe(c *gws.Conn, flagsAndID, name []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	answer := append([]byte{typeSubscribed}, flagsAndID...)
	answer = append(answer, name...)
	answer = append(answer, 1, 'E') // str8 epoch
	c.WriteAsync(gws.OpcodeBinary, binary.AppendUvarint(answer, t.offset), nil)
	t.readers = append(t.readers, c)
}

// publish gives one message to every reader; body is kind and payload, which a message has in the same form.
func (t *topic) publish(name, body []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offset++
	message := make([]byte, 0, 1+len(name)+binary.MaxVarintLen64+len(body))
	message = append(append(message, typeMessage), name...)
	message = append(binary.AppendUvarint(message, t.offset), body...)
	b := gws.NewBroadcaster(gws.OpcodeBinary, message)
	defer b.Close()
	for _, r := range t.readers {
		_ = b.Broadcast(r) // an error is a closed reader, which OnClose takes out
	}
}
