package protocol

import (
	"net/url"
	"testing"
)

func TestQueryValues(t *testing.T) {
	tests := []struct {
		query string
		key   string
		want  []string
	}{
		{"", "topic", nil},
		{"topic=a", "topic", []string{"a"}},
		{"topic=a&topic=b&x=y&topic=", "topic", []string{"a", "b", ""}},
		{"topic", "topic", []string{""}},
		{"topic&&topic=a=b&", "topic", []string{"", "a=b"}},
		{"topics=a&topi=b&Topic=c", "topic", nil},
		{"from=E%3A5&limit=10", "from", []string{"E%3A5"}},
		{"from=E:5&limit=10", "limit", []string{"10"}},
		{"=a", "", []string{"a"}},
	}
	for _, tt := range tests {
		for n, want := range tt.want {
			if got, ok := QueryValue([]byte(tt.query), tt.key, n); !ok || string(got) != want {
				t.Errorf("%q: %s number %d is %q %v, want %q", tt.query, tt.key, n, got, ok, want)
			}
		}
		if got, ok := QueryValue([]byte(tt.query), tt.key, len(tt.want)); ok {
			t.Errorf("%q: %s number %d is %q, want none", tt.query, tt.key, len(tt.want), got)
		}
	}
}

func TestUnescaping(t *testing.T) {
	tests := []struct {
		in          string
		plusIsSpace bool
		want        string
		broken      bool
	}{
		{"", false, "", false},
		{"plain", false, "plain", false},
		{"a%20b%2Fc%2fd", false, "a b/c/d", false},
		{"a+b", false, "a+b", false},
		{"a+b%2B", true, "a b+", false},
		{"%E2%82%AC%00", false, "€\x00", false},
		{"%%", false, "", true},
		{"a%", false, "", true},
		{"a%2", false, "", true},
		{"a%2x", false, "", true},
		{"a%x2", false, "", true},
		{"a%-1b", false, "", true},
	}
	for _, tt := range tests {
		got, err := AppendUnescape([]byte("before "), []byte(tt.in), tt.plusIsSpace)
		if (err != nil) != tt.broken || string(got) != "before "+tt.want {
			t.Errorf("%q: %q %v, want %q", tt.in, got, err, tt.want)
		}
		if e, ok := err.(*Error); err != nil && (!ok || e.Code != CodeBadRequest) {
			t.Errorf("%q: error %v, want bad_request", tt.in, err)
		}
	}
}

func TestEveryByteSurvivesEscaping(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	if got, err := AppendUnescape(nil, []byte(url.PathEscape(string(all))), false); err != nil || string(got) != string(all) {
		t.Errorf("path: %q %v", got, err)
	}
	if got, err := AppendUnescape(nil, []byte(url.QueryEscape(string(all))), true); err != nil || string(got) != string(all) {
		t.Errorf("query: %q %v", got, err)
	}
}
