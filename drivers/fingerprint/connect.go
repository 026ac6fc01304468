package fingerprint

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// NoAnswer reports whether an error may pass with another try, or at another
// rate: nothing came, or nothing that made sense.
func NoAnswer(err error) bool { return errors.Is(err, ErrSilent) || errors.Is(err, ErrGarbled) }

// Retry calls f until it ends otherwise than with no answer, at most n times.
func Retry(n int, f func() error) error {
	for {
		err := f()
		if n--; n <= 0 || !NoAnswer(err) {
			return err
		}
	}
}

// Find opens a line for frames of at most frame bytes and looks for the rate at
// which a module answers hello: baud, or if that is 0 the first one of bauds.
// What hello says beside no answer ends the search. After an error nothing is
// open.
func Find(open func(baud int) (Line, error), baud int, bauds []int, frame int, hello func(*Wire) error) (*Wire, int, error) {
	if baud != 0 {
		bauds = []int{baud}
	}
	line, err := open(bauds[0])
	if err != nil {
		return nil, 0, err
	}
	w := NewWire(line, frame)
	for i, baud := range bauds {
		if i > 0 {
			if err := line.SetBaud(baud); err != nil {
				return nil, 0, errors.Join(err, line.Close())
			}
		}
		// Twice: what is on the wire from before spoils a first answer.
		if err = Retry(2, func() error { return hello(w) }); err == nil {
			return w, baud, nil
		}
		if !NoAnswer(err) {
			return nil, 0, errors.Join(err, line.Close())
		}
	}
	if len(bauds) > 1 {
		err = fmt.Errorf("%w (%w)", ErrNotFound, err)
	}
	return nil, 0, errors.Join(err, line.Close())
}

// LeftError is an error after which something may be stored that should not.
type LeftError struct {
	ID   ID
	Err  error // what went wrong
	Undo error // why it could not be removed
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("%v (ID %d may be in use now: delete it: %v)", e.Err, e.ID, e.Undo)
}

func (e *LeftError) Unwrap() error { return e.Err }

// Undo removes what may have been stored under an ID before err, even if the
// context has ended, and gives err; a LeftError when it does not get that done
// within limit.
func Undo(ctx context.Context, limit time.Duration, id ID, err error, remove func(context.Context, ID) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if undone := remove(ctx, id); undone != nil {
		return &LeftError{ID: id, Err: err, Undo: undone}
	}
	return err
}
