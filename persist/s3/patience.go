package s3

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const (
	answerPatience = 5 * time.Second // of a read
	writePatience  = 3               // times as long: who writes waits for disks, and for other machines'
	slowestRate    = 1 << 20         // bytes a second that bodies are given the time for
	idleConnsMax   = 16
)

// patience gives each attempt of a request as long as its body and its answer's need at slowestRate: a server that hangs costs
// one attempt, not the request, and one that is slow is not taken for one that hangs. Safe from any goroutine.
type patience struct {
	answer time.Duration // from the end of a request to its answer; of a write, writePatience times as long
	client interface {
		Do(*http.Request) (*http.Response, error)
	}
}

func newPatience(answer time.Duration) patience {
	return patience{answer, awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = idleConnsMax
	})}
}

// tired is what ends an attempt. It is no context's error: the SDK would take that for the caller's and not try again.
type tired struct{ after time.Duration }

func (e tired) Error() string { return fmt.Sprintf("no whole answer after %s", e.after) }
func (e tired) Timeout() bool { return true }

func (p patience) Do(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	limit := p.answer
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		limit *= writePatience
	}
	limit += transfer(request.ContentLength)
	end := time.AfterFunc(limit, func() { cancel(tired{limit}) })
	response, err := p.client.Do(request.WithContext(ctx))
	if err != nil {
		end.Stop()
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, err
	}
	end.Reset(p.answer + transfer(response.ContentLength))
	response.Body = &timedBody{response.Body, ctx, end, cancel}
	return response, nil
}

func transfer(bytes int64) time.Duration {
	return time.Duration(max(0, bytes)) * time.Second / slowestRate
}

// timedBody is an answer's body; its end, in either sense, is the end of the attempt.
type timedBody struct {
	io.ReadCloser
	ctx    context.Context
	end    *time.Timer
	cancel context.CancelCauseFunc
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = causeOf(b.ctx, err)
	}
	return n, err
}

func (b *timedBody) Close() error {
	err := b.ReadCloser.Close()
	b.end.Stop()
	b.cancel(nil)
	return err
}

// causeOf is the attempt's own end, if that is why err happened.
func causeOf(ctx context.Context, err error) error {
	if cause, ok := context.Cause(ctx).(tired); ok {
		return cause
	}
	return err
}
