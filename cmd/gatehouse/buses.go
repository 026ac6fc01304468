package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/internal/config"
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
	bus, err := d.Open(b.cfg.Drivers[name], b.log.With("driver", name))
	if err != nil {
		return nil, err
	}
	b.open[name] = bus
	return bus, nil
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

// Close makes every device safe.
func (b *buses) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(b.open)) {
		errs = append(errs, b.open[name].Close())
	}
	clear(b.open)
	return errors.Join(errs...)
}
