package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rayflux/protocol"
)

// together runs the n calls of work, at most so many at a time, and wants none
// to fail.
func together(t testing.TB, n, atOnce int, work func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i := range n {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			if err := work(i); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	group.Wait()
}

// dawdlers are clients who send this much and no more.
var dawdlers = []struct {
	sent   string
	status int    // of the last answer; 0: nothing is said
	says   string // words, by " & "
}{
	{"", 0, ""},
	{"GET /healthz HTTP/1.1\r\n" + hostField, 408, "request head & 600ms"},
	{getRequest("/healthz") + "GET /he", 408, "request head & 600ms"},
	{postClassic + "Content-Length: 10\r\n\r\n{", 408, "request body & 700ms"},
	{postClassic + chunkedField + "\r\na\r\n{", 408, "request body & 700ms"},
}

func TestWhoeverIsSlowToAskIsSentAway(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		t.Parallel()
		n := startNode(t, loops, "--handshake-timeout=600ms", "--request-timeout=700ms")
		before := n.usage()
		const crowd = 20
		together(t, crowd*len(dawdlers), crowd*len(dawdlers), func(i int) error {
			d := dawdlers[i%len(dawdlers)]
			last, err := lastAnswer(n.listen, d.sent)
			if err != nil {
				return err
			}
			if last.status != d.status {
				return fmt.Errorf("%q was answered %d %s, want %d", d.sent, last.status, last.body, d.status)
			}
			mentions(t, last.Error.Message, strings.Split(d.says, " & ")...)
			return nil
		})
		n.counted(disconnects("handshake_timeout"), 3*crowd)
		n.counted(disconnects("request_timeout"), 2*crowd)
		n.settled(before)
	})
}

// lastAnswer sends something and reads answers until the server ends the
// connection, as it has to.
func lastAnswer(address, sent string) (last answer, err error) {
	s, err := dialing{}.dial(address)
	if err != nil {
		return last, err
	}
	defer s.Close()
	if _, err := io.WriteString(s, sent); err != nil {
		return last, err
	}
	for {
		a, err := s.answer()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		last = a
	}
}

func TestDribblingAHeadDoesNotBuyTime(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		t.Parallel()
		n := startNode(t, loops, "--handshake-timeout=500ms")
		p := n.dial(t, dialing{})
		began := time.Now()
		go func() {
			for _, c := range []byte("GET /healthz HTTP/1.1\r\nX: " + strings.Repeat("y", 1000)) {
				if _, err := p.Conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // this is what dribbling is
			}
		}()
		if a := p.hearAnswer(); a.status != http.StatusRequestTimeout {
			t.Errorf("answered %d %s", a.status, a.body)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("sent away after %v", took)
		}
	})
}

func TestSilentWebSocketIsPingedThenClosed(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		t.Parallel()
		const interval = 300 * time.Millisecond
		n := startNode(t, loops, "--ping-interval="+interval.String())
		polite, silent := n.native(t), n.native(t)
		ended := make(chan error, 1)
		go func() {
			_, _, err := polite.message() // answers pings
			ended <- err
		}()
		began := time.Now()
		for pings := 0; ; pings++ {
			op, payload, err := silent.frame()
			if err != nil {
				t.Fatal(err)
			}
			if op == protocol.OpPing {
				continue
			}
			if op != protocol.OpClose || pings == 0 || string(payload[:2]) != "\x03\xe9" {
				t.Errorf("after %d pings came opcode %d with %q, want close 1001", pings, op, payload)
			}
			break
		}
		if took := time.Since(began); took < interval || took > 20*interval {
			t.Errorf("closed after %v of silence, want %v", took, 2*interval)
		}
		n.counted(disconnects("ping_timeout"), 1)
		select {
		case err := <-ended:
			t.Errorf("who answered pings was closed too: %v", err)
		default:
		}
	})
}

func TestResetsInTheMiddleLeaveNothingBehind(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		others := newBystander(t, n)
		others.served(t, n)
		before, resetsBefore := n.usage(), n.metrics()[disconnects("peer_reset")]
		frame := rawFrame(fin|opText, strings.Repeat("x", 1000))
		fragment := rawFrame(opText, `{"op":"publish","id":1,"topic":"t","text":"`)
		cuts := []struct{ as, sent string }{
			{"", "GET /ws HTT"},
			{"", postRequest("/publish", "", strings.Repeat("x", 1000))[:500]},
			{"", "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"},
			{"native", frame[:3]},
			{"native", frame[:500]},
			{"native", fragment},
			{"native", fragment + rawFrame(0, strings.Repeat("x", 1000))[:500]},
			{"classic", frame[:500]},
		}
		const rounds = 25
		together(t, rounds*len(cuts), 16, func(i int) error {
			cut := cuts[i%len(cuts)]
			dial := dialing{}.dial
			switch cut.as {
			case "native":
				dial = dialing{}.native
			case "classic":
				dial = func(address string) (*socket, error) { return dialing{}.classic(address, "t") }
			}
			s, err := dial(n.listen)
			if err != nil {
				return err
			}
			defer s.reset()
			_, err = io.WriteString(s, cut.sent)
			return err
		})
		n.counted(disconnects("peer_reset"), resetsBefore+rounds*float64(len(cuts)))
		others.served(t, n)
		others.reset()
		n.settled(before)
	})
}

func TestRandomBytesHarmNobody(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--max-topics=1000")
		others := newBystander(t, n)
		others.served(t, n)
		before := n.usage()
		const seed = 20260102
		t.Logf("seed %d", seed)
		together(t, sized(20_000, 100_000), 16, func(i int) error {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			dial := dialing{}.dial
			if i%2 == 1 {
				dial = dialing{}.native
			}
			s, err := dial(n.listen)
			if err != nil {
				return err
			}
			defer s.Close()
			if _, err := s.Write(noise(random, i%2 == 1)); err != nil {
				return nil // it was refused before it was through: fine
			}
			_ = s.Conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, s.in)
			return nil
		})
		others.served(t, n)
		others.Close()
		n.settled(before)
	})
}

// noise is bytes without sense, or sense with a few wrong bytes in it.
func noise(random *rand.Rand, frames bool) []byte {
	b := make([]byte, 1+random.IntN(600))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	if random.IntN(2) == 0 {
		return b
	}
	sense := postRequest(messagesPath, jsonField, `{"a":[1,"b"]}`) + getRequest(messagesPath+"?last=3") + getRequest("/v1/sse?topic=t")
	if frames {
		sense = ""
		for _, command := range []string{
			`{"op":"subscribe","id":1,"topic":"t","from":{"last":3}}`, `{"op":"publish","id":2,"topic":"t","data":{"a":[1,"b"]}}`,
			`{"op":"ping","id":3}`, `{"op":"unsubscribe","topic":"t"}`,
		} {
			sense += rawFrame(fin|opText, command)
		}
		sense += rawFrame(opText, `{"op":`) + rawFrame(fin|opPing, "p") + rawFrame(fin, `"ping"}`)
	}
	b = []byte(sense)
	for range 1 + random.IntN(3) {
		b[random.IntN(len(b))] = byte(random.Uint32())
	}
	return b[:1+random.IntN(len(b))]
}

func TestConnectsAndDisconnectsLeaveNothingBehind(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		churn := func(times int) { together(t, times, 32, func(i int) error { return visit(n.listen, i) }) }
		churn(200) // pools and maps get their size
		before := n.usage()
		began := time.Now()
		churn(10_000)
		t.Logf("took %v", time.Since(began))
		n.settled(before)
		newBystander(t, n).served(t, n)
	})
}

// visit connects, does one of several things, and leaves in one of several
// ways.
func visit(address string, i int) error {
	if i%5 == 0 {
		s, err := dialing{}.dial(address)
		if err == nil {
			s.Close()
		}
		return err
	}
	if i%5 == 1 {
		s, err := dialing{}.dial(address)
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.post("/publish", "application/json", []byte(`{"topic":"visits","message":"x"}`))
		return err
	}
	s, err := dialing{}.native(address)
	if err != nil {
		return err
	}
	if err := s.tell(fmt.Sprintf(`{"op":"subscribe","topic":"visit %d"}`, i%50)); err != nil {
		return err
	}
	switch i % 5 {
	case 2:
		s.reset()
	case 3:
		s.Close()
	case 4:
		defer s.Close()
		if err := s.send(protocol.OpClose, []byte{0x03, 0xe8}); err != nil {
			return err
		}
		for err == nil {
			_, _, err = s.message()
		}
		var closed *protocol.CloseError
		if !errors.As(err, &closed) || closed.Code != protocol.CloseNormal {
			return fmt.Errorf("close 1000 was answered with %v", err)
		}
	}
	return nil
}

func TestConnectionsPastTheLimitAreRefused(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		// Of 320 descriptors, 256 are kept back: 64 connections.
		n := startNodeUnder(t, "ulimit -n 320", loops)
		before := n.usage()
		const limit, crowd = 64, 600
		taken, told := n.crowd(t, crowd)
		if len(taken) > limit || len(taken) < limit/2 {
			t.Errorf("%d connections were taken, the limit is %d", len(taken), limit)
		}
		if told == 0 {
			t.Error("nobody was told why")
		}
		if got := n.metrics()[disconnects("over_capacity")]; got < float64(told) {
			t.Errorf("%v disconnects are counted over capacity, and %d were told so", got, told)
		}
		// Who is refused and stays all the same must not hold a descriptor.
		together(t, crowd, crowd, func(int) error {
			s, err := net.DialTimeout("tcp", n.listen, patience)
			if err == nil {
				t.Cleanup(func() { s.Close() })
			}
			return nil // what becomes of it does not matter
		})
		for _, s := range taken {
			p := &peer{s, t}
			p.patient()
			p.ask(`{"op":"ping","id":1}`, "pong")
			p.Close()
		}
		n.settled(before)
		newBystander(t, n).served(t, n)
	})
}

// crowd is so many clients at once: those who got in, and how many were told
// that there is no room. The rest was cut off.
func (n *node) crowd(t *testing.T, size int) (taken []*socket, told int) {
	var mu sync.Mutex
	cut := 0
	together(t, size, size, func(int) error {
		s, err := dialing{}.native(n.listen)
		mu.Lock()
		defer mu.Unlock()
		var refusal *protocol.HTTPError
		switch {
		case err == nil:
			taken = append(taken, s)
		case errors.As(err, &refusal):
			told++
			if refusal.Status != http.StatusServiceUnavailable || refusal.Code != protocol.CodeOverloaded {
				return err
			}
		default:
			cut++
		}
		return nil
	})
	t.Logf("%d were taken, %d told 503, %d cut off", len(taken), told, cut)
	return taken, told
}

func TestTooFewDescriptorsAreToldAtTheStart(t *testing.T) {
	out, err := command(t, "ulimit -n 256", "node", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0").CombinedOutput()
	if got := status(t, err); got != exitUsage {
		t.Errorf("exit status %d, want %d", got, exitUsage)
	}
	mentions(t, string(out), "max-connections")
}
