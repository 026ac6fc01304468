// Package keyring keeps the Secure Channel keys of OSDP readers in a file,
// each sealed for the one reader that it belongs to.
//
// A key that is being changed stands beside the one before it until the reader
// has proved which of the two it has, whatever happens in between: that is what
// osdp.KeyStore asks for.
package keyring

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"golang.org/x/sys/unix"
)

// FileName is the ring's usual name, in the controller's data directory.
const FileName = "readers.json"

// Sealer encrypts and authenticates. Open needs the additional data that Seal
// was given: here, whose key it is.
type Sealer interface {
	Seal(plain, additional []byte) []byte
	Open(sealed, additional []byte) ([]byte, error)
}

// reader is whose key it is.
type reader struct {
	line    string
	address byte
}

func (r reader) String() string {
	return fmt.Sprintf("the reader with address %d on line %q", r.address, r.line)
}

// binding is the additional data of a reader's keys.
func (r reader) binding() []byte { return fmt.Appendf(nil, "osdp %q %d", r.line, r.address) }

// sealed are the keys of a reader; nil: there is none.
type sealed struct{ current, next []byte }

// Ring is the keys of a controller's readers. In memory, too, they are sealed.
// It may be used from several goroutines.
type Ring struct {
	path   string
	sealer Sealer

	mu      sync.Mutex
	lock    *os.File // nil: closed
	readers map[reader]sealed
}

// Open opens the ring in a file, which is made when the first key is kept. No
// other process can open it until Close. A file that others can read is
// refused, and so is a damaged one. Keys are opened when they are asked for: one
// that was sealed with another key, or for another reader, is that reader's
// fault and no other's.
func Open(path string, s Sealer) (*Ring, error) {
	lock, err := acquire(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("keys of the readers: %w", err)
	}
	readers, err := read(path)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("keys of the readers: %w", err)
	}
	return &Ring{path: path, sealer: s, lock: lock, readers: readers}, nil
}

// acquire takes the lock. It ends with the process, however that ends, and is
// not on the ring's own file, which is replaced.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another process has those in %s", filepath.Dir(path))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Close lets others open the ring. What is asked of it afterwards fails.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock == nil {
		return nil
	}
	err := r.lock.Close()
	r.lock = nil
	return err
}

// For is the key store of one reader. It stays the same when the reader gets
// another address: see Copy.
func (r *Ring) For(line string, address byte) osdp.KeyStore {
	return store{r, reader{line, address}}
}

// Copy keeps a reader's keys for another address too, before the reader is told
// to go there: a reader whose move was cut short has its keys at either. It
// fails where the other address has keys already.
func (r *Ring) Copy(line string, from, to byte) error {
	source, target := reader{line, from}, reader{line, to}
	return r.change(func(readers map[reader]sealed) error {
		if _, ok := readers[target]; ok {
			return fmt.Errorf("there are keys of %v already: forget them first, if it is there no more", target)
		}
		current, next, err := r.open(source, readers[source])
		if err != nil {
			return err
		}
		readers[target] = r.seal(target, current, next)
		return nil
	})
}

// Forget drops the keys of a reader; it need not have any.
func (r *Ring) Forget(line string, address byte) error {
	return r.change(func(readers map[reader]sealed) error {
		delete(readers, reader{line, address})
		return nil
	})
}

// change makes a change of the keys durable. After an error they are as they
// were, here; the file may have the change all the same.
func (r *Ring) change(f func(map[reader]sealed) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock == nil {
		return errClosed
	}
	changed := maps.Clone(r.readers)
	if err := f(changed); err != nil {
		return err
	}
	if err := write(r.path, changed); err != nil {
		return fmt.Errorf("keys of the readers: %w", err)
	}
	r.readers = changed
	return nil
}

var errClosed = errors.New("the keys of the readers are closed")

// open opens the keys of a reader.
func (r *Ring) open(whose reader, s sealed) (current, next *osdp.Key, err error) {
	if current, err = r.openOne(whose, s.current); err != nil {
		return nil, nil, err
	}
	if next, err = r.openOne(whose, s.next); err != nil {
		return nil, nil, err
	}
	return current, next, nil
}

func (r *Ring) openOne(whose reader, text []byte) (*osdp.Key, error) {
	if text == nil {
		return nil, nil
	}
	plain, err := r.sealer.Open(text, whose.binding())
	defer clear(plain)
	if err == nil && len(plain) != len(osdp.Key{}) {
		err = fmt.Errorf("it has %d bytes", len(plain))
	}
	if err != nil {
		return nil, fmt.Errorf("the key of %v in %s: %w", whose, r.path, err)
	}
	key := osdp.Key(plain)
	return &key, nil
}

func (r *Ring) seal(whose reader, current, next *osdp.Key) sealed {
	var s sealed
	if current != nil {
		s.current = r.sealer.Seal(current[:], whose.binding())
	}
	if next != nil {
		s.next = r.sealer.Seal(next[:], whose.binding())
	}
	return s
}

// store is the osdp.KeyStore of one reader.
type store struct {
	ring  *Ring
	whose reader
}

func (s store) Load() (current, next *osdp.Key, err error) {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	if s.ring.lock == nil {
		return nil, nil, errClosed
	}
	return s.ring.open(s.whose, s.ring.readers[s.whose])
}

func (s store) Begin(next osdp.Key) error {
	return s.ring.change(func(readers map[reader]sealed) error {
		keys := readers[s.whose]
		keys.next = s.ring.seal(s.whose, nil, &next).next
		readers[s.whose] = keys
		return nil
	})
}

func (s store) Commit(key osdp.Key) error {
	return s.ring.change(func(readers map[reader]sealed) error {
		keys := readers[s.whose]
		next, err := s.ring.openOne(s.whose, keys.next)
		if err != nil {
			return err
		}
		if next == nil || !next.Equal(key) {
			return fmt.Errorf("the key of %v that is to be the current one was not begun", s.whose)
		}
		readers[s.whose] = sealed{current: keys.next}
		return nil
	})
}
