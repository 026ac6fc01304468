package visitorlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// State reads a state as the last commit left it; nil if there is none. What a
// decision depends on it reads by its Tx instead.
func (l *Log) State(ctx context.Context, key string) ([]byte, error) {
	l.use.RLock()
	defer l.use.RUnlock()
	s, err := l.current()
	if err != nil {
		return nil, err
	}
	var v []byte
	err = s.read.QueryRowContext(ctx, `SELECT value FROM state WHERE key = ?`, key).Scan(&v)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return v, nil
}

// States reads the states whose keys begin so, as the last commit left them.
// One that was emptied is none.
func (l *Log) States(ctx context.Context, prefix string) (map[string][]byte, error) {
	l.use.RLock()
	defer l.use.RUnlock()
	s, err := l.current()
	if err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT key, value FROM state WHERE key >= ? AND key < ? AND length(value) > 0`, prefix, prefix+"\U0010ffff")
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	defer rows.Close()
	states := make(map[string][]byte)
	for rows.Next() {
		var key string
		var value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		states[key] = value
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return states, nil
}
