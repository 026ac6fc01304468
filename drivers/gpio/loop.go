package gpio

import (
	"errors"
	"fmt"
)

// state is what an input's wires say.
type state int

const (
	unknown state = iota
	normal
	active
	short // of a supervised loop: somebody bridged it, or the cable is crushed
	open  // of a supervised loop: the cable is cut
)

func (s state) String() string {
	return [...]string{"unknown", "normal", "active", "short", "open"}[s]
}

// Faults of a supervised loop.
var (
	ErrShort = errors.New("the loop is shorted: somebody bridged it, or the cable is crushed")
	ErrOpen  = errors.New("the loop is open: the cable is cut or a clamp is loose")
)

func (s state) fault() error {
	switch s {
	case short:
		return ErrShort
	case open:
		return ErrOpen
	}
	return nil
}

// of is the state of a contact.
func of(closed, normallyClosed bool) state {
	if closed == normallyClosed {
		return normal
	}
	return active
}

// loop is a contact at the end of a cable, with one resistor in series with
// the cable and one across the contact, read as a voltage between the loop and
// a resistor to the supply:
//
//	supply ── pull-up ──┬── series ──┬─ contact ──┬── ground
//	                    │            └─ parallel ─┘
//	                   ADC
//
// A closed contact leaves the series resistor, an open one both; less than the
// one is a short, more than both a cut cable.
type loop struct {
	supply                   float64 // mV
	pullUp, series, parallel float64 // Ω
}

// A loop as it is if the configuration does not say otherwise.
const (
	defaultSupply = 3300 // mV
	defaultOhms   = 2200 // of each resistor
)

// loop is the device's, with defaults.
func (d *Device) loop() loop {
	or := func(v, otherwise float64) float64 {
		if v == 0 {
			return otherwise
		}
		return v
	}
	return loop{or(d.SupplyMV, defaultSupply), or(d.PullUpOhm, defaultOhms), or(d.SeriesOhm, defaultOhms), or(d.ParallelOhm, defaultOhms)}
}

// leastStep is how far apart the voltages of two states must be, as a part of
// the supply: resistors are good to 5 %, cables and inputs add to it.
const leastStep = 0.05

func (l loop) validate() error {
	var faults []error
	within := func(key string, v, least, most float64, unit string) {
		if !(v >= least && v <= most) { // NaN is not
			faults = append(faults, fmt.Errorf("%s: %v is outside %v to %v %s", key, v, least, most, unit))
		}
	}
	within("supply_mv", l.supply, 500, 30000, "mV")
	within("pull_up_ohm", l.pullUp, 100, 1e6, "Ω")
	within("series_ohm", l.series, 100, 1e6, "Ω")
	within("parallel_ohm", l.parallel, 100, 1e6, "Ω")
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	closed, opened := l.volts()
	for _, s := range []struct {
		what string
		step float64
	}{
		{"a short and a closed contact", closed},
		{"a closed and an open contact", opened - closed},
		{"an open contact and a cut cable", l.supply - opened},
	} {
		if s.step < leastStep*l.supply {
			faults = append(faults, fmt.Errorf("pull_up_ohm, series_ohm, parallel_ohm: %s differ by only %.0f mV of %.0f: choose other resistors", s.what, s.step, l.supply))
		}
	}
	return errors.Join(faults...)
}

// volts are the voltages of a closed and of an open contact, in mV.
func (l loop) volts() (closed, opened float64) {
	at := func(ohms float64) float64 { return l.supply * ohms / (ohms + l.pullUp) }
	return at(l.series), at(l.series + l.parallel)
}

// state is what a voltage in mV says. The bounds lie half way between the
// voltages that the states have.
func (l loop) state(mv float64, normallyClosed bool) state {
	closed, opened := l.volts()
	switch {
	case mv < closed/2:
		return short
	case mv < (closed+opened)/2:
		return of(true, normallyClosed)
	case mv < (opened+l.supply)/2:
		return of(false, normallyClosed)
	default:
		return open
	}
}
