package panel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// tellWithin is how long a peripheral that works may take to tell the state of
// its inputs. The bus asks at once.
const tellWithin = 3 * time.Second

// most is how many changes wait for who watches. More than that in one go is no
// door: what is told then is the last.
const most = 64

// What is wrong with an input.
var (
	ErrShort   = errors.New("the loop is shorted: somebody may have bridged it")
	ErrOpen    = errors.New("the loop is open: a wire is broken or was cut")
	ErrFaulty  = errors.New("the reader says that the loop is faulty")
	ErrUnknown = errors.New("the reader does not know the state of the input")
)

// reading is what an input sees: active or not, or a fault.
type reading struct {
	active bool
	fault  error
}

// Input is a contact at a peripheral's input, or its tamper switch.
type Input struct {
	p      *peripheral
	number int  // -1: the tamper switch
	closed bool // while nothing is the matter: "active" is how things should be

	// The peripheral's mutex guards what follows.
	watched bool
	known   *reading  // nil: the peripheral has not told yet
	missing bool      // it has told of others, and has none of this number
	queue   []reading // for who watches
}

func newInput(p *peripheral, d *Device) *Input {
	if d.Tamper {
		return &Input{p: p, number: -1}
	}
	return &Input{p: p, number: *d.Input, closed: d.Normally == normallyClosed}
}

func (in *Input) String() string {
	if in.number < 0 {
		return fmt.Sprintf("the tamper switch of %v", in.p)
	}
	return fmt.Sprintf("input %d of %v", in.number, in.p)
}

// Watch tells the present state and then each change; the peripheral debounces.
// It fails while the peripheral does not work, has no Secure Channel or no such
// input, and when a supervised loop is not in order.
func (in *Input) Watch(ctx context.Context, changed func(active bool)) error {
	if err := in.p.start(); err != nil {
		return err
	}
	if !in.begin() {
		return fmt.Errorf("%v is watched already", in)
	}
	defer in.end()
	var told *bool
	for {
		c := in.p.condition()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case c.wrong != nil:
			return c.wrong
		}
		next, err := in.take()
		if err != nil {
			return err
		}
		for _, r := range next {
			if r.fault != nil {
				return fmt.Errorf("%v: %w", in, r.fault)
			}
			if told == nil || *told != r.active {
				told = &r.active
				changed(r.active)
			}
		}
		var late <-chan time.Time
		if c.up && told == nil {
			late = time.After(tellWithin)
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
		case <-late:
			return fmt.Errorf("%v: the reader does not tell its state", in)
		}
	}
}

// begin has the present state told first.
func (in *Input) begin() bool {
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	if in.watched {
		return false
	}
	in.watched = true
	in.queue = nil
	if in.known != nil {
		in.queue = []reading{*in.known}
	}
	return true
}

func (in *Input) end() {
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	in.watched = false
}

// take takes what is to be told.
func (in *Input) take() ([]reading, error) {
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	if in.missing {
		return nil, fmt.Errorf("%v: there is no such input", in)
	}
	next := in.queue
	in.queue = nil
	return next, nil
}

// Look tells what the peripheral said last, in words: for the installer.
func (in *Input) Look() (string, error) {
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	switch {
	case in.p.wrong != nil:
		return "", in.p.wrong
	case in.missing:
		return "", fmt.Errorf("%v: there is no such input", in)
	case in.known == nil:
		return "", fmt.Errorf("%v: nothing is known yet", in)
	case in.known.fault != nil:
		return "", fmt.Errorf("%v: %w", in, in.known.fault)
	case in.known.active:
		return "active", nil
	}
	return "inactive", nil
}

// The methods below are called with the peripheral's mutex held.

// local takes the state of the peripheral itself. One that loses its power may
// soon have no other way to say that somebody is at it.
func (in *Input) local(m osdp.LocalStatus) {
	if in.number < 0 {
		in.see(reading{active: m.Tamper || m.PowerFail})
	}
}

// states takes the state of all inputs.
func (in *Input) states(m osdp.Inputs) {
	if in.number < 0 {
		return
	}
	if in.missing = in.number >= len(m); in.missing {
		in.p.tell()
		return
	}
	switch m[in.number] {
	case osdp.InputInactive:
		in.see(reading{active: in.closed})
	case osdp.InputActive:
		in.see(reading{active: !in.closed})
	case osdp.InputShort:
		in.see(reading{fault: ErrShort})
	case osdp.InputOpen:
		in.see(reading{fault: ErrOpen})
	case osdp.InputFault:
		in.see(reading{fault: ErrFaulty})
	default:
		in.see(reading{fault: ErrUnknown})
	}
}

func (in *Input) see(r reading) {
	if in.known != nil && *in.known == r {
		return
	}
	in.known = &r
	if len(in.queue) == most {
		in.queue = nil
	}
	in.queue = append(in.queue, r)
	in.p.tell()
}

// forget is told that nothing is known any more.
func (in *Input) forget() { in.known, in.missing, in.queue = nil, false, nil }
