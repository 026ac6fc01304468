package visitorlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Aside is a database that was set aside while it held records that the CRM
// had not countersigned. It is only read; the receipts that come for it are
// kept beside it, as records-<epoch>.receipt. It is for one goroutine.
type Aside struct {
	l    *Log
	s    *store
	size int64
	tree tree // of what the CRM holds; its root was held to a receipt
}

// Owing opens the oldest database set aside that still holds records for the
// CRM, as far as they verify; nil if there is none. What it finds to owe
// nothing, or to be past reading, it does not open again before the next
// start.
func (l *Log) Owing(ctx context.Context) (*Aside, error) {
	l.asideMu.Lock()
	defer l.asideMu.Unlock()
	files, err := asides(l.dir)
	if err != nil {
		return nil, fmt.Errorf("look for databases set aside: %w", err)
	}
	for _, path := range files {
		if l.settled[path] {
			continue
		}
		a, why, err := l.openAside(ctx, path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if a != nil {
			return a, nil
		}
		l.settled[path] = true
		if err != nil {
			l.log.Error("records that were set aside cannot be sent as their own log", "file", path, "error", err)
		} else {
			l.log.Debug("records that were set aside", "file", path, "state", why)
		}
	}
	return nil, nil
}

// asides lists the databases that were set aside, the oldest first.
func asides(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	type file struct {
		path string
		at   int64
	}
	var files []file
	ext := filepath.Ext(databaseFile)
	prefix := strings.TrimSuffix(databaseFile, ext) + "-"
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), prefix) || filepath.Ext(e.Name()) != ext {
			continue
		}
		if info, err := e.Info(); err == nil {
			files = append(files, file{filepath.Join(dir, e.Name()), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.path, b.path)) })
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.path
	}
	return paths, nil
}

// openAside returns nil and why, if nothing can be sent of it.
func (l *Log) openAside(ctx context.Context, path string) (a *Aside, why string, err error) {
	s, err := openStoreReadOnly(ctx, path, l.o.Sealer)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if a == nil {
			s.close()
		}
	}()
	switch {
	case s.meta.Controller != l.o.Controller:
		return nil, fmt.Sprintf("the database is that of controller %q", s.meta.Controller), nil
	case s.meta.Epoch == l.Epoch():
		return nil, "a copy of the present database", nil
	}
	it := &Aside{l: l, s: s}
	if it.size, err = s.size(ctx); err != nil {
		return nil, "", err
	}
	last, err := s.newestReceipt(ctx)
	if err != nil {
		return nil, "", err
	}
	beside, err := readReceiptAt(it.receiptPath())
	if err != nil {
		l.log.Warn("a receipt for records that were set aside cannot be read", "error", err)
	}
	if beside != nil && beside.Epoch == s.meta.Epoch {
		last = beside // later than all that the database got
	}
	if last != nil {
		if last.Size > uint64(it.size) {
			return nil, "the CRM holds more of the epoch than the database", nil
		}
		t, err := it.at(ctx, last.Size, last.Root)
		if err != nil {
			return nil, "", err
		}
		it.tree = *t
	}
	if it.Owed() == 0 {
		return nil, "the CRM has all of it", nil
	}
	if _, _, err := it.Next(ctx, 1, MaxPayload*2); err != nil {
		return nil, "", err
	}
	return it, "", nil
}

// Epoch is the epoch of the database.
func (a *Aside) Epoch() string { return a.s.meta.Epoch }

// Path is the database's file.
func (a *Aside) Path() string { return a.s.path }

// Acknowledged is the number of records that the CRM holds.
func (a *Aside) Acknowledged() uint64 { return uint64(a.tree.size) }

// Owed is the number of records that it does not hold, whether or not they
// can be read.
func (a *Aside) Owed() uint64 { return uint64(a.size - a.tree.size) }

// Close closes the database.
func (a *Aside) Close() error { return a.s.close() }

// Leave closes the database and leaves it alone until the next start.
func (a *Aside) Leave() error {
	a.l.asideMu.Lock()
	a.l.settled[a.s.path] = true
	a.l.asideMu.Unlock()
	return a.Close()
}

// Next returns the records after those that the CRM holds, and a signed
// checkpoint at their end: at most most of them, and as many as fit into room
// bytes. Each is held to its leaf and to the log's key, and nodes are not
// relied upon: the tree is made from the records again. Where a record is
// damaged Next returns those before it, or a *Fault if it is the first.
func (a *Aside) Next(ctx context.Context, most, room int) (entries []Entry, checkpoint string, err error) {
	rows, err := a.s.rows(ctx, a.tree.size, most)
	if err != nil {
		return nil, "", asFault(err)
	}
	t := a.tree
	for _, row := range rows {
		e, err := a.verified(row, t.size)
		if err != nil {
			if len(entries) > 0 {
				break
			}
			return nil, "", err
		}
		if room -= len(e.JWS) + len(`"",`); room < 0 {
			break
		}
		if _, err := t.add(e.Leaf); err != nil {
			return nil, "", err
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil, "", recordFault(a.tree.size, "it is missing")
	}
	root, err := t.root()
	if err != nil {
		return nil, "", err
	}
	checkpoint, err = signCheckpoint(Checkpoint{
		Origin: Origin(a.l.o.Controller, a.Epoch()), Size: uint64(t.size), Root: root}, a.l.o.Note)
	return entries, checkpoint, err
}

func (a *Aside) verified(row stored, seq int64) (Entry, error) {
	if row.seq != seq {
		return Entry{}, recordFault(seq, "it is missing")
	}
	e, err := a.s.sealed(row)
	if err != nil {
		return Entry{}, err
	}
	if _, err := a.l.o.Verifier.Verify(e.JWS); err != nil {
		return Entry{}, recordFault(row.seq, "its signature is wrong: "+err.Error())
	}
	return e, nil
}

// Acknowledge takes what the CRM says that it holds of this epoch, which may
// be less than before (it was restored from a backup), and keeps it.
// ErrDiverged means that the CRM holds another log of this epoch, or more of
// it than the database: there is nothing to send.
func (a *Aside) Acknowledge(ctx context.Context, r Receipt) error {
	if r.Epoch != a.Epoch() {
		return ErrEpoch
	}
	if r.Size == 0 {
		a.tree = tree{}
		return nil
	}
	if err := r.check(); err != nil {
		return err
	}
	if err := writeReceiptAt(a.receiptPath(), r); err != nil {
		return err
	}
	if r.Size > uint64(a.size) {
		return fmt.Errorf("%w: it covers %d records, the database holds %d", ErrDiverged, r.Size, a.size)
	}
	t, err := a.at(ctx, r.Size, r.Root)
	if err == nil {
		a.tree = *t
	}
	return err
}

func (a *Aside) receiptPath() string {
	return strings.TrimSuffix(a.s.path, filepath.Ext(a.s.path)) + ".receipt"
}

// at is the tree of the first size records, if it has that root. The nodes
// may be what is damaged; the leaves then say the same.
func (a *Aside) at(ctx context.Context, size uint64, root tlog.Hash) (*tree, error) {
	t, err := loadTree(int64(size), a.s.hashes(ctx))
	if err == nil {
		if got, err := t.root(); err == nil && got == root {
			return t, nil
		}
	}
	if t, err = a.grow(ctx, int64(size)); err != nil {
		return nil, asFault(err)
	}
	if got, err := t.root(); err != nil || got != root {
		return nil, errors.Join(err, fmt.Errorf("%w: root at size %d is %s, the database's is %s", ErrDiverged, size, root, got))
	}
	return t, nil
}

// grow makes the tree of the first size records from their leaves.
func (a *Aside) grow(ctx context.Context, size int64) (*tree, error) {
	rows, err := a.s.read.QueryContext(ctx, `SELECT seq, leaf FROM rec WHERE seq >= 0 AND seq < ? ORDER BY seq`, size)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := new(tree)
	for rows.Next() {
		var seq int64
		var leaf []byte
		if err := rows.Scan(&seq, &leaf); err != nil {
			return nil, err
		}
		if seq != t.size || len(leaf) != tlog.HashSize {
			return nil, recordFault(t.size, "it is missing")
		}
		if _, err := t.add(tlog.Hash(leaf)); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if t.size != size {
		return nil, recordFault(t.size, "it is missing")
	}
	return t, nil
}
