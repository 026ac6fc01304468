package visitorlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// Signer signs a record's payload and returns the compact JWS. It is called
// by the log's one writer only.
type Signer interface {
	Sign(payload []byte) (jws string, err error)
}

// Verifier verifies a compact JWS with one known key and returns its payload.
// It takes the algorithm from the key, never from the header.
type Verifier interface {
	Verify(jws string) (payload []byte, err error)
}

// Sealer encrypts what lies at rest. Open fails unless sealed and aad are
// those of one call of Seal.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Options are what a log needs of its controller. All but Logger and OnEpoch
// must be given.
type Options struct {
	Controller   string // ^[a-z0-9][a-z0-9-]{0,62}$
	Signer       Signer
	Verifier     Verifier                                   // of the Signer's key
	Note         func(origin string) (note.Signer, error)   // signs checkpoints
	NoteVerifier func(origin string) (note.Verifier, error) // of Note's key
	Sealer       Sealer                                     // of bodies at rest
	Clock        func() (now time.Time, state Clock)        // the controller's
	Logger       *slog.Logger                               // nil: silent
	OnEpoch      func(Opening)                              // told of an epoch begun after Open; must not call the log
}

func (o Options) check() error {
	var errs []error
	if !controllerForm.MatchString(o.Controller) {
		errs = append(errs, fmt.Errorf("controller name %q", o.Controller))
	}
	for _, f := range []struct {
		missing bool
		what    string
	}{
		{o.Signer == nil, "signer"}, {o.Verifier == nil, "verifier"}, {o.Note == nil, "checkpoint signer"},
		{o.NoteVerifier == nil, "checkpoint verifier"}, {o.Sealer == nil, "sealer"}, {o.Clock == nil, "clock"},
	} {
		if f.missing {
			errs = append(errs, errors.New("no "+f.what))
		}
	}
	return errors.Join(errs...)
}

// Opening tells how the present epoch came to be.
type Opening struct {
	Epoch    string
	New      bool   // begun now, not continued
	Why      string // in words, when New
	SetAside string // the file that the former database is in now, if there was one
	Former   *Head  // the head of the epoch before this one, as far as it is known
}

// The log's refusals.
var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log closed")
	// ErrEpoch: a receipt speaks of another epoch than the present one.
	ErrEpoch = errors.New("receipt for another epoch")
	// ErrDiverged: a receipt contradicts the log; see Reconcile.
	ErrDiverged = errors.New("receipt contradicts the log")
	// ErrDraft: a draft would not make a valid record.
	ErrDraft = errors.New("invalid draft")
)

// Log is the signed log of one controller. Its methods may be called from
// several goroutines.
type Log struct {
	dir  string
	o    Options
	log  *slog.Logger
	lock io.Closer

	turn     chan struct{} // full while somebody writes: see do
	requests chan *request // to whoever writes next
	quit     chan struct{}
	closing  sync.Once

	writer  *writer // of whose turn it is
	reserve reserve // likewise

	ackMu sync.Mutex // one Acknowledge at a time

	asideMu sync.Mutex
	settled map[string]bool   // databases set aside of which nothing more can be sent
	carried map[string]string // the epoch in which nothing of one was left to carry

	backlog atomic.Int64 // when a piece of a backlog was last read, in Unix nanoseconds

	// use is held for reading while somebody reads the database, and for
	// writing while it is exchanged: a record never waits for a reader. It is
	// taken before mu.
	use   sync.RWMutex
	store *store // nil while there is no database to be had; set by the writer

	// mu guards what is published of the database, and is held for moments.
	mu       sync.RWMutex
	opening  Opening
	head     tree
	receipt  *Receipt // the newest of this epoch
	appended chan struct{}
	whole    Verification
}

// Open opens the log in dir, creating what is missing.
// A database that cannot be reconciled with the last receipt, or that is
// damaged, is set aside and a new epoch begins: see Opened. Open fails where
// going on would be wrong: another process has the log, others can read the
// database, it is of a newer program, or nothing can be written at all.
func Open(dir string, o Options) (*Log, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{
		dir: dir, o: o, log: o.Logger, lock: lock,
		turn:     make(chan struct{}, 1),
		requests: make(chan *request),
		quit:     make(chan struct{}),
		appended: make(chan struct{}),
		settled:  make(map[string]bool),
		carried:  make(map[string]string),
		reserve:  reserve{path: filepath.Join(dir, reserveFile)},
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if err := l.exchange(func() error { return l.establish(nil) }); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	l.reserve.restore(l.log)
	return l, nil
}

// dirLock is a locked file. Closing it unlocks it first: a child process that
// is being started at this moment has the file open too, and would hold the
// lock on until it has closed it.
type dirLock struct{ *os.File }

func (l dirLock) Close() error {
	return errors.Join(unix.Flock(int(l.Fd()), unix.LOCK_UN), l.File.Close())
}

// lockDir keeps a second process from writing to the same log. The lock ends
// with the process, however it ends.
func lockDir(dir string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, "records.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another process has the log in %s", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return dirLock{f}, nil
}

// Close waits for the commit in hand and closes the database.
func (l *Log) Close() error {
	var err error
	l.closing.Do(func() {
		close(l.quit)
		l.turn <- struct{}{} // the last one
		l.dropWriter()
		err = errors.Join(l.exchange(l.forget), l.lock.Close())
	})
	return err
}

// exchange runs a function that may put another database in the place of the
// present one, while nobody reads.
func (l *Log) exchange(f func() error) error {
	l.use.Lock()
	defer l.use.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return f()
}

// forget closes the database; see exchange.
func (l *Log) forget() error {
	if l.store == nil {
		return nil
	}
	err := l.store.close()
	l.store = nil
	return err
}

// Opened tells how the present epoch came to be.
func (l *Log) Opened() Opening {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.opening
}

// Epoch is the present epoch: 32 hex digits.
func (l *Log) Epoch() string { return l.Opened().Epoch }

// Head returns the epoch, size and root of what is committed.
func (l *Log) Head(context.Context) (Head, error) {
	epoch, head := l.published()
	root, err := head.root()
	if err != nil {
		return Head{}, err
	}
	return Head{Epoch: epoch, Size: uint64(head.size), Root: root.String()}, nil
}

// Appended returns a channel that is closed at the next commit of records, or
// change of epoch. Take it before looking at what there is.
func (l *Log) Appended() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.appended
}

// wake tells those who wait on Appended; the caller holds mu.
func (l *Log) wake() {
	close(l.appended)
	l.appended = make(chan struct{})
}

// published is the epoch and the tree of what is committed. Whoever holds use
// finds at least that in the database.
func (l *Log) published() (epoch string, head tree) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.opening.Epoch, l.head
}

// current is the database to read; the caller holds use.
func (l *Log) current() (*store, error) {
	if l.store == nil {
		return nil, errors.New("log: no database")
	}
	return l.store, nil
}

// Entries returns up to max records of the present epoch from a sequence on,
// each held to its leaf hash. One whose content this program does not accept
// has no Record: it was written all the same, by this program or another, and
// must not hold up those behind it. Where a record is damaged it returns those
// before it, or a *Fault if it is the first.
func (l *Log) Entries(ctx context.Context, from uint64, max int) ([]Entry, error) {
	_, out, err := l.read(ctx, from, max, math.MaxInt, (*store).signed)
	return out, err
}

// Signed is Entries without the Records, which cost more to parse than all the
// rest, and with the epoch that they are of. It reads no more than it takes to
// come to size bytes.
func (l *Log) Signed(ctx context.Context, from uint64, max, size int) (epoch string, _ []Entry, err error) {
	epoch, out, err := l.read(ctx, from, max, size, (*store).sealed)
	if len(out) >= ofBacklog {
		l.backlog.Store(time.Now().UnixNano())
	}
	return epoch, out, err
}

func (l *Log) read(ctx context.Context, from uint64, max, size int, entry func(*store, stored) (Entry, error)) (epoch string, out []Entry, err error) {
	l.use.RLock()
	defer l.use.RUnlock()
	s, err := l.current()
	if err != nil || from > maxSize {
		return "", nil, err
	}
	// A record that was committed this moment may not be in the head yet; there
	// is no checkpoint over it before it is.
	_, head := l.published()
	max = int(min(int64(max), head.size-int64(from)))
	if max <= 0 {
		return s.meta.Epoch, nil, nil
	}
	rows, err := s.rowsWithin(ctx, int64(from), max, size)
	if err != nil {
		return "", nil, fmt.Errorf("read records: %w", asFault(err))
	}
	out = make([]Entry, 0, len(rows))
	for i, row := range rows {
		var e Entry
		if want := int64(from) + int64(i); row.seq != want {
			err = recordFault(want, "it is missing")
		} else {
			e, err = entry(s, row)
		}
		if err != nil {
			if len(out) > 0 {
				break
			}
			return "", nil, err
		}
		out = append(out, e)
	}
	return s.meta.Epoch, out, nil
}

// Checkpoint signs a checkpoint of the first size records of the present
// epoch.
func (l *Log) Checkpoint(ctx context.Context, size uint64) (string, error) {
	epoch, root, err := l.rootAt(ctx, size)
	if err != nil {
		return "", err
	}
	return signCheckpoint(Checkpoint{Origin: Origin(l.o.Controller, epoch), Size: size, Root: root}, l.o.Note)
}

// Root returns the root that the tree had when it held size records.
func (l *Log) Root(ctx context.Context, size uint64) (tlog.Hash, error) {
	_, root, err := l.rootAt(ctx, size)
	return root, err
}

// rootAt is Root, with the epoch that the tree is of.
func (l *Log) rootAt(ctx context.Context, size uint64) (epoch string, root tlog.Hash, err error) {
	l.use.RLock()
	defer l.use.RUnlock()
	epoch, head := l.published()
	switch {
	case size > uint64(head.size):
		err = fmt.Errorf("no root at size %d: the log holds %d records", size, head.size)
	case size == uint64(head.size):
		root, err = head.root()
	default:
		var s *store
		if s, err = l.current(); err == nil {
			root, err = earlierRoot(int64(size), head, s.hashes(ctx))
		}
	}
	return epoch, root, asFault(err)
}

// earlierRoot computes an earlier root from stored nodes, and holds it to the
// present one: a damaged node must not become a signed checkpoint.
func earlierRoot(size int64, head tree, r tlog.HashReader) (tlog.Hash, error) {
	root, err := tlog.TreeHash(size, r)
	if err != nil || size == 0 {
		return root, err
	}
	present, err := head.root()
	if err != nil {
		return tlog.Hash{}, err
	}
	proof, err := tlog.ProveTree(head.size, size, r)
	if err != nil {
		return tlog.Hash{}, err
	}
	if tlog.CheckTree(proof, head.size, present, size, root) != nil {
		return tlog.Hash{}, &Fault{First: 0, Last: head.size - 1, What: "a tree node over them is not the hash of what is under it"}
	}
	return root, nil
}

// ProveRecord proves that the tree of the first size records holds the record
// with sequence seq.
func (l *Log) ProveRecord(ctx context.Context, size, seq uint64) (tlog.RecordProof, error) {
	return prove(ctx, l, size, func(r tlog.HashReader) (tlog.RecordProof, error) {
		return tlog.ProveRecord(int64(size), int64(seq), r)
	})
}

// ProveTree proves that the tree of size records extends the tree of the
// first old ones.
func (l *Log) ProveTree(ctx context.Context, size, old uint64) (tlog.TreeProof, error) {
	return prove(ctx, l, size, func(r tlog.HashReader) (tlog.TreeProof, error) {
		return tlog.ProveTree(int64(size), int64(old), r)
	})
}

func prove[P any](ctx context.Context, l *Log, size uint64, proof func(tlog.HashReader) (P, error)) (P, error) {
	l.use.RLock()
	defer l.use.RUnlock()
	var none P
	if _, head := l.published(); size > uint64(head.size) {
		return none, fmt.Errorf("no proof at size %d: the log holds %d records", size, head.size)
	}
	s, err := l.current()
	if err != nil {
		return none, err
	}
	return proof(s.hashes(ctx))
}

// Acknowledged is the number of records that the CRM has countersigned: the
// outbox begins at this sequence.
func (l *Log) Acknowledged() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.receipt == nil {
		return 0
	}
	return l.receipt.Size
}

// LastReceipt returns the newest receipt of the present epoch.
func (l *Log) LastReceipt() (r Receipt, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.receipt == nil {
		return Receipt{}, false
	}
	return *l.receipt, true
}

// KnownReceipt returns the newest receipt of whichever epoch: what it says of
// time and policy holds in a new epoch too.
func (l *Log) KnownReceipt() (r Receipt, ok bool) {
	l.ackMu.Lock()
	defer l.ackMu.Unlock()
	if r, ok := l.LastReceipt(); ok {
		return r, true
	}
	last, err := readReceipt(l.dir)
	if err != nil || last == nil {
		return Receipt{}, false
	}
	return *last, true
}

// Acknowledge keeps a receipt, in the database and in a file that survives
// it, and moves the outbox on. A receipt that says less than the newest one
// is ignored. One of another epoch is ErrEpoch, one that contradicts the log
// is ErrDiverged: Reconcile is for that.
func (l *Log) Acknowledge(ctx context.Context, r Receipt) error {
	if err := r.check(); err != nil {
		return err
	}
	l.ackMu.Lock()
	defer l.ackMu.Unlock()
	if stale, err := l.compare(ctx, r); err != nil || stale {
		return err
	}
	err := l.do(ctx, &request{rows: func(w *writer) error {
		if w.epoch != r.Epoch {
			return ErrEpoch // the database was exchanged meanwhile
		}
		return w.keepReceipt(r)
	}, then: func() { l.receipt = &r }})
	if err != nil {
		return err
	}
	return writeReceipt(l.dir, r)
}

// compare holds a receipt to the log. It is stale if the log has a newer one.
func (l *Log) compare(ctx context.Context, r Receipt) (stale bool, err error) {
	epoch, head := l.published()
	if r.Epoch != epoch {
		return false, fmt.Errorf("%w: %s, the log is in %s", ErrEpoch, r.Epoch, epoch)
	}
	if r.Size > uint64(head.size) {
		return false, fmt.Errorf("%w: it covers %d records, the log holds %d", ErrDiverged, r.Size, head.size)
	}
	epoch, root, err := l.rootAt(ctx, r.Size)
	if err != nil {
		return false, err
	}
	if r.Epoch != epoch {
		return false, fmt.Errorf("%w: %s, the log has just begun %s", ErrEpoch, r.Epoch, epoch)
	}
	if root != r.Root {
		return false, fmt.Errorf("%w: root at size %d is %s, the log's is %s", ErrDiverged, r.Size, r.Root, root)
	}
	last, ok := l.LastReceipt()
	return ok && (r.Size < last.Size || r.Size == last.Size && !r.Time.After(last.Time)), nil
}

// Reconcile compares the log with what the CRM says that it holds. If the log
// is behind that or different, its database is set aside and a new epoch
// begins, whose first record names the CRM's head; the log stays open for its
// users. A receipt of another epoch says nothing about this one.
func (l *Log) Reconcile(ctx context.Context, r Receipt) (newEpoch bool, err error) {
	if err := r.check(); err != nil {
		return false, err
	}
	l.ackMu.Lock()
	defer l.ackMu.Unlock()
	_, err = l.compare(ctx, r)
	if errors.Is(err, ErrEpoch) || err == nil {
		return false, nil
	}
	if !errors.Is(err, ErrDiverged) && !damaged(err) {
		return false, err
	}
	why := err.Error()
	// The receipt is what a restart must reconcile with, so it is kept first.
	if err := writeReceipt(l.dir, r); err != nil {
		return false, err
	}
	err = l.do(ctx, &request{alone: func() error {
		return l.exchange(func() error {
			if l.opening.Epoch != r.Epoch {
				return nil // the database was exchanged meanwhile
			}
			newEpoch = true
			return l.replace(why, receiptHead(&r))
		})
	}})
	return newEpoch && err == nil, err
}

// Damaged is for whoever could not read back what the log holds (a *Fault of
// Entries, Root or Checkpoint): the log looks for itself at all that the CRM
// has not countersigned. If it is damaged, the database is set aside and a new
// epoch begins, as at a start; what can still be read of it is Owing.
func (l *Log) Damaged(ctx context.Context) (newEpoch bool, err error) {
	l.ackMu.Lock()
	defer l.ackMu.Unlock()
	epoch, err := l.examineOutbox(ctx)
	if !damaged(err) {
		return false, err
	}
	why := "the database was damaged: " + err.Error()
	err = l.do(ctx, &request{alone: func() error {
		return l.exchange(func() error {
			if l.opening.Epoch != epoch {
				return nil // the database was exchanged meanwhile
			}
			newEpoch = true
			return l.replace(why, l.former())
		})
	}})
	return newEpoch && err == nil, err
}

// examineOutbox holds the records without a receipt to their leaves and nodes.
func (l *Log) examineOutbox(ctx context.Context) (epoch string, err error) {
	l.use.RLock()
	defer l.use.RUnlock()
	epoch, head := l.published()
	s, err := l.current()
	if err != nil {
		return epoch, err
	}
	last, ok := l.LastReceipt()
	t, err := loadTree(int64(last.Size), s.hashes(ctx))
	if err != nil {
		return epoch, err
	}
	if root, err := t.root(); ok && (err != nil || root != last.Root) {
		return epoch, &Fault{First: 0, Last: t.size - 1, What: "a tree node over them is not the hash of what is under it"}
	}
	if err := s.recompute(ctx, t, head.size, nil, nil); err != nil {
		return epoch, err
	}
	if *t != head {
		return epoch, &Fault{First: 0, Last: head.size - 1, What: "they are not what was promised"}
	}
	return epoch, nil
}

// Run does what a log needs beside appending, until ctx ends: it verifies the
// whole of it once, at leisure, and signs a checkpoint every few minutes while
// nobody countersigns.
func (l *Log) Run(ctx context.Context) error {
	verified := make(chan struct{})
	go func() {
		defer close(verified)
		l.verifyAtLeisure(ctx)
	}()
	defer func() { <-verified }()
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := l.keepCheckpoint(ctx); err != nil && ctx.Err() == nil {
			l.log.Error("checkpoint not kept", "error", err)
		}
	}
}

const (
	checkpointEvery = 5 * time.Minute
	keptCheckpoints = 1000
	keptReceipts    = 100
)

// keepCheckpoint signs and stores a checkpoint of the head unless a stored
// one or a receipt covers it already.
func (l *Log) keepCheckpoint(ctx context.Context) error {
	head, err := l.Head(ctx)
	if err != nil || head.Size == l.Acknowledged() {
		return err
	}
	signed, err := l.Checkpoint(ctx, head.Size)
	if err != nil {
		return err
	}
	return l.do(ctx, &request{rows: func(w *writer) error {
		if w.epoch != head.Epoch {
			return nil
		}
		return w.keepCheckpoint(head.Size, signed)
	}})
}

// clip keeps a text within a record's bounds.
func clip(s string, most int) string {
	for n := range s {
		if n > most-4 {
			return s[:n] + "…"
		}
	}
	return s
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// exists says whether something is at path.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
