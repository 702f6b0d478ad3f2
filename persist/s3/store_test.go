package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"rayflux/persist"
	"rayflux/persist/s3/s3test"
	"rayflux/persist/storetest"
)

// withKeys is the environment of a process that may use the test servers.
func withKeys(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
	t.Setenv("AWS_REGION", s3test.Region)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// suite runs every test of stores, each below a prefix of its own; the second time with bodies in parts from 5 MiB on.
func suite(t *testing.T, endpoint string) {
	for _, whole := range []int{wholeMax, 5 << 20} {
		t.Run(fmt.Sprintf("WholeUpTo%dMiB", whole>>20), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) persist.Store {
				s := open(t, Config{Bucket: s3test.Bucket, Prefix: "/" + strings.ToLower(t.Name()) + "/", Endpoint: endpoint})
				s.wholeMax, s.partBytes = whole, 5<<20
				return s
			})
		})
	}
	t.Run("OneOfManyCreatesInPartsWins", func(t *testing.T) { oneOfManyCreatesInPartsWins(t, endpoint) })
}

func TestVersityGateway(t *testing.T) {
	withKeys(t)
	suite(t, s3test.Start(t).Endpoint)
}

func TestMinIO(t *testing.T) {
	if os.Getenv("RAYFLUX_STORES") == "" {
		t.Skip("MinIO takes minutes to build: make stores")
	}
	withKeys(t)
	server := s3test.StartMinIO(t)
	s := open(t, Config{Bucket: s3test.Bucket, Endpoint: server.Endpoint})
	if _, err := s.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(s3test.Bucket)}); err != nil {
		t.Fatal(err)
	}
	suite(t, server.Endpoint)
}

func oneOfManyCreatesInPartsWins(t *testing.T, endpoint string) {
	s := open(t, Config{Bucket: s3test.Bucket, Prefix: "parts", Endpoint: endpoint})
	s.wholeMax, s.partBytes = 5<<20, 5<<20
	body := make([]byte, 6<<20)
	var won atomic.Int32
	var rivals sync.WaitGroup
	for range 4 {
		rivals.Go(func() {
			switch err := s.Create(t.Context(), "prize", body); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, persist.ErrExists):
				t.Error(err)
			}
		})
	}
	rivals.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have created the object, want 1", won.Load())
	}
	got, err := s.Get(t.Context(), "prize", 0, -1)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(body))
	}
}

func TestTheEnvironmentNamesTheServer(t *testing.T) {
	withKeys(t)
	server := s3test.Start(t)
	for _, entry := range server.Environment() {
		key, value, _ := strings.Cut(entry, "=")
		t.Setenv(key, value)
	}
	s := open(t, Config{Bucket: s3test.Bucket})
	if err := s.Put(t.Context(), "x", []byte("y")); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if _, err := s.Get(t.Context(), "x", 0, -1); !errors.Is(err, persist.ErrUnavailable) {
		t.Errorf("get from a server that is down: %v", err)
	}
	server.Restart()
	if body, err := s.Get(t.Context(), "x", 0, -1); err != nil || string(body) != "y" {
		t.Errorf("get from a server that is back: %q, %v", body, err)
	}
}

func TestErrorsNameBucketEndpointAndCode(t *testing.T) {
	withKeys(t)
	endpoint := s3test.Start(t).Endpoint
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name   string
		cfg    Config
		key    string // "": the right one
		secret string
		want   error
		words  []string
	}{
		{"wrong secret", Config{Bucket: s3test.Bucket, Endpoint: endpoint}, "", "wrong", persist.ErrDenied, []string{"SignatureDoesNotMatch (403)"}},
		{"wrong key", Config{Bucket: s3test.Bucket, Endpoint: endpoint}, "wrong", "", nil, []string{"XAdminUserNotFound (404)"}},
		{"wrong bucket", Config{Bucket: "cellar", Endpoint: endpoint}, "", "", nil, []string{"NoSuchBucket (404)"}},
		{"wrong region", Config{Bucket: s3test.Bucket, Endpoint: endpoint, Region: "eu-west-3"}, "", "", nil, []string{"AuthorizationHeaderMalformed (400)", "eu-west-3", s3test.Region}},
		{"no server", Config{Bucket: s3test.Bucket, Endpoint: "http://" + closed.Addr().String()}, "", "", persist.ErrUnavailable, []string{"connection refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.key != "" {
				t.Setenv("AWS_ACCESS_KEY_ID", c.key)
			}
			if c.secret != "" {
				t.Setenv("AWS_SECRET_ACCESS_KEY", c.secret)
			}
			s := open(t, c.cfg)
			_, get := s.Get(t.Context(), "a/b", 0, -1)
			for verb, err := range map[string]error{"get": get, "put": s.Put(t.Context(), "a/b", nil), "create": s.Create(t.Context(), "a/b", nil)} {
				if err == nil {
					t.Fatalf("%s went well", verb)
				}
				if c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%q is no %q", err, c.want)
				}
				if errors.Is(err, persist.ErrNotFound) || errors.Is(err, persist.ErrExists) {
					t.Errorf("%q is about the object, and should be about the store", err)
				}
				for _, word := range append(c.words, verb, "a/b", c.cfg.Bucket, c.cfg.Endpoint) {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%q does not say %s", err, word)
					}
				}
				t.Log(err)
			}
		})
	}
}

func TestNoCredentialsAreDenied(t *testing.T) {
	withKeys(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	s := open(t, Config{Bucket: s3test.Bucket, Endpoint: "http://127.0.0.1:1"})
	err := s.Put(t.Context(), "x", nil)
	if !errors.Is(err, persist.ErrDenied) {
		t.Errorf("put without credentials: %v", err)
	}
	t.Log(err)
}

func TestAHangingServerIsGivenUpOn(t *testing.T) {
	withKeys(t)
	server := s3test.Start(t)
	s := open(t, Config{Bucket: s3test.Bucket, Endpoint: server.Endpoint})
	server.Pause()
	hasty := *s
	hasty.client = s3.New(s.client.Options(), func(o *s3.Options) { o.HTTPClient = newPatience(10 * time.Millisecond) })
	if err := hasty.Put(t.Context(), "x", []byte("y")); !errors.Is(err, persist.ErrUnavailable) || !strings.Contains(err.Error(), "no whole answer after 3") {
		t.Errorf("put to a server that hangs: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Put(ctx, "x", []byte("y")) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("put to a server that hangs, cancelled: %v", err)
	}
	server.Resume()
	if err := s.Put(t.Context(), "x", []byte("y")); err != nil {
		t.Error(err)
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]Config{
		"s3://b":      {Bucket: "b"},
		"s3://b/":     {Bucket: "b"},
		"s3://b/p/q/": {Bucket: "b", Prefix: "p/q/"},
		"s3://":       {},
		"s3:///p":     {},
		"b/p":         {},
		"dir:b":       {},
		"s3://b?x":    {},
		"s3://k:s@b":  {},
	} {
		got, err := ParseURL(url)
		if got != want || (err == nil) != (want.Bucket != "") {
			t.Errorf("%q is %+v, %v; want %+v", url, got, err, want)
		}
	}
}
