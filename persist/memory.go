package persist

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Memory is a store that ends with its process, for tests. Safe from any goroutine.
type Memory struct {
	mu      sync.Mutex
	objects map[string][]byte // never changed, only replaced
}

// NewMemory is an empty store.
func NewMemory() *Memory { return &Memory{objects: make(map[string][]byte)} }

func (m *Memory) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := admit(ctx, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	body, ok := m.objects[name]
	m.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	start, end := extent(int64(len(body)), offset, length)
	return bytes.Clone(body[start:end]), nil
}

func (m *Memory) Put(ctx context.Context, name string, body []byte) error {
	if err := admit(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[name] = bytes.Clone(body)
	return nil
}

func (m *Memory) Create(ctx context.Context, name string, body []byte) error {
	if err := admit(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; ok {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	m.objects[name] = bytes.Clone(body)
	return nil
}

func (m *Memory) List(ctx context.Context, prefix, after string, max int) ([]Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Object
	for name, body := range m.objects {
		if strings.HasPrefix(name, prefix) && name > after {
			found = append(found, Object{name, int64(len(body))})
		}
	}
	slices.SortFunc(found, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	return found[:min(len(found), max)], nil
}

func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := admit(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}
