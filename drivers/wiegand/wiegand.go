package wiegand

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/gpio"
)

const (
	turn     = 100 * time.Millisecond // in which a context's end, and a line that is stuck, are noticed
	stuckFor = time.Second            // a pulse is over in a millisecond
	edges    = 64                     // that are read at once
	drain    = 64                     // reads, to empty the kernel's buffer
)

type edge = gpio.Edge

// Bus gives out readers.
type Bus struct {
	log  *slog.Logger
	open func(d *Device) (gpio.Pair, error)

	mu      sync.Mutex
	closed  bool
	readers []*Reader
}

// Open prepares the driver. Lines are taken when a reader is given out.
func Open(s *Settings, log *slog.Logger) (*Bus, error) {
	own := *s
	return &Bus{log: log, open: func(d *Device) (gpio.Pair, error) {
		chip := d.Chip
		if chip == "" {
			chip = own.Chip
		}
		return gpio.OpenPair(chip, d.D0, d.D1, gpio.PairOptions{Bias: d.Bias, AllowFallback: own.AllowFallback})
	}}, nil
}

// Reader takes the two lines of a reader. Formats are those that its cards may
// have; with none every frame is taken as it comes, and none ends early.
func (b *Bus) Reader(d *Device, formats []*badge.Format) (*Reader, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, gpio.ErrClosed
	}
	lines, err := b.open(d)
	if err != nil {
		return nil, err
	}
	r := &Reader{device: *d, log: b.log, open: b.open, rules: newRules(formats, d)}
	r.attach(lines)
	b.readers = append(b.readers, r)
	return r, nil
}

// Strike, Input and Indicator are what this driver does not have.
type (
	Strike interface {
		Lock() error
		Unlock() error
	}
	Input interface {
		Watch(ctx context.Context, changed func(active bool)) error
	}
	Indicator interface{ Show(pattern string) error }
)

// Strike is an error: a relay is the gpio driver's.
func (b *Bus) Strike(*Device) (Strike, error) { return nil, errNoPart("strike") }

// Input is an error: a contact is the gpio driver's.
func (b *Bus) Input(*Device) (Input, error) { return nil, errNoPart("input") }

// Indicator is an error: a reader's lights are the gpio driver's.
func (b *Bus) Indicator(*Device) (Indicator, error) { return nil, errNoPart("indicator") }

// Close gives all lines back, and makes every call that waits or comes later
// fail with [gpio.ErrClosed].
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, r := range b.readers {
		r.closed.Store(true) // all of them, so that none is waited for in turn
	}
	var faults []error
	for _, r := range b.readers {
		faults = append(faults, r.release())
	}
	b.readers = nil
	return errors.Join(faults...)
}

// Reader is a reader on two lines. No goroutine stands behind it: edges wait
// in the kernel until Read asks for them.
type Reader struct {
	device Device
	log    *slog.Logger
	open   func(d *Device) (gpio.Pair, error)
	rules  rules
	closed atomic.Bool

	// Of Read. reading is held while it uses the lines.
	reading sync.Mutex
	lines   gpio.Pair // nil: they are gone
	decoder *decoder
	buf     [edges]edge
	have    []edge // of buf: not decoded yet
	looked  time.Duration
	warned  bool
	low     [2]time.Duration // since when a line is low; 0: it was high, or had an edge
	stuck   bool             // one is low for good

	mu     sync.Mutex // of what follows
	tally  tally
	finger fingerprint
	clock  func() time.Duration
}

// attach starts anew with lines that were opened.
func (r *Reader) attach(lines gpio.Pair) {
	r.lines, r.have, r.low = lines, nil, [2]time.Duration{}
	r.decoder = newDecoder(r.rules, lines.Now())
	r.looked = lines.Now()
	r.mu.Lock()
	r.clock = lines.Now
	r.mu.Unlock()
}

// Read waits for the next card or key. A frame that cannot be trusted comes
// with the reason and without its bits. It fails while the lines are gone or one of
// them is low for good, and works again when that has passed.
func (r *Reader) Read(ctx context.Context) (badge.Read, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	for {
		switch {
		case r.closed.Load():
			return badge.Read{}, gpio.ErrClosed
		case ctx.Err() != nil:
			return badge.Read{}, ctx.Err()
		}
		f, ok, err := r.next()
		if err != nil {
			if r.closed.Load() {
				err = gpio.ErrClosed
			}
			return badge.Read{}, err
		}
		if !ok {
			continue
		}
		if read, ok := r.deliver(&f); ok {
			return read, nil
		}
	}
}

// next does one step: an edge, a wait, or a look at the lines.
func (r *Reader) next() (f frame, ok bool, err error) {
	if r.lines == nil {
		lines, err := r.open(&r.device)
		if err != nil {
			return f, false, fmt.Errorf("the reader's lines are gone: %w", err)
		}
		r.attach(lines)
	}
	if len(r.have) > 0 {
		e := r.have[0]
		r.have = r.have[1:]
		r.low[e.Line&1] = 0 // it fell: it had been high
		f, ok = r.decoder.add(e)
		if !r.decoder.numbered && !r.warned {
			r.warned = true
			r.log.Warn("edges come without the kernel's times and numbers: losses are noticed by parity and pace only", "d0", r.device.D0, "d1", r.device.D1)
		}
		return f, ok, nil
	}
	// The time is taken before the edges are: if there are none then nothing
	// happened up to it, however long ago that is by now.
	now := r.lines.Now()
	if now-r.looked >= turn {
		if err := r.look(now); err != nil {
			return f, false, err
		}
	}
	wait := turn
	if at, ok := r.decoder.deadline(); ok {
		wait = min(max(at-now, 0), turn)
	}
	n, err := r.lines.Read(r.buf[:], wait)
	if err != nil {
		return f, false, r.gone(err)
	}
	r.have = r.buf[:n]
	if n == 0 {
		f, ok = r.decoder.advance(now)
	}
	return f, ok, nil
}

// look finds a line that stays low.
func (r *Reader) look(now time.Duration) error {
	r.looked = now
	low, err := r.lines.Levels()
	if err != nil {
		return r.gone(err)
	}
	fault := ""
	for i := range low {
		switch {
		case !low[i]:
			r.low[i] = 0
		case r.low[i] == 0:
			r.low[i] = now
		case now-r.low[i] >= stuckFor:
			fault = fmt.Sprintf("D%d has been low for over a second: a short circuit, a reader without power, or a wire at the wrong terminal", i)
		}
	}
	before := r.stuck
	r.stuck = fault != ""
	if !r.stuck && !before {
		return nil
	}
	if err := r.discard(); err != nil {
		return err
	}
	if !r.stuck {
		return nil
	}
	return errors.New(fault)
}

// discard throws away what came over one line while the other was stuck.
func (r *Reader) discard() error {
	last := r.decoder.seq
	for range drain {
		for _, e := range r.have {
			if int32(e.Seq-last) > 0 {
				last = e.Seq
			}
		}
		n, err := r.lines.Read(r.buf[:], 0)
		if err != nil {
			return r.gone(err)
		}
		if r.have = r.buf[:n]; n == 0 {
			break
		}
	}
	r.decoder.reset(r.lines.Now(), last)
	return nil
}

// gone gives lines back that failed; they are opened again by the next Read.
func (r *Reader) gone(err error) error {
	r.lines.Close() // they have failed already
	r.lines = nil
	return fmt.Errorf("the reader's lines are gone: %w", err)
}

// deliver counts a burst and makes the presentation of it that the door gets,
// if it gets one.
func (r *Reader) deliver(f *frame) (badge.Read, bool) {
	at := time.Now().Add(f.at - r.lines.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	foreign := false
	if f.refused == "" && !f.ghost && !f.keypad {
		learned := r.finger.timing != Timing{}
		foreign = r.finger.foreign(f.bits, f.pace)
		if !learned && r.finger.timing != (Timing{}) {
			r.log.Info("the reader's timing is learned", "d0", r.device.D0, "spacing", r.finger.timing.Learned.String())
		}
		if foreign && r.device.ForeignTiming == foreignRefuse {
			f.refused = RefusedTiming
		}
	}
	r.tally.count(f, foreign)
	if f.ghost || f.refused != "" && f.bits < minFrame {
		return badge.Read{}, false
	}
	r.tally.delivered++
	read := badge.Read{Frame: f.card, At: at, Keypad: f.keypad, Refused: f.refused, Foreign: foreign}
	if f.refused != "" {
		read.Frame = blank(f.bits)
	} else {
		r.tally.last = at
	}
	return read, true
}

// Health tells what the wires have shown. Any goroutine may call it.
func (r *Reader) Health() badge.Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tally.health(r.clock(), r.rules.longest)
}

// Timing is what was learned of the reader's pace, and whether that is so yet.
func (r *Reader) Timing() (Timing, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.finger.timing, r.finger.timing != Timing{}
}

// SetTiming takes up what was learned before; the zero Timing: it is to be
// learned anew, as after the reader was exchanged.
func (r *Reader) SetTiming(t Timing) error {
	if t != (Timing{}) {
		if err := t.Validate(); err != nil {
			return fmt.Errorf("the reader's timing: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finger = fingerprint{timing: t}
	return nil
}

// release gives the lines back when the Read that waits has noticed that it is
// closed.
func (r *Reader) release() error {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.lines == nil {
		return nil
	}
	err := r.lines.Close()
	r.lines = nil
	return err
}
