package persist

import (
	"context"
	"fmt"
	"strings"
)

// NameMax is how long an object's name may be, in bytes; S3's limit of 1,024 leaves room for a bucket's prefix.
const NameMax = 250

// CheckName is an error if name is not one that every store can keep: a path in which no part begins with '.' or '-', so that
// none leads out of a directory, and a directory has room for files of its own.
func CheckName(name string) error {
	if len(name) > NameMax {
		return fmt.Errorf("object name is %d bytes, limit %d", len(name), NameMax)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || part[0] == '-' || !plain(part) {
			return fmt.Errorf("object name %q has a part %q; parts are lower-case letters, digits, '.' and '-', and begin with one of the former two", name, part)
		}
	}
	return nil
}

func plain(part string) bool {
	for _, c := range []byte(part) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// admit is how a method of a store begins.
func admit(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return ctx.Err()
}

// extent is where Get begins and ends to read an object of a size.
func extent(size, offset, length int64) (start, end int64) {
	if offset < 0 {
		offset = max(0, size+offset)
	}
	start = min(offset, size)
	if length < 0 || length > size-start {
		length = size - start
	}
	return start, start + length
}
