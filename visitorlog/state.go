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
