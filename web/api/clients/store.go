// Package clients keeps who may call the CRM's API: the programs that have a
// token or a certificate, what each of them may do, and what was answered to
// requests that may come again. Of a token only its hash is kept.
package clients

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// FileName is the store's name in a CRM's folder.
const FileName = "api.db"

// Sealer encrypts and authenticates; what aad is bound to is not hidden.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Options is what a Store needs from outside. All of it is needed.
type Options struct {
	Sealer Sealer // of the answers that are kept, and of who is let in
	Clock  func() time.Time
}

// Store is an open store. It may be used from several goroutines, and beside
// other processes that have the same file open.
type Store struct {
	db *sqlite.DB
	o  Options
}

// Open opens the store at path and creates or migrates it. The file must not be
// readable by others.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	s := &Store{o: o}
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open the API's clients %q: %w", path, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string) error {
	var err error
	s.db, err = sqlite.Open(ctx, path, migrations, 4)
	return err
}

// Close closes the store.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

func (s *Store) now() time.Time { return s.o.Clock().UTC().Truncate(time.Microsecond) }
