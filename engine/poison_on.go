//go:build rayfluxdebug

package engine

// poison overwrites bytes whose lifetime has ended, so that whoever kept a slice of them is found out by the tests.
// Built with -tags rayfluxdebug.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}
