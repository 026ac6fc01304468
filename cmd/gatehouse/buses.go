package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// buses are the drivers of a configuration, each opened when the first of its
// devices is.
type buses struct {
	cfg  *config.Controller
	log  *slog.Logger
	open map[string]drivers.Bus
}

func newBuses(cfg *config.Controller, log *slog.Logger) *buses {
	return &buses{cfg, log, make(map[string]drivers.Bus)}
}

func (b *buses) bus(name string) (drivers.Bus, error) {
	if bus, ok := b.open[name]; ok {
		return bus, nil
	}
	d, ok := drivers.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("there is no driver %q", name)
	}
	if d.Simulated {
		b.log.Warn("this driver moves no real door", "driver", name)
	}
	settings := b.cfg.Drivers[name]
	if err := b.seal(settings); err != nil {
		return nil, fmt.Errorf("driver %s: %w", name, err)
	}
	bus, err := d.Open(settings, b.log.With("driver", name))
	if err != nil {
		return nil, err
	}
	b.open[name] = bus
	return bus, nil
}

// seal gives the settings of a driver that keeps secrets on disk what they are
// sealed with. Commands of the daemon's that need no other key have not read
// any before.
func (b *buses) seal(settings any) error {
	own, ok := settings.(interface {
		SealWith(seal func(plain, aad []byte) []byte, open func(sealed, aad []byte) ([]byte, error))
	})
	if !ok {
		return nil
	}
	p, err := keyProvider(b.cfg.Keys.Provider, b.cfg.Data)
	if err != nil {
		return err
	}
	k, err := keys.LoadController(p)
	if err != nil {
		return fmt.Errorf("the keys of its readers are sealed: %w", err)
	}
	own.SealWith(k.Readers.Seal, k.Readers.Open)
	return nil
}

func (b *buses) strike(d *config.Device) (drivers.Strike, error) {
	bus, err := b.bus(d.Driver)
	if err != nil {
		return nil, err
	}
	return bus.Strike(d.Own)
}

func (b *buses) input(d *config.Device) (drivers.Input, error) {
	bus, err := b.bus(d.Driver)
	if err != nil {
		return nil, err
	}
	return bus.Input(d.Own)
}

func (b *buses) indicator(d *config.Device) (drivers.Indicator, error) {
	bus, err := b.bus(d.Driver)
	if err != nil {
		return nil, err
	}
	return bus.Indicator(d.Own)
}

func (b *buses) scanner(d *config.Device) (biometric.Scanner, error) {
	bus, err := b.bus(d.Driver)
	if err != nil {
		return nil, err
	}
	return bus.Scanner(d.Own)
}

// reader opens a reader, and gives the formats that its cards may have.
func (b *buses) reader(r *config.Reader) (drivers.Reader, []*badge.Format, error) {
	formats := make([]*badge.Format, len(r.Formats))
	for i, name := range r.Formats {
		formats[i], _ = b.cfg.Table.Format(name) // the configuration was checked
	}
	bus, err := b.bus(r.Device.Driver)
	if err != nil {
		return nil, nil, err
	}
	reader, err := bus.Reader(r.Device.Own, formats)
	return reader, formats, err
}

// opened is a part with its device. Of a strike, and of a part that could not be
// opened, there is none.
type opened struct {
	ioPart
	reader    drivers.Reader
	formats   []*badge.Format
	scanner   biometric.Scanner
	indicator drivers.Indicator
	input     drivers.Input
	err       error
}

// opened opens a part, unless it is a strike.
func (b *buses) opened(p ioPart) opened {
	o := opened{ioPart: p}
	switch {
	case p.name == "strike":
	case p.name == "indicator":
		o.indicator, o.err = b.indicator(p.device)
	case p.reader != nil:
		o.reader, o.formats, o.err = b.reader(p.reader)
	case p.scanner != nil:
		o.scanner, o.err = b.scanner(p.device)
	default:
		o.input, o.err = b.input(p.device)
	}
	return o
}

// Close makes every device safe.
func (b *buses) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(b.open)) {
		errs = append(errs, b.open[name].Close())
	}
	clear(b.open)
	return errors.Join(errs...)
}
