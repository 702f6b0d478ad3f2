package main

import (
	"bytes"
	"strings"
	"testing"

	"rayflux/bench"
)

func TestEveryPeerIsOnOneCoreAndSaysHowItIsSet(t *testing.T) {
	for _, p := range peers("bin", "nats.conf") {
		line := strings.Join(p.Argv, " ")
		if !strings.HasPrefix(line, "env GOMAXPROCS=1 ") || !strings.Contains(line, "{addr}") || p.settings == "" {
			t.Errorf("%s: %s; %s", p.Name, line, p.settings)
		}
	}
}

func TestUsualRunComparesAllWithTheFloor(t *testing.T) {
	plan, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Scenarios) != len(usual) || len(plan.Contenders) != 4 || plan.Contenders[0].Name != bench.FloorName || plan.Repeat != 3 {
		t.Errorf("%+v", plan)
	}
}

func TestSettingsAreThoseOfTheMeasured(t *testing.T) {
	plan, err := parse([]string{"-only", "nats,gws", "F1"})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	writeSettings(&text, plan.Contenders)
	if s := text.String(); !strings.Contains(s, "nats: ") || !strings.Contains(s, "gws: ") || strings.Contains(s, "floor: ") {
		t.Error(s)
	}
}

func TestUnknownNamesAreRefused(t *testing.T) {
	for _, args := range [][]string{{"F99"}, {"-only", "redis"}, {"-output", "xml"}, {"-bogus"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
