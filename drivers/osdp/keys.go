package osdp

import (
	"errors"
	"sync"
)

// KeyStore keeps the key of one peripheral so that a crash at any point leaves
// the right key in it. Its methods return soon: the bus waits for them. They are
// called from one goroutine.
type KeyStore interface {
	// Load gives the peripheral's key, and one that was begun and not committed;
	// nil: there is none.
	Load() (current, next *Key, err error)
	// Begin keeps a key beside the current one, durably. It is called before the
	// key is sent.
	Begin(next Key) error
	// Commit is told that the peripheral has proved to have the key that was
	// begun: it is the current one from now on.
	Commit(key Key) error
}

// MemoryKeys is a KeyStore for tests and tools: it forgets with the program.
// The zero MemoryKeys has no key.
type MemoryKeys struct {
	mu            sync.Mutex
	current, next *Key
}

// NewMemoryKeys makes a store that has a key.
func NewMemoryKeys(current Key) *MemoryKeys { return &MemoryKeys{current: &current} }

func (m *MemoryKeys) Load() (current, next *Key, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current, m.next, nil
}

func (m *MemoryKeys) Begin(next Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = &next
	return nil
}

func (m *MemoryKeys) Commit(key Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.next == nil || !m.next.Equal(key) {
		return errors.New("the key to commit was not begun")
	}
	m.current, m.next = m.next, nil
	return nil
}
