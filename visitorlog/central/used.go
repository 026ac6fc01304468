package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	// UsedFor is how long ago something may have been used up to be told of. Codes
	// live for hours, and TOTP for a minute and a half.
	UsedFor = 48 * time.Hour
	// MaxUsed is how much is told at most, the newest of it.
	MaxUsed = 64
)

// keep keeps what a good record says for others to look up: what it used up, and
// what became of a command.
func (t *tx) keep(ctx context.Context, controller string, r *visitorlog.Record) error {
	if len(r.Data.Used) > 0 {
		if _, err := t.ExecContext(ctx, `DELETE FROM used WHERE controller = $1 AND received <= $2`, controller, micros(t.now.Add(-UsedFor))); err != nil {
			return fmt.Errorf("forget what was used up long ago: %w", err)
		}
	}
	for _, what := range r.Data.Used {
		if _, err := t.ExecContext(ctx, `INSERT INTO used (controller, what, received) VALUES ($1, $2, $3) ON CONFLICT (controller, what) DO NOTHING`,
			controller, what, micros(t.now)); err != nil {
			return fmt.Errorf("keep what was used up: %w", err)
		}
	}
	c := r.Data.Command
	if c == nil {
		return nil
	}
	// Of several records of one command the first says what became of it: a copy of
	// it that was refused changes nothing.
	if _, err := t.ExecContext(ctx, `INSERT INTO commands (controller, id, result, time, received) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (controller, id) DO NOTHING`,
		controller, c.ID, c.Result, micros(r.Time), micros(t.now)); err != nil {
		return fmt.Errorf("keep what became of a command: %w", err)
	}
	return nil
}

// Used lists what a controller used up within UsedFor: the newest, MaxUsed at most,
// codes first. A TOTP is worth nothing after minutes, and there may be so many that
// they would make the codes be forgotten.
func (s *Store) Used(ctx context.Context, controller string) ([]string, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT what FROM used WHERE controller = $1 AND received > $2
		ORDER BY what LIKE 'code:%' DESC, received DESC, what LIMIT $3`,
		controller, micros(time.Now().Add(-UsedFor)), MaxUsed)
	if err != nil {
		return nil, fmt.Errorf("read what was used up: %w", err)
	}
	defer rows.Close()
	list := []string{}
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			return nil, fmt.Errorf("read what was used up: %w", err)
		}
		list = append(list, what)
	}
	return list, rows.Err()
}

// Command is what became of a command.
type Command struct {
	Result   string    // done, or refused: why
	Time     time.Time // the controller's clock
	Received time.Time
}

// Command looks up what became of a command at a controller, by a record that was
// checked, be it one that was seen ahead of its turn. There is none yet when ok is
// false.
func (s *Store) Command(ctx context.Context, controller, id string) (c Command, ok bool, err error) {
	var at, received int64
	err = s.r.QueryRowContext(ctx, `SELECT result, time, received FROM commands WHERE controller = $1 AND id = $2`, controller, id).
		Scan(&c.Result, &at, &received)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Command{}, false, nil
	case err != nil:
		return Command{}, false, fmt.Errorf("look up command %q: %w", id, err)
	}
	c.Time, c.Received = fromMicros(at), fromMicros(received)
	return c, true, nil
}

// Renew registers the new certificate of a controller that may send.
func (s *Store) Renew(ctx context.Context, name, fingerprint string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(ctx, func(t *tx) error {
		from, err := sender(ctx, t, name)
		if err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, `UPDATE keys SET fingerprint = $1 WHERE id = $2`, fingerprint, from.key)
		if err != nil {
			return fmt.Errorf("renew the certificate of %q: %w", name, err)
		}
		return nil
	})
}
