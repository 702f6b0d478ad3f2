package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// TestExamplesOfTheProtocolPage plays every transcript of the page against a
// server, in their order: a topic that one has published to is there in the next.
func TestExamplesOfTheProtocolPage(t *testing.T) {
	_, curlErr := exec.LookPath("curl")
	p := &player{T: t, running: start(t, "dev"), epochs: map[string]string{}}
	played := 0
	for _, b := range codeBlocks(readPage(t, protocolPage)) {
		lines := strings.Split(strings.TrimSuffix(b.text, "\n"), "\n")
		switch {
		case b.language == "console" && curlErr != nil:
			t.Logf("%s:%d: left out: %v", protocolPage, b.line, curlErr)
		case b.language == "console":
			p.shell(b.line, lines)
			played++
		case strings.Contains(b.text, "→ "):
			p.webSocket(b.line, lines)
			played++
		}
	}
	if played == 0 {
		t.Errorf("%s has no examples", protocolPage)
	}
}

// player replays transcripts. Epochs are different each time, but always the
// same one where the page has the same one.
type player struct {
	*testing.T
	*running
	epochs map[string]string // by those of the page
}

var (
	epochField = regexp.MustCompile(`"epoch":"([^"]+)"`)
	differing  = regexp.MustCompile(`"(session|version|time)":"[^"]*"`)
)

// real is a text of the page in the words of this run.
func (p *player) real(text string) string {
	for page, now := range p.epochs {
		text = strings.ReplaceAll(text, page, now)
	}
	return strings.ReplaceAll(text, "127.0.0.1:8083", p.listen)
}

// same compares what came with what the page says, and learns from it which
// epoch of the page is which now.
func (p *player) same(want, got string) bool {
	learned := maps.Clone(p.epochs)
	wantEpochs, gotEpochs := epochField.FindAllStringSubmatch(want, -1), epochField.FindAllStringSubmatch(got, -1)
	for i := range min(len(wantEpochs), len(gotEpochs)) {
		page, now := wantEpochs[i][1], gotEpochs[i][1]
		if learned[page] == "" && !slices.Contains(slices.Collect(maps.Values(learned)), now) {
			learned[page] = now
		}
	}
	before := p.epochs
	p.epochs = learned
	if differing.ReplaceAllString(p.real(want), `"$1":""`) == differing.ReplaceAllString(got, `"$1":""`) {
		return true
	}
	p.epochs = before
	return false
}

func (p *player) webSocket(line int, lines []string) {
	p.Helper()
	path := "/ws"
	if other, ok := strings.CutPrefix(lines[0], "GET "); ok {
		path, lines, line = other, lines[1:], line+1
	}
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	conn, early, _, err := ws.Dial(ctx, "ws://"+p.listen+path)
	if err != nil {
		p.Fatalf("%s:%d: %v", protocolPage, line, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stream := struct {
		io.Reader
		io.Writer
	}{conn, conn}
	if early != nil {
		stream.Reader = early // which reads on from conn
	}
	for i := 0; i < len(lines); {
		if command, ok := strings.CutPrefix(lines[i], "→ "); ok {
			if err := wsutil.WriteClientText(stream, []byte(p.real(command))); err != nil {
				p.Fatalf("%s:%d: %v", protocolPage, line+i, err)
			}
			i++
			continue
		}
		first := i
		for i < len(lines) && strings.HasPrefix(lines[i], "← ") {
			i++
		}
		if first == i {
			p.Fatalf("%s:%d: neither sent nor received: %q", protocolPage, line+i, lines[i])
		}
		p.receive(stream, line+first, lines[first:i])
	}
}

// receive reads as many messages as there are lines. An answer and a message
// may come in either order.
func (p *player) receive(stream io.ReadWriter, line int, lines []string) {
	p.Helper()
	left := map[int]string{}
	for i, text := range lines {
		left[i] = strings.TrimPrefix(text, "← ")
	}
	for range lines {
		got := receiveText(stream)
		found := false
		for i := range lines {
			if want, open := left[i]; open && p.same(want, got) {
				delete(left, i)
				found = true
				break
			}
		}
		if !found {
			p.Fatalf("%s:%d: received %s, which is none of %q", protocolPage, line, got, slices.Collect(maps.Values(left)))
		}
	}
}

// receiveText is the next message, or how the connection ended.
func receiveText(stream io.ReadWriter) string {
	payload, _, err := wsutil.ReadServerData(stream)
	var closed wsutil.ClosedError
	switch {
	case errors.As(err, &closed):
		return "close " + regexp.MustCompile(`\d+`).FindString(closed.Error())
	case err != nil:
		return "error: " + err.Error()
	}
	return string(payload)
}

func (p *player) shell(line int, lines []string) {
	p.Helper()
	for i := 0; i < len(lines); {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			p.Fatalf("%s:%d: not typed: %q", protocolPage, line+i, lines[i])
		}
		at := i
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "$ "); i++ {
		}
		p.curl(line+at, command, strings.Join(lines[at+1:i], "\n"))
	}
}

func (p *player) curl(line int, command, want string) {
	p.Helper()
	options := "curl -sS --noproxy '*' "
	if strings.Contains(command, "/v1/sse") {
		options += "--max-time 1 " // a stream has no end
	}
	cmd := exec.CommandContext(p.Context(), "sh", "-c", strings.Replace(p.real(command), "curl ", options, 1))
	got, _ := cmd.Output() // its exit status tells of the time limit
	if !p.same(strings.TrimSpace(want), strings.TrimSpace(string(got))) {
		p.Errorf("%s:%d: %s\nanswered %s\nthe page says %s", protocolPage, line, command, got, p.real(want))
	}
}
