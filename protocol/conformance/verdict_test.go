package main

import (
	"slices"
	"strings"
	"testing"
)

func TestOnlyExcusedVerdictsPass(t *testing.T) {
	excuses := map[string]excuse{
		"6.4.3": {nonStrict, "by frame"},
		"7.1.6": {informational, "always"},
	}
	for _, c := range []struct {
		id               string
		behavior, closed string
		failed           bool
	}{
		{"1.1.1", ok, ok, false},
		{"1.1.1", "FAILED", ok, true},
		{"1.1.1", ok, "WRONG CODE", true},
		{"1.1.1", ok, "UNCLEAN", true},
		{"1.1.1", ok, "FAILED BY CLIENT", true},
		{"1.1.1", nonStrict, ok, true},
		{"6.4.3", nonStrict, ok, false},
		{"6.4.3", nonStrict, "UNCLEAN", true},
		{"6.4.3", "FAILED", ok, true},
		{"6.4.3", ok, ok, true}, // the excuse is out of date
		{"7.1.6", informational, informational, false},
		{"7.13.1", informational, informational, true},
	} {
		v := judge(map[string]result{c.id: {Behavior: c.behavior, BehaviorClose: c.closed}}, excuses)
		if v.failed() != c.failed {
			t.Errorf("%s %s/%s: failed %v, want %v", c.id, c.behavior, c.closed, v.failed(), c.failed)
		}
	}
}

func TestMissingCasesFail(t *testing.T) {
	v := judge(map[string]result{"10.1.1": {Behavior: ok, BehaviorClose: ok}}, nil)
	v.requireAll(false)
	if len(v.failures) != 7 || strings.Contains(strings.Join(v.failures, "\n"), "group 10") {
		t.Fatalf("got %q, want the seven groups that did not run", v.failures)
	}
}

func TestAllowListNeedsAReason(t *testing.T) {
	if _, err := parseExcuses(allowList); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"6.4.3 NON-STRICT", "6.4.3 FAILED because"} {
		if _, err := parseExcuses(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestCasesAreInTheOrderOfTheirNumbers(t *testing.T) {
	ids := []string{"10.1.1", "2.10", "2.9", "1.1.1"}
	slices.SortFunc(ids, compareCases)
	if want := []string{"1.1.1", "2.9", "2.10", "10.1.1"}; !slices.Equal(ids, want) {
		t.Fatalf("got %v, want %v", ids, want)
	}
}
