package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"rayflux/persist"
	"rayflux/persist/s3"
)

// storeAt says where a store is: in a directory or in a bucket. The zero value is nowhere.
type storeAt struct {
	directory string
	bucket    s3.Config
}

// storeSchemes is what a store's place may begin with.
var storeSchemes = []string{"dir", "s3"}

func parseStore(text string) (at storeAt, err error) {
	scheme, rest, ok := strings.Cut(text, ":")
	switch {
	case text == "none":
		return at, nil
	case ok && scheme == "dir":
		if rest == "" {
			return at, errors.New(`"dir:" has no directory, want dir:PATH`)
		}
		at.directory = rest
		return at, nil
	case ok && scheme == "s3":
		at.bucket, err = s3.ParseURL(text)
		return at, err
	}
	return at, fmt.Errorf("%q is no store, want dir:PATH, s3://BUCKET/PREFIX or none%s", text, didYouMean("", scheme, storeSchemes))
}

func (at storeAt) String() string {
	switch {
	case at.directory != "":
		return "dir:" + at.directory
	case at.bucket.Bucket != "":
		return strings.TrimSuffix("s3://"+at.bucket.Bucket+"/"+at.bucket.Prefix, "/")
	}
	return "none"
}

func storeOf(at *storeAt) pflag.Value {
	return value[storeAt]{at, parseStore, storeAt.String, "store"}
}

// open is the store there; nil: it is nowhere.
func (at storeAt) open(ctx context.Context) (persist.Store, error) {
	switch {
	case at.directory != "":
		return persist.OpenDir(at.directory)
	case at.bucket.Bucket != "":
		return s3.Open(ctx, at.bucket)
	}
	return nil, nil
}
