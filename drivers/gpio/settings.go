package gpio

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrClosed is told of every part of a driver that was closed.
var ErrClosed = errors.New("the driver is closed")

// What the keys of a device may say.
const (
	failSecure = "fail-secure" // locked without power: a strike, energised to unlock
	failSafe   = "fail-safe"   // unlocked without power: a magnet, energised to lock

	high = "high"
	low  = "low"

	normallyOpen   = "open"
	normallyClosed = "closed"

	biasUp   = "up"
	biasDown = "down"
	biasNone = "none"
)

// The time for which an input must stand still to count.
const (
	defaultDebounce = 30 * time.Millisecond // switches and reeds bounce for up to 10 ms
	leastDebounce   = time.Millisecond
	mostDebounce    = time.Second
)

// Settings are the driver's own table in the configuration.
type Settings struct {
	Chip string `toml:"chip" json:"chip"` // label; empty: the board's, if there is one of a known label
}

// DefaultSettings is the board's own chip.
func DefaultSettings() *Settings { return &Settings{} }

// Device is a strike, an input or an indicator. Lines go by the names that the
// board gives them, such as GPIO17.
type Device struct {
	Chip string `toml:"chip" json:"chip,omitempty"` // label, if it is another than the driver's

	// A strike or an input.
	Line string `toml:"line" json:"line,omitempty"`
	// A strike or an indicator: the level at which it is on; empty: high.
	Active string `toml:"active" json:"active,omitempty"`

	// A strike: fail-secure (energised to unlock) or fail-safe (energised to lock).
	Wiring string `toml:"wiring" json:"wiring,omitempty"`

	// An input: whether its contact is open or closed while it is inactive.
	Normally string `toml:"normally" json:"normally,omitempty"`
	// An input on a line: the resistor in the chip. up (if empty) is for a
	// contact to ground, down for one to the supply; none leaves what the board
	// has, for a contact to ground with a resistor of its own.
	Bias string `toml:"bias" json:"bias,omitempty"`
	// An input: how long it must stand still to count; 0: 30 ms.
	Debounce time.Duration `toml:"debounce" json:"debounce,omitempty"`

	// An input on a supervised loop, instead of a line.
	ADC         string  `toml:"adc" json:"adc,omitempty"` // such as ads1015/in_voltage0
	SupplyMV    float64 `toml:"supply_mv" json:"supply_mv,omitempty"`
	PullUpOhm   float64 `toml:"pull_up_ohm" json:"pull_up_ohm,omitempty"`
	SeriesOhm   float64 `toml:"series_ohm" json:"series_ohm,omitempty"`
	ParallelOhm float64 `toml:"parallel_ohm" json:"parallel_ohm,omitempty"`

	// An indicator: any of these lines.
	Green  string `toml:"green" json:"green,omitempty"`
	Red    string `toml:"red" json:"red,omitempty"`
	Beeper string `toml:"beeper" json:"beeper,omitempty"`
}

// Lines are the lines that the device takes, each as chip/line; the chip is
// empty unless the device names its own. An analogue input names it.
func (d *Device) Lines() []string {
	var lines []string
	for _, l := range []string{d.Line, d.Green, d.Red, d.Beeper} {
		if l != "" {
			lines = append(lines, d.Chip+"/"+l)
		}
	}
	if d.ADC != "" {
		lines = append(lines, d.ADC)
	}
	return lines
}

// ValidateAs names every fault of a device that is to be a part of a door:
// reader, strike, input or indicator.
func (d *Device) ValidateAs(part string) error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	oneOf := func(key, value string, allowed ...string) {
		switch {
		case slices.Contains(allowed, value):
		case value == "":
			add("%s: it must be %s", key, alternatives(allowed))
		default:
			add("%s: %q is not %s", key, value, alternatives(allowed))
		}
	}
	only := func(keys ...string) {
		for _, key := range d.without(keys) {
			add("%s: it does not belong to the %s", key, part)
		}
	}
	switch part {
	case "strike":
		only("line", "active", "wiring")
		if d.Line == "" {
			add("line: it must name the line of the relay")
		}
		oneOf("wiring", d.Wiring, failSecure, failSafe)
		oneOf("active", orElse(d.Active, high), high, low)
	case "input":
		oneOf("normally", d.Normally, normallyOpen, normallyClosed)
		if d.Debounce != 0 && (d.Debounce < leastDebounce || d.Debounce > mostDebounce) {
			add("debounce: %v is outside %v to %v", d.Debounce, leastDebounce, mostDebounce)
		}
		switch {
		case (d.Line == "") == (d.ADC == ""):
			add("an input has either line or adc")
		case d.ADC != "":
			only("adc", "normally", "debounce", "supply_mv", "pull_up_ohm", "series_ohm", "parallel_ohm")
			if err := d.loop().validate(); err != nil {
				faults = append(faults, err)
			}
			if err := checkADC(d.ADC); err != nil {
				faults = append(faults, err)
			}
		default:
			only("line", "normally", "bias", "debounce")
			oneOf("bias", orElse(d.Bias, biasUp), biasUp, biasDown, biasNone)
		}
	case "indicator":
		only("active", "green", "red", "beeper")
		if d.Green == "" && d.Red == "" && d.Beeper == "" {
			add("an indicator has at least one of green, red and beeper")
		}
		oneOf("active", orElse(d.Active, high), high, low)
		seen := map[string]bool{}
		for _, l := range []string{d.Green, d.Red, d.Beeper} {
			if l != "" && seen[l] {
				add("line %q is there twice", l)
			}
			seen[l] = true
		}
	default:
		add("a gpio line cannot be a %s: readers on two data lines have driver = %q", part, "wiegand")
	}
	return errors.Join(faults...)
}

// without names the keys that are set and are not among those given.
func (d *Device) without(keys []string) []string {
	set := []struct {
		key string
		is  bool
	}{
		{"line", d.Line != ""}, {"active", d.Active != ""}, {"wiring", d.Wiring != ""}, {"normally", d.Normally != ""},
		{"bias", d.Bias != ""}, {"debounce", d.Debounce != 0}, {"adc", d.ADC != ""}, {"supply_mv", d.SupplyMV != 0},
		{"pull_up_ohm", d.PullUpOhm != 0}, {"series_ohm", d.SeriesOhm != 0}, {"parallel_ohm", d.ParallelOhm != 0},
		{"green", d.Green != ""}, {"red", d.Red != ""}, {"beeper", d.Beeper != ""},
	}
	var others []string
	for _, s := range set {
		if s.is && !slices.Contains(keys, s.key) {
			others = append(others, s.key)
		}
	}
	return others
}

func alternatives(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
