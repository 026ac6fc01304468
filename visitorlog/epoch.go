package visitorlog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// establish gets the log a database to write to: the one in its folder if it
// is whole and agrees with the last receipt, else a new one, in a new epoch.
// former is the head that was known of in this process, if any. It runs within
// exchange, and there is no store and no writer.
func (l *Log) establish(former *Head) error {
	ctx := context.Background()
	last, err := readReceipt(l.dir)
	if err != nil {
		aside, aerr := setAside(filepath.Join(l.dir, receiptFile), time.Now().UTC().Format(asideTime))
		if aerr != nil {
			return errors.Join(err, aerr)
		}
		l.log.Error("the last receipt cannot be read", "error", err, "set_aside", aside)
	}
	s, why, head, err := l.examine(ctx, last)
	if outOfSpace(err) {
		// Without a database there is nothing left to keep the space for.
		if rerr := l.reserve.release(); rerr != nil {
			return errors.Join(err, rerr)
		}
		s, why, head, err = l.examine(ctx, last)
	}
	if err != nil {
		return err
	}
	if why == "" && former != nil && former.Epoch == s.meta.Epoch {
		if why, err = fallsShort(ctx, s, former); err != nil && !damaged(err) {
			s.close()
			return err
		} else if err != nil {
			why = "the database was damaged: " + err.Error()
		}
	}
	if why == "" {
		return l.resume(ctx, s, last)
	}
	if s != nil {
		s.close()
	}
	err = l.begin(why, oldHead(former, head, last))
	if outOfSpace(err) && l.reserve.release() == nil {
		err = l.begin(why, oldHead(former, head, last))
	}
	return err
}

// oldHead chooses what the first record of an epoch names as the head before
// it: what the CRM has countersigned, unless more is known.
func oldHead(former, head *Head, last *Receipt) *Head {
	var best *Head
	if last != nil {
		best = receiptHead(last)
	}
	for _, h := range []*Head{head, former} {
		if h != nil && (best == nil || h.Epoch != best.Epoch && last == nil || h.Epoch == best.Epoch && h.Size > best.Size) {
			best = h
		}
	}
	return best
}

func receiptHead(r *Receipt) *Head {
	return &Head{Epoch: r.Epoch, Size: r.Size, Root: r.Root.String()}
}

// former is the head known in this process; see exchange.
func (l *Log) former() *Head {
	if l.opening.Epoch == "" || l.head.size == 0 {
		return nil
	}
	root, err := l.head.root()
	if err != nil {
		return nil
	}
	return &Head{Epoch: l.opening.Epoch, Size: uint64(l.head.size), Root: root.String()}
}

// examine opens the database and says why it cannot go on being used; "" if
// it can. With a why, the store may be nil, and head is what it says of
// itself if that can be had.
func (l *Log) examine(ctx context.Context, last *Receipt) (s *store, why string, head *Head, err error) {
	path := filepath.Join(l.dir, databaseFile)
	there, err := exists(path)
	if err != nil {
		return nil, "", nil, err
	}
	if !there {
		if last != nil {
			return nil, "the database was missing, though the CRM has receipted records", nil, nil
		}
		return nil, "first start", nil, nil
	}
	s, err = openStore(ctx, path, l.o.Sealer)
	if err != nil {
		if damaged(err) {
			return nil, "the database was damaged: " + err.Error(), nil, nil
		}
		return nil, "", nil, err
	}
	why, head, err = l.judge(ctx, s, last)
	if damaged(err) {
		why, err = "the database was damaged: "+err.Error(), nil
	}
	if err != nil {
		s.close()
		return nil, "", nil, err
	}
	return s, why, head, nil
}

// judge holds an open database to itself and to the last receipt.
func (l *Log) judge(ctx context.Context, s *store, last *Receipt) (why string, head *Head, err error) {
	if s.meta.Epoch == "" {
		if last != nil {
			return "the database was empty, though the CRM has receipted records", nil, nil
		}
		return "first start", nil, nil // it was created, but its life never began
	}
	if s.meta.Controller != l.o.Controller {
		return fmt.Sprintf("the database was that of controller %q", s.meta.Controller), nil, nil
	}
	size, err := s.size(ctx)
	if err != nil {
		return "", nil, err
	}
	root, err := tlog.TreeHash(size, s.hashes(ctx))
	if err != nil {
		return "", nil, err
	}
	head = &Head{Epoch: s.meta.Epoch, Size: uint64(size), Root: root.String()}
	known, err := s.newestReceipt(ctx)
	if err != nil {
		return "", head, err
	}
	if why, err := contradicts(ctx, s, last, size); why != "" || err != nil {
		return why, head, err
	}
	from := int64(0)
	for _, r := range []*Receipt{known, last} {
		if r == nil || r.Epoch != s.meta.Epoch {
			continue
		}
		if why, err := contradicts(ctx, s, r, size); why != "" || err != nil {
			return why, head, err
		}
		from = max(from, int64(r.Size))
	}
	return "", head, l.checkTail(ctx, s, from, size)
}

// contradicts says in what a receipt contradicts a database of that size.
func contradicts(ctx context.Context, s *store, r *Receipt, size int64) (why string, err error) {
	switch {
	case r == nil:
		return "", nil
	case r.Epoch != s.meta.Epoch:
		if k := s.meta.Receipt; k != nil && *k == *receiptHead(r) {
			return "", nil // it was there when this epoch began
		}
		return fmt.Sprintf("the database was of epoch %s, the last receipt of epoch %s", s.meta.Epoch, r.Epoch), nil
	case r.Size > uint64(size):
		return fmt.Sprintf("the database held %d records, the last receipt covers %d", size, r.Size), nil
	}
	root, err := tlog.TreeHash(int64(r.Size), s.hashes(ctx))
	if err != nil {
		return "", err
	}
	if root != r.Root {
		return fmt.Sprintf("the database had another root at size %d than the last receipt", r.Size), nil
	}
	return "", nil
}

// fallsShort says in what a database lacks what this process has promised.
func fallsShort(ctx context.Context, s *store, former *Head) (why string, err error) {
	size, err := s.size(ctx)
	if err != nil {
		return "", err
	}
	if former.Size > uint64(size) {
		return fmt.Sprintf("the database held %d records, though %d had been written to it", size, former.Size), nil
	}
	root, err := tlog.TreeHash(int64(former.Size), s.hashes(ctx))
	if err != nil {
		return "", err
	}
	if root.String() != former.Root {
		return fmt.Sprintf("the database had another root at size %d than what had been written to it", former.Size), nil
	}
	return "", nil
}

// resume goes on with the epoch of a database that was found good.
func (l *Log) resume(ctx context.Context, s *store, last *Receipt) error {
	w, err := newWriter(s)
	if err != nil {
		s.close()
		return err
	}
	newest, err := s.newestReceipt(ctx)
	if err != nil {
		w.close()
		s.close()
		return err
	}
	switch ours := last != nil && last.Epoch == s.meta.Epoch; {
	case newest != nil && (!ours || last.Size < newest.Size):
		// The process ended between the database and the file.
		if err := writeReceipt(l.dir, *newest); err != nil {
			l.log.Error("receipt not kept beside the database", "error", err)
		}
	case ours && (newest == nil || last.Size > newest.Size):
		newest = last // an older database that agrees with it all the same
	}
	l.store, l.writer, l.head, l.receipt = s, w, w.tree, newest
	l.opening = Opening{Epoch: s.meta.Epoch}
	l.wake()
	return nil
}

// replace sets the present database aside and begins a new epoch. It runs
// within exchange, and there is no writer.
func (l *Log) replace(why string, former *Head) error {
	if err := l.forget(); err != nil {
		l.log.Error("database not closed", "error", err)
	}
	err := l.begin(why, former)
	if err == nil {
		l.announce()
	}
	return err
}

// announce tells of an epoch that began while the log was in use.
func (l *Log) announce() {
	if l.o.OnEpoch != nil {
		l.o.OnEpoch(l.opening)
	}
}

// begin sets aside what lies in the database's place and begins a new life:
// epoch and first record stand in one transaction, or there is none.
func (l *Log) begin(why string, former *Head) error {
	ctx := context.Background()
	path := filepath.Join(l.dir, databaseFile)
	aside, err := l.clear(ctx, path)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, path, l.o.Sealer)
	if err != nil {
		return err
	}
	state := l.formerState(ctx, aside)
	s.meta = meta{Epoch: newEpoch(), Controller: l.o.Controller}
	if last, err := readReceipt(l.dir); err == nil && last != nil {
		s.meta.Receipt = receiptHead(last)
	}
	text, err := json.Marshal(s.meta)
	if err != nil {
		s.close()
		return err
	}
	w, err := newWriter(s)
	if err != nil {
		s.close()
		return err
	}
	first := &request{write: func(*Tx) (Draft, error) {
		return Draft{Type: EpochStarted, Data: Data{Former: former, Detail: clip(why, maxDetail)}}, nil
	}}
	err = w.transact(l.o, []*request{{rows: func(w *writer) error {
		maps.Copy(w.pending, state)
		return w.exec(`INSERT INTO meta (key, value) VALUES (?, ?)`, metaKey, string(text))
	}}, first})
	if err == nil {
		err = first.err
	}
	if err == nil {
		err = syncDir(l.dir)
	}
	if err != nil {
		w.close()
		s.close()
		return fmt.Errorf("begin an epoch: %w", err)
	}
	l.store, l.writer, l.head, l.receipt = s, w, w.tree, nil
	l.opening = Opening{Epoch: s.meta.Epoch, New: true, Why: why, SetAside: aside, Former: former}
	l.wake()
	if former != nil || aside != "" {
		l.log.Warn("new epoch", "epoch", s.meta.Epoch, "why", why, "set_aside", aside)
	} else {
		l.log.Info("first epoch", "epoch", s.meta.Epoch)
	}
	return nil
}

// formerState reads the state of the database that was set aside: what was
// used up stays so, and what may not go backwards does not. A damaged database
// gives what can still be read of it, one that is not this controller's nothing.
func (l *Log) formerState(ctx context.Context, aside string) map[string][]byte {
	if aside == "" {
		return nil
	}
	s, err := openStoreReadOnly(ctx, aside, l.o.Sealer)
	if err != nil {
		l.log.Error("state not carried over into the new epoch", "error", err)
		return nil
	}
	defer s.close()
	if s.meta.Controller != l.o.Controller {
		return nil
	}
	state, err := s.state(ctx)
	if err != nil {
		l.log.Error("state not all carried over into the new epoch", "kept", len(state), "error", err)
	}
	forgetCarried(state)
	return state
}

// clear makes room for a new database. One whose life never began is used as
// it is.
func (l *Log) clear(ctx context.Context, path string) (aside string, err error) {
	there, err := exists(path)
	if err != nil {
		return "", err
	}
	name := time.Now().UTC().Format(asideTime)
	if there {
		s, err := openStoreReadOnly(ctx, path, l.o.Sealer)
		if err == nil {
			name = s.meta.Epoch
			s.close()
		} else if empty, eerr := unbegun(ctx, path); eerr == nil && empty {
			return "", nil
		}
	}
	return setAside(path, name)
}

// unbegun says that the database at path is whole and holds no life.
func unbegun(ctx context.Context, path string) (bool, error) {
	s, err := openStore(ctx, path, nil)
	if err != nil {
		return false, err
	}
	defer s.close()
	size, err := s.size(ctx)
	return s.meta.Epoch == "" && size == 0, err
}

// asideTime names a file whose epoch cannot be read.
const asideTime = "20060102T150405Z"

// setAside renames a file, and SQLite's files beside it, so that nothing is
// lost: records.db becomes records-<name>.db. It returns the new path, "" if
// there was nothing.
func setAside(path, name string) (string, error) {
	ext := filepath.Ext(path)
	base := path[:len(path)-len(ext)] + "-" + name
	to := base + ext
	for i := 2; ; i++ {
		taken, err := exists(to)
		if err != nil {
			return "", err
		}
		if !taken {
			break
		}
		to = fmt.Sprintf("%s-%d%s", base, i, ext)
	}
	moved := false
	// The database first: should the process end in between, it is missing,
	// which is noticed, and not behind, which might not be.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Rename(path+suffix, to+suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("set aside: %w", err)
		}
		moved = moved || err == nil
	}
	if !moved {
		return "", nil
	}
	return to, syncDir(filepath.Dir(path))
}

func newEpoch() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}
