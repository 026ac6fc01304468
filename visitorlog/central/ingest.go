package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// MaxBatch is the largest number of records of a batch.
	MaxBatch = 500
	// MaxRun is the largest number of batches that are stored together.
	MaxRun = 8
)

// Batch is a run of records of one epoch, and the log's signed checkpoint
// after the last of them.
type Batch struct {
	Controller string
	Epoch      string
	First      uint64 // sequence of the first record
	Records    []string
	Checkpoint string
}

func (b *Batch) end() uint64 { return b.First + uint64(len(b.Records)) }

// Head is what the store holds of one epoch, committed. Size 0: nothing.
type Head struct {
	Controller string
	Epoch      string
	Size       uint64
	Root       tlog.Hash
	Checkpoint string // signed by the log and cosigned; empty at size 0
	// PolicyVersion is the highest allowlist version in a checked record of
	// the controller.
	PolicyVersion uint64
}

// Refusal says why nothing of a batch or a state was applied.
type Refusal string

// The refusals.
const (
	Applied          Refusal = ""           // it was applied, or was there already
	RefusedBeyond    Refusal = "beyond"     // it begins after the stored prefix
	RefusedSignature Refusal = "signature"  // its checkpoint is not the registered key's
	RefusedShape     Refusal = "checkpoint" // its checkpoint is of another size, or it has too many records
	RefusedFork      Refusal = "fork"       // it does not agree with what is stored
	RefusedAltered   Refusal = "altered"    // its records are not those that the controller signed
)

// logState is what the writer keeps in memory of an epoch. It always equals
// what is committed; after an error it is dropped and read again.
type logState struct {
	id       int64
	key      int64 // all checkpoints of an epoch are of one key
	size     int64
	root     tlog.Hash
	note     string // the log's checkpoint at size
	cosigned string // the newest cosigned one, maybe of a smaller size
	edge     edge
	// counted says that this program saw the head come of the records, or
	// counted them again.
	counted bool
}

// Ingest appends batches of one epoch to the store's own tree, one after the
// other in one transaction, each if it gives the root that its checkpoint
// names. It answers with what is committed afterwards, countersigned, and with
// what became of each batch. One that repeats what is stored changes nothing;
// one that begins beyond it, or does not agree with it, is refused, which
// stops none of the others. An error means that there is no answer and nothing
// was stored: the controller may not send, or the database failed.
func (s *Store) Ingest(ctx context.Context, run ...Batch) (Head, []Refusal, error) {
	if len(run) == 0 || len(run) > MaxRun {
		return Head{}, nil, fmt.Errorf("ingest %d batches: 1 to %d are taken together", len(run), MaxRun)
	}
	name := logName{run[0].Controller, run[0].Epoch}
	// All that needs no database is done before the writer's turn.
	leaves := make([][]tlog.Hash, len(run))
	for i, b := range run {
		if (logName{b.Controller, b.Epoch}) != name {
			return Head{}, nil, fmt.Errorf("ingest batches of epoch %s of %q and of epoch %s of %q together", name.epoch, name.controller, b.Epoch, b.Controller)
		}
		leaves[i] = make([]tlog.Hash, len(b.Records))
		for j, r := range b.Records {
			leaves[i][j] = tlog.RecordHash([]byte(r))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var (
		refusals = make([]Refusal, len(run))
		policy   uint64
		next     *logState
		grew     bool
	)
	err := s.write(ctx, func(t *tx) error {
		from, err := sender(ctx, t, name.controller)
		if err != nil {
			return err
		}
		policy = from.policy
		present, err := s.load(ctx, t, name)
		if err != nil {
			return err
		}
		next = present
		for i, b := range run {
			if next, refusals[i], err = s.extend(ctx, t, from, next, b, leaves[i]); err != nil {
				return err
			}
		}
		grew = next.size > present.size
		return t.heard(ctx, name.controller)
	})
	if err != nil {
		delete(s.logs, name) // whether a failed commit is there only the database knows
		return Head{}, nil, err
	}
	if next.size == 0 {
		delete(s.logs, name)
	} else {
		s.logs[name] = next
	}
	if grew {
		s.grew.Store(time.Now().UnixNano())
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	h, err := s.cosign(ctx, name, next)
	if err != nil {
		return Head{}, nil, err
	}
	h.PolicyVersion = policy
	return h, refusals, nil
}

// load returns the writer's view of an epoch: from memory if it still is what
// the database holds. An unknown epoch is empty and has id 0.
func (s *Store) load(ctx context.Context, q queryer, name logName) (*logState, error) {
	ls := new(logState)
	var root []byte
	err := q.QueryRowContext(ctx, `SELECT id, key, size, root, checkpoint, cosigned FROM epochs WHERE controller = $1 AND epoch = $2`,
		name.controller, name.epoch).Scan(&ls.id, &ls.key, &ls.size, &root, &ls.note, &ls.cosigned)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return &logState{edge: edge{}, counted: true}, nil
	case err != nil:
		return nil, fmt.Errorf("read epoch: %w", err)
	}
	copy(ls.root[:], root)
	if known, ok := s.logs[name]; ok && known.id == ls.id && known.size == ls.size && known.root == ls.root {
		return known, nil
	}
	if ls.edge, err = loadEdge(ls.size, storedHashes{ctx, q, ls.id}); err != nil {
		return nil, err
	}
	if again, err := tlog.TreeHash(ls.size, ls.edge); err != nil || again != ls.root {
		return nil, errors.Join(err, fmt.Errorf("stored tree of epoch %s does not have its stored root: check the database", name.epoch))
	}
	return ls, nil
}

// extend decides on a batch and writes what is new in it. It returns the
// epoch's state after the transaction.
func (s *Store) extend(ctx context.Context, t *tx, from registered, present *logState, b Batch, leaves []tlog.Hash) (*logState, Refusal, error) {
	signed, own, err := s.open(from.jwk, b.Controller, b.Epoch, b.Checkpoint)
	if err != nil || (present.id != 0 && present.key != from.key) {
		return present, RefusedSignature, nil
	}
	if signed.Size != b.end() || len(leaves) == 0 || len(leaves) > MaxBatch {
		return present, RefusedShape, nil
	}
	size := uint64(present.size)
	if b.First > size {
		return present, RefusedBeyond, nil
	}
	fork := func(seq uint64, detail string) (*logState, Refusal, error) {
		return present, RefusedFork, t.alarm(ctx, Alarm{
			Kind: AlarmFork, Controller: b.Controller, Epoch: b.Epoch, Sequence: &seq, Detail: detail})
	}
	overlap := min(size, b.end()) - b.First
	differs, err := s.compare(ctx, t, present.id, b.First, leaves[:overlap])
	if err != nil {
		return nil, "", err
	}
	if b.end() <= size {
		root, err := tlog.TreeHash(int64(b.end()), storedHashes{ctx, t, present.id})
		switch {
		case err != nil:
			return nil, "", err
		case root != signed.Root:
			return fork(b.First, fmt.Sprintf("signed checkpoint of size %d has another root than the records stored", b.end()))
		case differs >= 0:
			return present, RefusedAltered, nil // what was signed is what is stored
		}
		return present, Applied, nil
	}
	g, err := grow(present.edge, present.size, leaves[overlap:])
	if err != nil {
		return nil, "", err
	}
	root, err := g.root()
	switch {
	case err != nil:
		return nil, "", err
	case root == signed.Root && differs < 0:
	case root == signed.Root || !s.authentic(from.jwk, b):
		return present, RefusedAltered, nil
	case differs >= 0:
		seq := b.First + uint64(differs)
		return fork(seq, fmt.Sprintf("record %d came again with another content", seq))
	default:
		return fork(size, fmt.Sprintf("signed checkpoint of size %d does not follow from the %d records stored and the %d sent",
			b.end(), size, len(leaves[overlap:])))
	}
	next := &logState{id: present.id, key: from.key, size: g.size, root: root, note: own, cosigned: present.cosigned, counted: present.counted}
	if next.edge, err = g.edge(); err != nil {
		return nil, "", err
	}
	if next.id == 0 {
		if next.id, err = s.begin(ctx, t, from, b); err != nil {
			return nil, "", err
		}
	}
	fresh := b.Records[overlap:]
	if err := s.insert(ctx, t, next, size, fresh, leaves[overlap:], g.nodes); err != nil {
		return nil, "", err
	}
	_, err = t.ExecContext(ctx, `DELETE FROM early WHERE controller = $1 AND epoch = $2 AND seq < $3`,
		b.Controller, b.Epoch, next.size)
	if err != nil {
		return nil, "", fmt.Errorf("drop early records: %w", err)
	}
	if err := t.overtaken(ctx, next.id, b, present.size, next.size); err != nil {
		return nil, "", err
	}
	return next, Applied, nil
}

// authentic says that each record of a batch is the controller's own at its
// place. Who carries a batch can change its records, but a fork is what the
// controller itself has signed.
func (s *Store) authentic(jwk string, b Batch) bool {
	key, err := s.key(jwk)
	if err != nil {
		return false
	}
	for i, r := range b.Records {
		if _, err := visitorlog.VerifyRecord(r, b.Controller, b.Epoch, b.First+uint64(i), key); err != nil {
			return false
		}
	}
	return true
}

// open verifies a checkpoint of one epoch by the controller's key. It returns
// the note too, with no signature but the log's: others prove nothing here.
func (s *Store) open(jwk, controller, epoch, signed string) (c visitorlog.Checkpoint, own string, err error) {
	key, err := s.key(jwk)
	if err != nil {
		return c, "", err
	}
	origin := visitorlog.Origin(controller, epoch)
	v, err := key.NoteVerifier(origin)
	if err != nil {
		return c, "", err
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return c, "", err
	}
	if c, err = visitorlog.ParseCheckpoint(n.Text); err != nil {
		return c, "", err
	}
	if c.Origin != origin {
		return c, "", fmt.Errorf("checkpoint is of %q, not of %q", c.Origin, origin)
	}
	b, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	return c, string(b), err
}

// compare returns the index of the first leaf that is not the stored one, or
// -1.
func (s *Store) compare(ctx context.Context, t *tx, log int64, first uint64, leaves []tlog.Hash) (int, error) {
	if len(leaves) == 0 {
		return -1, nil
	}
	rows, err := t.QueryContext(ctx, `SELECT leaf FROM records WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`,
		log, int64(first), int64(first)+int64(len(leaves)))
	if err != nil {
		return 0, fmt.Errorf("compare records: %w", err)
	}
	defer rows.Close()
	i := 0
	for ; rows.Next(); i++ {
		var stored []byte
		if err := rows.Scan(&stored); err != nil {
			return 0, fmt.Errorf("compare records: %w", err)
		}
		if string(stored) != string(leaves[i][:]) {
			return i, nil
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("compare records: %w", err)
	}
	if i != len(leaves) {
		return 0, fmt.Errorf("compare records: %d of %d are missing in the database", len(leaves)-i, len(leaves))
	}
	return -1, nil
}

// begin writes the row of a new epoch. A controller's second epoch is an
// alarm: its database was lost, replaced or rolled back. One that another
// epoch has named as the one before it comes late, and was told of then.
func (s *Store) begin(ctx context.Context, t *tx, from registered, b Batch) (int64, error) {
	before, announced, err := s.epochsBefore(ctx, t, b)
	if err != nil {
		return 0, err
	}
	former := claimedFormer(b.Records[0])
	if !announced && (before > 0 || former != nil) {
		if err := s.alarmEpoch(ctx, t, b, former); err != nil {
			return 0, err
		}
	}
	var id int64
	err = t.QueryRowContext(ctx, `
		INSERT INTO epochs (controller, epoch, key, size, root, checkpoint, cosigned, first_seen, received)
		VALUES ($1, $2, $3, 0, $4, '', '', $5, $5) RETURNING id`,
		b.Controller, b.Epoch, from.key, []byte{}, micros(t.now)).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("begin epoch: %w", err)
	}
	return id, nil
}

// epochsBefore counts the controller's epochs and says whether one of them
// names that of the batch as the one before it.
func (s *Store) epochsBefore(ctx context.Context, t *tx, b Batch) (n int, announced bool, err error) {
	rows, err := t.QueryContext(ctx, `
		SELECT r.jws FROM epochs e JOIN records r ON r.log = e.id AND r.seq = 0 WHERE e.controller = $1`, b.Controller)
	if err != nil {
		return 0, false, fmt.Errorf("read epochs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var jws string
		if err := rows.Scan(&jws); err != nil {
			return 0, false, fmt.Errorf("read epochs: %w", err)
		}
		n++
		former := claimedFormer(jws)
		announced = announced || former != nil && former.Epoch == b.Epoch
	}
	if err := rows.Err(); err != nil {
		return 0, false, fmt.Errorf("read epochs: %w", err)
	}
	return n, announced, nil
}

// alarmEpoch tells of a new epoch and of what its first record says went
// before. Its claim is compared with what is stored: records that were
// written and never arrived are a gap.
func (s *Store) alarmEpoch(ctx context.Context, t *tx, b Batch, former *visitorlog.Head) error {
	a := Alarm{Kind: AlarmEpoch, Controller: b.Controller, Epoch: b.Epoch,
		Detail: "a new log was begun; its first record does not say what went before"}
	if former == nil {
		return t.alarm(ctx, a)
	}
	var stored int64
	err := t.QueryRowContext(ctx, `SELECT size FROM epochs WHERE controller = $1 AND epoch = $2`, b.Controller, former.Epoch).Scan(&stored)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read former epoch: %w", err)
	}
	a.Detail = fmt.Sprintf("a new log was begun after epoch %s of size %d and root %s; %d of its records are stored here",
		former.Epoch, former.Size, former.Root, stored)
	if err := t.alarm(ctx, a); err != nil {
		return err
	}
	if former.Size <= uint64(stored) {
		return nil
	}
	first := uint64(stored)
	return t.alarm(ctx, Alarm{Kind: AlarmGap, Controller: b.Controller, Epoch: former.Epoch, Sequence: &first,
		Detail: fmt.Sprintf("records %d to %d were written and had not arrived when epoch %s began", stored, former.Size-1, b.Epoch)})
}

// claimedFormer is what a first record says of the epoch before. The record
// is under a root that the controller signed; its own signature is checked
// later.
func claimedFormer(jws string) *visitorlog.Head {
	payload, err := visitorlog.Payload(jws)
	if err != nil {
		return nil
	}
	r, err := visitorlog.ParseRecord(payload)
	if err != nil || r.Data.Former == nil || r.Data.Former.Epoch == "" {
		return nil
	}
	return r.Data.Former
}

// insert writes new records and nodes and moves the epoch's head.
func (s *Store) insert(ctx context.Context, t *tx, next *logState, first uint64, records []string, leaves []tlog.Hash, nodes []storedNode) error {
	now := micros(t.now)
	if err := insertRows(ctx, t, `INSERT INTO records (log, seq, leaf, jws, received) VALUES `, 5, len(records), func(i int) []any {
		return []any{next.id, int64(first) + int64(i), leaves[i][:], records[i], now}
	}); err != nil {
		return fmt.Errorf("insert records: %w", err)
	}
	if err := insertRows(ctx, t, `INSERT INTO nodes (log, ix, hash) VALUES `, 3, len(nodes), func(i int) []any {
		return []any{next.id, nodes[i].ix, nodes[i].hash[:]}
	}); err != nil {
		return fmt.Errorf("insert nodes: %w", err)
	}
	_, err := t.ExecContext(ctx, `UPDATE epochs SET size = $1, root = $2, checkpoint = $3, received = $4 WHERE id = $5`,
		next.size, next.root[:], next.note, now, next.id)
	if err != nil {
		return fmt.Errorf("move epoch head: %w", err)
	}
	return nil
}

// rowsAtOnce is how many rows one statement inserts: beyond it, the cost of a
// call no longer matters. A power of four.
const rowsAtOnce = 64

func insertRows(ctx context.Context, t *tx, into string, columns, n int, row func(i int) []any) error {
	for i := 0; i < n; {
		k := rowsAtOnce // few different statements, so that they stay prepared
		for k > n-i {
			k /= 4
		}
		args := make([]any, 0, k*columns)
		for range k {
			args = append(args, row(i)...)
			i++
		}
		if _, err := t.ExecContext(ctx, into+values(columns, k), args...); err != nil {
			return err
		}
	}
	return nil
}

// values is "($1, $2), ($3, $4)" for 2 columns and 2 rows.
func values(columns, rows int) string {
	b := make([]byte, 0, len("($1234)")*columns*rows)
	for n := range columns * rows {
		switch {
		case n == 0:
			b = append(b, '(')
		case n%columns == 0:
			b = append(b, "), ("...)
		default:
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(append(b, '$'), int64(n)+1, 10)
	}
	return string(append(b, ')'))
}

// cosign countersigns the committed head of an epoch, once, and keeps the
// cosignature before anybody sees it. The tree of a committed head only ever
// grows, so no two heads of one size are signed.
func (s *Store) cosign(ctx context.Context, name logName, ls *logState) (Head, error) {
	h := Head{Controller: name.controller, Epoch: name.epoch, Size: uint64(ls.size), Root: ls.root}
	if ls.size == 0 {
		return h, nil
	}
	// A cosigned note begins with the text that the log signed.
	text, _, _ := strings.Cut(ls.note, "\n\n")
	if strings.HasPrefix(ls.cosigned, text+"\n\n") {
		h.Checkpoint = ls.cosigned
		return h, nil
	}
	if !ls.counted {
		if err := s.recount(ctx, name); err != nil {
			return Head{}, err
		}
		ls.counted = true
	}
	signed, err := cosigned(ls.note, s.o.Cosigner)
	if err != nil {
		return Head{}, err
	}
	if _, err := s.w.ExecContext(ctx, `UPDATE epochs SET cosigned = $1 WHERE id = $2`, signed, ls.id); err != nil {
		return Head{}, fmt.Errorf("keep cosignature: %w", err)
	}
	ls.cosigned = signed
	h.Checkpoint = signed
	return h, nil
}

// cosigned adds the cosigner's signature to a note whose own signature was
// verified when it was stored.
func cosigned(signed string, cosigner note.Signer) (string, error) {
	_, err := note.Open([]byte(signed), nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return "", fmt.Errorf("cosign checkpoint: %w", err)
	}
	out, err := note.Sign(unverified.Note, cosigner)
	if err != nil {
		return "", fmt.Errorf("cosign checkpoint: %w", err)
	}
	return string(out), nil
}

// Report is what a controller says of itself when it connects, and now and
// then.
type Report struct {
	Controller string
	Epoch      string
	Session    string // random for each start of the controller's daemon
	Online     bool
	Checkpoint string // of its head; empty: its log is empty, or it is offline
	// Acknowledged is how many records of the epoch it has a receipt for.
	Acknowledged uint64
}

// Report compares a controller's head with what is stored and answers with
// the latter, like Ingest. A head that does not agree with the stored tree is
// a fork. One that is shorter is a rollback, if it is the first that a start
// of the daemon says: a session's first report is always answered before its
// first batch comes, while later ones may be overtaken by batches.
func (s *Store) Report(ctx context.Context, r Report) (Head, Refusal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := logName{r.Controller, r.Epoch}
	var (
		refusal Refusal
		policy  uint64
		present *logState
	)
	err := s.write(ctx, func(t *tx) error {
		from, err := sender(ctx, t, r.Controller)
		if err != nil {
			return err
		}
		policy = from.policy
		if present, err = s.load(ctx, t, name); err != nil {
			return err
		}
		if !r.Online {
			return s.offline(ctx, t, from, r)
		}
		var size uint64
		if r.Checkpoint != "" {
			signed, _, err := s.open(from.jwk, r.Controller, r.Epoch, r.Checkpoint)
			if err != nil {
				refusal = RefusedSignature
				return nil
			}
			size = signed.Size
			if refusal, err = s.compareHead(ctx, t, present, r, signed); err != nil {
				return err
			}
		}
		sessions, added := addSession(from.sessions, r.Session)
		if added && size < uint64(present.size) && refusal == Applied {
			err := t.alarm(ctx, Alarm{Kind: AlarmRollback, Controller: r.Controller, Epoch: r.Epoch, Sequence: &size,
				Detail: fmt.Sprintf("its log has %d records, of which it had sent %d", size, present.size)})
			if err != nil {
				return err
			}
		}
		if r.Acknowledged > uint64(present.size) {
			first := uint64(present.size)
			err := t.alarm(ctx, Alarm{Kind: AlarmRestored, Controller: r.Controller, Epoch: r.Epoch, Sequence: &first,
				Detail: fmt.Sprintf("it says that it has a receipt for %d records, of which %d are stored here: was the CRM restored from a backup? It sends them again",
					r.Acknowledged, present.size)})
			if err != nil {
				return err
			}
		}
		_, err = t.ExecContext(ctx, `
			UPDATE controllers SET online = 1, sessions = $1, reported_epoch = $2, reported_size = $3 WHERE name = $4`,
			sessions, r.Epoch, int64(size), r.Controller)
		if err != nil {
			return fmt.Errorf("store state of %q: %w", r.Controller, err)
		}
		return t.heard(ctx, r.Controller)
	})
	if err != nil {
		delete(s.logs, name)
		return Head{}, "", err
	}
	if present.size > 0 {
		s.logs[name] = present
	}
	h, err := s.cosign(ctx, name, present)
	h.PolicyVersion = policy
	return h, refusal, err
}

// compareHead raises a fork alarm if a signed head is not of the stored tree.
func (s *Store) compareHead(ctx context.Context, t *tx, present *logState, r Report, signed visitorlog.Checkpoint) (Refusal, error) {
	if signed.Size > uint64(present.size) {
		return Applied, nil // not yet known
	}
	root, err := tlog.TreeHash(int64(signed.Size), storedHashes{ctx, t, present.id})
	if err != nil {
		return "", err
	}
	if root == signed.Root {
		return Applied, nil
	}
	seq := signed.Size
	return RefusedFork, t.alarm(ctx, Alarm{Kind: AlarmFork, Controller: r.Controller, Epoch: r.Epoch, Sequence: &seq,
		Detail: fmt.Sprintf("its head of size %d has another root than the records stored", signed.Size)})
}

// offline marks a controller as gone, unless it has come back since in
// another session.
func (s *Store) offline(ctx context.Context, t *tx, from registered, r Report) error {
	if newest, _, _ := strings.Cut(from.sessions, " "); newest != r.Session {
		return nil
	}
	if _, err := t.ExecContext(ctx, `UPDATE controllers SET online = 0 WHERE name = $1`, r.Controller); err != nil {
		return fmt.Errorf("mark %q offline: %w", r.Controller, err)
	}
	return nil
}

// keptEarly bounds the early records of a controller.
const keptEarly = 256

// Early stores records ahead of their turn, so that they are seen at once.
// Only what verifies is kept, the newest keptEarly of each controller. It
// returns how many were kept.
func (s *Store) Early(ctx context.Context, b Batch) (int, error) {
	from, err := sender(ctx, s.r, b.Controller)
	if err != nil {
		return 0, err
	}
	key, err := s.key(from.jwk)
	if err != nil {
		return 0, err
	}
	good := make([]bool, len(b.Records))
	records := make([]visitorlog.Record, len(b.Records))
	for i, jws := range b.Records {
		records[i], err = visitorlog.VerifyRecord(jws, b.Controller, b.Epoch, b.First+uint64(i), key)
		good[i] = err == nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := 0
	err = s.write(ctx, func(t *tx) error {
		if _, err := sender(ctx, t, b.Controller); err != nil {
			return err
		}
		present, err := s.load(ctx, t, logName{b.Controller, b.Epoch})
		if err != nil {
			return err
		}
		for i, jws := range b.Records {
			seq := int64(b.First) + int64(i)
			if !good[i] || seq < present.size {
				continue
			}
			kept++
			_, err := t.ExecContext(ctx, `
				INSERT INTO early (controller, epoch, seq, jws, received) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (controller, epoch, seq) DO NOTHING`, b.Controller, b.Epoch, seq, jws, micros(t.now))
			if err != nil {
				return fmt.Errorf("store early records: %w", err)
			}
			if err := t.keep(ctx, b.Controller, &records[i]); err != nil {
				return err
			}
		}
		_, err = t.ExecContext(ctx, `
			DELETE FROM early WHERE controller = $1 AND (epoch, seq) NOT IN
				(SELECT epoch, seq FROM early WHERE controller = $1 ORDER BY received DESC, seq DESC LIMIT $2)`,
			b.Controller, keptEarly)
		if err != nil {
			return fmt.Errorf("store early records: %w", err)
		}
		return nil
	})
	return kept, err
}

// cosignLeft countersigns the heads that a stop between the commit and the
// cosignature has left.
func (s *Store) cosignLeft(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.Epochs(ctx, "")
	if err != nil {
		return err
	}
	for _, e := range list {
		ls := &logState{id: e.log, size: int64(e.Size), root: e.Root, note: e.Checkpoint, cosigned: e.Cosigned}
		var damaged *Fault
		switch _, err := s.cosign(ctx, logName{e.Controller, e.Epoch}, ls); {
		case errors.As(err, &damaged): // alarmed; the other logs are served
		case err != nil:
			return fmt.Errorf("epoch %s of %q: %w", e.Epoch, e.Controller, err)
		}
	}
	return nil
}

// recount counts the records of an epoch again whose head this program did not
// see grow. Whoever can write to the database must not be able to have the
// cosigner sign what no controller sent: the head must bear the registered
// key's signature and be the root of the signed records. Otherwise it raises
// an alarm and returns a *Fault.
func (s *Store) recount(ctx context.Context, name logName) error {
	list, err := s.Epochs(ctx, name.controller)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(e Epoch) bool { return e.Epoch == name.epoch })
	if i < 0 {
		return fmt.Errorf("epoch %s is gone", name.epoch)
	}
	err = s.countRecords(ctx, list[i])
	var fault *Fault
	if !errors.As(err, &fault) {
		return err
	}
	return errors.Join(fault, s.write(ctx, func(t *tx) error {
		return t.alarm(ctx, Alarm{Kind: AlarmDamaged, Controller: name.controller, Epoch: name.epoch, Detail: fault.What})
	}))
}
