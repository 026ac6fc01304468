package central

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	checkAtOnce   = 500         // records of one epoch in one round, then it is another's turn
	checkShare    = 9           // of the time that a round took goes to batches, if any came meanwhile
	lookForSilent = time.Minute // how often
)

// Run checks the signature and content of each record once it is stored, and
// raises the alarm for silent controllers, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(lookForSilent)
	defer tick.Stop()
	for {
		began := time.Now()
		n, err := s.Check(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// The records stay unchecked and are tried again.
			s.o.Logger.Error("check records", "error", err)
		}
		if n > 0 && err == nil {
			s.giveWay(ctx, began)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case now := <-tick.C:
			if err := s.RaiseSilent(ctx, now); err != nil && ctx.Err() == nil {
				s.o.Logger.Error("look for silent controllers", "error", err)
			}
		}
	}
}

// giveWay leaves most of the processors to batches while they come in: their
// controllers wait for receipts, and a check costs more than storing. For what
// a busy door sends it is milliseconds.
func (s *Store) giveWay(ctx context.Context, began time.Time) {
	if time.Unix(0, s.grew.Load()).Before(began) {
		return
	}
	pause := time.NewTimer(checkShare * time.Since(began))
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-pause.C:
	}
}

// Check checks up to checkAtOnce records of each epoch that has unchecked
// ones, and returns how many it did.
func (s *Store) Check(ctx context.Context) (int, error) {
	type due struct {
		id, checked       int64
		controller, epoch string
		jwk               string
	}
	rows, err := s.r.QueryContext(ctx, `
		SELECT e.id, e.checked, e.controller, e.epoch, k.jwk
		FROM epochs e JOIN keys k ON k.id = e.key WHERE e.checked < e.size ORDER BY e.id`)
	if err != nil {
		return 0, fmt.Errorf("find unchecked records: %w", err)
	}
	defer rows.Close()
	var list []due
	for rows.Next() {
		var d due
		if err := rows.Scan(&d.id, &d.checked, &d.controller, &d.epoch, &d.jwk); err != nil {
			return 0, fmt.Errorf("find unchecked records: %w", err)
		}
		list = append(list, d)
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("find unchecked records: %w", err)
	}
	done := 0
	for _, d := range list {
		key, err := s.key(d.jwk)
		if err != nil {
			return done, err
		}
		n, err := s.checkEpoch(ctx, key, d.id, d.checked, d.controller, d.epoch)
		done += n
		if err != nil {
			return done, fmt.Errorf("check records of %q, epoch %s: %w", d.controller, d.epoch, err)
		}
	}
	return done, nil
}

// verdict is what a check found.
type verdict struct {
	id      int64
	seq     uint64
	jws     string
	leaf    tlog.Hash
	before  string // the leaf before it, base64; empty at the first
	record  visitorlog.Record
	carried []visitorlog.Entry // what it carries, of other epochs
	fault   error
}

func (s *Store) checkEpoch(ctx context.Context, key Key, log, from int64, controller, epoch string) (int, error) {
	list, err := s.unchecked(ctx, log, from)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	inParallel(len(list), func(i int) {
		v := &list[i]
		v.record, v.carried, v.fault = verifyRecord(v.jws, controller, epoch, v.seq, key)
		if v.fault == nil {
			v.fault = v.record.Follows(v.before)
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.write(ctx, func(t *tx) error {
		var policy uint64
		for i := range list {
			if err := s.settle(ctx, t, log, controller, epoch, &list[i]); err != nil {
				return err
			}
			if p := list[i].record.Data.Policy; list[i].fault == nil && p != nil {
				policy = max(policy, p.Version)
			}
		}
		_, err := t.ExecContext(ctx, `UPDATE epochs SET checked = $1 WHERE id = $2`, from+int64(len(list)), log)
		if err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, `UPDATE controllers SET policy_version = $1 WHERE name = $2 AND policy_version < $1`,
			int64(policy), controller)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(list), nil
}

// unchecked reads the next records to check, each with the leaf before it.
func (s *Store) unchecked(ctx context.Context, log, from int64) ([]verdict, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT id, seq, jws, leaf FROM records WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`,
		log, max(from-1, 0), from+checkAtOnce)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []verdict
	for rows.Next() {
		var v verdict
		var leaf []byte
		if err := rows.Scan(&v.id, &v.seq, &v.jws, &leaf); err != nil {
			return nil, err
		}
		copy(v.leaf[:], leaf)
		if n := len(list); n > 0 {
			v.before = list[n-1].leaf.String()
		}
		list = append(list, v)
	}
	if from > 0 && len(list) > 0 {
		list = list[1:]
	}
	return list, rows.Err()
}

// settle writes down what the check of one record found. What a bad record
// says goes into no column: nobody has signed it.
func (s *Store) settle(ctx context.Context, t *tx, log int64, controller, epoch string, v *verdict) error {
	if v.fault != nil {
		_, err := t.ExecContext(ctx, `UPDATE records SET checked = 'bad', fault = $1 WHERE log = $2 AND seq = $3`,
			v.fault.Error(), log, int64(v.seq))
		if err != nil {
			return err
		}
		return t.alarm(ctx, Alarm{Kind: AlarmInvalid, Controller: controller, Epoch: epoch, Sequence: &v.seq,
			Detail: fmt.Sprintf("record %d: %v", v.seq, v.fault)})
	}
	r := &v.record
	visit, cause := visitOf(r)
	_, err := t.ExecContext(ctx, `
		UPDATE records SET checked = 'ok', type = $1, subject = $2, time = $3, door = $4, decision = $5, reason = $6,
			visit = coalesce($7, (SELECT visit FROM records WHERE log = $8 AND seq = $9))
		WHERE log = $8 AND seq = $10`,
		string(r.Type), orNull(r.Subject), micros(r.Time), orNull(r.Data.Door), orNull(r.Data.Decision), orNull(string(r.Data.Reason)),
		visit, log, cause, int64(v.seq))
	if err != nil {
		return err
	}
	if err := t.keep(ctx, controller, r); err != nil {
		return err
	}
	for _, e := range v.carried {
		if err := t.keepCarried(ctx, controller, v, e); err != nil {
			return err
		}
	}
	switch r.Type {
	case visitorlog.BreakGlass:
		return t.oweReview(ctx, v)
	case visitorlog.Gap:
	default:
		return nil
	}
	return t.alarm(ctx, Alarm{Kind: AlarmGap, Controller: controller, Epoch: epoch, Sequence: &v.seq,
		Detail: fmt.Sprintf("record %d: %s", v.seq, r.Data.Detail)})
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// inParallel calls f for 0 to n-1 on all cores.
func inParallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
