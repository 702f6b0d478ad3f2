package s3

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// slowServer answers after a while, if the request still stands.
type slowServer time.Duration

func (s slowServer) Do(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Duration(s)):
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func TestWritesAreGivenMoreTimeThanReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			method string
			after  time.Duration
			tired  bool
		}{
			{http.MethodGet, answerPatience - time.Second, false},
			{http.MethodGet, answerPatience + time.Second, true},
			{http.MethodPut, answerPatience + time.Second, false}, // a bucket that takes 6 s for each object is slow, and not away
			{http.MethodPut, writePatience*answerPatience + time.Second, true},
			{http.MethodDelete, answerPatience + time.Second, false},
		} {
			request, err := http.NewRequestWithContext(t.Context(), c.method, "http://bucket.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := patience{answerPatience, slowServer(c.after)}.Do(request)
			var gaveUp tired
			if errors.As(err, &gaveUp) != c.tired || !c.tired && err != nil {
				t.Errorf("%s that is answered after %v: %v", c.method, c.after, err)
			}
			if err == nil {
				response.Body.Close()
			}
		}
	})
}
