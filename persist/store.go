package persist

import (
	"context"
	"errors"
	"fmt"
)

// Store is a flat name space of objects, as S3 offers it. Names are as CheckName wants them, and no object's name goes on with '/'
// to another one's. Bodies are the caller's again when a method returns; returned slices are the caller's. Safe from any goroutine.
// Every implementation passes the suite in persist/storetest.
type Store interface {
	// Get reads length bytes of an object from offset on; a negative length reads to its end, a negative offset counts
	// from it. What is beyond the end, or before the beginning, is left out. ErrNotFound: there is no such object.
	Get(ctx context.Context, name string, offset, length int64) ([]byte, error)
	// Put writes a whole object, in the place of what had its name. A reader sees the old one or the new one. It is tried once:
	// after ErrUnanswered, or an error of the context, the object may be written yet, even after a Put that comes later.
	Put(ctx context.Context, name string, body []byte) error
	// Create writes a whole object if nothing has its name; ErrExists: something has. Of several that are made at once exactly
	// one succeeds. After an error other than ErrExists it may or may not have been written; and where an answer was lost and
	// the store asked again, ErrExists may mean the object that this very call wrote.
	Create(ctx context.Context, name string, body []byte) error
	// List is the objects whose names begin with prefix, in order of name, those after a name only ("": all), at most max.
	List(ctx context.Context, prefix, after string, max int) ([]Object, error)
	// Delete removes an object. It is no error if there is none.
	Delete(ctx context.Context, name string) error
}

// Object is an object's name and its size in bytes.
type Object struct {
	Name string
	Size int64
}

// What a Store's callers branch on; implementations wrap them with the object's name and the reason.
var (
	ErrNotFound = errors.New("no such object")
	ErrExists   = errors.New("the object exists already")

	ErrDenied      = errors.New("the store refuses access")
	ErrUnavailable = errors.New("the store cannot serve now")
	// ErrUnanswered is an ErrUnavailable after which the store may carry out yet what it was asked for.
	ErrUnanswered = fmt.Errorf("%w: it does not answer", ErrUnavailable)
)
