package allowlist

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A file from a CRM is in WAL mode, and that is why lookups go on while a delta is
// written. With a rollback journal SQLite locks readers out from the journal's
// first sync to its last, which on a card is tens to hundreds of milliseconds, and
// for the whole of a delta that is larger than its cache; and it syncs three times
// where the WAL syncs once. A list that is served is a read transaction that stays
// open, so a lookup sees the rows, the policy and the version of one moment, and
// takes no lock: it costs what it costs in a file that never changes. After each
// commit the WAL is written back and the list pinned anew, to the same rows, so
// that the WAL does not grow.

const (
	// syncEvery is how many rows of a snapshot are written before they are synced.
	// All at once would be tens of megabytes, for which the commits of records
	// would have to wait.
	syncEvery = 1 << 13
	// keepWAL is the largest size, in bytes, to which the WAL is kept once it is
	// written back.
	keepWAL = 1 << 20
)

// ErrUnfit marks an update that is not what a controller can apply: it will not be
// so later either.
var ErrUnfit = errors.New("update does not fit")

// Changes is a stream of rows.
type Changes interface {
	// Policy is the policy's document; nil: it stays as it is.
	Policy() []byte
	// Next returns the next row, whose entry is good until the next call; io.EOF
	// after the last. Any other error ends the update without effect.
	Next() (Row, error)
}

// Update brings an allowlist of the CRM to a version.
type Update struct {
	Version    uint64
	Created    time.Time // of the version
	Generation string    // of the pepper by which the rows are found
	Count      int64     // rows when all is applied; below 0: that is not told
	// From is the least version that Changes can be applied to; 0: the first of
	// them is a whole list, and what was there does not count.
	From uint64
	// Changes are opened one after the other.
	Changes []func() (Changes, error)
}

// Apply makes an update durable and serves the list from then on: either all of it
// is in force, also after a power cut, or nothing of it. Lookups go on. The error is
// an ErrUnfit where the update itself is at fault, or that of Changes.
//
// Where only the caller's Applying fails, Run tries that again.
func (s *Source) Apply(ctx context.Context, u Update) error {
	if s.o.Keys.Verifier != nil {
		return errors.New("the site governs who may enter here, and not the CRM")
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	if floor := s.floorNow(); u.Version < floor {
		return fmt.Errorf("%w: version %d is older than version %d, which was used here already", ErrUnfit, u.Version, floor)
	}
	lock, err := lockDir(filepath.Dir(s.o.Path))
	if err != nil {
		return err
	}
	defer lock.Close()
	if u.From == 0 {
		return s.replaceBy(ctx, &u)
	}
	return s.change(ctx, &u)
}

func (s *Source) floorNow() uint64 {
	s.looking.Lock()
	defer s.looking.Unlock()
	return s.floor
}

// replaceBy builds a file of its own and has the allowlist's name lead to it.
func (s *Source) replaceBy(ctx context.Context, u *Update) (err error) {
	dir := filepath.Dir(s.o.Path)
	if err := sweep(s.o.Path); err != nil { // left by what was killed
		return err
	}
	var snapshot [16]byte
	rand.Read(snapshot[:]) // never fails
	h := sealedHead{Manifest: Manifest{Snapshot: hex.EncodeToString(snapshot[:])}, SumKey: make([]byte, sha256.Size)}
	rand.Read(h.SumKey)
	file := filepath.Join(dir, liveName(h.Snapshot))
	defer func() {
		if err != nil {
			err = errors.Join(err, sweep(s.o.Path))
		}
	}()
	if err := s.build(ctx, file, h, u); err != nil {
		return err
	}
	if err := s.checkBuilt(ctx, file); err != nil {
		return fmt.Errorf("read the new allowlist back: %w", err)
	}
	if err := syncFile(file); err != nil {
		return err
	}
	s.looking.Lock() // so that Run does not find it first
	defer s.looking.Unlock()
	if err := lead(s.o.Path, file); err != nil {
		return err
	}
	if err := s.serveApplied(ctx, nil); err != nil {
		return err
	}
	return sweep(s.o.Path) // the file before
}

// lead has the allowlist's name lead to a file, durably.
func lead(path, file string) error {
	aside := path + ".new"
	if err := removeIfThere(aside); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Base(file), aside); err != nil {
		return err
	}
	if err := os.Rename(aside, path); err != nil {
		return err
	}
	return syncFile(filepath.Dir(path))
}

// sweep removes the files of lists from a CRM to which the allowlist's name does
// not lead.
func sweep(path string) error {
	dir := filepath.Dir(path)
	inUse, err := os.Readlink(path) // an error: not a link, so there is none
	if err != nil {
		inUse = ""
	}
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range all {
		name := e.Name()
		base := name
		for _, suffix := range []string{"-wal", "-shm", "-journal"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if liveFile.MatchString(base) && base != inUse {
			errs = append(errs, removeIfThere(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// build writes a file that nothing reads before it is finished, and that is thrown
// away where it is not: a journal would be work for nothing.
func (s *Source) build(ctx context.Context, file string, h sealedHead, u *Update) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	db, err := openSQLite(file, fmt.Sprintf("mode=rw&_journal_mode=OFF&_synchronous=OFF&_locking_mode=EXCLUSIVE&_cache_size=-%d", buildCacheKiB))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion)+schemaSQL); err != nil {
		return err
	}
	w := &writer{sealer: s.o.Keys.Sealer, head: h, sum: newRowSum(h.SumKey), fresh: true, begin: db.BeginTx, synced: f.Sync}
	if err := w.write(ctx, u); err != nil {
		return err
	}
	// From now on it is read while it is written.
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil || mode != "wal" {
		return errors.Join(fmt.Errorf("journal mode %q, want wal", mode), err)
	}
	return nil
}

// checkBuilt reads a file back as it will be read.
func (s *Source) checkBuilt(ctx context.Context, file string) (err error) {
	l, err := openList(file, true, s.o.Keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return l.checkAll(ctx, nil)
}

// change applies deltas to the file in use, as one transaction.
func (s *Source) change(ctx context.Context, u *Update) (err error) {
	file, live, err := locate(s.o.Path)
	switch {
	case err != nil:
		return err
	case !live:
		return fmt.Errorf("%w: it changes an allowlist of the CRM, and there is none", ErrUnfit)
	}
	db, err := openWriter(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	w := &writer{sealer: s.o.Keys.Sealer, begin: db.BeginTx}
	if err := w.write(ctx, u); err != nil {
		return err
	}
	s.looking.Lock()
	defer s.looking.Unlock()
	return s.serveApplied(ctx, db)
}

// openWriter opens the file of a list that is in use, to change it.
func openWriter(file string) (*sql.DB, error) {
	db, err := openSQLite(file, fmt.Sprintf("mode=rw&_txlock=immediate&_busy_timeout=5000&_synchronous=FULL&_secure_delete=FAST&_cache_size=-%d", buildCacheKiB))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// serveApplied serves the file as it is now, and writes its WAL back, with s.looking
// held.
func (s *Source) serveApplied(ctx context.Context, db *sql.DB) error {
	id, err := identify(s.o.Path)
	if err != nil {
		return err
	}
	next, err := s.accept(ctx, false)
	if err != nil {
		s.serving = fileID{} // Run tries again
		s.setFault(err)
		return err
	}
	s.mu.RLock()
	checked := db == nil || s.checked // a delta's sum goes on from the one that is there
	s.mu.RUnlock()
	s.take(id, next, checked)
	if db == nil {
		return nil
	}
	// What is applied is in force: a WAL that is not written back only grows.
	if err := writeBack(context.WithoutCancel(ctx), db, next); err != nil {
		s.o.Logger.Warn("allowlist: write-ahead log not written back", "error", err)
	}
	return nil
}

// writeBack copies the WAL to the database and has the list read from there, so
// that the WAL begins anew.
func writeBack(ctx context.Context, db *sql.DB, l *List) error {
	if _, err := db.ExecContext(ctx, fmt.Sprintf(`PRAGMA journal_size_limit = %d`, keepWAL)); err != nil {
		return err
	}
	var busy, pages, copied int
	if err := db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &pages, &copied); err != nil {
		return err
	}
	return l.pin(ctx)
}

// writer writes rows, policy and head.
type writer struct {
	sealer Sealer
	begin  func(context.Context, *sql.TxOptions) (*sql.Tx, error)
	// fresh says that the file has nothing yet. It is then written in several
	// transactions, with synced after each.
	fresh  bool
	synced func() error

	head     sealedHead
	snapshot []byte
	sum      *rowSum
	policy   []byte
	profiles uint64 // that rows may name
	stmts    statements
}

type statements struct {
	tx            *sql.Tx
	get, put, del *sql.Stmt
}

func (w *writer) open(ctx context.Context) (err error) {
	st := statements{}
	if st.tx, err = w.begin(ctx, nil); err != nil {
		return err
	}
	w.stmts = st
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&w.stmts.get, lookupSQL},
		{&w.stmts.put, `INSERT OR REPLACE INTO credential (key, entry) VALUES (?, ?)`},
		{&w.stmts.del, `DELETE FROM credential WHERE key = ?`},
	} {
		if *p.to, err = st.tx.PrepareContext(ctx, p.sql); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) write(ctx context.Context, u *Update) (err error) {
	if err := w.open(ctx); err != nil {
		return errors.Join(err, w.rollback())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.rollback())
		}
	}()
	if !w.fresh {
		if err := w.load(ctx, u); err != nil {
			return err
		}
	}
	if w.snapshot, err = hex.DecodeString(w.head.Snapshot); err != nil {
		return err
	}
	for i, open := range u.Changes {
		changes, err := open()
		if err != nil {
			return err
		}
		if err := w.setPolicy(changes.Policy()); err != nil {
			return err
		}
		if err := w.rows(ctx, changes, w.fresh && i == 0); err != nil {
			return err
		}
	}
	return w.finish(ctx, u)
}

func (w *writer) rollback() error {
	if w.stmts.tx == nil {
		return nil
	}
	if err := w.stmts.tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// load reads what the file has before.
func (w *writer) load(ctx context.Context, u *Update) error {
	if err := w.stmts.tx.QueryRowContext(ctx, readMetaSQL, "policy").Scan(&w.policy); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	var sealed []byte
	if err := w.stmts.tx.QueryRowContext(ctx, readMetaSQL, "head").Scan(&sealed); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	var err error
	if w.head, err = openHead(w.sealer, sealed); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	switch h := &w.head; {
	case h.Version < u.From || h.Version > u.Version:
		return fmt.Errorf("%w: it goes from version %d to %d, and version %d is there", ErrUnfit, u.From, u.Version, h.Version)
	case h.Generation != u.Generation:
		return fmt.Errorf("%w: it is for another pepper than what is there", ErrUnfit)
	}
	w.sum = newRowSum(w.head.SumKey)
	if err := w.sum.resume(w.head.Digest); err != nil {
		return err
	}
	p, err := parsePolicy(w.policy)
	w.profiles = uint64(len(p.profiles))
	return err
}

// setPolicy takes a new document; nil: it stays. The rows that are there name
// profiles by their numbers, so that none may go.
func (w *writer) setPolicy(document []byte) error {
	switch {
	case document == nil && w.policy == nil:
		return fmt.Errorf("%w: there is no policy", ErrUnfit)
	case document == nil:
		return nil
	}
	p, err := parsePolicy(document)
	if err != nil {
		return fmt.Errorf("%w: policy: %w", ErrUnfit, err)
	}
	if n := uint64(len(p.profiles)); n < w.profiles {
		return fmt.Errorf("%w: the policy has %d profiles, and rows may name %d", ErrUnfit, n, w.profiles)
	}
	w.policy, w.profiles = document, uint64(len(p.profiles))
	return nil
}

// rows writes the rows of one stream. First says that no key can be there before.
func (w *writer) rows(ctx context.Context, changes Changes, first bool) error {
	var aad []byte
	for n := 1; ; n++ {
		r, err := changes.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !first {
			if err := w.forget(&r); err != nil {
				return err
			}
		} else if r.Entry == nil {
			return fmt.Errorf("%w: a whole list removes a row", ErrUnfit)
		}
		if r.Entry != nil {
			aad = rowAAD(aad[:0], w.snapshot, r.Key[:])
			if err := w.add(&r, aad); err != nil {
				return err
			}
		}
		if n%progressEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if w.fresh && n%syncEvery == 0 {
			if err := w.pause(ctx); err != nil {
				return err
			}
		}
	}
}

// forget takes the row with a key out of the sum, and out of the file where
// nothing takes its place.
func (w *writer) forget(r *Row) error {
	var old []byte
	switch err := w.stmts.get.QueryRow(r.Key[:]).Scan(&old); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	w.sum.forget(r.Key[:], old)
	w.head.Count--
	if r.Entry != nil {
		return nil
	}
	_, err := w.stmts.del.Exec(r.Key[:])
	return err
}

func (w *writer) add(r *Row, aad []byte) error {
	s, err := decodeEntry(r.Entry)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	if s.profile >= w.profiles {
		return fmt.Errorf("%w: a row names rights that the policy does not have", ErrUnfit)
	}
	sealed := w.sealer.Seal(r.Entry, aad)
	if _, err := w.stmts.put.Exec(r.Key[:], sealed); err != nil {
		return err
	}
	w.sum.row(r.Key[:], sealed)
	w.head.Count++
	return nil
}

// pause makes durable what there is so far.
func (w *writer) pause(ctx context.Context) error {
	if err := w.stmts.tx.Commit(); err != nil {
		return err
	}
	if err := w.synced(); err != nil {
		return err
	}
	return w.open(ctx)
}

// finish writes policy and head, and commits.
func (w *writer) finish(ctx context.Context, u *Update) error {
	h := &w.head
	if u.Count >= 0 && h.Count != uint64(u.Count) {
		return fmt.Errorf("%w: %d credentials come of it, and the CRM says %d", ErrUnfit, h.Count, u.Count)
	}
	if u.Version > maxVersion {
		return fmt.Errorf("%w: version %d is too high: a record can name one up to %d", ErrUnfit, u.Version, uint64(maxVersion))
	}
	sum := sha256.Sum256(w.policy)
	h.V, h.Type, h.Version, h.Created, h.Generation = 1, headType, u.Version, u.Created.UTC(), u.Generation
	h.Policy, h.Digest = hex.EncodeToString(sum[:]), w.sum.sum()
	sealed, err := h.seal(w.sealer)
	if err != nil {
		return err
	}
	if _, err := w.stmts.tx.ExecContext(ctx, `INSERT OR REPLACE INTO meta (name, value) VALUES ('head', ?), ('policy', ?)`, sealed, w.policy); err != nil {
		return err
	}
	return w.stmts.tx.Commit()
}
