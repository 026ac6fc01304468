package central

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Fault is the first thing that is wrong with a stored epoch: with the
// records First to Last, or, if First is negative, with none in particular.
type Fault struct {
	Controller  string
	Epoch       string
	First, Last int64
	What        string
}

// Error names the place and what is wrong there.
func (f *Fault) Error() string {
	at := fmt.Sprintf("%s, epoch %s", f.Controller, f.Epoch)
	switch {
	case f.First < 0:
		return fmt.Sprintf("%s: %s", at, f.What)
	case f.First == f.Last:
		return fmt.Sprintf("%s, record %d: %s", at, f.First, f.What)
	}
	return fmt.Sprintf("%s, records %d to %d: %s", at, f.First, f.Last, f.What)
}

// VerifyOptions are what verifying needs.
type VerifyOptions struct {
	Cosigner note.Verifier
	Progress func(done, total int64) // nil: silent; counts records
}

// Verified tells what was verified.
type Verified struct {
	Controllers int
	Epochs      int
	Records     uint64
	// Uncosigned lists epochs whose last batch has no cosignature yet: the
	// CRM was stopped between its commit and the cosignature, and makes it
	// when it starts.
	Uncosigned []Epoch
}

// Verify recomputes all that is stored of one controller, or of all if it is
// empty, beside a CRM that goes on writing: every leaf and node, the
// signature of every record, its place, its link and its columns for search,
// every root, and every checkpoint with the log's signature and with ours. It
// returns a *Fault with the first bad sequence, or another error if it could
// not look.
func (s *Store) Verify(ctx context.Context, controller string, o VerifyOptions) (Verified, error) {
	var v Verified
	if err := s.checkFile(ctx); err != nil {
		return v, err
	}
	list, err := s.Epochs(ctx, controller)
	if err != nil {
		return v, err
	}
	var total, done int64
	for _, e := range list {
		total += int64(e.Size)
	}
	before := ""
	for _, e := range list {
		err := s.verifyEpoch(ctx, e, o.Cosigner, func(n int) {
			done += int64(n)
			if o.Progress != nil {
				o.Progress(done, total)
			}
		})
		if errors.Is(err, errUncosigned) {
			v.Uncosigned = append(v.Uncosigned, e)
			err = nil
		}
		if err != nil {
			return v, err
		}
		if e.Controller != before {
			v.Controllers++
			before = e.Controller
		}
		v.Epochs++
		v.Records += e.Size
	}
	return v, nil
}

// VerifyEpoch verifies one epoch as Verify does.
func (s *Store) VerifyEpoch(ctx context.Context, e Epoch, o VerifyOptions) error {
	done := int64(0)
	err := s.verifyEpoch(ctx, e, o.Cosigner, func(n int) {
		if done += int64(n); o.Progress != nil {
			o.Progress(done, int64(e.Size))
		}
	})
	if errors.Is(err, errUncosigned) {
		return nil
	}
	return err
}

// checkFile is SQLite's own check of its file, and of rows that belong to no
// epoch or whose epoch is gone.
func (s *Store) checkFile(ctx context.Context) error {
	var answer string
	if err := s.r.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&answer); err != nil {
		return fmt.Errorf("check the database file: %w", err)
	}
	if answer != "ok" {
		return &Fault{Controller: "database", First: -1, What: "the file is damaged: " + answer}
	}
	var strays int
	err := s.r.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM records WHERE log NOT IN (SELECT id FROM epochs)) +
		(SELECT count(*) FROM nodes WHERE log NOT IN (SELECT id FROM epochs))`).Scan(&strays)
	if err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	if strays > 0 {
		return &Fault{Controller: "database", First: -1, What: fmt.Sprintf("%d rows belong to no epoch", strays)}
	}
	err = s.r.QueryRowContext(ctx, `SELECT count(*) FROM carried c
		WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.id = c.carrier AND r.checked = 'ok' AND r.type = $1)`,
		string(visitorlog.RecordCarried)).Scan(&strays)
	if err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	if strays > 0 {
		return &Fault{Controller: "database", First: -1, What: fmt.Sprintf("%d records were carried by none that is stored", strays)}
	}
	return s.checkEpochs(ctx)
}

// checkEpochs looks for traces of epochs that are stored no longer. Nothing
// deletes a row of epochs, so their ids have no hole, and what an alarm says of
// the stored records of an epoch stays true. Whoever removes the traces too is
// found only by what is kept elsewhere: an export, or the controller's own log.
func (s *Store) checkEpochs(ctx context.Context) error {
	var rows, last int64
	if err := s.r.QueryRowContext(ctx, `SELECT count(*), coalesce(max(id), 0) FROM epochs`).Scan(&rows, &last); err != nil {
		return fmt.Errorf("count epochs: %w", err)
	}
	if rows != last {
		return &Fault{Controller: "database", First: -1, What: fmt.Sprintf("%d epochs were begun here and %d are stored: the others were deleted", last, rows)}
	}
	f := &Fault{First: -1}
	var id int64
	var kind string
	err := s.r.QueryRowContext(ctx, `
		SELECT a.id, a.kind, a.controller, a.epoch FROM alarms a WHERE a.epoch != '' AND a.kind IN ($1, $2, $3, $4)
		AND NOT EXISTS (SELECT 1 FROM epochs e WHERE e.controller = a.controller AND e.epoch = a.epoch) ORDER BY a.id LIMIT 1`,
		string(AlarmEpoch), string(AlarmRollback), string(AlarmInvalid), string(AlarmDamaged)).Scan(&id, &kind, &f.Controller, &f.Epoch)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for deleted epochs: %w", err)
	}
	f.What = fmt.Sprintf("it was deleted: alarm %d (%s) is about its records", id, kind)
	return f
}

var errUncosigned = errors.New("the last batch is not countersigned")

// row is a record as it is stored, with all its columns.
type row struct {
	verdict
	storedLeaf []byte
	checked    sql.NullString
	note       sql.NullString // the column fault

	kind, subject, door, decision, reason sql.NullString
	time                                  sql.NullInt64
}

// columns says which of the columns for search is not what the record says.
func (r *row) columns() string {
	for _, c := range []struct {
		name   string
		stored sql.NullString
		want   string
	}{
		{"type", r.kind, string(r.record.Type)}, {"subject", r.subject, r.record.Subject}, {"door", r.door, r.record.Data.Door},
		{"decision", r.decision, r.record.Data.Decision}, {"reason", r.reason, string(r.record.Data.Reason)},
	} {
		if c.stored.String != c.want || c.stored.Valid != (c.want != "") {
			return c.name
		}
	}
	if !r.time.Valid || r.time.Int64 != micros(r.record.Time) {
		return "time"
	}
	return ""
}

// verifyEpoch verifies the first e.Size records; there may be more by now.
func (s *Store) verifyEpoch(ctx context.Context, e Epoch, cosigner note.Verifier, step func(n int)) error {
	fault := func(first, last int64, what string) error {
		return &Fault{Controller: e.Controller, Epoch: e.Epoch, First: first, Last: last, What: what}
	}
	key, err := s.key(string(e.JWK))
	if err != nil {
		return fault(-1, -1, err.Error())
	}
	cosigned, err := e.openCosigned(key, cosigner)
	if err != nil {
		return fault(-1, -1, err.Error())
	}
	size := int64(e.Size)
	tree := &grown{known: edge{}}
	cosignedRoot := tlog.Hash{}
	previous := ""
	for tree.size < size {
		first := tree.size
		rows, nodes, err := s.rows(ctx, e.log, first, min(first+checkAtOnce, size))
		if err != nil {
			return err
		}
		inParallel(len(rows), func(i int) {
			r := &rows[i]
			r.leaf = tlog.RecordHash([]byte(r.jws))
			r.record, r.carried, r.fault = verifyRecord(r.jws, e.Controller, e.Epoch, r.seq, key)
		})
		for i := range rows {
			r := &rows[i]
			seq := tree.size
			if int64(r.seq) != seq {
				return fault(seq, seq, "it is missing")
			}
			if !bytes.Equal(r.storedLeaf, r.leaf[:]) {
				return fault(seq, seq, "its leaf hash is not that of its signed bytes")
			}
			if r.fault != nil {
				return fault(seq, seq, r.fault.Error())
			}
			if err := r.record.Follows(previous); err != nil {
				return fault(seq, seq, err.Error())
			}
			previous = r.leaf.String()
			switch Checked(r.checked.String) {
			case Good:
				if c := r.columns(); c != "" {
					return fault(seq, seq, fmt.Sprintf("its column %q does not say what the record says", c))
				}
				if what, err := s.checkCarried(ctx, e.Controller, r); err != nil {
					return err
				} else if what != "" {
					return fault(seq, seq, what)
				}
			case Bad:
				return fault(seq, seq, "it is marked as bad and is not")
			default:
				if r.seq < e.Checked {
					return fault(seq, seq, "it is marked as never checked and was")
				}
			}
			if err := s.growOne(tree, r.leaf, nodes, fault); err != nil {
				return err
			}
			if uint64(tree.size) == cosigned.Size {
				if cosignedRoot, err = tree.root(); err != nil {
					return err
				}
			}
		}
		if len(rows) == 0 {
			return fault(first, first, "it is missing")
		}
		step(len(rows))
	}
	root, err := tree.root()
	if err != nil {
		return err
	}
	if root != e.Root {
		return fault(0, size-1, "the stored root is not that of their tree")
	}
	if err := e.checkHead(key); err != nil {
		return fault(0, size-1, err.Error())
	}
	if cosigned.Size > 0 && cosignedRoot != cosigned.Root {
		return fault(0, int64(cosigned.Size)-1, "the cosigned checkpoint has another root than their tree")
	}
	if err := s.checkSurplus(ctx, e, fault); err != nil {
		return err
	}
	switch left := size - int64(cosigned.Size); {
	case left > MaxRun*MaxBatch:
		return fault(int64(cosigned.Size), size-1, "they are not countersigned")
	case left > 0:
		return s.awaitCosignature(ctx, e)
	}
	return nil
}

// countRecords holds the head of an epoch to its records alone: it bears the
// log's signature, and is the root of their signed bytes.
func (s *Store) countRecords(ctx context.Context, e Epoch) error {
	fault := func(what string) error {
		return &Fault{Controller: e.Controller, Epoch: e.Epoch, First: 0, Last: int64(e.Size) - 1, What: what}
	}
	key, err := s.key(string(e.JWK))
	if err != nil {
		return fault(err.Error())
	}
	if err := e.checkHead(key); err != nil {
		return fault(err.Error())
	}
	rows, err := s.r.QueryContext(ctx, `SELECT jws FROM records WHERE log = $1 AND seq < $2 ORDER BY seq`, e.log, int64(e.Size))
	if err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	defer rows.Close()
	tree := &grown{known: edge{}}
	var jws []byte
	for rows.Next() {
		if err := rows.Scan(&jws); err != nil {
			return fmt.Errorf("read records: %w", err)
		}
		hashes, err := tlog.StoredHashesForRecordHash(tree.size, tlog.RecordHash(jws), tree.known)
		if err != nil {
			return err
		}
		ix := tlog.StoredHashIndex(0, tree.size)
		for i, h := range hashes {
			tree.known[ix+int64(i)] = h
		}
		tree.size++
		if err := tree.trim(); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	if tree.size != int64(e.Size) {
		return fault(fmt.Sprintf("there are %d records, and its head is of %d", tree.size, e.Size))
	}
	if root, err := tree.root(); err != nil {
		return err
	} else if root != e.Root {
		return fault("the stored root is not that of their tree")
	}
	return nil
}

// growOne appends a leaf to the tree and holds the stored nodes to what comes
// of it.
func (s *Store) growOne(tree *grown, leaf tlog.Hash, nodes map[int64][]byte, fault func(int64, int64, string) error) error {
	hashes, err := tlog.StoredHashesForRecordHash(tree.size, leaf, tree.known)
	if err != nil {
		return err
	}
	ix := tlog.StoredHashIndex(0, tree.size)
	for i, h := range hashes {
		tree.known[ix+int64(i)] = h
		if i == 0 {
			continue
		}
		stored, ok := nodes[ix+int64(i)]
		if ok && bytes.Equal(stored, h[:]) {
			continue
		}
		what := "is not the hash of what is under it"
		if !ok {
			what = "is missing"
		}
		return fault((tree.size+1)-1<<i, tree.size, fmt.Sprintf("their tree node (stored hash %d, level %d) %s", ix+int64(i), i, what))
	}
	tree.size++
	return tree.trim()
}

// rows reads records and the nodes that they complete.
func (s *Store) rows(ctx context.Context, log, from, to int64) ([]row, map[int64][]byte, error) {
	q, err := s.r.QueryContext(ctx, `
		SELECT id, seq, jws, leaf, checked, fault, type, subject, time, door, decision, reason
		FROM records WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`, log, from, to)
	if err != nil {
		return nil, nil, fmt.Errorf("read records: %w", err)
	}
	defer q.Close()
	var list []row
	for q.Next() {
		var r row
		err := q.Scan(&r.id, &r.seq, &r.jws, &r.storedLeaf, &r.checked, &r.note, &r.kind, &r.subject, &r.time, &r.door, &r.decision, &r.reason)
		if err != nil {
			return nil, nil, fmt.Errorf("read records: %w", err)
		}
		list = append(list, r)
	}
	if err := q.Err(); err != nil {
		return nil, nil, fmt.Errorf("read records: %w", err)
	}
	n, err := s.r.QueryContext(ctx, `SELECT ix, hash FROM nodes WHERE log = $1 AND ix >= $2 AND ix < $3`,
		log, tlog.StoredHashCount(from), tlog.StoredHashCount(to))
	if err != nil {
		return nil, nil, fmt.Errorf("read nodes: %w", err)
	}
	defer n.Close()
	nodes := map[int64][]byte{}
	for n.Next() {
		var ix int64
		var h []byte
		if err := n.Scan(&ix, &h); err != nil {
			return nil, nil, fmt.Errorf("read nodes: %w", err)
		}
		nodes[ix] = h
	}
	return list, nodes, n.Err()
}

// checkHead holds the log's own checkpoint to the stored head.
func (e Epoch) checkHead(key Key) error {
	c, err := e.openNote(key, e.Checkpoint, nil)
	switch {
	case err != nil:
		return fmt.Errorf("the stored checkpoint does not bear the log's signature: %w", err)
	case c.Size != e.Size:
		return fmt.Errorf("the stored checkpoint is of %d records, not of %d", c.Size, e.Size)
	case c.Root != e.Root:
		return errors.New("the stored checkpoint has another root than their tree")
	}
	return nil
}

// openCosigned opens the cosigned checkpoint; if there is none, it is empty.
func (e Epoch) openCosigned(key Key, cosigner note.Verifier) (visitorlog.Checkpoint, error) {
	if e.Cosigned == "" {
		return visitorlog.Checkpoint{}, nil
	}
	c, err := e.openNote(key, e.Cosigned, cosigner)
	if err == nil && c.Size > e.Size {
		err = fmt.Errorf("%d records were countersigned and %d are stored", c.Size, e.Size)
	}
	if err != nil {
		return c, fmt.Errorf("the cosigned checkpoint: %w", err)
	}
	return c, nil
}

// openNote opens a checkpoint of the epoch that must bear the log's signature
// and, if it is given, the cosigner's.
func (e Epoch) openNote(key Key, signed string, cosigner note.Verifier) (visitorlog.Checkpoint, error) {
	origin := visitorlog.Origin(e.Controller, e.Epoch)
	own, err := key.NoteVerifier(origin)
	if err != nil {
		return visitorlog.Checkpoint{}, err
	}
	if cosigner != nil {
		if _, err := visitorlog.OpenCheckpoint(signed, cosigner); err != nil {
			return visitorlog.Checkpoint{}, err
		}
	}
	c, err := visitorlog.OpenCheckpoint(signed, own)
	if err == nil && c.Origin != origin {
		err = fmt.Errorf("it is of %q", c.Origin)
	}
	return c, err
}

// checkSurplus looks for rows that no head accounts for. The writer may have
// added more since; one statement sees one state.
func (s *Store) checkSurplus(ctx context.Context, e Epoch, fault func(int64, int64, string) error) error {
	var size, records, nodes int64
	err := s.r.QueryRowContext(ctx, `SELECT size, (SELECT count(*) FROM records WHERE log = $1),
		(SELECT count(*) FROM nodes WHERE log = $1) FROM epochs WHERE id = $1`, e.log).Scan(&size, &records, &nodes)
	switch want := tlog.StoredHashCount(size) - size; {
	case err != nil:
		return fmt.Errorf("count records: %w", err)
	case size < int64(e.Size):
		return fault(size, int64(e.Size)-1, "they were removed meanwhile")
	case records != size:
		return fault(-1, -1, fmt.Sprintf("there are %d records, and its head is of %d", records, size))
	case nodes != want:
		return fault(-1, -1, fmt.Sprintf("there are %d tree nodes above the leaves, and %d records have %d", nodes, size, want))
	}
	return nil
}

// awaitCosignature gives a running CRM the moment that it needs between its
// commit and the cosignature.
func (s *Store) awaitCosignature(ctx context.Context, e Epoch) error {
	for range 20 {
		var now string
		if err := s.r.QueryRowContext(ctx, `SELECT cosigned FROM epochs WHERE id = $1`, e.log).Scan(&now); err != nil {
			return fmt.Errorf("read cosignature: %w", err)
		}
		if now != e.Cosigned {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errUncosigned
}

// Standing is what can be verified of one record.
type Standing struct {
	Record    Record
	Parsed    visitorlog.Record // if Signature is nil
	Signature error             // signature, content and place
	Link      error             // to the record before it
	Inclusion error             // in the tree of Size records
	Cosigned  error             // that tree's root, by the log and by the CRM
	Size      uint64
	// Carrier stands for a carried record in the tree: Inclusion, Cosigned and
	// Size are of it, and there is no Link. Nil: the record is not carried.
	Carrier *Record
}

// ErrNoRecord is returned for a sequence that is not stored.
var ErrNoRecord = errors.New("no such record")

// Standing verifies one record by itself, with a proof from the cosigned head
// instead of the whole tree.
func (s *Store) Standing(ctx context.Context, e Epoch, seq uint64, cosigner note.Verifier) (Standing, error) {
	if seq >= e.Size {
		return s.carriedStanding(ctx, e, seq, cosigner)
	}
	list, _, err := s.rows(ctx, e.log, max(int64(seq)-1, 0), int64(seq)+1)
	if err != nil {
		return Standing{}, err
	}
	if len(list) == 0 || list[len(list)-1].seq != seq {
		return Standing{}, fmt.Errorf("record %d: %w: it is missing", seq, ErrNoRecord)
	}
	r := list[len(list)-1]
	leaf := tlog.RecordHash([]byte(r.jws))
	st := Standing{Record: Record{Controller: e.Controller, Epoch: e.Epoch, Sequence: seq, Leaf: leaf, JWS: r.jws,
		Checked: Checked(r.checked.String), Fault: r.note.String}}
	key, err := s.key(string(e.JWK))
	if err != nil {
		return st, err
	}
	if st.Parsed, _, st.Signature = verifyRecord(r.jws, e.Controller, e.Epoch, seq, key); st.Signature == nil {
		before := ""
		if seq > 0 {
			before = tlog.RecordHash([]byte(list[0].jws)).String()
		}
		st.Link = st.Parsed.Follows(before)
	}
	c, err := e.openCosigned(key, cosigner)
	if err == nil && c.Size <= seq {
		err = errors.New("it is not countersigned yet")
	}
	if st.Cosigned = err; err != nil {
		st.Inclusion = errors.New("there is no countersigned tree to hold it to")
		return st, nil
	}
	st.Size = c.Size
	proof, err := tlog.ProveRecord(int64(c.Size), int64(seq), storedHashes{ctx, s.r, e.log})
	if err == nil {
		err = tlog.CheckRecord(proof, int64(c.Size), c.Root, int64(seq), leaf)
	}
	st.Inclusion = err
	return st, nil
}
