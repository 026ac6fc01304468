package gpio

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	sample = 20 * time.Millisecond // between two measurements of a loop
	// restless is for how long an input may not come to rest for a turn. Nobody
	// moves a door so fast for so long.
	restless = 10 * time.Second
)

// Input is a contact, on a line or on a supervised loop.
type Input struct {
	name  string
	hold  time.Duration
	wires wires

	mu      sync.Mutex
	watched bool
	closed  bool
}

// wires are what an Input is read from.
type wires interface {
	// read gives the state now, and what was measured, in words.
	read() (state, string, error)
	// wait waits up to d for something to happen, and reports whether it did.
	// Nobody else may close the wires meanwhile.
	wait(d time.Duration) (moved bool, err error)
	close() error
}

// Watch tells the present state and then each change that stands still for
// the debounce time. It fails when the line cannot be read or never stands
// still, and for a supervised loop that is shorted (ErrShort) or open
// (ErrOpen).
func (in *Input) Watch(ctx context.Context, changed func(active bool)) error {
	if err := in.begin(); err != nil {
		return err
	}
	defer in.end()

	d := debounce[state]{hold: in.hold}
	var moving time.Time // since when it has not come to rest; zero: it rests
	moved := false
	for {
		s, measured, err := in.wires.read()
		now := time.Now()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", in.name, err)
		case d.told == unknown && s.fault() == nil:
			d.told = s // the present state is told at once
			changed(s == active)
		case d.see(s, moved, now):
			if err := s.fault(); err != nil {
				return fmt.Errorf("%s: %w (%s)", in.name, err, measured)
			}
			changed(s == active)
		}
		switch {
		case !moved:
			moving = time.Time{}
		case moving.IsZero():
			moving = now
		case now.Sub(moving) > restless:
			return fmt.Errorf("%s: it has not been still for %v: look for a loose clamp or for interference", in.name, restless)
		}
		if moved, err = in.wires.wait(max(0, d.due(turn, now))); err != nil {
			return fmt.Errorf("%s: %w", in.name, err)
		}
		if err := in.over(ctx); err != nil {
			return err
		}
	}
}

func (in *Input) begin() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return ErrClosed
	}
	if in.watched {
		return fmt.Errorf("%s: it is already watched", in.name)
	}
	in.watched = true
	return nil
}

// over is why a watch must end, or nil.
func (in *Input) over(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return ErrClosed
	}
	return ctx.Err()
}

// end ends a watch, and closes the wires if the driver was closed meanwhile:
// they cannot be closed by another goroutine while one waits for them.
func (in *Input) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.watched = false
	if in.closed {
		_ = in.wires.close() // they were only read
	}
}

func (in *Input) close() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	in.closed = true
	if in.watched {
		return nil
	}
	return in.wires.close()
}

// Look tells what the wires say at this moment, in words: for the installer.
func (in *Input) Look() (string, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return "", ErrClosed
	}
	s, measured, err := in.wires.read()
	if err != nil {
		return "", fmt.Errorf("%s: %w", in.name, err)
	}
	return fmt.Sprintf("%s: %s (%s)", in.name, s, measured), nil
}

// contact is a contact on a line.
type contact struct {
	line           input
	normallyClosed bool
	closedHigh     bool // the level of a closed contact
}

func (c *contact) read() (state, string, error) {
	isHigh, err := c.line.Level()
	if err != nil {
		return unknown, "", err
	}
	return of(isHigh == c.closedHigh, c.normallyClosed), level(isHigh), nil
}

func (c *contact) wait(d time.Duration) (bool, error) { return c.line.Wait(d) }

func (c *contact) close() error { return c.line.Close() }

func level(isHigh bool) string {
	if isHigh {
		return high
	}
	return low
}

// supervised is a contact on a supervised loop.
type supervised struct {
	adc            *adc
	loop           loop
	normallyClosed bool
}

func (s *supervised) read() (state, string, error) {
	mv, err := s.adc.millivolts()
	if err != nil {
		return unknown, "", err
	}
	return s.loop.state(mv, s.normallyClosed), fmt.Sprintf("%.0f mV", mv), nil
}

func (s *supervised) wait(d time.Duration) (bool, error) {
	time.Sleep(min(d, sample))
	return false, nil
}

func (s *supervised) close() error { return nil }
