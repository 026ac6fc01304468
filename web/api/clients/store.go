// Package clients keeps who may call the CRM's API: the programs that have a
// token or a certificate, what each of them may do, and what was answered to
// requests that may come again. Of a token only its hash is kept.
package clients

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	"github.com/pressly/goose/v3"
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
	db *sql.DB
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
	// Made by us first, so that nobody else can ever read it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("it can be read by others (mode %#o): chmod 600 it", mode)
	}
	// The pragmas stand in the DSN since each pooled connection needs them.
	s.db, err = sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+
		"?mode=rw&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_secure_delete=on&_stmt_cache_size=16&_txlock=immediate")
	if err != nil {
		return err
	}
	s.db.SetMaxOpenConns(4)
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.db, sub)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
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
