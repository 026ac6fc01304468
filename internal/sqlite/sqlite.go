// Package sqlite opens the databases of the programs: a file that is its owner's
// alone, migrated, with one connection that writes and some that read what is
// committed meanwhile.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	"github.com/pressly/goose/v3"
)

// ErrShared marks a file that other users of the machine can read.
var ErrShared = errors.New("it can be read by others")

// DB is an open database. Other processes may have it open too.
type DB struct {
	W *sql.DB // one connection, immediate transactions
	R *sql.DB // readers; they see what is committed
}

// Open opens the database at path, with so many readers, and creates or migrates
// it by the SQL files in the folder migrations. It fails with ErrShared where
// others can read the file. What is deleted is overwritten.
func Open(ctx context.Context, path string, migrations fs.FS, readers int) (_ *DB, err error) {
	if err := own(path); err != nil {
		return nil, err
	}
	db := new(DB)
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	// The pragmas stand in the DSN since each pooled connection needs them.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?mode=rw&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_foreign_keys=on&_secure_delete=on&_stmt_cache_size=32"
	if db.W, err = sql.Open("sqlite3", dsn+"&_txlock=immediate"); err != nil {
		return nil, err
	}
	db.W.SetMaxOpenConns(1)
	if db.R, err = sql.Open("sqlite3", dsn+"&_query_only=true"); err != nil {
		return nil, err
	}
	db.R.SetMaxOpenConns(readers)
	return db, migrate(ctx, db.W, migrations)
}

// own creates the file where there is none, so that nobody else can ever read it.
func own(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w (mode %#o): chmod 600 %s", ErrShared, mode, path)
	}
	return nil
}

// migrate writes only to a file that is new or old: others may be reading this one
// while somebody writes to it for long.
func migrate(ctx context.Context, db *sql.DB, migrations fs.FS) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
	if err != nil {
		return err
	}
	pending, err := p.HasPending(ctx)
	if err != nil || !pending {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the database.
func (db *DB) Close() error {
	var errs []error
	for _, pool := range []*sql.DB{db.R, db.W} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}
