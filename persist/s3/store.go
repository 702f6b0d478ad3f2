package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"rayflux/persist"
)

// Config says where objects are. All but the bucket may be empty.
type Config struct {
	Bucket   string
	Prefix   string // of every object's key, with or without '/' at its ends
	Endpoint string // http or https URL; else AWS_ENDPOINT_URL_S3's, else the vendor's own
	Region   string // else AWS_REGION's, else us-east-1, which is what other servers than the vendor's go by

	// VirtualHost puts the bucket's name into the host's, where there is an endpoint. Few servers but the vendor's have a name
	// for every bucket.
	VirtualHost bool
}

// ParseURL reads "s3://bucket/prefix".
func ParseURL(url string) (Config, error) {
	rest, ok := strings.CutPrefix(url, "s3://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(rest, "?#@: ") {
		return Config{}, fmt.Errorf("store %q is not like s3://bucket/prefix", url)
	}
	return Config{Bucket: bucket, Prefix: prefix}, nil
}

const (
	attempts         = 3 // of one request, before the caller hears of it
	attemptPauseMax  = 2 * time.Second
	conflictAttempts = 6         // of a conditional write that met another one
	listPageMax      = 1000      // the protocol's
	wholeMax         = 64 << 20  // bytes of a body that is put in one piece
	partBytes        = 16 << 20  // of a larger one's pieces
	bodyHintMax      = 128 << 20 // bytes that a Content-Length makes us reserve
)

// Store is objects in a bucket. Safe from any goroutine.
type Store struct {
	client   *s3.Client
	bucket   string
	prefix   string // "" or ends with '/'
	endpoint string // for errors
	region   string

	wholeMax, partBytes int
}

// Open reads the environment and the vendor's files. It does not ask the server: one that is away may come back.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	var options []func(*config.LoadOptions) error
	if cfg.Region != "" {
		options = append(options, config.WithRegion(cfg.Region))
	}
	shared, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("s3 settings: %w", err)
	}
	shared.Credentials = keys{shared.Credentials}
	if shared.Region == "" {
		shared.Region = "us-east-1"
	}
	s := &Store{bucket: cfg.Bucket, region: shared.Region, endpoint: "the vendor's endpoint", wholeMax: wholeMax, partBytes: partBytes}
	if prefix := strings.Trim(cfg.Prefix, "/"); prefix != "" {
		s.prefix = prefix + "/"
	}
	s.client = s3.NewFromConfig(shared, func(o *s3.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
		if o.BaseEndpoint != nil {
			o.UsePathStyle = !cfg.VirtualHost
			s.endpoint = *o.BaseEndpoint
		}
		// Segments carry checksums of their own, and older servers refuse the trailers that the SDK's come in.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.HTTPClient = newPatience(answerPatience)
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = attempts, attemptPauseMax
			o.RateLimiter = ratelimit.None // callers back off for longer than the SDK's budget of retries would make them
		})
	})
	return s, nil
}

func (s *Store) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	key, err := s.key(ctx, name)
	if err != nil {
		return nil, err
	}
	input := &s3.GetObjectInput{Bucket: &s.bucket, Key: key, Range: byteRange(offset, length)}
	output, err := s.client.GetObject(ctx, input)
	if codeOf(err) == "InvalidRange" {
		return nil, nil // the object is there, and ends before
	}
	if err != nil {
		return nil, s.explain(ctx, "get", name, err)
	}
	defer output.Body.Close()
	body, err := readBody(output)
	if err != nil {
		return nil, s.explain(ctx, "get", name, err)
	}
	if length >= 0 && int64(len(body)) > length {
		body = body[:length]
	}
	return body, nil
}

// byteRange is the range as the protocol says it; nil: all. It has no word for nothing, nor for a part of a suffix: Get cuts.
func byteRange(offset, length int64) *string {
	switch {
	case offset < 0:
		return aws.String(fmt.Sprintf("bytes=%d", offset))
	case length < 0 && offset == 0:
		return nil
	case length < 0 || offset+length < offset:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+max(1, length)-1))
}

func readBody(output *s3.GetObjectOutput) ([]byte, error) {
	var body bytes.Buffer
	if size := aws.ToInt64(output.ContentLength); size > 0 && size <= bodyHintMax {
		body.Grow(int(size) + bytes.MinRead) // else ReadFrom grows it once more to see the end
	}
	_, err := body.ReadFrom(output.Body)
	if size := output.ContentLength; err == nil && size != nil && *size != int64(body.Len()) {
		err = io.ErrUnexpectedEOF
	}
	return body.Bytes(), err
}

// Put is one request, of what is not larger than wholeMax: whoever overwrites has to know of each that had no answer.
func (s *Store) Put(ctx context.Context, name string, body []byte) error {
	return s.write(ctx, "put", name, body, nil)
}

func (s *Store) Create(ctx context.Context, name string, body []byte) error {
	return s.write(ctx, "create", name, body, aws.String("*"))
}

// write writes an object unless one is there whose tag ifNoneMatch covers. A server may answer that two such writes met, and
// that neither has won yet.
func (s *Store) write(ctx context.Context, verb, name string, body []byte, ifNoneMatch *string) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		if len(body) > s.wholeMax {
			err = s.writeParts(ctx, key, body, ifNoneMatch)
		} else {
			input := &s3.PutObjectInput{Bucket: &s.bucket, Key: key, Body: bytes.NewReader(body), IfNoneMatch: ifNoneMatch}
			_, err = s.client.PutObject(ctx, input, func(o *s3.Options) {
				if ifNoneMatch == nil {
					o.RetryMaxAttempts = 1
				}
			})
		}
		if codeOf(err) != "ConditionalRequestConflict" || attempt == conflictAttempts {
			break
		}
		pause := time.NewTimer(rand.N(20 * time.Millisecond << attempt))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	if err != nil {
		return s.explain(ctx, verb, name, err)
	}
	return nil
}

func (s *Store) List(ctx context.Context, prefix, after string, max int) ([]persist.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found []persist.Object
	for len(found) < max {
		input := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix + prefix), MaxKeys: aws.Int32(int32(min(max-len(found), listPageMax)))}
		if after != "" {
			input.StartAfter = aws.String(s.prefix + after)
		}
		output, err := s.client.ListObjectsV2(ctx, input)
		if err != nil {
			return nil, s.explain(ctx, "list", prefix, err)
		}
		for _, object := range output.Contents {
			after = strings.TrimPrefix(aws.ToString(object.Key), s.prefix)
			if persist.CheckName(after) == nil { // else a stranger's
				found = append(found, persist.Object{Name: after, Size: aws.ToInt64(object.Size)})
			}
		}
		if !aws.ToBool(output.IsTruncated) || len(output.Contents) == 0 {
			break
		}
	}
	return found, nil
}

func (s *Store) Delete(ctx context.Context, name string) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	_, err = s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: key})
	if err = s.explain(ctx, "delete", name, err); errors.Is(err, persist.ErrNotFound) {
		return nil
	}
	return err
}

func (s *Store) key(ctx context.Context, name string) (*string, error) {
	if err := persist.CheckName(name); err != nil {
		return nil, err
	}
	return aws.String(s.prefix + name), ctx.Err()
}
