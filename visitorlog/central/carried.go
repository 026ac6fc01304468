package central

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/note"
)

// verifyRecord verifies a record, and those that it carries.
func verifyRecord(jws, controller, epoch string, seq uint64, key Key) (visitorlog.Record, []visitorlog.Entry, error) {
	r, err := visitorlog.VerifyRecord(jws, controller, epoch, seq, key)
	if err != nil {
		return r, nil, err
	}
	carried, err := r.Unpack(key)
	return r, carried, err
}

// keepCarried stores a record that another has brought, unless it is there
// already. Two of one sequence are a fork, of which both are kept.
func (t *tx) keepCarried(ctx context.Context, controller string, carrier *verdict, e visitorlog.Entry) error {
	epoch := e.Record.Data.Epoch
	var same, others int
	err := t.QueryRowContext(ctx, `SELECT coalesce(sum(leaf = $1), 0), coalesce(sum(leaf != $1), 0) FROM (
		SELECT r.leaf FROM records r JOIN epochs e ON e.id = r.log WHERE e.controller = $2 AND e.epoch = $3 AND r.seq = $4
		UNION ALL SELECT leaf FROM carried WHERE controller = $2 AND epoch = $3 AND seq = $4)`,
		e.Leaf[:], controller, epoch, int64(e.Seq)).Scan(&same, &others)
	if err != nil {
		return fmt.Errorf("look for carried record: %w", err)
	}
	if same > 0 {
		return nil
	}
	if _, err := t.ExecContext(ctx, `INSERT INTO carried (controller, epoch, seq, leaf, jws, carrier) VALUES ($1, $2, $3, $4, $5, $6)`,
		controller, epoch, int64(e.Seq), e.Leaf[:], e.JWS, carrier.id); err != nil {
		return fmt.Errorf("store carried record: %w", err)
	}
	if _, err := t.ExecContext(ctx, `DELETE FROM early WHERE controller = $1 AND epoch = $2 AND seq = $3 AND jws = $4`,
		controller, epoch, int64(e.Seq), e.JWS); err != nil {
		return fmt.Errorf("drop early record: %w", err)
	}
	if others == 0 {
		return nil
	}
	return t.alarm(ctx, Alarm{Kind: AlarmFork, Controller: controller, Epoch: epoch, Sequence: &e.Seq,
		Detail: fmt.Sprintf("record %d came again with another content, carried by record %s; both are kept", e.Seq, carrier.record.ID)})
}

// overtaken drops carried records that have come in their turn after all, as
// records first to end of their epoch. Others of those sequences are a fork.
func (t *tx) overtaken(ctx context.Context, log int64, b Batch, first, end int64) error {
	_, err := t.ExecContext(ctx, `DELETE FROM carried WHERE controller = $1 AND epoch = $2 AND seq >= $3 AND seq < $4
		AND EXISTS (SELECT 1 FROM records r WHERE r.log = $5 AND r.seq = carried.seq AND r.leaf = carried.leaf)`,
		b.Controller, b.Epoch, first, end, log)
	if err != nil {
		return fmt.Errorf("drop carried records: %w", err)
	}
	var other sql.NullInt64
	err = t.QueryRowContext(ctx, `SELECT min(seq) FROM carried WHERE controller = $1 AND epoch = $2 AND seq >= $3 AND seq < $4`,
		b.Controller, b.Epoch, first, end).Scan(&other)
	if err != nil || !other.Valid {
		return err
	}
	seq := uint64(other.Int64)
	return t.alarm(ctx, Alarm{Kind: AlarmFork, Controller: b.Controller, Epoch: b.Epoch, Sequence: &seq,
		Detail: fmt.Sprintf("record %d came with another content than the one that was carried; both are kept", seq)})
}

// Carried lists the records of an epoch that only records of later epochs have
// brought, by sequence.
func (s *Store) Carried(ctx context.Context, controller, epoch string) ([]Record, error) {
	return s.carried(ctx, `c.controller = $1 AND c.epoch = $2 ORDER BY c.seq, c.id`, controller, epoch)
}

// carriedPage lists carried records as Records does, in the place of their
// carriers.
func (s *Store) carriedPage(ctx context.Context, f Filter, limit int) ([]Record, error) {
	order, after := "c.carrier, c.id", f.After
	if f.Newest {
		order, after = "c.carrier DESC, c.id DESC", Position{}
	}
	return s.carried(ctx, `($1 = '' OR c.controller = $1) AND ($2 = '' OR c.epoch = $2)
		AND c.carrier >= $3 AND (c.carrier > $3 OR c.id > $4) ORDER BY `+order+` LIMIT $5`,
		f.Controller, f.Epoch, after.id, after.carried, limit)
}

func (s *Store) carried(ctx context.Context, where string, args ...any) ([]Record, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT c.carrier, c.id, c.controller, c.epoch, c.seq, c.leaf, c.jws, r.received, e.epoch || '-' || r.seq
		FROM carried c JOIN records r ON r.id = c.carrier JOIN epochs e ON e.id = r.log WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list carried records: %w", err)
	}
	defer rows.Close()
	var list []Record
	for rows.Next() {
		r := Record{Checked: Good}
		var leaf []byte
		var received int64
		if err := rows.Scan(&r.id, &r.carried, &r.Controller, &r.Epoch, &r.Sequence, &leaf, &r.JWS, &received, &r.Carrier); err != nil {
			return nil, fmt.Errorf("list carried records: %w", err)
		}
		copy(r.Leaf[:], leaf)
		r.Received = fromMicros(received)
		list = append(list, r)
	}
	return list, rows.Err()
}

// merged are records and carried ones in one order, at most limit of them.
func merged(records, carried []Record, newest bool, limit int) []Record {
	list := append(records, carried...)
	slices.SortStableFunc(list, func(a, b Record) int {
		n := cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.carried, b.carried))
		if newest {
			return -n
		}
		return n
	})
	return list[:min(len(list), limit)]
}

// checkCarried says what is wrong with what is stored of the records that a
// checked one carries: each is there, and nothing else is in its name.
func (s *Store) checkCarried(ctx context.Context, controller string, r *row) (what string, err error) {
	if r.record.Type != visitorlog.RecordCarried {
		return "", nil // checkFile has looked for others
	}
	kept, err := s.carried(ctx, `c.carrier = $1 ORDER BY c.id`, r.id)
	if err != nil {
		return "", err
	}
	for _, k := range kept {
		if !slices.ContainsFunc(r.carried, func(e visitorlog.Entry) bool {
			return k.Controller == controller && k.Epoch == e.Record.Data.Epoch && k.Sequence == e.Seq && k.JWS == e.JWS && k.Leaf == e.Leaf
		}) {
			return fmt.Sprintf("record %d of epoch %s is not as it carries it", k.Sequence, k.Epoch), nil
		}
	}
	for _, e := range r.carried {
		epoch := e.Record.Data.Epoch
		var there bool
		err := s.r.QueryRowContext(ctx, `SELECT
			EXISTS (SELECT 1 FROM carried WHERE controller = $1 AND epoch = $2 AND seq = $3 AND leaf = $4) OR
			EXISTS (SELECT 1 FROM records r JOIN epochs e ON e.id = r.log WHERE e.controller = $1 AND e.epoch = $2 AND r.seq = $3 AND r.leaf = $4)`,
			controller, epoch, int64(e.Seq), e.Leaf[:]).Scan(&there)
		if err != nil {
			return "", fmt.Errorf("look for carried record: %w", err)
		}
		if !there {
			return fmt.Sprintf("record %d of epoch %s, which it carries, is missing", e.Seq, epoch), nil
		}
	}
	return "", nil
}

// carriedStanding verifies a carried record by its carrier.
func (s *Store) carriedStanding(ctx context.Context, e Epoch, seq uint64, cosigner note.Verifier) (Standing, error) {
	list, err := s.Carried(ctx, e.Controller, e.Epoch)
	if err != nil {
		return Standing{}, err
	}
	i := slices.IndexFunc(list, func(r Record) bool { return r.Sequence == seq })
	if i < 0 {
		return Standing{}, fmt.Errorf("record %d: %w: %d are stored, from 0 on", seq, ErrNoRecord, e.Size)
	}
	var epoch string
	var at int64
	err = s.r.QueryRowContext(ctx, `SELECT e.epoch, r.seq FROM records r JOIN epochs e ON e.id = r.log WHERE r.id = $1`, list[i].id).Scan(&epoch, &at)
	if err != nil {
		return Standing{}, fmt.Errorf("read the record that carries record %d: %w", seq, err)
	}
	epochs, err := s.Epochs(ctx, e.Controller)
	if err != nil {
		return Standing{}, err
	}
	of := slices.IndexFunc(epochs, func(e Epoch) bool { return e.Epoch == epoch })
	if of < 0 || uint64(at) >= epochs[of].Size {
		return Standing{}, fmt.Errorf("record %d: %w: the record that carries it is missing", seq, ErrNoRecord)
	}
	st, err := s.Standing(ctx, epochs[of], uint64(at), cosigner)
	if err != nil {
		return st, err
	}
	carrier := st.Record
	st.Carrier, st.Record, st.Link = &carrier, list[i], nil
	key, err := s.key(string(epochs[of].JWK))
	if err != nil {
		return st, err
	}
	if st.Signature == nil { // of the carrier
		st.Parsed, st.Signature = visitorlog.VerifyRecord(st.Record.JWS, e.Controller, e.Epoch, seq, key)
	}
	return st, nil
}
