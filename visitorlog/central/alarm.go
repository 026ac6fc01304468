package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// AlarmKind is what an alarm is about.
type AlarmKind string

// The kinds of alarm.
const (
	AlarmFork     AlarmKind = "fork"           // the controller signed two logs of one epoch
	AlarmRollback AlarmKind = "rollback"       // its log is shorter than what it had sent
	AlarmEpoch    AlarmKind = "new_epoch"      // it began a new log
	AlarmGap      AlarmKind = "gap"            // records are missing that had been written
	AlarmInvalid  AlarmKind = "invalid_record" // a record's content or signature is wrong
	AlarmDamaged  AlarmKind = "damaged"        // what is stored is not what was received
	AlarmSilent   AlarmKind = "silent"         // nothing was heard for too long
	AlarmRestored AlarmKind = "restored"       // this store has lost records that it had countersigned
)

// HeardAgain stands for a person's name on a silent alarm that closed itself.
const HeardAgain = "(heard again)"

// Alarm is something that a person must look at. It stays open until a person
// clears it, and while it is open the same again only counts. A silent alarm
// alone closes itself, when the controller is heard again.
type Alarm struct {
	ID         int64
	Kind       AlarmKind
	Controller string
	Epoch      string  // empty: the controller as a whole
	Sequence   *uint64 // the first record that it is about, if it is about one
	Detail     string
	Raised     time.Time
	Last       time.Time
	Count      int
	Cleared    time.Time // zero: open
	ClearedBy  string    // a person, or HeardAgain
}

// alarm raises an alarm in the transaction.
func (t *tx) alarm(ctx context.Context, a Alarm) error {
	at := micros(t.now)
	var seq any
	if a.Sequence != nil {
		seq = int64(*a.Sequence)
	}
	var raised int64
	err := t.QueryRowContext(ctx, `
		INSERT INTO alarms (kind, controller, epoch, seq, detail, raised, last, count)
		VALUES ($1, $2, $3, $4, $5, $6, $6, 1)
		ON CONFLICT (kind, controller, epoch) WHERE cleared IS NULL
		DO UPDATE SET last = excluded.last, count = count + 1
		RETURNING id, raised, count`,
		string(a.Kind), a.Controller, a.Epoch, seq, a.Detail, at).Scan(&a.ID, &raised, &a.Count)
	if err != nil {
		return fmt.Errorf("raise alarm: %w", err)
	}
	a.Raised, a.Last = fromMicros(raised), fromMicros(at)
	t.alarms = append(t.alarms, a)
	return nil
}

// Alarms lists alarms, the newest first: the open ones, or all.
func (s *Store) Alarms(ctx context.Context, all bool) ([]Alarm, error) {
	query := `SELECT id, kind, controller, epoch, seq, detail, raised, last, count, cleared, cleared_by FROM alarms`
	if !all {
		query += ` WHERE cleared IS NULL`
	}
	rows, err := s.r.QueryContext(ctx, query+` ORDER BY last DESC, id DESC`)
	if err != nil {
		return nil, fmt.Errorf("list alarms: %w", err)
	}
	defer rows.Close()
	var list []Alarm
	for rows.Next() {
		var a Alarm
		var seq, cleared sql.NullInt64
		var by sql.NullString
		var raised, last int64
		err := rows.Scan(&a.ID, &a.Kind, &a.Controller, &a.Epoch, &seq, &a.Detail, &raised, &last, &a.Count, &cleared, &by)
		if err != nil {
			return nil, fmt.Errorf("list alarms: %w", err)
		}
		if seq.Valid {
			n := uint64(seq.Int64)
			a.Sequence = &n
		}
		a.Raised, a.Last, a.Cleared, a.ClearedBy = fromMicros(raised), fromMicros(last), fromMicros(cleared.Int64), by.String
		list = append(list, a)
	}
	return list, rows.Err()
}

// ErrNoAlarm is returned by Clear if no open alarm has the id.
var ErrNoAlarm = errors.New("no such open alarm")

// Clear closes an alarm in a person's name.
func (s *Store) Clear(ctx context.Context, id int64, by string) error {
	if by == "" || by == HeardAgain {
		return errors.New("clear alarm: nobody is named")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(ctx, func(t *tx) error {
		res, err := t.ExecContext(ctx, `UPDATE alarms SET cleared = $1, cleared_by = $2 WHERE id = $3 AND cleared IS NULL`,
			micros(t.now), by, id)
		if err != nil {
			return fmt.Errorf("clear alarm %d: %w", id, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("clear alarm %d: %w", id, ErrNoAlarm))
		}
		return nil
	})
}

// heard notes that a controller was heard, and closes the alarm that it was
// not: nobody has to look for a controller that is there.
func (t *tx) heard(ctx context.Context, controller string) error {
	at := micros(t.now)
	if _, err := t.ExecContext(ctx, `UPDATE controllers SET seen = $1 WHERE name = $2`, at, controller); err != nil {
		return fmt.Errorf("note that %q was heard: %w", controller, err)
	}
	res, err := t.ExecContext(ctx, `
		UPDATE alarms SET cleared = $1, cleared_by = $2 WHERE kind = $3 AND controller = $4 AND cleared IS NULL`,
		at, HeardAgain, string(AlarmSilent), controller)
	if err != nil {
		return fmt.Errorf("close the silent alarm of %q: %w", controller, err)
	}
	n, err := res.RowsAffected()
	if n > 0 {
		t.back = controller
	}
	return err
}

// RaiseSilent raises an alarm for each controller that has not been heard
// for Options.SilentAfter. Run does so now and then.
func (s *Store) RaiseSilent(ctx context.Context, now time.Time) error {
	if s.o.SilentAfter <= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(ctx, func(t *tx) error {
		rows, err := t.QueryContext(ctx, `
			SELECT name, CASE WHEN seen > approved THEN seen ELSE approved END AS heard
			FROM controllers c WHERE revoked IS NULL AND seen < $1 AND approved < $1
			AND NOT EXISTS (SELECT 1 FROM alarms WHERE kind = $2 AND controller = c.name AND cleared IS NULL)`,
			micros(now.Add(-s.o.SilentAfter)), string(AlarmSilent))
		if err != nil {
			return fmt.Errorf("find silent controllers: %w", err)
		}
		defer rows.Close()
		var silent []Alarm
		for rows.Next() {
			a := Alarm{Kind: AlarmSilent}
			var heard int64
			if err := rows.Scan(&a.Controller, &heard); err != nil {
				return fmt.Errorf("find silent controllers: %w", err)
			}
			a.Detail = "nothing heard since " + fromMicros(heard).Format(time.RFC3339)
			silent = append(silent, a)
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("find silent controllers: %w", err)
		}
		for _, a := range silent {
			if err := t.alarm(ctx, a); err != nil {
				return err
			}
		}
		return nil
	})
}
