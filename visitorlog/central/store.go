// Package central is the CRM's store of the records of all controllers. For
// each epoch of each controller it keeps its own copy of the Merkle tree,
// appends only what a signed checkpoint vouches for, and countersigns what it
// has committed.
package central

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	"github.com/pressly/goose/v3"
	"golang.org/x/mod/sumdb/note"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Key verifies what one controller's log has signed.
type Key interface {
	// Verify returns the payload of a record's JWS.
	Verify(jws string) (payload []byte, err error)
	// NoteVerifier verifies the log's checkpoints of one origin.
	NoteVerifier(origin string) (note.Verifier, error)
}

// Options is what a Store needs from outside. Only ParseKey is needed to
// read; to store, Cosigner too.
type Options struct {
	// Cosigner makes cosignature/v1 signatures.
	Cosigner note.Signer
	// ParseKey makes a Key of a registered public JWK.
	ParseKey func(jwk []byte) (Key, error)
	// SilentAfter is how long a controller may be quiet before that is an
	// alarm; 0: for ever.
	SilentAfter time.Duration
	// Alarm is told of each alarm that was raised or repeated, after the
	// commit. It must not block.
	Alarm  func(Alarm)
	Logger *slog.Logger
}

// Store is the CRM's database. It may be used from several goroutines.
type Store struct {
	o Options
	w *sql.DB // one connection, immediate transactions
	r *sql.DB // readers; they see what is committed

	mu   sync.Mutex // held by the one writer; guards logs
	logs map[logName]*logState

	keyMu sync.Mutex
	keys  map[string]Key // by JWK

	wake chan struct{} // to the checker
	grew atomic.Int64  // when records were last stored, Unix nanoseconds
}

type logName struct{ controller, epoch string }

// Errors of a controller that may not send.
var (
	ErrUnknownController = errors.New("controller is not approved")
	ErrRevoked           = errors.New("controller is revoked")
)

// ErrNotCRM is returned by OpenReader for a file that is not a CRM's database
// or that an older version wrote.
var ErrNotCRM = errors.New("not the database of this version of the CRM")

// Open opens the database at path and creates or migrates it. The file must
// not be readable by others.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s, err := open(path, "&_txlock=immediate", o)
	if err != nil {
		return nil, err
	}
	p, err := provider(s.w)
	if err == nil {
		_, err = p.Up(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("migrate store %q: %w", path, err)
	}
	if o.Cosigner != nil {
		if err := s.cosignLeft(ctx); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// OpenReader opens an existing database to read it, beside a CRM that may be
// writing to it.
func OpenReader(ctx context.Context, path string, o Options) (*Store, error) {
	s, err := open(path, "&_query_only=true", o)
	if err != nil {
		return nil, err
	}
	p, err := provider(s.w)
	if err != nil {
		s.Close()
		return nil, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil || pending {
		s.Close()
		return nil, fmt.Errorf("open store %q: %w", path, ErrNotCRM)
	}
	return s, nil
}

func open(path, extra string, o Options) (*Store, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := checkMode(path, info); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	// The pragmas stand in the DSN since each pooled connection needs them.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?mode=rw&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_foreign_keys=on&_stmt_cache_size=32"
	s := &Store{o: o, logs: map[logName]*logState{}, keys: map[string]Key{}, wake: make(chan struct{}, 1)}
	if s.w, err = sql.Open("sqlite3", dsn+extra); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.w.SetMaxOpenConns(1)
	if s.r, err = sql.Open("sqlite3", dsn+"&_query_only=true"); err != nil {
		s.w.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.r.SetMaxOpenConns(4)
	return s, nil
}

func checkMode(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("store %q can be read by others (mode %#o): chmod 600 it", path, mode)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, sub)
}

// Close closes the database.
func (s *Store) Close() error { return errors.Join(s.r.Close(), s.w.Close()) }

// key returns the Key of a JWK, made once.
func (s *Store) key(jwk string) (Key, error) {
	s.keyMu.Lock()
	defer s.keyMu.Unlock()
	if k, ok := s.keys[jwk]; ok {
		return k, nil
	}
	k, err := s.o.ParseKey([]byte(jwk))
	if err != nil {
		return nil, fmt.Errorf("registered key: %w", err)
	}
	s.keys[jwk] = k
	return k, nil
}

// write runs f in the one writer's transaction. Alarms that f raised are
// reported after the commit. The caller holds s.mu.
func (s *Store) write(ctx context.Context, f func(*tx) error) error {
	raw, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	t := &tx{Tx: raw, now: time.Now()}
	if err := f(t); err != nil {
		return errors.Join(err, raw.Rollback())
	}
	if err := raw.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if s.o.Alarm != nil {
		for _, a := range t.alarms {
			s.o.Alarm(a)
		}
	}
	if t.back != "" {
		s.o.Logger.Info("silent alarm closed: the controller is heard again", "controller", t.back)
	}
	return nil
}

// tx is a transaction of the writer.
type tx struct {
	*sql.Tx
	now    time.Time
	alarms []Alarm
	back   string // the controller whose silent alarm was closed; empty: none's
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
