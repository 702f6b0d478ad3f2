// Package zonetest is a miniature DNS server for tests.
package zonetest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Zone answers the real resolver's questions over UDP out of a table. Safe from any goroutine.
type Zone struct {
	addr string

	lock    sync.Mutex
	records map[string][]dnsmessage.ResourceBody // by name
}

// Serve answers at an address until the test ends.
func Serve(t testing.TB, addr string) *Zone {
	t.Helper()
	socket, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	z := &Zone{addr: socket.LocalAddr().String(), records: map[string][]dnsmessage.ResourceBody{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		question := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(question)
			if err != nil {
				return
			}
			if answer, err := z.answer(question[:n]); err != nil {
				t.Error(err)
			} else if _, err := socket.WriteTo(answer, from); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() { socket.Close(); <-ended })
	return z
}

// Set replaces the records of a name, lower case and with its last dot.
func (z *Zone) Set(name string, records ...dnsmessage.ResourceBody) {
	z.lock.Lock()
	defer z.lock.Unlock()
	z.records[name] = records
}

func (z *Zone) answer(asked []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(asked)
	if err != nil {
		return nil, err
	}
	question, err := p.Question()
	if err != nil {
		return nil, err
	}
	z.lock.Lock()
	records, known := z.records[strings.ToLower(question.Name.String())]
	z.lock.Unlock()

	m := dnsmessage.Message{Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true}, Questions: []dnsmessage.Question{question}}
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, r := range records {
		var kind dnsmessage.Type
		switch r.(type) {
		case *dnsmessage.AResource:
			kind = dnsmessage.TypeA
		case *dnsmessage.AAAAResource:
			kind = dnsmessage.TypeAAAA
		case *dnsmessage.SRVResource:
			kind = dnsmessage.TypeSRV
		}
		if kind == question.Type {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class}, Body: r})
		}
	}
	return m.Pack()
}

// Resolver is the standard one, sent to z whatever the machine's own servers are.
func (z *Zone) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", z.addr)
	}}
}

// Target is an SRV record.
func Target(target string, port uint16) dnsmessage.ResourceBody {
	return &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: port}
}
