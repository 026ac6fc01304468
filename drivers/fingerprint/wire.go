package fingerprint

import (
	"context"
	"fmt"
	"time"
)

// Line is a serial line, as drivers/serial opens one.
type Line interface {
	// Read waits for at most timeout for bytes and copies those that there are to
	// b. It returns 0, nil when none came, and an error when the line is gone.
	Read(b []byte, timeout time.Duration) (int, error)
	Write(b []byte) (int, error)
	// SetBaud changes the rate; what has not been read is lost.
	SetBaud(baud int) error
	// Close may be called from any goroutine, and ends a Read that waits.
	Close() error
}

// Wire finds frames in what comes over a line. The drivers of the families are
// built on it; one goroutine uses it.
type Wire struct {
	Line Line

	buf []byte
	n   int
}

// maxStale bounds the reads of what has come before a command.
const maxStale = 256

// A read waits no longer than this, so that a context that has ended is seen.
const slice = 50 * time.Millisecond

// NewWire makes a wire for frames of at most frame bytes.
func NewWire(l Line, frame int) *Wire { return &Wire{Line: l, buf: make([]byte, frame)} }

// Send writes a frame and clears it, for there may be a template in it.
func (w *Wire) Send(frame []byte) error {
	_, err := w.Line.Write(frame)
	clear(frame)
	return err
}

// Receive waits for at most wait for a frame. Scan is given what has come so
// far. It returns how many bytes from its start are done with, and whether
// these were a frame; 0 and false when more has to come.
//
// ErrSilent means that nothing came, ErrGarbled that what came was no frame.
func (w *Wire) Receive(ctx context.Context, wait time.Duration, scan func([]byte) (n int, ok bool)) error {
	end := time.Now().Add(wait)
	garbage := 0
	for {
		for w.n > 0 {
			n, ok := scan(w.buf[:w.n])
			if n == 0 && w.n == len(w.buf) {
				n = 1 // a frame that long there is not
			}
			if n == 0 {
				break
			}
			w.drop(n)
			if ok {
				return nil
			}
			garbage += n
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			if garbage += w.n; garbage > 0 {
				return fmt.Errorf("%w (%d bytes in %v)", ErrGarbled, garbage, wait)
			}
			return fmt.Errorf("%w (for %v)", ErrSilent, wait)
		}
		n, err := w.Line.Read(w.buf[w.n:], min(left, slice))
		if err != nil {
			return err
		}
		w.n += n
	}
}

// Silence reads until nothing has come for quiet, at most for wait, and hands
// everything to got, which may be nil. It reports whether it became silent.
func (w *Wire) Silence(ctx context.Context, quiet, wait time.Duration, got func([]byte)) (bool, error) {
	end := time.Now().Add(wait)
	last := time.Now()
	for {
		if w.n > 0 {
			if got != nil {
				got(w.buf[:w.n])
			}
			w.drop(w.n)
			last = time.Now()
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := time.Until(last.Add(quiet))
		if left <= 0 {
			return true, nil
		}
		if time.Now().After(end) {
			return false, nil
		}
		n, err := w.Line.Read(w.buf[w.n:], min(left, slice))
		if err != nil {
			return false, err
		}
		w.n += n
	}
}

// Forget drops what has come.
func (w *Wire) Forget() { w.drop(w.n) }

// Ask is Send for a command: what has come before it is no answer to it, and
// is dropped.
func (w *Wire) Ask(frame []byte) error {
	w.Forget()
	for range maxStale {
		n, err := w.Line.Read(w.buf, 0)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		clear(w.buf[:n])
	}
	return w.Send(frame)
}

// drop leaves no copy of what it drops.
func (w *Wire) drop(n int) {
	copy(w.buf, w.buf[n:w.n])
	clear(w.buf[w.n-n : w.n])
	w.n -= n
}

// Pause waits, and returns the context's error if that ends first.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Turn is a lock that is waited for until a context ends.
type Turn chan struct{}

// NewTurn makes one that nobody has.
func NewTurn() Turn { return make(Turn, 1) }

// Take waits for the turn.
func (t Turn) Take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Give lets the next one have it.
func (t Turn) Give() { <-t }
