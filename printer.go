package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"rayflux/client"
	"rayflux/protocol"
)

// printer writes deliveries for people or for programs.
type printer struct {
	out  *bufio.Writer
	gaps io.Writer // where gaps go when only payloads are printed
	json bool
}

// printAll prints arrivals until it has printed count messages (0: no end), a
// subscription fails, or ctx is over, which is no error.
func (p *printer) printAll(ctx context.Context, arrivals <-chan arrival, count int) error {
	for messages := 0; count == 0 || messages < count; {
		var a arrival
		select {
		case a = <-arrivals:
		default:
			// Nothing waits, so whoever reads us gets what there is.
			if err := p.out.Flush(); err != nil {
				return err
			}
			select {
			case a = <-arrivals:
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if a.err != nil {
			return a.err
		}
		if err := p.print(a.Delivery); err != nil {
			return err
		}
		if a.Gap == nil {
			messages++
		}
	}
	return nil
}

func (p *printer) print(d client.Delivery) error {
	switch {
	case p.json:
		return p.printJSON(d)
	case d.Gap != nil:
		// Payloads before the gap have to be out before it is told.
		if err := p.out.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.gaps, "rayflux: topic %q: messages up to %v are missing%s (%s)\n",
			d.Topic, d.Position, missed(d.Gap), d.Gap.Reason)
		return err
	}
	p.out.Write(d.Payload) // a bufio.Writer keeps its error for the next call
	return p.out.WriteByte('\n')
}

func missed(g *client.Gap) string {
	if g.Missed == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them", g.Missed)
}

// line is one line of --output json: a message, or a gap up to a position.
type line struct {
	Topic  string   `json:"topic"`
	Epoch  string   `json:"epoch"`
	Offset uint64   `json:"offset"`
	Kind   string   `json:"kind,omitempty"`
	Data   any      `json:"data,omitempty"`   // of kind json as it is, of kind text as a string
	Base64 *[]byte  `json:"base64,omitempty"` // of kind binary; a pointer, or an empty payload would be left out
	Gap    *lineGap `json:"gap,omitempty"`
}

type lineGap struct {
	Reason string `json:"reason"`
	Missed uint64 `json:"missed,omitempty"`
}

func (p *printer) printJSON(d client.Delivery) error {
	l := line{Topic: d.Topic, Epoch: d.Position.Epoch, Offset: d.Position.Offset}
	switch {
	case d.Gap != nil:
		l.Gap = &lineGap{Reason: d.Gap.Reason, Missed: d.Gap.Missed}
	case d.Kind == protocol.KindBinary:
		l.Kind, l.Base64 = d.Kind.String(), &d.Payload
	case d.Kind == protocol.KindJSON:
		// Encoding takes the line ends out of it, and leaves the rest alone.
		l.Kind, l.Data = d.Kind.String(), json.RawMessage(d.Payload)
	default:
		l.Kind, l.Data = d.Kind.String(), string(d.Payload)
	}
	encoder := json.NewEncoder(p.out) // ends each object with a line end
	encoder.SetEscapeHTML(false)
	return encoder.Encode(l)
}
