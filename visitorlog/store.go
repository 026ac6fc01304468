package visitorlog

import (
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	databaseFile = "records.db"
	busyTimeout  = 5 * time.Second // only backups and hand-made tools ever compete
	readers      = 4               // connections that read beside the writer
)

//go:embed migrations/*.sql
var migrations embed.FS

// store is one open database: one life of the log.
type store struct {
	path   string
	write  *sql.DB // one connection; nil when opened for reading only
	read   *sql.DB
	sealer Sealer
	meta   meta
	file   os.FileInfo // the file that was opened: see moved
}

// meta says whose log this is and how its life began.
type meta struct {
	Epoch      string `json:"epoch"`
	Controller string `json:"controller"`
	// Receipt is the receipt that lay beside the database when this life
	// began. It speaks of an earlier epoch and does not contradict this one.
	Receipt *Head `json:"receipt,omitempty"`
}

const metaKey = "life"

// dsn writes SQLite's connection string: pragmas given by Exec would reach
// only one connection of a pool.
func dsn(path string, options url.Values) string {
	options.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	options.Set("_foreign_keys", "on")
	return (&url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}).String()
}

// openStore opens the database at path for one writer, creating it (readable
// only by its owner) and bringing its schema up to date.
func openStore(ctx context.Context, path string, sealer Sealer) (*store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := createPrivate(path); err != nil {
		return nil, err
	}
	s := &store{path: path, sealer: sealer}
	if s.file, err = os.Stat(path); err != nil {
		return nil, err
	}
	s.write, err = sql.Open("sqlite3", dsn(path, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_secure_delete": {"on"}, "_txlock": {"immediate"},
	}))
	if err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		s.write.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := s.openRead(ctx, "rw"); err != nil {
		s.write.Close()
		return nil, err
	}
	return s, nil
}

// openStoreReadOnly opens the database at path beside the daemon that may be
// writing to it.
func openStoreReadOnly(ctx context.Context, path string, sealer Sealer) (*store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &store{path: path, sealer: sealer}
	if s.file, err = os.Stat(path); err != nil {
		return nil, err
	}
	if err := s.openRead(ctx, "ro"); err != nil {
		return nil, err
	}
	if s.meta.Epoch == "" {
		s.close()
		return nil, fmt.Errorf("%s: the log has not begun", path)
	}
	return s, nil
}

func (s *store) openRead(ctx context.Context, mode string) error {
	var err error
	s.read, err = sql.Open("sqlite3", dsn(s.path, url.Values{"mode": {mode}, "_query_only": {"on"}}))
	if err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if s.meta, err = readMeta(ctx, s.read); err != nil {
		s.read.Close()
		return fmt.Errorf("open %s: %w", s.path, err)
	}
	return nil
}

// createPrivate makes sure that the database is there and that only its owner
// reads it; SQLite gives the files beside it the same permissions.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return fmt.Errorf("schema version %d is newer than this program knows (%d)", current, target)
	}
	if current < target {
		_, err = p.Up(ctx)
	}
	return err
}

func readMeta(ctx context.Context, db *sql.DB) (meta, error) {
	var text string
	err := db.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = ?`, metaKey).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return meta{}, nil
	}
	if err != nil {
		return meta{}, err
	}
	var m meta
	if err := json.Unmarshal([]byte(text), &m); err != nil || !epochForm.MatchString(m.Epoch) {
		return meta{}, &Fault{First: -1, Last: -1, What: "the table meta is damaged"}
	}
	return m, nil
}

func (s *store) close() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	return errors.Join(errs...)
}

// moved says that the path no longer leads to the open file: what would be
// written to it now could never be found again.
func (s *store) moved() bool {
	now, err := os.Stat(s.path)
	return err != nil || !os.SameFile(now, s.file)
}

// size is the number of records, if none is missing.
func (s *store) size(ctx context.Context) (int64, error) {
	var n int64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(seq) + 1, 0) FROM rec`).Scan(&n)
	return n, err
}

// hashes reads stored nodes for tlog.
func (s *store) hashes(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, ix := range indexes {
			var h []byte
			err := s.read.QueryRowContext(ctx, `SELECT hash FROM node WHERE ix = ?`, ix).Scan(&h)
			if errors.Is(err, sql.ErrNoRows) {
				return nil, nodeFault(ix, "is missing")
			}
			if err != nil {
				return nil, err
			}
			if len(h) != tlog.HashSize {
				return nil, nodeFault(ix, "is damaged")
			}
			out[i] = tlog.Hash(h)
		}
		return out, nil
	})
}

// stored is a record as the database holds it.
type stored struct {
	seq  int64
	leaf []byte
	body []byte
}

// state reads all states; with an error, those that could be read.
func (s *store) state(ctx context.Context) (map[string][]byte, error) {
	state := make(map[string][]byte)
	rows, err := s.read.QueryContext(ctx, `SELECT key, value FROM state`)
	if err != nil {
		return state, err
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return state, err
		}
		state[key] = value
	}
	return state, rows.Err()
}

// rows reads up to limit records from a sequence on.
func (s *store) rows(ctx context.Context, from int64, limit int) ([]stored, error) {
	return s.rowsWithin(ctx, from, limit, math.MaxInt)
}

// rowsWithin is rows, and ends after the body that brings them to size bytes.
func (s *store) rowsWithin(ctx context.Context, from int64, limit, size int) ([]stored, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, leaf, body FROM rec WHERE seq >= ? ORDER BY seq LIMIT ?`, from, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []stored
	for size > 0 && rows.Next() {
		var r stored
		if err := rows.Scan(&r.seq, &r.leaf, &r.body); err != nil {
			return nil, err
		}
		out = append(out, r)
		size -= len(r.body)
	}
	return out, rows.Err()
}

// unseal gives back the signed bytes of a stored record and holds them to its
// leaf hash.
func (s *store) unseal(r stored) (jws string, leaf tlog.Hash, err error) {
	body, err := s.sealer.Open(r.body, bodyAAD(s.meta.Epoch, r.seq))
	if err != nil {
		return "", leaf, recordFault(r.seq, "its body cannot be opened: it was changed, or sealed with another key")
	}
	leaf = tlog.RecordHash(body)
	if string(leaf[:]) != string(r.leaf) {
		return "", leaf, recordFault(r.seq, "its leaf hash is not that of its body")
	}
	return string(body), leaf, nil
}

// signed is a stored record, held to its leaf, with its content if that is
// acceptable. What was sealed for this place is of this place.
func (s *store) signed(r stored) (Entry, error) {
	if e, err := s.entry(r); err == nil {
		return e, nil
	}
	return s.sealed(r)
}

// sealed is a stored record, held to its leaf, without its content.
func (s *store) sealed(r stored) (Entry, error) {
	jws, leaf, err := s.unseal(r)
	return Entry{Seq: uint64(r.seq), Leaf: leaf, JWS: jws}, err
}

// entry is a stored record, held to its leaf and its place, its signature
// unverified.
func (s *store) entry(r stored) (Entry, error) {
	jws, leaf, err := s.unseal(r)
	if err != nil {
		return Entry{}, err
	}
	payload, err := Payload(jws)
	if err != nil {
		return Entry{}, recordFault(r.seq, err.Error())
	}
	rec, err := ParseRecord(payload)
	if err != nil {
		return Entry{}, recordFault(r.seq, err.Error())
	}
	if err := s.placed(r.seq, rec); err != nil {
		return Entry{}, err
	}
	return Entry{Seq: uint64(r.seq), Leaf: leaf, JWS: jws, Record: rec}, nil
}

// placed holds a record to the place where it is stored.
func (s *store) placed(seq int64, r Record) error {
	if err := r.placed(s.meta.Controller, s.meta.Epoch, uint64(seq)); err != nil {
		return recordFault(seq, err.Error())
	}
	return nil
}

// bodyAAD binds a sealed body to its place: the epoch has a fixed length.
func bodyAAD(epoch string, seq int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(epoch), uint64(seq))
}

// newestReceipt is nil where there is none.
func (s *store) newestReceipt(ctx context.Context) (*Receipt, error) {
	rs, err := s.receipts(ctx, `SELECT size, root, checkpoint, time, policy_version, jws FROM receipt ORDER BY size DESC LIMIT 1`)
	if err != nil || len(rs) == 0 {
		return nil, err
	}
	return &rs[0], nil
}

func (s *store) receipts(ctx context.Context, query string) ([]Receipt, error) {
	rows, err := s.read.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Receipt
	for rows.Next() {
		r := Receipt{Epoch: s.meta.Epoch}
		var size, policy int64
		var root []byte
		var when string
		if err := rows.Scan(&size, &root, &r.Checkpoint, &when, &policy, &r.JWS); err != nil {
			return nil, err
		}
		r.Size, r.PolicyVersion = uint64(size), uint64(policy)
		if r.Time, err = time.Parse(time.RFC3339Nano, when); err != nil || len(root) != tlog.HashSize {
			return nil, &Fault{First: 0, Last: size - 1, What: fmt.Sprintf("the receipt for the first %d records is damaged", size)}
		}
		r.Root = tlog.Hash(root)
		out = append(out, r)
	}
	return out, rows.Err()
}

// Conditions of the disk, told apart because each has another cure.

// outOfSpace says that room would cure err.
func outOfSpace(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrFull ||
		e.ExtendedCode == sqlite3.ErrIoErrSHMSize || e.ExtendedCode == sqlite3.ErrIoErrWrite ||
		e.ExtendedCode == sqlite3.ErrIoErrSHMMap || e.ExtendedCode == sqlite3.ErrIoErrFsync) ||
		isNoSpace(err)
}

// damaged says that the file's content is to blame: trying again is no use.
func damaged(err error) bool {
	var f *Fault
	if errors.As(err, &f) {
		return true
	}
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB ||
		e.ExtendedCode == sqlite3.ErrIoErrRead || e.ExtendedCode == sqlite3.ErrIoErrShortRead)
}
