package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

const actionPublish = "publish"

// Published adds a line to the audit that says who published to controllers by
// command, and why. It changes nothing that Changes counts.
func (r *Registry) Published(ctx context.Context, c Change, controllers []string) error {
	return r.write(ctx, c, func(t *tx) error {
		for _, name := range controllers {
			if err := t.line(Line{Action: actionPublish, Kind: kindController, ID: name}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Mark names a line of the audit by all lines up to it: a registry that was put
// back to an older state, and changed since, has another one there. It is empty
// where there is no such line.
func (r *Registry) Mark(ctx context.Context, line uint64) (mark string, err error) {
	err = r.r.QueryRowContext(ctx, `SELECT hex(chain) FROM audit WHERE seq = $1`, line).Scan(&mark)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read the audit: %w", err)
	}
	return mark, nil
}

// Touched are the people of whom something was changed after a line of the audit,
// by themselves or by a card of theirs, but for cards that are gone; no more than
// most of them.
func (r *Registry) Touched(ctx context.Context, since uint64, most int) (people []string, err error) {
	rows, err := r.r.QueryContext(ctx, `
		SELECT id FROM audit WHERE seq > $1 AND version > 0 AND kind = $2
		UNION SELECT l.to_id FROM audit a JOIN link l ON l.kind = a.kind AND l.id = a.id AND l.to_kind = $2 WHERE a.seq > $1 AND a.version > 0 AND a.kind = $3
		LIMIT $4`, since, string(KindPerson), string(KindCredential), most)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read the audit: %w", err)
		}
		people = append(people, id)
	}
	return people, rows.Err()
}
