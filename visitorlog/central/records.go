package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/tlog"
)

// Record is a stored record.
type Record struct {
	Controller string
	Epoch      string
	Sequence   uint64
	Leaf       tlog.Hash
	JWS        string
	Received   time.Time
	Checked    Checked
	Fault      string // what is wrong with it, if it is bad
	// Carrier is the id of the record that brought it, of a later epoch; empty:
	// it is in its own epoch's tree.
	Carrier string
	id      int64 // of the carrier, if there is one
	carried int64 // 0: it is not
}

// Position is the record's place in the order in which Records lists.
func (r Record) Position() Position { return Position{r.id, r.carried} }

// Checked says whether a record's signature and content were verified.
type Checked string

// The states of a check.
const (
	Unchecked Checked = ""
	Good      Checked = "ok"
	Bad       Checked = "bad"
)

// Position is a place in the order in which records arrived: after the record
// that it was got from. The zero Position is before the first record.
type Position struct{ id, carried int64 }

// Filter chooses records. A zero field does not restrict.
type Filter struct {
	Controller string
	Epoch      string
	Door       string
	Person     string
	Visit      string            // decisions about it, and what became of them
	Types      []visitorlog.Type // any of them
	Decision   string
	From       time.Time
	Until      time.Time // exclusive
	// Checked lists records in one of these states; nil: only good ones. What
	// Door to Until ask for is known only of good ones.
	Checked []Checked
	Carried bool // list carried records too, each after its carrier; not with Door to Until
	Newest  bool // the last to arrive first; After is then ignored
	After   Position
	Limit   int // 0: 1,000
}

const defaultLimit = 1000

// Records lists records in the order in which they arrived, which within an
// epoch is that of their sequence.
func (s *Store) Records(ctx context.Context, f Filter) ([]Record, error) {
	if f.Carried && (f.Door != "" || f.Person != "" || f.Visit != "" || len(f.Types) > 0 || f.Decision != "" || !f.From.IsZero() || !f.Until.IsZero()) {
		return nil, errors.New("list records: what carried ones say is in no column")
	}
	where, args := f.where()
	and := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	order := "r.id"
	if f.Newest {
		order = "r.id DESC"
	} else {
		and("r.id > $%d", f.After.id)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	args = append(args, limit)
	rows, err := s.r.QueryContext(ctx, fmt.Sprintf(`
		SELECT r.id, e.controller, e.epoch, r.seq, r.leaf, r.jws, r.received, r.checked, r.fault
		FROM records r JOIN epochs e ON e.id = r.log WHERE %s ORDER BY %s LIMIT $%d`,
		strings.Join(where, " AND "), order, len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	defer rows.Close()
	var list []Record
	for rows.Next() {
		var r Record
		var leaf []byte
		var received int64
		var checked, fault sql.NullString
		if err := rows.Scan(&r.id, &r.Controller, &r.Epoch, &r.Sequence, &leaf, &r.JWS, &received, &checked, &fault); err != nil {
			return nil, fmt.Errorf("list records: %w", err)
		}
		copy(r.Leaf[:], leaf)
		r.Received, r.Checked, r.Fault = fromMicros(received), Checked(checked.String), fault.String
		list = append(list, r)
	}
	if err := rows.Err(); err != nil || !f.Carried {
		return list, err
	}
	rows.Close()
	carried, err := s.carriedPage(ctx, f, limit)
	return merged(list, carried, f.Newest, limit), err
}

// where are the conditions of a filter, and their arguments.
func (f Filter) where() (where []string, args []any) {
	and := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	for _, c := range []struct{ column, value string }{
		{"e.controller", f.Controller}, {"e.epoch", f.Epoch}, {"r.door", f.Door}, {"r.subject", f.Person}, {"r.visit", f.Visit}, {"r.decision", f.Decision},
	} {
		if c.value != "" {
			and(c.column+" = $%d", c.value)
		}
	}
	if !f.From.IsZero() {
		and("r.time >= $%d", micros(f.From))
	}
	if !f.Until.IsZero() {
		and("r.time < $%d", micros(f.Until))
	}
	in := func(expression string, values []any) {
		args = append(args, values...)
		where = append(where, expression+" IN ("+placeholders(len(args)-len(values), len(values))+")")
	}
	if len(f.Types) > 0 {
		in("r.type", anys(f.Types))
	}
	states := f.Checked
	if states == nil {
		states = []Checked{Good}
	}
	in("coalesce(r.checked, '')", anys(states))
	return where, args
}

// Count is how many records Records would list, without a limit. Carried ones are
// not counted.
func (s *Store) Count(ctx context.Context, f Filter) (n int64, err error) {
	where, args := f.where()
	err = s.r.QueryRowContext(ctx, `SELECT count(*) FROM records r JOIN epochs e ON e.id = r.log WHERE `+strings.Join(where, " AND "), args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count records: %w", err)
	}
	return n, nil
}

func anys[T ~string](all []T) []any {
	values := make([]any, len(all))
	for i, v := range all {
		values[i] = string(v)
	}
	return values
}

// placeholders is "$3, $4" for 2 after the first 2.
func placeholders(after, n int) string {
	p := make([]string, n)
	for i := range p {
		p[i] = fmt.Sprintf("$%d", after+i+1)
	}
	return strings.Join(p, ", ")
}

// EarlyRecords lists what was seen ahead of its turn and has not come in it
// yet; of one controller, or of all if it is empty.
func (s *Store) EarlyRecords(ctx context.Context, controller string) ([]Record, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT controller, epoch, seq, jws, received FROM early
		WHERE $1 = '' OR controller = $1 ORDER BY controller, epoch, seq`, controller)
	if err != nil {
		return nil, fmt.Errorf("list early records: %w", err)
	}
	defer rows.Close()
	var list []Record
	for rows.Next() {
		r := Record{Checked: Good}
		var received int64
		if err := rows.Scan(&r.Controller, &r.Epoch, &r.Sequence, &r.JWS, &received); err != nil {
			return nil, fmt.Errorf("list early records: %w", err)
		}
		r.Leaf, r.Received = tlog.RecordHash([]byte(r.JWS)), fromMicros(received)
		list = append(list, r)
	}
	return list, rows.Err()
}

// Epoch is what the store holds of one epoch.
type Epoch struct {
	Controller string
	Epoch      string
	JWK        []byte // the key that signs it
	VKey       string
	Size       uint64
	Root       tlog.Hash
	Checkpoint string // at Size, signed by the log
	Cosigned   string // the newest cosigned one
	Checked    uint64 // records below this sequence are checked
	FirstSeen  time.Time
	Received   time.Time // when the last new record came
	log        int64
}

// Epochs lists the epochs by controller, each controller's in the order in
// which they were first seen; of one controller, or of all if it is empty.
func (s *Store) Epochs(ctx context.Context, controller string) ([]Epoch, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT e.id, e.controller, e.epoch, k.jwk, k.vkey, e.size, e.root, e.checkpoint, e.cosigned, e.checked, e.first_seen, e.received
		FROM epochs e JOIN keys k ON k.id = e.key
		WHERE $1 = '' OR e.controller = $1 ORDER BY e.controller, e.id`, controller)
	if err != nil {
		return nil, fmt.Errorf("list epochs: %w", err)
	}
	defer rows.Close()
	var list []Epoch
	for rows.Next() {
		var e Epoch
		var root []byte
		var first, received int64
		err := rows.Scan(&e.log, &e.Controller, &e.Epoch, &e.JWK, &e.VKey, &e.Size, &root, &e.Checkpoint, &e.Cosigned,
			&e.Checked, &first, &received)
		if err != nil {
			return nil, fmt.Errorf("list epochs: %w", err)
		}
		copy(e.Root[:], root)
		e.FirstSeen, e.Received = fromMicros(first), fromMicros(received)
		list = append(list, e)
	}
	return list, rows.Err()
}

// CosignedSize is how many records are countersigned.
func (e Epoch) CosignedSize() uint64 {
	text, _, ok := strings.Cut(e.Cosigned, "\n\n")
	if !ok {
		return 0
	}
	c, err := visitorlog.ParseCheckpoint(text + "\n")
	if err != nil {
		return 0
	}
	return c.Size
}

// Prove makes the proof of a record in the newest tree that is countersigned.
func (s *Store) Prove(ctx context.Context, e Epoch, seq uint64) (visitorlog.Proof, error) {
	if seq >= e.Size {
		return visitorlog.Proof{}, fmt.Errorf("record %d: %w: %d are stored, from 0 on", seq, ErrNoRecord, e.Size)
	}
	if e.Cosigned == "" {
		return visitorlog.Proof{}, fmt.Errorf("record %d: %w: nothing of the epoch is", seq, visitorlog.ErrNotCountersigned)
	}
	list, _, err := s.rows(ctx, e.log, int64(seq), int64(seq)+1)
	if err != nil {
		return visitorlog.Proof{}, err
	}
	if len(list) == 0 {
		return visitorlog.Proof{}, fmt.Errorf("record %d: %w: it is missing", seq, ErrNoRecord)
	}
	return visitorlog.ProveRecord(e.Cosigned, visitorlog.Entry{Seq: seq, JWS: list[0].jws}, storedHashes{ctx, s.r, e.log})
}
