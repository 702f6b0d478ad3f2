//go:build !rayfluxdebug

package engine

// poison does nothing in an ordinary build; see poison_on.go.
func poison([]byte) {}
