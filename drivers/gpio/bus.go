package gpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// Bus gives out lines of the board's chip, and of others that devices name.
type Bus struct {
	machine  machine
	settings Settings
	devices  string // of analogue inputs

	mu     sync.Mutex
	closed bool
	parts  []interface{ close() error }
}

// Open finds the board's chip.
func Open(s *Settings, log *slog.Logger) (*Bus, error) { return openOn(kernel{}, iioDevices, s, log) }

func openOn(m machine, devices string, s *Settings, log *slog.Logger) (*Bus, error) {
	chips, err := m.chips()
	if err != nil {
		return nil, err
	}
	chip, err := findChip(chips, s.Chip)
	if err != nil {
		return nil, err
	}
	log.Info("GPIO controller found", "chip", chip.Label, "lines", chip.names())
	return &Bus{machine: m, settings: *s, devices: devices}, nil
}

// Strike takes the line of a relay. The strike is locked from the first level
// that the line has.
func (b *Bus) Strike(d *Device) (*Strike, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(d, "strike"); err != nil {
		return nil, err
	}
	activeHigh := orElse(d.Active, high) == high
	unlockedHigh := activeHigh == (d.Wiring == failSecure) // energised is active
	line, err := b.drive(d, d.Line, unlockedHigh)
	if err != nil {
		return nil, err
	}
	b.parts = append(b.parts, line)
	return &Strike{line}, nil
}

// Input takes the line of a contact, or the analogue input of a loop.
func (b *Bus) Input(d *Device) (*Input, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(d, "input"); err != nil {
		return nil, err
	}
	in := &Input{hold: d.Debounce}
	if in.hold == 0 {
		in.hold = defaultDebounce
	}
	normallyClosed := d.Normally == normallyClosed
	if d.ADC != "" {
		a, err := openADC(b.devices, d.ADC)
		if err != nil {
			return nil, err
		}
		in.name = fmt.Sprintf("loop at %q", d.ADC)
		in.wires = &supervised{a, d.loop(), normallyClosed}
	} else {
		chip, offset, err := b.find(d, d.Line)
		if err != nil {
			return nil, err
		}
		bias := orElse(d.Bias, biasUp)
		line, err := b.machine.input(chip, offset, bias)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", d.Line, err)
		}
		in.name = fmt.Sprintf("line %q", d.Line)
		in.wires = &contact{line, normallyClosed, bias == biasDown}
	}
	b.parts = append(b.parts, in)
	return in, nil
}

// Indicator takes the lines of lights and a beeper. They are dark.
func (b *Bus) Indicator(d *Device) (*Indicator, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(d, "indicator"); err != nil {
		return nil, err
	}
	lines := make(map[lamps]*driven)
	for _, l := range []struct {
		lamp lamps
		name string
	}{{green, d.Green}, {red, d.Red}, {beep, d.Beeper}} {
		if l.name == "" {
			continue
		}
		line, err := b.drive(d, l.name, orElse(d.Active, high) == high)
		if err != nil {
			for _, taken := range lines {
				err = errors.Join(err, taken.close())
			}
			return nil, err
		}
		lines[l.lamp] = line
	}
	i := newIndicator(lines)
	b.parts = append(b.parts, i)
	return i, nil
}

// Reader is an error: two lines with a card reader are the wiegand driver's.
func (b *Bus) Reader(*Device, []*badge.Format) (Reader, error) {
	return nil, errors.New(`a reader on two data lines has driver = "wiegand" with d0 and d1`)
}

// Reader is what this driver does not have.
type Reader interface {
	Read(ctx context.Context) (badge.Read, error)
}

// Close locks every strike, darkens every indicator, gives all lines back, and
// makes every call that waits or comes later fail with ErrClosed.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var faults []error
	for _, p := range b.parts {
		faults = append(faults, p.close())
	}
	b.parts = nil
	return errors.Join(faults...)
}

// check is what every part begins with. b.mu is held.
func (b *Bus) check(d *Device, part string) error {
	if b.closed {
		return ErrClosed
	}
	return d.ValidateAs(part)
}

// find finds a line that nobody has. b.mu is held.
func (b *Bus) find(d *Device, name string) (Chip, int, error) {
	chips, err := b.machine.chips() // again: who holds a line may have changed
	if err != nil {
		return Chip{}, 0, err
	}
	chip, err := findChip(chips, orElse(d.Chip, b.settings.Chip))
	if err != nil {
		return Chip{}, 0, err
	}
	offset, err := chip.find(name)
	return chip, offset, err
}

// drive takes a line as an output that is off. b.mu is held.
func (b *Bus) drive(d *Device, name string, onHigh bool) (*driven, error) {
	chip, offset, err := b.find(d, name)
	if err != nil {
		return nil, err
	}
	line, err := b.machine.output(chip, offset, !onHigh)
	if err != nil {
		return nil, fmt.Errorf("line %q: %w", name, err)
	}
	return &driven{name: name, onHigh: onHigh, line: line}, nil
}

// driven is an output that is on or off; off is its safe state.
type driven struct {
	name   string
	onHigh bool // the level at which it is on

	mu     sync.Mutex
	line   output
	closed bool
}

func (d *driven) on(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if err := d.line.Set(on == d.onHigh); err != nil {
		return fmt.Errorf("line %q: %w", d.name, err)
	}
	return nil
}

func (d *driven) look(on, off string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return "", ErrClosed
	}
	isHigh, err := d.line.Level()
	if err != nil {
		return "", fmt.Errorf("line %q: %w", d.name, err)
	}
	is := off
	if isHigh == d.onHigh {
		is = on
	}
	return fmt.Sprintf("line %q: %s (%s)", d.name, is, level(isHigh)), nil
}

func (d *driven) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if err := errors.Join(d.line.Set(!d.onHigh), d.line.Close()); err != nil {
		return fmt.Errorf("line %q: %w", d.name, err)
	}
	return nil
}

// Strike is a relay's line.
type Strike struct{ line *driven }

// Unlock lets the door be opened. It fails when the line is gone.
func (s *Strike) Unlock() error { return s.line.on(true) }

// Lock keeps the door shut. It fails when the line is gone.
func (s *Strike) Lock() error { return s.line.on(false) }

// Look tells the line's level at this moment, in words.
func (s *Strike) Look() (string, error) { return s.line.look("unlocked", "locked") }
