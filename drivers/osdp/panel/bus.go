package panel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/iris"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
)

// ErrClosed is told of every part of a driver that was closed.
var ErrClosed = fmt.Errorf("the driver is closed: %w", osdp.ErrStopped)

// Bus gives out the parts of the peripherals on all lines.
type Bus struct {
	settings Settings
	log      *slog.Logger
	ctx      context.Context // until Close
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	lines  map[string]*line
	taken  map[string]bool // of Device.Lines
	ring   *keyring.Ring   // nil: no key was needed yet
}

// line is an RS-485 line. Its fields are the bus's mutex's.
type line struct {
	Line
	peripherals []*peripheral
	started     bool
}

// Open prepares the driver. A line is opened when the first of its parts is
// used.
func Open(s *Settings, log *slog.Logger) (*Bus, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b := &Bus{settings: *s, log: log, lines: make(map[string]*line), taken: make(map[string]bool)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b, nil
}

// Reader gives out a reader. It delivers cards of any format.
func (b *Bus) Reader(d *Device, _ []*badge.Format) (*Reader, error) {
	return take(b, d, asReader, func(p *peripheral) *Reader {
		r := newReader(p, byte(d.Reader), d.Keypad)
		p.readers = append(p.readers, r)
		return r
	})
}

// Strike is what this driver does not have.
type Strike interface {
	Lock() error
	Unlock() error
}

// Strike is an error: a reader's output is on the wrong side of the door.
func (b *Bus) Strike(d *Device) (Strike, error) {
	as := *d
	return nil, as.ValidateAs(asStrike)
}

// Input gives out a contact at a peripheral's input, or its tamper switch.
func (b *Bus) Input(d *Device) (*Input, error) {
	return take(b, d, asInput, func(p *peripheral) *Input {
		in := newInput(p, d)
		p.inputs = append(p.inputs, in)
		return in
	})
}

// Indicator gives out the lights, the buzzer and the display of a reader.
func (b *Bus) Indicator(d *Device) (*Indicator, error) {
	return take(b, d, asIndicator, func(p *peripheral) *Indicator {
		i := newIndicator(p, byte(d.Reader))
		p.indicators = append(p.indicators, i)
		return i
	})
}

// Scanner gives out a scanner of fingers or eyes. It is a [biometric.Enroller].
func (b *Bus) Scanner(d *Device) (biometric.Scanner, error) {
	device, err := take(b, d, asScanner, func(p *peripheral) *scanner { return &scanner{p} })
	if err != nil {
		return nil, err
	}
	s, err := iris.New(device, d.scanner())
	if err != nil {
		return nil, err
	}
	return s, nil
}

// take makes a part of a peripheral that nobody has yet.
func take[P any](b *Bus, d *Device, part string, make func(*peripheral) P) (P, error) {
	var none P
	own := *d
	if err := own.ValidateAs(part); err != nil {
		return none, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return none, ErrClosed
	}
	name := own.Lines()[0]
	if b.taken[name] {
		return none, fmt.Errorf("%s was given out already", name)
	}
	p, err := b.peripheral(&own)
	if err != nil {
		return none, err
	}
	b.taken[name] = true
	return make(p), nil
}

// peripheral finds the one that a device is a part of, or makes it.
func (b *Bus) peripheral(d *Device) (*peripheral, error) {
	l, ok := b.lines[d.Line]
	if !ok {
		described, err := b.settings.line(d.Line)
		if err != nil {
			return nil, err
		}
		l = &line{Line: described}
		b.lines[d.Line] = l
	}
	if l.started {
		return nil, fmt.Errorf("line %q runs: all its parts are given out before the first is used", d.Line)
	}
	for _, p := range l.peripherals {
		if p.config.Address == byte(d.Address) {
			return p, d.agrees(p.first)
		}
	}
	c := osdp.PeripheralConfig{Address: byte(d.Address), ClearText: d.ClearText, Checksum: d.Checksum}
	if !d.ClearText {
		keys, err := b.keys(d.Line, c.Address)
		if err != nil {
			return nil, err
		}
		c.Keys = keys
	}
	p := newPeripheral(b, l, d, c)
	l.peripherals = append(l.peripherals, p)
	return p, nil
}

// keys is the key store of a peripheral.
func (b *Bus) keys(line string, address byte) (osdp.KeyStore, error) {
	if b.settings.keys != nil {
		return b.settings.keys(line, address), nil
	}
	if b.ring == nil {
		if b.settings.sealer == nil {
			return nil, errors.New("there is nothing to unseal the readers' keys with")
		}
		ring, err := keyring.Open(b.settings.ring, b.settings.sealer)
		if err != nil {
			return nil, err
		}
		b.ring = ring
	}
	return b.ring.For(line, address), nil
}

// start has a line run, if it does not yet.
func (b *Bus) start(l *line) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	if l.started {
		return nil
	}
	c := osdp.Config{
		Open: func(baud int) (osdp.Line, error) { return b.settings.open(l.Port, baud) },
		Baud: l.Baud, Mark: l.Mark,
	}
	for _, p := range l.peripherals {
		c.Peripherals = append(c.Peripherals, p.config)
	}
	// The bus calls Handle from Run only.
	var own []*osdp.Peripheral
	c.Handle = func(e osdp.Event) { l.peripherals[slices.Index(own, e.Peripheral)].handle(e) }
	bus, err := osdp.New(c)
	if err != nil {
		return fmt.Errorf("line %q: %w", l.Name, err)
	}
	own = bus.Peripherals()
	for i, p := range l.peripherals {
		p.begin(own[i])
	}
	l.started = true
	b.running.Go(func() { bus.Run(b.ctx) }) // it ends with the context, and its error is that
	for _, p := range l.peripherals {
		for _, i := range p.indicators {
			b.running.Go(func() { i.play(b.ctx) })
		}
	}
	return nil
}

// Close ends all lines, and makes every call that waits or comes later fail
// with ErrClosed. A reader that nobody asks any more shows that in a way of its
// own.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.cancel()
	for _, l := range b.lines {
		for _, p := range l.peripherals {
			p.close()
		}
	}
	b.running.Wait()
	if b.ring != nil {
		return b.ring.Close()
	}
	return nil
}
