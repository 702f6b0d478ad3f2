package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"rayflux/persist"
)

// codeOf is the server's word for an error; "" if it said none.
func codeOf(err error) string {
	var said smithy.APIError
	if errors.As(err, &said) {
		return said.ErrorCode()
	}
	return ""
}

// explain says what could not be done, where, and why, in one line; the SDK's own text is about its layers. It is what callers
// of a persist.Store branch on, too.
func (s *Store) explain(ctx context.Context, verb, name string, err error) error {
	if err == nil {
		return nil
	}
	switch code := codeOf(err); code {
	case "NoSuchKey":
		return fmt.Errorf("%s: %w", name, persist.ErrNotFound)
	case "PreconditionFailed":
		return fmt.Errorf("%s: %w", name, persist.ErrExists)
	case "":
		return fmt.Errorf("s3: %s %q in bucket %q at %s: %w", verb, name, s.bucket, s.endpoint, silent(ctx, err))
	default:
		return fmt.Errorf("s3: %s %q in bucket %q at %s: %w", verb, name, s.bucket, s.endpoint, s.spoken(code, err))
	}
}

// spoken is an error that the server answered with.
func (s *Store) spoken(code string, err error) error {
	var said smithy.APIError
	errors.As(err, &said)
	status, region := 0, ""
	if answer := (*awshttp.ResponseError)(nil); errors.As(err, &answer) && answer.Response != nil {
		status, region = answer.HTTPStatusCode(), answer.Response.Header.Get("X-Amz-Bucket-Region")
	}
	text := fmt.Sprintf("%s (%d): %s", code, status, said.ErrorMessage())
	switch {
	case code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed" || status == http.StatusMovedPermanently:
		if region == "" {
			region = "another one"
		}
		return fmt.Errorf("%s: asked in region %s, and the bucket's is %s", text, s.region, region)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("%s: %w", text, persist.ErrDenied)
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout:
		return fmt.Errorf("%s: %w", text, persist.ErrUnavailable)
	}
	return errors.New(text)
}

// silent is an error without a word of the server's.
func silent(ctx context.Context, err error) error {
	var slow tired
	var none keyless
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &none):
		return fmt.Errorf("%w: %w", persist.ErrDenied, none)
	case errors.As(err, &slow):
		return fmt.Errorf("%w: %w", persist.ErrUnanswered, slow)
	}
	return fmt.Errorf("%w: %w", persist.ErrUnanswered, err)
}

// keys are the credentials that the SDK finds. They mark an error as being about them.
type keys struct{ aws.CredentialsProvider }

func (k keys) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := k.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		err = keyless{err}
	}
	return found, err
}

type keyless struct{ error }

func (e keyless) Error() string { return "no credentials: " + e.error.Error() }
func (e keyless) Unwrap() error { return e.error }
