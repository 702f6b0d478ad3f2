package main

import (
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

func TestLinesOfStandardInput(t *testing.T) {
	for _, c := range []struct {
		name  string
		input string
		most  int
		want  []string
	}{
		{"nothing", "", 0, nil},
		{"all", "a\nb\n", 0, []string{"a", "b"}},
		{"no line end at the end", "a\nb", 0, []string{"a", "b"}},
		{"empty lines count", "\n\na\n", 0, []string{"", "", "a"}},
		{"DOS", "a\r\nb\r\n", 0, []string{"a", "b"}},
		{"some", "a\nb\nc\n", 2, []string{"a", "b"}},
		{"long", strings.Repeat("x", 1<<20) + "\n", 0, []string{strings.Repeat("x", 1<<20)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			err := eachLine(t.Context(), strings.NewReader(c.input), c.most, func(line []byte) error {
				got = append(got, string(line))
				return nil
			})
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("lines are %.80q (%v), want %.80q", got, err, c.want)
			}
		})
	}
}

func TestLinesEndWithTheFirstFailure(t *testing.T) {
	failure := errors.New("refused")
	calls := 0
	err := eachLine(t.Context(), strings.NewReader("a\nb\n"), 0, func([]byte) error { calls++; return failure })
	if !errors.Is(err, failure) || calls != 1 {
		t.Errorf("%d calls, error %v", calls, err)
	}
	long := strings.NewReader(strings.Repeat("x", lineBytesMax+1))
	if err := eachLine(t.Context(), long, 0, func([]byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "longer than 16MiB") {
		t.Errorf("a line too long: %v", err)
	}
}

func TestASignalEndsAWaitForLines(t *testing.T) {
	in, _ := io.Pipe() // never says anything
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := eachLine(ctx, in, 0, func([]byte) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestFrom(t *testing.T) {
	for text, want := range map[string]client.From{
		"":                           client.Live(),
		"earliest":                   client.Earliest(),
		"last:10":                    client.Last(10),
		"since:2026-01-02T15:04:05Z": client.Since(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)),
		"since:2026-01-02T15:04:05.5+01:00": client.Since(
			time.Date(2026, 1, 2, 15, 4, 5, 500e6, time.FixedZone("", 3600))),
		"E_1-z:0":      client.After(protocol.Position{Epoch: "E_1-z"}),
		"earliest:7":   client.After(protocol.Position{Epoch: "earliest", Offset: 7}),
		"abc:18446744": client.After(protocol.Position{Epoch: "abc", Offset: 18446744}),
	} {
		got, err := parseFrom(text, 1)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"live", "last", "last:", "last:0", "last:-1", "last:x", "since:", "since:yesterday", ":5", "E:", "E:-1", "E:1:2"} {
		if from, err := parseFrom(text, 1); err == nil {
			t.Errorf("%q is taken for %+v", text, from)
		} else if !strings.Contains(err.Error(), `"`+text+`"`) {
			t.Errorf("%q: %q does not name the value", text, err)
		}
	}
	if _, err := parseFrom("E:5", 2); err == nil {
		t.Error("one position starts two topics")
	}
}
