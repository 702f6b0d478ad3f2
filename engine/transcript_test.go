package engine

import (
	"bytes"
	goflag "flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// A transcript (testdata/*.txt) is a conversation with a server: lines of what happens, each followed by what every
// client then got, as lines that begin with ">". testdata/README says what can happen. After an edit
//
//	go test ./engine -run TestTranscripts -update
//
// writes what the server says into the files; read the diff. Each transcript is played with one loop and with three, and
// must read the same, unless its first line fixes the number.

var update = goflag.Bool("update", false, "write what the server says into testdata/*.txt")

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	said := ""
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, loops := range []int{1, 3} {
				got := play(t, string(want), loops, 0)
				said += got
				if *update && loops == 1 {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					want = []byte(got)
				}
				compare(t, file, loops, string(want), got)
			}
		})
	}
	if !*update {
		everyCode(t, said)
	}
}

// inherent are the transcripts that clients of a balancer may read otherwise, and why. Those with a number are played
// with so many nodes instead of two, the others not at all.
var inherent = map[string]struct {
	nodes int
	why   string
}{
	"drain":      {0, "when each connection is to leave is drawn, and nodes draw epochs before"},
	"overload":   {0, "what is held back here are also the answers of nodes"},
	"sse":        {0, "answers about two topics overtake each other, and with them the positions of an event stream"},
	"sse_header": {1, "the same, but for topics of one node that nothing is asked of"},
}

// TestTranscriptsThroughABalancer plays every transcript once more, with the topics at nodes behind the server: clients
// cannot tell.
func TestTranscriptsThroughABalancer(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			nodes := 2
			if differs, ok := inherent[name]; ok {
				if nodes = differs.nodes; nodes == 0 {
					t.Skip(differs.why)
				}
			}
			for _, loops := range []int{1, 3} {
				compare(t, file, loops, string(want), play(t, string(want), loops, nodes))
			}
		})
	}
}

// compare reports the first line that differs.
func compare(t *testing.T, file string, loops int, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		switch {
		case i >= len(w):
			t.Fatalf("%s with %d loops: line %d is too much:\n%s", file, loops, i+1, g[i])
		case i >= len(g):
			t.Fatalf("%s with %d loops: line %d is missing:\n%s", file, loops, i+1, w[i])
		case w[i] != g[i]:
			t.Fatalf("%s:%d with %d loops:\nwant %s\ngot  %s", file, i+1, loops, w[i], g[i])
		}
	}
}

// everyCode checks that each code an engine can answer with is somewhere in the transcripts.
func everyCode(t *testing.T, said string) {
	for _, code := range []protocol.Code{
		protocol.CodeBadRequest, protocol.CodeUnknownOp, protocol.CodeTopicInvalid, protocol.CodeDataInvalid,
		protocol.CodeMessageTooLarge, protocol.CodeAlreadySubscribed, protocol.CodeNotSubscribed,
		protocol.CodeTooManySubscriptions, protocol.CodeTooManyTopics, protocol.CodeOverloaded, protocol.CodeNotPersisted,
		protocol.CodeDraining, protocol.CodeEpochUnknown, protocol.CodeNotFound, protocol.CodeMethodNotAllowed,
		protocol.CodeTimeout, protocol.CodeLengthRequired, protocol.CodeBatchTooLarge, protocol.CodeExpectationFailed,
		protocol.CodeUpgradeRequired, protocol.CodeHeaderTooLarge, protocol.CodeUnsupportedTransferCoding,
		protocol.CodeUnsupportedVersion,
	} {
		if !strings.Contains(said, `"code":"`+string(code)+`"`) {
			t.Errorf("no transcript has the error %s", code)
		}
	}
}

// stage is one playing of a transcript.
type stage struct {
	*rig
	actors []*actor
	epochs []string // as they came up: the transcript's E1, E2, …
	tags   []string // of pages: T1, T2, …
	held   bool     // events are fed, but loops are not woken
	nodes  int      // behind a balancer; 0: it is none
	kept   bool     // messages are kept in a store
	node   func(cfg *Config)
	out    strings.Builder
}

// actor is one client of a transcript.
type actor struct {
	name    string
	form    string
	sock    *fakeSocket
	in      inbox
	stopped bool // it does not read
	ended   bool // its end has been written down
}

// lineTime is how long a line takes: long enough for a reader that is behind to read on.
const lineTime = 3 * time.Millisecond

// play runs the lines of a script and returns it with what the clients got: from a server of so many loops, which is a
// balancer if there are nodes behind it.
func play(t *testing.T, script string, loops, nodes int) string {
	s := &stage{nodes: nodes}
	cfg := testConfig(loops)
	cfg.FollowLinger = time.Second // so that owners forget what their clients have forgotten
	for line := range strings.SplitSeq(strings.TrimRight(script, "\n"), "\n") {
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "server" {
			if i := slices.Index(words, "store"); i > 0 {
				s.kept, words = true, slices.Delete(words, i, i+1)
			}
			if err := setting(&cfg, s.nodeSettings(words[1:])); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			continue
		}
		if s.rig == nil {
			s.rig = newRig(t, cfg, 1)
			if s.kept {
				s.shelf = emptyShelf()
				if s.nodes == 0 {
					s.shelf.keep(s.rig)
				}
			}
			if s.nodes > 0 {
				newBalancerRig(s.rig, s.nodes, s.node).settle()
			}
		}
		if err := s.happen(words, line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !s.held {
			s.pass(lineTime, time.Millisecond)
		}
		if err := s.collect(); err != nil {
			t.Fatalf("%s: %v\nso far:\n%s", line, err, s.out.String())
		}
		s.audit()
	}
	return s.out.String()
}

// setting reads "max-message=100 slow=latest …".
func setting(cfg *Config, words []string) error {
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		n, _ := strconv.Atoi(value)
		d, _ := time.ParseDuration(value)
		switch key {
		case "loops":
			cfg.Loops = n
		case "max-message":
			cfg.MaxMessage = n
		case "max-batch":
			cfg.MaxBatch = n
		case "max-connections":
			cfg.MaxConnections = n
		case "max-topics":
			cfg.MaxTopics = n
		case "max-topic-bytes":
			cfg.MaxTopicBytes = n
		case "max-subscriptions":
			cfg.MaxSubscriptions = n
		case "max-header":
			cfg.MaxHeader = n
		case "max-answers":
			cfg.MaxAnswers = n
		case "buffer-memory":
			cfg.BufferMemory = int64(n)
		case "mail-memory":
			cfg.MailMemory = int64(n)
		case "max-in-flight":
			cfg.MaxInFlight = n
		case "max-topic-age":
			cfg.MaxTopicAge = d
		case "stored-timeout":
			cfg.StoredTimeout = d
		case "persist":
			cfg.Persist = strings.Split(value, ",")
		case "hold-timeout":
			cfg.HoldTimeout = d
		case "take-over":
			cfg.TakeOver = d
		case "follow-linger":
			cfg.FollowLinger = d
		case "slow":
			var err error
			if cfg.Slow, err = ParseSlowPolicy(value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("no such setting: %s", key)
		}
	}
	return nil
}

// happen does what one line says.
func (s *stage) happen(words []string, line string) error {
	switch words[0] {
	case "connect":
		return s.join(words[1], words[2])
	case "tick":
		d, err := time.ParseDuration(words[1])
		if err == nil {
			s.pass(d, max(d/200, time.Millisecond))
		}
		return err
	case "store":
		return s.befallStore(words[1])
	case "hold":
		s.held = true
		return nil
	case "release":
		s.held = false
		return nil
	case "drain":
		s.shared.draining.Store(true)
		for _, l := range s.loops {
			l.send(&parcel{mails: []mail{{kind: mailDrain}}})
		}
		return nil
	}
	if words[0] == "node" {
		return s.befall(words[1], words[2], words[3:])
	}
	a := s.actor(words[0])
	if a == nil || len(words) < 2 {
		return fmt.Errorf("no client %q", words[0])
	}
	rest := strings.TrimSpace(strings.TrimPrefix(line[len(words[0])+1:], words[1]))
	return s.act(a, words[1], rest)
}

// befallStore is what happens to the store: it is slow, or away.
func (s *stage) befallStore(what string) error {
	switch what {
	case "stops":
		s.shelf.held = true
	case "goes":
		s.shelf.held = false
	case "away":
		s.shelf.away = true
	case "back":
		s.shelf.away = false
	default:
		return fmt.Errorf("a store cannot be %s", what)
	}
	return nil
}

func (s *stage) actor(name string) *actor {
	for _, a := range s.actors {
		if a.name == name {
			return a
		}
	}
	return nil
}

// join connects a client and takes it through its handshake. Clients are dealt to the loops in turn.
func (s *stage) join(name, form string) error {
	a := &actor{name: name, form: form, sock: s.connect(len(s.actors) % len(s.loops))}
	s.actors = append(s.actors, a)
	switch form {
	case "json":
		s.feed(a.sock, []byte(handshake("/ws", subprotocolJSON)))
	case "binary":
		s.feed(a.sock, []byte(handshake("/ws", subprotocolBinary)))
	case "classic":
		s.feed(a.sock, []byte(handshake("/subscribe", "")))
	case "http":
	default:
		return fmt.Errorf("no such client: %s", form)
	}
	return nil
}

// act is what a client does. Words of the line after the verb are in rest.
func (s *stage) act(a *actor, verb, rest string) error {
	rest = lengthen(s.withEpochs(rest))
	switch verb {
	case "subscribe", "unsubscribe", "publish", "ping":
		return s.command(a, verb, rest)
	case "send":
		s.feed(a.sock, maskedText(rest))
	case "fill":
		return s.fill(a, rest)
	case "write":
		b, err := unescape(rest)
		if err != nil {
			return err
		}
		s.feed(a.sock, []byte(b))
	case "frame":
		op, payload, _ := strings.Cut(rest, " ")
		b, err := unescape(payload)
		if err != nil {
			return err
		}
		return s.frame(a, op, b)
	case "get":
		target, headers, _ := strings.Cut(rest, " ")
		s.feed(a.sock, []byte(request("GET", target, "", fields(headers)...)))
	case "post":
		target, body, _ := strings.Cut(rest, " ")
		s.feed(a.sock, []byte(request("POST", target, body)))
	case "stop":
		a.stopped, a.sock.capacity = true, 0
		if rest != "" {
			a.sock.capacity, _ = strconv.Atoi(rest)
		}
	case "read":
		a.stopped, a.sock.capacity = false, 1<<30
		s.collectFrom(a)
		s.pass(2*time.Duration(retryMax), time.Millisecond) // the server has tried again by then
	case "hangup":
		s.hangUp(a.sock)
	default:
		return fmt.Errorf("a client cannot %s", verb)
	}
	return nil
}

// unescape reads Go's escapes; a quote stands for itself.
func unescape(s string) (string, error) {
	return strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
}

func fields(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "; ")
}

// frame sends a raw client frame: its first byte in hex, then the payload.
func (s *stage) frame(a *actor, op, payload string) error {
	first, err := strconv.ParseUint(op, 16, 8)
	if err != nil {
		return err
	}
	b := protocol.AppendMaskedFrame(nil, protocol.OpText, [4]byte{1, 2, 3, 4}, []byte(payload))
	b[0] = byte(first)
	s.feed(a.sock, b)
	return nil
}

// command is a native command from words: TOPIC id=1 from=last:3, or TOPIC id=1 ack=stored json|text|binary PAYLOAD.
func (s *stage) command(a *actor, verb, rest string) error {
	var cmd protocol.Command
	cmd.Op = map[string]protocol.CommandOp{"subscribe": protocol.CmdSubscribe, "unsubscribe": protocol.CmdUnsubscribe,
		"publish": protocol.CmdPublish, "ping": protocol.CmdPing}[verb]
	for rest != "" {
		word, after, _ := strings.Cut(rest, " ")
		key, value, _ := strings.Cut(word, "=")
		kind, isKind := protocol.ParseKind([]byte(word))
		switch {
		case isKind:
			cmd.Kind, cmd.Payload, after = kind, []byte(after), ""
		case key == "id":
			cmd.HasID = true
			cmd.ID, _ = strconv.ParseUint(value, 10, 64)
		case key == "ack":
			cmd.Stored = value == "stored"
		case key == "from":
			var err error
			if cmd.From, err = startOf(value); err != nil {
				return err
			}
		default:
			cmd.Topic = []byte(word)
		}
		rest = after
	}
	if a.form == "binary" {
		s.feed(a.sock, maskedBinary(protocol.AppendCommandBinary(nil, &cmd)))
	} else {
		s.feed(a.sock, maskedText(string(protocol.AppendCommandJSON(nil, &cmd))))
	}
	return nil
}

// fill publishes some texts of a length, without asking for answers: TOPIC COUNT BYTES.
func (s *stage) fill(a *actor, rest string) error {
	var topic string
	var count, size int
	if _, err := fmt.Sscan(rest, &topic, &count, &size); err != nil {
		return err
	}
	for range count {
		if err := s.command(a, "publish", topic+" text "+strings.Repeat("x", size)); err != nil {
			return err
		}
		s.settle()
	}
	return nil
}

func startOf(value string) (from protocol.From, err error) {
	how, what, _ := strings.Cut(value, ":")
	switch how {
	case "earliest":
		from.Mode = protocol.FromEarliest
	case "last":
		from.Mode = protocol.FromLast
		from.Last, err = strconv.ParseUint(what, 10, 64)
	case "since":
		from.Mode = protocol.FromSince
		from.Since, err = protocol.ParseTimestamp([]byte(what))
	default:
		from.Mode = protocol.FromPosition
		from.Epoch, from.Offset, err = protocol.ParsePosition([]byte(value))
	}
	return from, err
}

// collect writes down what the clients got.
func (s *stage) collect() error {
	for _, a := range s.actors {
		if err := s.collectFrom(a); err != nil {
			return fmt.Errorf("client %s: %w", a.name, err)
		}
	}
	return nil
}

func (s *stage) collectFrom(a *actor) error {
	if a.stopped && !a.sock.gone() {
		return nil
	}
	a.in.buf = append(a.in.buf, a.sock.readSome(1<<30)...)
	for {
		it, ok, err := a.in.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if it.status != 101 {
			s.write(a, describeItem(a, it))
		}
	}
	switch {
	case a.ended:
	case a.sock.conn == nil:
		a.ended = true
		s.write(a, "refused")
	case a.sock.conn.closed:
		a.ended = true
		s.write(a, "gone: "+a.sock.conn.reason.Label())
	}
	return nil
}

func (s *stage) write(a *actor, text string) {
	s.nameEpochs(text)
	for i, e := range s.epochs {
		text = strings.ReplaceAll(text, e, "E"+strconv.Itoa(i+1))
	}
	for _, m := range entityTag.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(s.tags, m[1]) {
			s.tags = append(s.tags, m[1])
		}
	}
	for i, tag := range s.tags {
		text = strings.ReplaceAll(text, `ETag: "`+tag+`"`, `ETag: "T`+strconv.Itoa(i+1)+`"`)
	}
	fmt.Fprintf(&s.out, "> %s %s\n", a.name, shorten(text))
}

// nameEpochs numbers the epochs that text mentions for the first time.
func (s *stage) nameEpochs(text string) {
	var found []string
	loops := s.loops
	if s.cables != nil {
		loops = s.cables.loops()
	}
	for _, l := range loops {
		for _, t := range l.topics {
			if strings.Contains(text, t.epoch) && !slices.Contains(s.epochs, t.epoch) {
				found = append(found, t.epoch)
			}
		}
	}
	slices.SortFunc(found, func(a, b string) int { return strings.Index(text, a) - strings.Index(text, b) })
	s.epochs = append(s.epochs, found...)
}

// entityTag is of a page, and so of the epoch that is in it.
var entityTag = regexp.MustCompile(`ETag: "([0-9a-f]{16})"`)

// withEpochs turns the transcript's E1, E2, … and "T1", "T2", … into the server's words.
func (s *stage) withEpochs(text string) string {
	for i := len(s.tags); i > 0; i-- {
		text = strings.ReplaceAll(text, `"T`+strconv.Itoa(i)+`"`, `"`+s.tags[i-1]+`"`)
	}
	for i := len(s.epochs); i > 0; i-- {
		text = strings.ReplaceAll(text, "E"+strconv.Itoa(i)+":", s.epochs[i-1]+":")
	}
	return text
}

// shorten writes long runs of one letter as x*100.
func shorten(text string) string {
	return longRun.ReplaceAllStringFunc(text, func(run string) string { return "x*" + strconv.Itoa(len(run)) })
}

// lengthen undoes it, in what clients say.
func lengthen(text string) string {
	return shortRun.ReplaceAllStringFunc(text, func(run string) string {
		n, _ := strconv.Atoi(run[2:])
		return strings.Repeat("x", n)
	})
}

var shortRun = regexp.MustCompile(`x\*[0-9]+`)

var longRun = regexp.MustCompile(`x{12,}`)

var session = regexp.MustCompile(`"session":"[^"]*"`)

// describeItem is one received thing as a line.
func describeItem(a *actor, it item) string {
	switch it.kind {
	case itemText:
		return session.ReplaceAllString(string(it.payload), `"session":"…"`)
	case itemBinary:
		if a.form == "classic" {
			return fmt.Sprintf("bytes %q", it.payload)
		}
		ev, err := protocol.ParseEventBinary(it.payload)
		if err != nil {
			return fmt.Sprintf("malformed: %v", err)
		}
		frame := protocol.AppendEventJSON(nil, &ev)
		return "binary " + session.ReplaceAllString(string(frame[bytes.IndexByte(frame, '{'):]), `"session":"…"`)
	case itemPing:
		return fmt.Sprintf("ping %q", it.payload)
	case itemPong:
		return fmt.Sprintf("pong %q", it.payload)
	case itemClose:
		code, text, _ := protocol.ParseClose(it.payload)
		return fmt.Sprintf("close %d %q", code, text)
	case itemBlock:
		return strings.ReplaceAll(string(it.payload), "\n", " | ")
	}
	line := strconv.Itoa(it.status)
	for field := range strings.SplitSeq(it.header, "\r\n") {
		switch name, value, _ := strings.Cut(field, ": "); {
		case name == "Content-Length" || field == "Content-Type: application/json" || field == "Connection: keep-alive" || name == "":
		default:
			line += " [" + name + ": " + value + "]"
		}
	}
	return strings.TrimSpace(line + " " + string(it.payload))
}
