package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Review is the look that a person takes, afterwards, at a breaking of the glass.
type Review struct {
	ID         int64
	Controller string
	Door       string
	Person     string    // pseudonymous id; "": not known
	At         time.Time // of the record
	Reviewed   time.Time // zero: owed
	Reviewer   string
	Justified  bool
	Finding    string
}

// Owed reports whether nobody has reviewed it yet.
func (r Review) Owed() bool { return r.Reviewed.IsZero() }

// maxFinding bounds what a review says, in bytes.
const maxFinding = 4096

// oweReview notes that a record is to be reviewed.
func (t *tx) oweReview(ctx context.Context, v *verdict) error {
	_, err := t.ExecContext(ctx, `INSERT INTO reviews (record, person) VALUES ($1, $2) ON CONFLICT DO NOTHING`, v.id, v.record.Subject)
	return err
}

// Reviews lists the reviews that are owed, the oldest first; with all, those that
// were made too.
func (s *Store) Reviews(ctx context.Context, all bool) ([]Review, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT v.record, e.controller, coalesce(r.door, ''), v.person, r.time, v.reviewed, v.reviewer, v.justified, v.finding
		FROM reviews v JOIN records r ON r.id = v.record JOIN epochs e ON e.id = r.log
		WHERE $1 OR v.reviewed IS NULL ORDER BY v.record`, all)
	if err != nil {
		return nil, fmt.Errorf("list reviews: %w", err)
	}
	defer rows.Close()
	var list []Review
	for rows.Next() {
		var r Review
		var at int64
		var reviewed sql.NullInt64
		var reviewer, finding sql.NullString
		var justified sql.NullBool
		if err := rows.Scan(&r.ID, &r.Controller, &r.Door, &r.Person, &at, &reviewed, &reviewer, &justified, &finding); err != nil {
			return nil, fmt.Errorf("list reviews: %w", err)
		}
		r.At, r.Reviewer, r.Justified, r.Finding = fromMicros(at), reviewer.String, justified.Bool, finding.String
		if reviewed.Valid {
			r.Reviewed = fromMicros(reviewed.Int64)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// Errors of a review.
var (
	ErrNoReview  = errors.New("no review of that number is owed")
	ErrOwnReview = errors.New("nobody reviews what they did themselves")
)

// SetReview writes what somebody found when they looked into a breaking of the
// glass. A review is made once, and by another person than the one who broke it.
func (s *Store) SetReview(ctx context.Context, id int64, by string, justified bool, finding string) error {
	switch by, finding = strings.TrimSpace(by), strings.TrimSpace(finding); {
	case by == "":
		return errors.New("a review is made in somebody's name")
	case finding == "":
		return errors.New("a review says what was found")
	case len(finding) > maxFinding || len(by) > maxFinding:
		return fmt.Errorf("a review has at most %d bytes", maxFinding)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(ctx, func(t *tx) error {
		var person string
		err := t.QueryRowContext(ctx, `SELECT person FROM reviews WHERE record = $1 AND reviewed IS NULL`, id).Scan(&person)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("%w: %d", ErrNoReview, id)
		case err != nil:
			return err
		case person == by:
			return ErrOwnReview
		}
		_, err = t.ExecContext(ctx, `UPDATE reviews SET reviewed = $1, reviewer = $2, justified = $3, finding = $4 WHERE record = $5`,
			micros(time.Now()), by, justified, finding, id)
		return err
	})
}

// visitOf is the visit that a record itself names, and the decision that it
// follows from, which may name one.
func visitOf(r *visitorlog.Record) (visit any, cause any) {
	if v := r.Data.Visit; v != nil && v.ID != "" {
		return v.ID, nil
	}
	if c := r.Data.Cause; c != nil {
		return nil, int64(*c)
	}
	return nil, nil
}
