package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// Device is one device of a driver, as in
//
//	strike = { driver = "sim", line = "a.strike" }
type Device struct {
	Driver string
	// Own is what the driver's Device function made, filled in.
	Own any
}

// String names the device for people.
func (v Device) String() string { return fmt.Sprintf("%s %+v", v.Driver, v.Own) }

// decodeTable takes the driver's name out of the table and leaves the rest to
// the driver.
func (v *Device) decodeTable(d *decoder, path string, table map[string]any) {
	name, ok := table["driver"].(string)
	if !ok {
		if other, ok := table["driver"]; ok {
			d.add(join(path, "driver"), "%s is not a text in quotes", show(other))
			return
		}
		d.add(path, "it names no driver: the drivers are %s", strings.Join(driverNames(), ", "))
		return
	}
	driver, ok := d.driver(join(path, "driver"), name)
	if !ok {
		return
	}
	rest := maps.Clone(table)
	delete(rest, "driver")
	v.Driver, v.Own = name, driver.Device()
	d.table(path, rest, reflect.ValueOf(v.Own).Elem()) // checkDevice follows, when it is known what it is
}

// Lines are the wires that the device takes, by names that are unique over all
// drivers.
func (v *Device) Lines() []string {
	own, ok := v.Own.(interface{ Lines() []string })
	if !ok {
		return nil
	}
	lines := own.Lines()
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "/") // of the board's own chip
	}
	return lines
}

// Authenticated reports whether nobody who taps the device's wires can speak in
// its name.
func (v *Device) Authenticated() bool {
	own, ok := v.Own.(interface{ Authenticated() bool })
	return ok && own.Authenticated()
}

// Keys is how a reader's keypad sends what is typed, and the facility code of
// its PINs where it sends them as cards; no encoding: it has no keypad.
func (v *Device) Keys() (encoding badge.KeypadEncoding, facility uint64) {
	if own, ok := v.Own.(interface {
		Keys() (badge.KeypadEncoding, uint64)
	}); ok {
		return own.Keys()
	}
	return "", 0
}

// modality is what a scanner compares; empty: it is not known.
func (v *Device) modality() biometric.Modality {
	if own, ok := v.Own.(interface{ Modality() biometric.Modality }); ok {
		return own.Modality()
	}
	return ""
}

// identifies reports whether a scanner finds out who somebody is among all that
// it keeps.
func (v *Device) identifies() bool {
	own, ok := v.Own.(interface{ Identifies() bool })
	return ok && own.Identifies()
}

// Drivers is the settings of each driver in use, by name, as its Settings
// function made them.
type Drivers map[string]any

func (v *Drivers) decodeTable(d *decoder, path string, table map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		at := join(path, name)
		driver, ok := d.driver(at, name)
		if !ok {
			continue
		}
		own, ok := table[name].(map[string]any)
		if !ok {
			d.add(at, "%s is not a table", show(table[name]))
			continue
		}
		settings := driver.Settings()
		d.own(at, own, settings)
		v.set(name, settings)
	}
}

func (v *Drivers) set(name string, settings any) {
	if *v == nil {
		*v = Drivers{}
	}
	(*v)[name] = settings
}

// driver looks a driver up and reports one that does not exist or must not be
// used.
func (d *decoder) driver(path, name string) (drivers.Driver, bool) {
	driver, ok := drivers.Lookup(name)
	switch {
	case !ok:
		if like := spelling.Nearest(name, driverNames()); like != "" {
			d.add(path, "there is no driver %q: did you mean %q?", name, like)
		} else {
			d.add(path, "there is no driver %q: the drivers are %s", name, strings.Join(driverNames(), ", "))
		}
	case driver.Simulated && !d.options.Demo:
		d.refused = append(d.refused, refusal{path, name})
	}
	return driver, ok // a refused one is still decoded, so that its other faults are named too
}

// refusal is where a driver is named that only the demo may use.
type refusal struct{ path, driver string }

// simulated reports drivers that are for the demo only: once, where the first
// of them is named.
func (d *decoder) simulated() {
	if len(d.refused) == 0 {
		return
	}
	first := slices.MinFunc(d.refused, func(a, b refusal) int { return cmp.Compare(d.lines.near(a.path), d.lines.near(b.path)) })
	d.add(first.path, "driver %q moves no real door: it is allowed only with --demo", first.driver)
}

func driverNames() []string {
	names := make([]string, len(drivers.Table))
	for i, d := range drivers.Table {
		names[i] = d.Name
	}
	return names
}

// own decodes what belongs to a driver, and lets the driver check it.
func (d *decoder) own(path string, table map[string]any, into any) {
	before := len(d.faults)
	d.table(path, table, reflect.ValueOf(into).Elem())
	if len(d.faults) > before {
		return // what did not decode would be wrong again
	}
	d.checkOwn(path, into)
}

// checkDevice lets the driver check a device as what it is to be.
func (d *decoder) checkDevice(p place) {
	if d.faulty(p.path) {
		return // what did not decode would be wrong again
	}
	own, ok := p.device.Own.(interface{ ValidateAs(part string) error })
	if !ok {
		d.checkOwn(p.path, p.device.Own)
		return
	}
	if err := own.ValidateAs(p.part); err != nil {
		d.add(p.path, "%s", inOneLine(err))
	}
}

func (d *decoder) checkOwn(path string, own any) {
	if c, ok := own.(interface{ Validate() error }); ok {
		if err := c.Validate(); err != nil {
			d.add(path, "%s", inOneLine(err))
		}
	}
}
