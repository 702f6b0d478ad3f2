package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"testing"

	"rayflux/client"
	"rayflux/protocol"
)

func at(offset uint64) protocol.Position { return protocol.Position{Epoch: "E", Offset: offset} }

var printed = []struct {
	delivery client.Delivery
	payload  string // --output payload
	gaps     string // on standard error
	json     string // --output json
}{
	{
		client.Delivery{Topic: "t", Position: at(1), Kind: protocol.KindText, Payload: []byte(`a <"b">`)},
		"a <\"b\">\n", "", `{"topic":"t","epoch":"E","offset":1,"kind":"text","data":"a <\"b\">"}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(2), Kind: protocol.KindText},
		"\n", "", `{"topic":"t","epoch":"E","offset":2,"kind":"text","data":""}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(3), Kind: protocol.KindJSON, Payload: []byte("{\"a\":\n 1.10}")},
		"{\"a\":\n 1.10}\n", "", `{"topic":"t","epoch":"E","offset":3,"kind":"json","data":{"a":1.10}}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(4), Kind: protocol.KindJSON, Payload: []byte("null")},
		"null\n", "", `{"topic":"t","epoch":"E","offset":4,"kind":"json","data":null}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(5), Kind: protocol.KindBinary, Payload: []byte{0xff, 0}},
		"\xff\x00\n", "", `{"topic":"t","epoch":"E","offset":5,"kind":"binary","base64":"/wA="}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(6), Kind: protocol.KindBinary, Payload: []byte{}},
		"\n", "", `{"topic":"t","epoch":"E","offset":6,"kind":"binary","base64":""}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(9), Gap: &client.Gap{Reason: "slow", Missed: 3}},
		"", "rayflux: topic \"t\": messages up to E:9 are missing, 3 of them (slow)\n",
		`{"topic":"t","epoch":"E","offset":9,"gap":{"reason":"slow","missed":3}}` + "\n",
	},
	{
		client.Delivery{Topic: "t", Position: at(0), Gap: &client.Gap{Reason: "reset"}},
		"", "rayflux: topic \"t\": messages up to E:0 are missing (reset)\n",
		`{"topic":"t","epoch":"E","offset":0,"gap":{"reason":"reset"}}` + "\n",
	},
}

func TestDeliveriesArePrinted(t *testing.T) {
	for _, c := range printed {
		var out, gaps, json bytes.Buffer
		p := &printer{out: bufio.NewWriter(&out), gaps: &gaps}
		j := &printer{out: bufio.NewWriter(&json), gaps: &gaps, json: true}
		for _, p := range []*printer{p, j} {
			if err := errors.Join(p.print(c.delivery), p.out.Flush()); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != c.payload || gaps.String() != c.gaps || json.String() != c.json {
			t.Errorf("%v: printed %q and %q, as json %s; want %q, %q, %s", c.delivery.Position, &out, &gaps, &json, c.payload, c.gaps, c.json)
		}
	}
}

func TestPrintingEndsAfterCountMessages(t *testing.T) {
	var out, gaps bytes.Buffer
	p := &printer{out: bufio.NewWriter(&out), gaps: &gaps}
	arrivals := make(chan arrival, 4)
	for n, gap := range []*client.Gap{nil, {Reason: "slow"}, nil, nil} {
		arrivals <- arrival{Delivery: client.Delivery{Topic: "t", Position: at(uint64(n)), Payload: []byte{byte('a' + n)}, Gap: gap}}
	}
	if err := errors.Join(p.printAll(t.Context(), arrivals, 2), p.out.Flush()); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a\nc\n" || len(arrivals) != 1 {
		t.Errorf("printed %q and left %d, want two messages and one left", &out, len(arrivals))
	}
}

func TestPrintingEndsWithItsSubscription(t *testing.T) {
	var out bytes.Buffer
	p := &printer{out: bufio.NewWriter(&out)}
	arrivals := make(chan arrival, 2)
	arrivals <- arrival{Delivery: client.Delivery{Payload: []byte("a")}}
	arrivals <- arrival{err: client.ErrClosed}
	if err := p.printAll(t.Context(), arrivals, 0); !errors.Is(err, client.ErrClosed) {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.printAll(ctx, arrivals, 0); err != nil {
		t.Errorf("a signal is no error, but %v", err)
	}
	if out.String() != "a\n" {
		t.Errorf("printed %q", &out)
	}
}
