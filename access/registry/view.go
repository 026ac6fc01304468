package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// View is somebody's looking at what the registry holds of people.
type View struct {
	By     string // who, as in Change
	Kind   Kind   // KindPerson, KindVisit or KindAudit, say
	ID     string // of the one object that is shown; "": a list
	Filter string // which of a list, such as "state=in"; its first 200 bytes are noted; "": all
}

// KindAudit is what the audit's lines of those who look at it are of.
const KindAudit Kind = "audit"

const (
	actionView = "view"
	// viewedAgain is how long somebody who looks at the same again has said so: a
	// page that is loaded anew every few seconds is one look.
	viewedAgain = 15 * time.Minute
	// viewsBack is how many lines are looked through for it.
	viewsBack = 100
)

// Viewed notes in the audit that somebody looks at people, visits, credentials or
// the audit itself. It is called before anything is shown: where it fails, nothing
// is. One line tells of the same look for 15 minutes.
func (r *Registry) Viewed(ctx context.Context, v View) error {
	why := cut(spelling.Printable(v.Filter), maxText)
	if why == "" {
		why = "all"
		if v.ID != "" {
			why = "shown"
		}
	}
	c := Change{By: v.By, Why: why}
	if err := c.check(); err != nil {
		return err
	}
	if v.ID != "" && !fields.IsName(v.ID) { // nothing has such an id
		return fmt.Errorf("%s %s is %w", v.Kind, fields.Quote(v.ID), ErrNotFound)
	}
	// Twice: most looks are no news, and need no writer.
	if seen, err := r.seen(ctx, r.r, v, c); err != nil || seen {
		return err
	}
	return r.write(ctx, c, func(t *tx) error {
		if seen, err := r.seen(ctx, t, v, c); err != nil || seen {
			return err
		}
		return t.line(Line{Action: actionView, Kind: v.Kind, ID: v.ID})
	})
}

// cut is as much of a text as goes into so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// seen says whether the audit tells of a look already.
func (r *Registry) seen(ctx context.Context, q queryer, v View, c Change) (seen bool, err error) {
	rows, err := q.QueryContext(ctx, `SELECT at, who, why, action FROM audit WHERE kind = $1 AND id = $2 ORDER BY seq DESC LIMIT $3`, string(v.Kind), v.ID, viewsBack)
	if err != nil {
		return false, fmt.Errorf("read the audit: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	since := r.o.Clock().Add(-viewedAgain).UnixMicro()
	for rows.Next() {
		var at int64
		var who, why, action string
		if err := rows.Scan(&at, &who, &why, &action); err != nil {
			return false, fmt.Errorf("read the audit: %w", err)
		}
		if at < since {
			return false, nil
		}
		if action == actionView && who == c.By && why == c.Why {
			return true, nil
		}
	}
	return false, rows.Err()
}
