package serial

import (
	"context"
	"time"
)

// Backoff is the pause between attempts to open a line that is gone: each is
// twice the one before. The zero value pauses from 250 ms to 30 s.
type Backoff struct {
	First time.Duration // 250 ms
	Most  time.Duration // 30 s

	next time.Duration
}

// Wait pauses. It returns the context's error if that ends first.
func (b *Backoff) Wait(ctx context.Context) error {
	first, most := b.First, b.Most
	if first <= 0 {
		first = 250 * time.Millisecond
	}
	if most <= 0 {
		most = 30 * time.Second
	}
	pause := min(max(b.next, first), most)
	b.next = min(2*pause, most)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reset makes the next pause the first one again: the line works.
func (b *Backoff) Reset() { b.next = 0 }
