package protocol

import (
	"testing"
	"time"
)

func TestEveryReasonHasItsRow(t *testing.T) {
	type series struct {
		drop  bool
		label string
	}
	seen := map[series]Reason{}
	for r := range NumReasons {
		if r.Label() == "" || r.String() == "" {
			t.Errorf("reason %d has label %q and words %q", r, r.Label(), r.String())
		}
		if len(r.String()) > closeReasonMax {
			t.Errorf("%s: words do not fit a close frame", r.Label())
		}
		s := series{r.IsDrop(), r.Label()}
		if other, ok := seen[s]; ok {
			t.Errorf("reasons %d and %d share the label %q", other, r, r.Label())
		}
		seen[s] = r
		if hasCode := r.CloseCode() != 0; hasCode != (r != ReasonNone && !r.IsDrop()) {
			t.Errorf("%s: close code %d", r.Label(), r.CloseCode())
		}
	}
}

func TestCloseErrorsFindTheirReason(t *testing.T) {
	tests := map[CloseCode]Reason{
		CloseProtocol:    ReasonProtocol,
		CloseUnsupported: ReasonUnsupported,
		CloseInvalidUTF8: ReasonInvalidUTF8,
		ClosePolicy:      ReasonPolicy,
		CloseTooBig:      ReasonTooBig,
		CloseInternal:    ReasonInternal,
	}
	for code, want := range tests {
		if got := (&CloseError{Code: code}).Reason(); got != want || got.CloseCode() != code {
			t.Errorf("close code %d: reason %q, want %q", code, got, want)
		}
	}
	if got := (&CloseError{Code: CloseRestart}).Reason(); got != ReasonProtocol {
		t.Errorf("a close code that no reading gives: reason %q, want %q", got, ReasonProtocol)
	}
}

func TestCodesHaveTheirHTTPStatus(t *testing.T) {
	tests := map[Code]int{
		CodeBadRequest: 400, CodeUnknownOp: 400, CodeTopicInvalid: 400, CodeDataInvalid: 400, CodeTooManySubscriptions: 400,
		CodeUnauthorized: 401, CodeForbidden: 403, CodeNotFound: 404, CodeMethodNotAllowed: 405, CodeTimeout: 408,
		CodeAlreadySubscribed: 409, CodeNotSubscribed: 409, CodeNotPersisted: 409, CodeEpochUnknown: 409, CodeLengthRequired: 411,
		CodeMessageTooLarge: 413, CodeBatchTooLarge: 413, CodeUnsupportedMedia: 415, CodeExpectationFailed: 417,
		CodeUpgradeRequired: 426, CodeRateLimited: 429, CodeHeaderTooLarge: 431, CodeInternal: 500, CodeUnsupportedTransferCoding: 501,
		CodeTooManyTopics: 503, CodeOverloaded: 503, CodeNoOwner: 503, CodeStoreUnavailable: 503, CodeOutcomeUnknown: 503, CodeDraining: 503,
		CodeUnsupportedVersion: 505, "a word from nowhere": 500,
	}
	for code, want := range tests {
		if got := code.Status(); got != want {
			t.Errorf("%s: status %d, want %d", code, got, want)
		}
	}
}

func TestACommandErrorIsAnHTTPError(t *testing.T) {
	e := (&Error{Code: CodeOverloaded, Message: "log memory is full", RetryAfter: time.Second}).HTTP()
	want := HTTPError{Status: 503, Code: CodeOverloaded, Message: "log memory is full", RetryAfter: time.Second}
	if *e != want {
		t.Fatalf("got %+v, want %+v", *e, want)
	}
}
