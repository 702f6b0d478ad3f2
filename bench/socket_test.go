package bench

import "testing"

func TestSourcesAreSpreadOverLoopbackOnly(t *testing.T) {
	for _, test := range []struct {
		addr string
		i    int
		want string
	}{
		{"127.0.0.1:80", 0, ""},
		{"127.0.0.1:80", connectionsPerSource - 1, ""},
		{"127.0.0.1:80", connectionsPerSource, "127.0.0.2"},
		{"127.0.0.1:80", 3*connectionsPerSource + 1, "127.0.0.4"},
		{"192.0.2.1:80", connectionsPerSource, ""},
		{"[::1]:80", connectionsPerSource, ""},
	} {
		at, err := resolve(test.addr)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if from, ok := at.source(test.i); ok {
			got = from.String()
		}
		if got != test.want {
			t.Errorf("connection %d to %s comes from %q, want %q", test.i, test.addr, got, test.want)
		}
	}
}
