package panel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// settle is how long a line that has just begun may take until its peripherals
// work. Before that, one that has not answered yet is not faulty.
const settle = 5 * time.Second

// peripheral is one on a line, with the parts that were given out.
type peripheral struct {
	bus    *Bus
	line   *line
	first  *Device // as the first of its parts described it
	config osdp.PeripheralConfig
	log    *slog.Logger

	// Its parts, until the line runs.
	readers    []*Reader
	inputs     []*Input
	indicators []*Indicator

	mu      sync.Mutex
	own     *osdp.Peripheral // nil: the line does not run yet
	closed  bool
	up      bool
	channel int           // which it is, counted from 1
	wrong   error         // why it is not up; nil: it is, or nothing is wrong yet
	silent  error         // what is wrong if it has not answered when the line has settled; nil: it has
	changed chan struct{} // closed when one of the above changes
	trend   trend
}

func newPeripheral(b *Bus, l *line, d *Device, c osdp.PeripheralConfig) *peripheral {
	return &peripheral{
		bus: b, line: l, first: d, config: c, changed: make(chan struct{}),
		log: b.log.With("line", d.Line, "address", d.Address),
	}
}

func (p *peripheral) String() string {
	return fmt.Sprintf("the reader at address %d on line %q", p.config.Address, p.line.Name)
}

// begin is told that the line runs from now on.
func (p *peripheral) begin(own *osdp.Peripheral) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = own
	p.silent = p.explain(osdp.Offline, osdp.ErrOffline)
	time.AfterFunc(settle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.up && p.wrong == nil {
			p.fail(p.silent)
		}
		p.silent = nil
	})
}

// start has the peripheral's line run.
func (p *peripheral) start() error {
	p.mu.Lock()
	runs, closed := p.own != nil, p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case runs:
		return nil
	}
	return p.bus.start(p.line)
}

// condition is how things are with a peripheral.
type condition struct {
	up      bool
	wrong   error // nil: it is up, or nothing is wrong yet
	channel int
	changed <-chan struct{} // closed when anything of this changes
}

func (p *peripheral) condition() condition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return condition{p.up, p.wrong, p.channel, p.changed}
}

// The methods below are called with the mutex held.

// tell wakes whoever waits for a change.
func (p *peripheral) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// fail has everything be faulty. What waited to be read is dropped.
func (p *peripheral) fail(why error) {
	p.up, p.wrong = false, why
	for _, r := range p.readers {
		r.drop()
	}
	for _, in := range p.inputs {
		in.forget()
	}
	p.tell()
}

// close is the end.
func (p *peripheral) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.fail(ErrClosed)
}

// noPort is the error of a line that cannot be opened or is lost; nil: it is
// another one.
func noPort(state osdp.State, err error) error {
	if port, ok := errors.AsType[*fs.PathError](err); ok && state == osdp.Offline {
		return port
	}
	return nil
}

// explain says why the peripheral does not work, and what to do about it.
func (p *peripheral) explain(state osdp.State, err error) error {
	if port := noPort(state, err); port != nil {
		return fmt.Errorf("line %q: %w", p.line.Name, port)
	}
	keyset := fmt.Sprintf("gatehouse osdp keyset --install --line %s --address %d", p.line.Name, p.config.Address)
	switch {
	case errors.Is(err, osdp.ErrNoKey), errors.Is(err, osdp.ErrDefaultKey):
		return fmt.Errorf("%v has no key of its own here: give it one with %q", p, keyset)
	case errors.Is(err, osdp.ErrKey), state == osdp.Unsecured && errors.Is(err, osdp.NAKSecurity):
		return fmt.Errorf("%v: %w: it is another reader, or was reset: give it a key with %q", p, err, keyset)
	case errors.Is(err, osdp.NAKNoSecurity):
		return fmt.Errorf("%v: %w: use another reader, or set clear_text = true, and everybody at its wires can read and forge all of it", p, err)
	}
	return fmt.Errorf("%v: %w", p, err)
}

// handle is told what the peripheral tells. It does not wait.
func (p *peripheral) handle(e osdp.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	works := e.State == osdp.Secure || e.State == osdp.ClearText
	switch m := e.Reply.(type) {
	case nil:
		p.state(e, works)
	case osdp.Card:
		for _, r := range p.readers {
			r.card(e.At, m)
		}
		clear(m.Data)
	case osdp.FormattedCard:
		for _, r := range p.readers {
			r.formatted(e.At, m)
		}
		clear(m.Digits)
	case osdp.Keypad:
		for _, r := range p.readers {
			r.keys(e.At, m)
		}
		clear(m.Keys)
	case osdp.LocalStatus:
		p.log.Info("osdp", "event", "status", "tamper", m.Tamper, "power_fail", m.PowerFail)
		for _, in := range p.inputs {
			in.local(m)
		}
	case osdp.Inputs:
		for _, in := range p.inputs {
			in.states(m)
		}
	case osdp.BioTemplate:
		clear(m.Template) // it answers nobody's question, and so does a score
	}
}

// state deals with a change of the peripheral's state.
func (p *peripheral) state(e osdp.Event, works bool) {
	switch {
	case works && p.up: // what it told makes no sense
		p.log.Warn("osdp", "event", "malformed", "error", e.Err)
	case works:
		p.log.Info("osdp", "event", "state", "state", e.State.String())
		p.up, p.wrong, p.silent = true, nil, nil
		p.channel++
		p.trend.back(p.own.Status().Counters)
		p.tell()
	case e.Err != nil:
		p.log.Warn("osdp", "event", "state", "state", e.State.String(), "error", e.Err)
		if p.silent != nil && p.wrong == nil && e.State == osdp.Offline && noPort(e.State, e.Err) == nil {
			p.silent = p.explain(e.State, e.Err)
			return
		}
		p.fail(p.explain(e.State, e.Err))
	case p.up: // it begins anew, and nothing is wrong
		p.fail(nil)
	}
}

// scanner is a peripheral as a device that scans, from when it is first asked.
type scanner struct{ *peripheral }

func (s *scanner) BioRead(ctx context.Context, c osdp.BioRead) (osdp.BioTemplate, error) {
	if err := s.start(); err != nil {
		return osdp.BioTemplate{}, err
	}
	return s.own.BioRead(ctx, c)
}

func (s *scanner) BioMatch(ctx context.Context, c osdp.BioMatch) (osdp.BioScore, error) {
	if err := s.start(); err != nil {
		return osdp.BioScore{}, err
	}
	return s.own.BioMatch(ctx, c)
}

// Status is the peripheral's, with the reason in this package's words.
func (s *scanner) Status() osdp.Status {
	if err := s.start(); err != nil {
		return osdp.Status{Err: err}
	}
	status := s.own.Status()
	if status.State != osdp.Secure {
		status.Err = s.condition().wrong
	}
	return status
}

func (s *scanner) Changed() <-chan struct{} { return s.condition().changed }
