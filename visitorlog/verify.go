package visitorlog

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tailRecords = 10_000   // of the tail, verified at every start
	quickBytes  = 16 << 20 // databases up to here are checked whole at every start
	chunk       = 256      // records in memory at once
)

// checkTail is the part of the verification that every start does: SQLite's
// own check, the records after the last receipt (at most tailRecords) held to
// their leaf and the nodes above them recomputed, the stored checkpoint held
// to the tree, and the signature of the newest record.
func (l *Log) checkTail(ctx context.Context, s *store, from, size int64) error {
	if err := s.quickCheck(ctx); err != nil {
		return err
	}
	if err := s.checkEnds(ctx, size); err != nil {
		return err
	}
	from = max(from, size-tailRecords)
	t, err := loadTree(from, s.hashes(ctx))
	if err != nil {
		return err
	}
	if err := s.recompute(ctx, t, size, nil, nil); err != nil {
		return err
	}
	if err := s.checkNewest(ctx, size, l.o.Verifier); err != nil {
		return err
	}
	var signed string
	err = s.read.QueryRowContext(ctx, `SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1`).Scan(&signed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.checkCheckpoint(ctx, signed, size, l.o.NoteVerifier)
}

// VerifyOptions are what verifying a log needs.
type VerifyOptions struct {
	Verifier     Verifier // used by several goroutines at once
	NoteVerifier func(origin string) (note.Verifier, error)
	Sealer       Sealer
	Receipts     Verifier                // of the CRM's receipts; nil: what they say is held to the tree alone
	Controller   string                  // "": whatever the database says
	Progress     func(done, total int64) // nil: silent; counts records
	Leisurely    bool                    // leave most of a processor to the doors
}

// Verified tells what was verified.
type Verified struct {
	Head        Head
	Controller  string
	Checkpoints int
	Receipts    int
}

// Verify recomputes the whole log in the database at path (records.db, or one
// that was set aside) as it stood when it began, beside a daemon that goes on
// writing: every leaf and every node, the signature of every record, its link
// to the one before it and the place that it names, that no row is missing or
// too many, and every stored checkpoint and receipt. It returns a *Fault with
// the first bad sequence and what is wrong, or another error if it could not
// look. It needs memory for a few hundred records.
func Verify(ctx context.Context, path string, o VerifyOptions) (Verified, error) {
	s, err := openStoreReadOnly(ctx, path, o.Sealer)
	if err != nil {
		return Verified{}, asFault(err)
	}
	defer s.close()
	v, err := s.verify(ctx, o)
	return v, asFault(err)
}

// asFault makes a Fault of SQLite's own finding that its file is damaged.
func asFault(err error) error {
	var f *Fault
	if err == nil || errors.As(err, &f) || !damaged(err) {
		return err
	}
	return &Fault{First: -1, Last: -1, What: "the database file is damaged: " + err.Error()}
}

func (s *store) verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	v := Verified{Controller: s.meta.Controller, Head: Head{Epoch: s.meta.Epoch}}
	if o.Controller != "" && o.Controller != s.meta.Controller {
		return v, &Fault{First: -1, Last: -1, What: fmt.Sprintf("the log is that of controller %q", s.meta.Controller)}
	}
	size, err := s.size(ctx)
	if err != nil {
		return v, err
	}
	if size == 0 {
		return v, recordFault(0, "it is missing")
	}
	t := new(tree)
	if err := s.recompute(ctx, t, size, func(k link) error { return s.checkRecord(k, o.Verifier) }, newPace(o, size)); err != nil {
		return v, err
	}
	if err := s.checkEnds(ctx, size); err != nil {
		return v, err
	}
	root, err := t.root()
	if err != nil {
		return v, err
	}
	v.Head.Size, v.Head.Root = uint64(size), root.String()
	if v.Checkpoints, err = s.checkCheckpoints(ctx, size, o); err != nil {
		return v, err
	}
	if v.Receipts, err = s.checkReceipts(ctx, size, o); err != nil {
		return v, err
	}
	if err := s.checkKept(ctx, size, o); err != nil {
		return v, err
	}
	return v, s.fullCheck(ctx)
}

// checkRecord holds one record to its signature, its place and the record
// before it.
func (s *store) checkRecord(k link, v Verifier) error {
	previous := ""
	if k.seq > 0 {
		previous = k.previous.String()
	}
	r, err := VerifyRecord(k.jws, s.meta.Controller, s.meta.Epoch, uint64(k.seq), v)
	if err == nil {
		err = r.Follows(previous)
	}
	if err != nil {
		return recordFault(k.seq, err.Error())
	}
	return nil
}

// link is a record on its way through the verification.
type link struct {
	seq            int64
	jws            string
	leaf, previous tlog.Hash
}

// recompute reads the records from the tree's size up to size, lets check look
// at each, appends the leaf to t, and holds every stored node to what t makes
// of it. check may be called from several goroutines; it is nil where leaves
// and nodes are all that matters.
func (s *store) recompute(ctx context.Context, t *tree, size int64, check func(link) error, p *pace) error {
	for t.size < size {
		first := t.size
		links, ferr := s.links(ctx, t, int(min(chunk, size-first)))
		if ferr != nil && !damaged(ferr) {
			return ferr
		}
		nodes, err := s.nodes(ctx, tlog.StoredHashCount(first), tlog.StoredHashCount(min(first+chunk, size)))
		if err != nil {
			return err
		}
		faults := checkAll(links, check, p.workers())
		for i, k := range links {
			if faults[i] != nil {
				return faults[i]
			}
			if err := addChecked(t, k.leaf, nodes); err != nil {
				return err
			}
		}
		if ferr != nil {
			return ferr
		}
		if err := p.step(ctx, t.size-first); err != nil {
			return err
		}
	}
	return nil
}

// links reads the next n records after t and holds each to its leaf. With an
// error it returns those before the one that is to blame.
func (s *store) links(ctx context.Context, t *tree, n int) ([]link, error) {
	rows, err := s.rows(ctx, t.size, n)
	if err != nil {
		return nil, err
	}
	out := make([]link, 0, n)
	previous, _ := t.last()
	for i := range int64(n) {
		seq := t.size + i
		if i >= int64(len(rows)) || rows[i].seq != seq {
			return out, recordFault(seq, "it is missing")
		}
		jws, leaf, err := s.unseal(rows[i])
		if err != nil {
			return out, err
		}
		out = append(out, link{seq, jws, leaf, previous})
		previous = leaf
	}
	return out, nil
}

// checkAll checks each record: signatures take most of a verification's time,
// and do not depend on each other.
func checkAll(links []link, check func(link) error, workers int) []error {
	faults := make([]error, len(links))
	if check == nil {
		return faults
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(links)); i = next.Add(1) - 1 {
				faults[i] = check(links[i])
			}
		})
	}
	wg.Wait()
	return faults
}

// addChecked appends a leaf and holds the stored nodes that it completes to
// what they should be.
func addChecked(t *tree, leaf tlog.Hash, nodes map[int64][]byte) error {
	ix := tlog.StoredHashIndex(0, t.size)
	hashes, err := t.add(leaf)
	if err != nil {
		return err
	}
	for i, h := range hashes {
		stored, ok := nodes[ix+int64(i)]
		if !ok {
			return nodeFault(ix+int64(i), "is missing")
		}
		if !bytes.Equal(stored, h[:]) {
			return nodeFault(ix+int64(i), "is not the hash of what is under it")
		}
	}
	return nil
}

// nodes reads the stored hashes with from <= ix < to.
func (s *store) nodes(ctx context.Context, from, to int64) (map[int64][]byte, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT ix, hash FROM node WHERE ix >= ? AND ix < ?`, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[int64][]byte, to-from)
	for rows.Next() {
		var ix int64
		var h []byte
		if err := rows.Scan(&ix, &h); err != nil {
			return nil, err
		}
		out[ix] = h
	}
	return out, rows.Err()
}

// checkEnds says whether there are rows before the first record and node or
// after the last. The writer may be adding records: those after size are of
// whole transactions, so the two ends are read together.
func (s *store) checkEnds(ctx context.Context, size int64) error {
	var firstRec, lastRec, firstNode, lastNode sql.NullInt64
	err := s.read.QueryRowContext(ctx, `SELECT (SELECT min(seq) FROM rec), (SELECT max(seq) FROM rec),
		(SELECT min(ix) FROM node), (SELECT max(ix) FROM node)`).Scan(&firstRec, &lastRec, &firstNode, &lastNode)
	if err != nil {
		return err
	}
	switch {
	case lastRec.Int64 < size-1:
		return recordFault(lastRec.Int64+1, "it is missing")
	case firstRec.Int64 < 0:
		return recordFault(firstRec.Int64, "there is no such sequence")
	case firstNode.Int64 < 0:
		return &Fault{First: -1, Last: -1, What: fmt.Sprintf("there is a tree node with the stored hash index %d", firstNode.Int64)}
	}
	if want := tlog.StoredHashCount(lastRec.Int64+1) - 1; lastNode.Int64 > want {
		return nodeFault(want+1, "is one too many: there are no records for it")
	} else if lastNode.Int64 < want {
		return nodeFault(lastNode.Int64+1, "is missing")
	}
	return nil
}

// checkNewest verifies the signature of the newest record: enough to notice
// that the log was signed with another key than the present one.
func (s *store) checkNewest(ctx context.Context, size int64, v Verifier) error {
	rows, err := s.rows(ctx, size-1, 1)
	if err != nil {
		return err
	}
	if size == 0 || len(rows) == 0 {
		return recordFault(0, "it is missing")
	}
	jws, _, err := s.unseal(rows[0])
	if err != nil {
		return err
	}
	if _, err := VerifyRecord(jws, s.meta.Controller, s.meta.Epoch, uint64(size-1), v); err != nil {
		return recordFault(size-1, err.Error())
	}
	return nil
}

// checkCheckpoint holds a signed checkpoint to the tree.
func (s *store) checkCheckpoint(ctx context.Context, signed string, size int64, verifier func(string) (note.Verifier, error)) error {
	origin := Origin(s.meta.Controller, s.meta.Epoch)
	unsigned, err := readCheckpoint(signed)
	if err != nil {
		return &Fault{First: -1, Last: -1, What: "a stored " + err.Error()}
	}
	fault := func(what string) error {
		return &Fault{First: 0, Last: max(0, int64(unsigned.Size)-1), What: fmt.Sprintf("the stored checkpoint of %d records %s", unsigned.Size, what)}
	}
	v, err := verifier(origin)
	if err != nil {
		return fmt.Errorf("checkpoint verifier: %w", err)
	}
	c, err := OpenCheckpoint(signed, v)
	switch {
	case err != nil:
		return fault("does not bear the log's signature: " + err.Error())
	case c.Origin != origin:
		return fault(fmt.Sprintf("is that of %q", c.Origin))
	case c.Size > uint64(size):
		return &Fault{First: size, Last: int64(c.Size) - 1, What: fmt.Sprintf("missing: a stored checkpoint covers %d records, the log holds %d", c.Size, size)}
	}
	root, err := tlog.TreeHash(int64(c.Size), s.hashes(ctx))
	if err != nil {
		return err
	}
	if root != c.Root {
		return fault("has another root than the tree")
	}
	return nil
}

func (s *store) checkCheckpoints(ctx context.Context, size int64, o VerifyOptions) (int, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT size, note FROM checkpoint ORDER BY size`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var at int64
		var signed string
		if err := rows.Scan(&at, &signed); err != nil {
			return n, err
		}
		// The daemon may have stored this one after the verification began.
		if at > size {
			if now, err := s.size(ctx); err != nil {
				return n, err
			} else if at <= now {
				continue
			}
		}
		if err := s.checkCheckpoint(ctx, signed, size, o.NoteVerifier); err != nil {
			return n, err
		}
		n++
	}
	return n, rows.Err()
}

func (s *store) checkReceipts(ctx context.Context, size int64, o VerifyOptions) (int, error) {
	receipts, err := s.receipts(ctx, `SELECT size, root, checkpoint, time, policy_version, jws FROM receipt ORDER BY size`)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, r := range receipts {
		if now, err := s.size(ctx); err != nil {
			return n, err
		} else if int64(r.Size) > size && int64(r.Size) <= now {
			continue
		}
		if err := s.checkReceipt(ctx, r, size, o); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// checkKept holds the receipt beside the database to the tree. A database that
// was set aside has none.
func (s *store) checkKept(ctx context.Context, size int64, o VerifyOptions) error {
	if filepath.Base(s.path) != databaseFile {
		return nil
	}
	r, err := readReceipt(filepath.Dir(s.path))
	if err != nil {
		return &Fault{First: -1, Last: -1, What: err.Error()}
	}
	if r == nil {
		return nil
	}
	if r.Epoch != s.meta.Epoch {
		why, err := contradicts(ctx, s, r, size)
		if err == nil && why != "" {
			err = &Fault{First: -1, Last: -1, What: why}
		}
		return err
	}
	if now, err := s.size(ctx); err != nil {
		return err
	} else if int64(r.Size) > size && int64(r.Size) <= now {
		return nil // the daemon got it after the verification began
	}
	return s.checkReceipt(ctx, *r, size, o)
}

// checkReceipt holds a receipt to the tree.
func (s *store) checkReceipt(ctx context.Context, r Receipt, size int64, o VerifyOptions) error {
	fault := func(what string) error {
		return &Fault{First: 0, Last: max(0, int64(r.Size)-1), What: fmt.Sprintf("the receipt for the first %d records %s", r.Size, what)}
	}
	if r.Size > uint64(size) {
		return &Fault{First: size, Last: int64(r.Size) - 1, What: fmt.Sprintf("missing: the CRM has receipted %d records, the log holds %d", r.Size, size)}
	}
	root, err := tlog.TreeHash(int64(r.Size), s.hashes(ctx))
	if err != nil {
		return err
	}
	if root != r.Root {
		return fault("has another root than the tree")
	}
	if o.Receipts != nil {
		if err := VerifyReceipt(r, s.meta.Controller, o.Receipts); err != nil {
			return fault(err.Error())
		}
	}
	return nil
}

// quickCheck is SQLite's own check: of the whole file while that is a matter
// of milliseconds, else of the tables that are small; the tail's verification
// reads what matters of the others.
func (s *store) quickCheck(ctx context.Context) error {
	var pages, size int64
	if err := s.read.QueryRowContext(ctx, `SELECT page_count, page_size FROM pragma_page_count, pragma_page_size`).Scan(&pages, &size); err != nil {
		return err
	}
	if pages*size <= quickBytes {
		return s.fullCheck(ctx)
	}
	for _, table := range []string{"state", "checkpoint", "receipt", "meta"} {
		if err := s.pragmaCheck(ctx, `PRAGMA quick_check('`+table+`')`); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) fullCheck(ctx context.Context) error { return s.pragmaCheck(ctx, `PRAGMA quick_check`) }

func (s *store) pragmaCheck(ctx context.Context, pragma string) error {
	var answer string
	if err := s.read.QueryRowContext(ctx, pragma).Scan(&answer); err != nil {
		return err
	}
	if answer != "ok" {
		return &Fault{First: -1, Last: -1, What: "the database file is damaged: " + answer}
	}
	return nil
}

// pace reports progress and, where doors are waiting, gives way to them.
type pace struct {
	o     VerifyOptions
	total int64
	done  int64
	last  time.Time
}

func newPace(o VerifyOptions, total int64) *pace {
	return &pace{o: o, total: total, last: time.Now()}
}

// workers is how many processors the verification may use.
func (p *pace) workers() int {
	if p == nil || p.o.Leisurely {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

func (p *pace) step(ctx context.Context, n int64) error {
	if p == nil {
		return ctx.Err()
	}
	p.done += n
	if p.o.Leisurely {
		t := time.NewTimer(3 * time.Since(p.last))
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	if p.o.Progress != nil {
		p.o.Progress(p.done, p.total) // which may wait, too
	}
	p.last = time.Now()
	return ctx.Err()
}
