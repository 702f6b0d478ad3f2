package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

const traces = `File: rayflux
Type: cpu
Duration: 10s, Total samples = 40000000ns
-----------+-------------------------------------------------------
30000000ns   internal/runtime/syscall.Syscall6
             golang.org/x/sys/unix.RawSyscall (inline)
             rayflux/engine.(*loop).pass
             main.main
-----------+-------------------------------------------------------
10000000ns   runtime.mallocgc
             rayflux/engine.(*loop).pass
             main.main
-----------+-------------------------------------------------------
`

func TestTracesBecomeOneTree(t *testing.T) {
	root := parseTraces([]byte(traces))
	pass := root.child("main.main").child("rayflux/engine.(*loop).pass")
	if root.total != int64(40*time.Millisecond) || pass.total != root.total || len(pass.called) != 2 {
		t.Fatalf("root %d, pass %d with %d called", root.total, pass.total, len(pass.called))
	}
	call := pass.child("golang.org/x/sys/unix.RawSyscall").child("internal/runtime/syscall.Syscall6")
	if call.total != int64(30*time.Millisecond) {
		t.Errorf("system calls take %d", call.total)
	}
}

func TestFlameGraphIsXMLAndNamesEveryFrame(t *testing.T) {
	graph := string(flameGraph(parseTraces([]byte(traces)), "F1 <&>"))
	decoder := xml.NewDecoder(strings.NewReader(graph))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"syscall.Syscall6: 75.00 %", "runtime.mallocgc: 25.00 %", "main.main: 100.00 %", "engine.(*loop).pass</text>"} {
		if !strings.Contains(graph, want) {
			t.Errorf("%q is not in the graph", want)
		}
	}
}

func TestPerfSamplesBecomeOneTree(t *testing.T) {
	root := parseScript([]byte(`
	ffffffff8197e5a0 tcp_sendmsg_locked ([kernel.kallsyms])
	          40a6ce rayflux/engine.(*loop).pass (/path/rayflux)

	          40a6ce rayflux/engine.(*loop).pass (/path/rayflux)
`))
	spent := map[string]int64{}
	root.leaves(spent)
	if one := root.total / 2; spent["tcp_sendmsg_locked"+kernelMark] != one || spent["rayflux/engine.(*loop).pass"] != one || one == 0 {
		t.Errorf("total %d, of their own %v", root.total, spent)
	}
}

func TestOperatorsPortIsReadFromTheLog(t *testing.T) {
	log := newServerLog()
	time.AfterFunc(20*time.Millisecond, func() {
		io.WriteString(log, `time=x level=INFO msg=ready listen=127.0.0.1:1 admin=127.0.0.1:4321 version=dev`+"\n")
	})
	if admin, err := log.admin(context.Background()); admin != "127.0.0.1:4321" || err != nil {
		t.Errorf("%q, %v", admin, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newServerLog().admin(ctx); err == nil {
		t.Error("a silent server is no error")
	}
}

func TestCommandLineIsJudged(t *testing.T) {
	for _, args := range [][]string{{}, {"F99"}, {"F1", "F2"}, {"-seconds", "0", "F1"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
