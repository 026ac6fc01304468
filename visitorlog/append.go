package visitorlog

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Entry is a record in its log.
type Entry struct {
	Seq    uint64
	Leaf   tlog.Hash
	JWS    string
	Record Record
}

// maxBatch bounds how many waiting writers share one commit.
const maxBatch = 64

// request is one thing to be written. Exactly one of write, rows and alone is
// set.
type request struct {
	write    func(*Tx) (Draft, error) // append a record
	reserved bool                     // with the space that is kept for it, if there is no other
	rows     func(*writer) error      // write rows of another kind in the transaction
	then     func()                   // what to publish after the commit, under mu
	alone    func() error             // outside any transaction

	entry   Entry
	refused error // of this one alone, if the batch stands
	err     error
	done    chan struct{}
}

// Append writes one record. The function write makes its draft inside the
// single writer's transaction: one at a time over the whole controller, so
// that what it reads by tx is true until its record stands. It must not block
// and must not call the log. Writers that wait at the same time share one
// commit; an error or a panic of write spoils only its own record, and
// nothing that it set is kept.
//
// If the database turns out to be damaged, write is called once more, for the
// one that takes its place.
//
// Append returns after the record is durable. An error means that nothing was
// promised. The end of ctx is heeded only until writing has begun.
func (l *Log) Append(ctx context.Context, write func(*Tx) (Draft, error)) (Entry, error) {
	r := &request{write: write}
	err := l.do(ctx, r)
	return r.entry, err
}

// AppendReserved is Append for a record that must not be lost for want of
// space (break-glass): on a full disk it uses the space that the log keeps in
// advance, and then calls write a second time.
func (l *Log) AppendReserved(ctx context.Context, write func(*Tx) (Draft, error)) (Entry, error) {
	r := &request{write: write, reserved: true}
	err := l.do(ctx, r)
	return r.entry, err
}

// do has a request written and waits for it. Whoever finds nobody writing is
// the writer for as long as one batch takes: a badge that comes alone waits
// for no other goroutine to wake.
func (l *Log) do(ctx context.Context, r *request) error {
	select {
	case <-l.quit: // first: a closed log takes nothing, whoever else is ready
		return ErrClosed
	default:
	}
	r.done = make(chan struct{})
	requests := l.requests
	if r.alone != nil {
		requests = nil // it shares no transaction
	}
	select {
	case l.turn <- struct{}{}:
		l.write(r)
	case requests <- r: // the one who writes takes it along
		<-r.done
	case <-ctx.Done():
		return ctx.Err()
	case <-l.quit:
		return ErrClosed
	}
	return r.err
}

// write writes a request, and those that came while the last commit ran, and
// gives the turn back.
func (l *Log) write(r *request) {
	defer func() { <-l.turn }()
	if r.alone != nil {
		l.dropWriter()
		r.err = r.alone()
		return
	}
	batch := []*request{r}
	for more := true; more && len(batch) < maxBatch; {
		select {
		case r := <-l.requests:
			batch = append(batch, r)
		default:
			more = false
		}
	}
	if l.commit(batch) {
		l.reserve.restoreSometimes(l.log)
	}
}

// commit writes a batch and answers every request of it. It says whether the
// disk took it all.
func (l *Log) commit(batch []*request) bool {
	defer func() {
		for _, r := range batch {
			close(r.done)
		}
	}()
	err := l.attempt(batch)
	if damaged(err) {
		// It has been let go of; the next attempt examines it, and begins a new
		// epoch if it must.
		l.log.Error("log not written", "error", err)
		err = l.attempt(batch)
	}
	if err != nil {
		l.log.Error("log not written", "error", err, "waiting", len(batch))
		if outOfSpace(err) {
			l.commitReserved(batch, err)
		} else {
			fail(batch, err)
		}
	}
	return err == nil
}

// commitReserved fails a batch for want of space, except for the records that
// space is kept for.
func (l *Log) commitReserved(batch []*request, err error) {
	var kept, others []*request
	for _, r := range batch {
		if r.reserved {
			kept = append(kept, r)
		} else {
			others = append(others, r)
		}
	}
	fail(others, err)
	if len(kept) == 0 {
		return
	}
	if rerr := l.reserve.release(); rerr != nil {
		l.log.Error("reserved space not released", "error", rerr)
	}
	err = l.attempt(kept)
	l.reserve.retake()
	if err != nil {
		fail(kept, err)
		return
	}
	l.log.Warn("record written with the space kept for it", "records", len(kept))
}

func fail(batch []*request, err error) {
	for _, r := range batch {
		r.entry, r.err = Entry{}, fmt.Errorf("record not written: %w", err)
	}
}

// attempt writes a batch in one transaction. After an error nothing of it
// stands, and the writer begins anew from what the database holds.
func (l *Log) attempt(batch []*request) error {
	fail(batch, errUnwritten) // whatever happens on the way
	err := l.ready()
	if err == nil {
		err = l.writer.transact(l.o, batch)
	}
	if err != nil {
		l.dropWriter()
		if damaged(err) {
			// The next attempt examines it, and sets it aside if it must.
			err = errors.Join(err, l.exchange(l.forget))
		}
		return err
	}
	for _, r := range batch {
		r.err = r.refused
	}
	l.publish(batch)
	return nil
}

var errUnwritten = errors.New("writing ended early")

// publish lets readers see what was committed.
func (l *Log) publish(batch []*request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range batch {
		if r.err == nil && r.then != nil {
			r.then()
		}
	}
	if l.head.size != l.writer.tree.size {
		l.head = l.writer.tree
		l.wake()
	}
}

// ready makes sure that there is a writer on the database that the path leads
// to.
func (l *Log) ready() error {
	if l.store != nil && l.store.moved() {
		l.dropWriter()
		if err := l.exchange(l.forget); err != nil {
			l.log.Error("database not closed", "error", err)
		}
	}
	if l.writer != nil {
		return nil
	}
	return l.exchange(func() error {
		if l.store == nil {
			was := l.opening.Epoch
			err := l.establish(l.former())
			if err == nil && l.opening.Epoch != was {
				l.announce()
			}
			return err
		}
		w, err := newWriter(l.store)
		if err != nil {
			return err
		}
		if w.tree.size < l.head.size || w.tree.size == l.head.size && w.tree != l.head {
			w.close()
			return &Fault{First: 0, Last: l.head.size - 1, What: "the database no longer holds what was promised"}
		}
		l.writer, l.head = w, w.tree
		return nil
	})
}

// dropWriter makes the next batch begin from what the database holds.
func (l *Log) dropWriter() {
	if l.writer != nil {
		l.writer.close()
		l.writer = nil
	}
}

// Tx is the transaction that a record is written in. It is valid only within
// the function that it is given to.
type Tx struct {
	w    *writer
	mine map[string][]byte // nil value: deleted
	over bool
}

var errTxOver = errors.New("the transaction is over")

// Get reads a state; nil if there is none.
func (tx *Tx) Get(key string) ([]byte, error) {
	if tx.over {
		return nil, errTxOver
	}
	for _, pending := range []map[string][]byte{tx.mine, tx.w.pending} {
		if v, ok := pending[key]; ok {
			return bytes.Clone(v), nil
		}
	}
	var v []byte
	err := tx.w.getState.QueryRow(key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, &storageError{fmt.Errorf("read state: %w", err)}
	}
	return v, nil
}

// Set changes a state together with the record: both stand, or neither. A nil
// value deletes it.
func (tx *Tx) Set(key string, value []byte) error {
	if tx.over {
		return errTxOver
	}
	if tx.mine == nil {
		tx.mine = make(map[string][]byte)
	}
	tx.mine[key] = bytes.Clone(value)
	return nil
}

// storageError marks an error of the database among those of the callers.
type storageError struct{ err error }

func (e *storageError) Error() string { return e.err.Error() }
func (e *storageError) Unwrap() error { return e.err }

// writer is the connection that writes, with what it needs to append without
// reading.
type writer struct {
	epoch  string
	sealer Sealer
	conn   *sql.Conn
	tree   tree

	putRec, putNode, getState, setState, delState *sql.Stmt

	pending map[string][]byte // states set by the records of this batch
}

// newWriter reads the right edge of the tree as the database holds it.
func newWriter(s *store) (*writer, error) {
	ctx := context.Background()
	size, err := s.size(ctx)
	if err != nil {
		return nil, err
	}
	t, err := loadTree(size, s.hashes(ctx))
	if err != nil {
		return nil, err
	}
	w := &writer{epoch: s.meta.Epoch, sealer: s.sealer, tree: *t, pending: make(map[string][]byte)}
	if w.conn, err = s.write.Conn(ctx); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&w.putRec, `INSERT INTO rec (seq, leaf, body) VALUES (?, ?, ?)`},
		{&w.putNode, `INSERT INTO node (ix, hash) VALUES (?, ?)`},
		{&w.getState, `SELECT value FROM state WHERE key = ?`},
		{&w.setState, `INSERT INTO state (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`},
		{&w.delState, `DELETE FROM state WHERE key = ?`},
	} {
		if *p.stmt, err = w.conn.PrepareContext(ctx, p.text); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func (w *writer) close() {
	for _, s := range []*sql.Stmt{w.putRec, w.putNode, w.getState, w.setState, w.delState} {
		if s != nil {
			s.Close()
		}
	}
	// Not back to the pool: nobody knows what a failed commit has left open.
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn })
}

// exec runs a statement that is too rare to be prepared.
func (w *writer) exec(query string, args ...any) error {
	_, err := w.conn.ExecContext(context.Background(), query, args...)
	return err
}

// transact writes a batch in one transaction. An error means that the whole
// transaction failed and the writer must not be used again; what is wrong
// with one request alone stands in the request.
func (w *writer) transact(o Options, batch []*request) error {
	if err := w.exec(`BEGIN IMMEDIATE`); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	clear(w.pending)
	next := w.tree
	if err := w.fill(&next, o, batch); err != nil {
		_ = w.exec(`ROLLBACK`) // SQLite may have done so itself
		return err
	}
	if err := w.exec(`COMMIT`); err != nil {
		_ = w.exec(`ROLLBACK`)
		return fmt.Errorf("commit: %w", err)
	}
	w.tree = next
	return nil
}

func (w *writer) fill(next *tree, o Options, batch []*request) error {
	for _, r := range batch {
		var err error
		if r.rows != nil {
			err = r.rows(w)
			if err != nil && !isRefusal(err) {
				return err
			}
		} else {
			r.entry, err = w.append(next, o, r.write)
			var broken *storageError
			if errors.As(err, &broken) {
				return err
			}
		}
		r.refused = err
	}
	for key, value := range w.pending {
		var err error
		if value == nil {
			_, err = w.delState.Exec(key)
		} else {
			_, err = w.setState.Exec(key, value)
		}
		if err != nil {
			return fmt.Errorf("write state: %w", err)
		}
	}
	return nil
}

// isRefusal says that a request was refused before it wrote anything.
func isRefusal(err error) bool { return errors.Is(err, ErrEpoch) }

// append makes one record and writes its rows. Until the first row is
// written nothing has changed, so an error of the caller's spoils only this
// record.
func (w *writer) append(next *tree, o Options, write func(*Tx) (Draft, error)) (Entry, error) {
	tx := &Tx{w: w}
	draft, err := call(write, tx)
	if err != nil {
		return Entry{}, err
	}
	seq := next.size
	rec, err := w.record(next, o, draft)
	if err != nil {
		return Entry{}, err
	}
	payload, err := json.Marshal(rec)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrDraft, err)
	}
	if len(payload) > MaxPayload {
		return Entry{}, fmt.Errorf("%w: record of %d bytes: more than %d", ErrDraft, len(payload), MaxPayload)
	}
	jws, err := o.Signer.Sign(payload)
	if err != nil {
		return Entry{}, fmt.Errorf("sign record: %w", err)
	}
	leaf := tlog.RecordHash([]byte(jws))
	hashes, err := next.add(leaf)
	if err != nil {
		return Entry{}, &storageError{err}
	}
	body := w.sealer.Seal([]byte(jws), bodyAAD(w.epoch, seq))
	if _, err := w.putRec.Exec(seq, leaf[:], body); err != nil {
		return Entry{}, &storageError{fmt.Errorf("write record: %w", err)}
	}
	ix := tlog.StoredHashIndex(0, seq)
	for i := range hashes {
		if _, err := w.putNode.Exec(ix+int64(i), hashes[i][:]); err != nil {
			return Entry{}, &storageError{fmt.Errorf("write tree: %w", err)}
		}
	}
	maps.Copy(w.pending, tx.mine)
	return Entry{Seq: uint64(seq), Leaf: leaf, JWS: jws, Record: rec}, nil
}

// call turns a panic of the caller's function into its error.
func call(write func(*Tx) (Draft, error), tx *Tx) (d Draft, err error) {
	defer func() {
		tx.over = true
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while making a record: %v", p)
		}
	}()
	return write(tx)
}

// record completes a draft to the next record of the log.
func (w *writer) record(next *tree, o Options, draft Draft) (Record, error) {
	now, clock := o.Clock()
	seq := uint64(next.size)
	d := draft.Data
	d.Controller, d.Epoch, d.Sequence, d.Clock = o.Controller, w.epoch, seq, clock
	d.Previous = ""
	if leaf, ok := next.last(); ok {
		d.Previous = leaf.String()
	}
	var salt [saltSize]byte
	rand.Read(salt[:]) // never fails
	d.Salt = base64.StdEncoding.EncodeToString(salt[:])
	if d.Occurred != nil {
		t := instant(*d.Occurred)
		d.Occurred = &t
	}
	rec := Record{
		SpecVersion:     specVersion,
		ID:              recordID(w.epoch, seq),
		Source:          sourcePrefix + o.Controller,
		Type:            draft.Type,
		Subject:         draft.Subject,
		Time:            instant(now),
		DataContentType: dataContentType,
		Data:            d,
	}
	if err := rec.check(); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrDraft, err)
	}
	return rec, nil
}

// instant is a time as records hold it: UTC, microseconds.
func instant(t time.Time) time.Time { return t.UTC().Round(0).Truncate(time.Microsecond) }

// keepReceipt stores a receipt and forgets the oldest.
func (w *writer) keepReceipt(r Receipt) error {
	if err := w.exec(`INSERT OR REPLACE INTO receipt (size, root, checkpoint, time, policy_version, jws) VALUES (?, ?, ?, ?, ?, ?)`,
		int64(r.Size), r.Root[:], r.Checkpoint, r.Time.UTC().Format(time.RFC3339Nano), int64(r.PolicyVersion), r.JWS); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	return w.exec(`DELETE FROM receipt WHERE size NOT IN (SELECT size FROM receipt ORDER BY size DESC LIMIT ?)`, keptReceipts)
}

// keepCheckpoint stores a checkpoint unless there is one of that size, and
// forgets the oldest.
func (w *writer) keepCheckpoint(size uint64, signed string) error {
	if err := w.exec(`INSERT OR IGNORE INTO checkpoint (size, note) VALUES (?, ?)`, int64(size), signed); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return w.exec(`DELETE FROM checkpoint WHERE size NOT IN (SELECT size FROM checkpoint ORDER BY size DESC LIMIT ?)`, keptCheckpoints)
}
