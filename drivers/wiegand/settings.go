package wiegand

import (
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// What foreign_timing may say.
const (
	foreignFlag   = "flag"
	foreignRefuse = "refuse"
)

const mostGap = time.Second

// Settings are the driver's own table in the configuration.
type Settings struct {
	Chip string `toml:"chip" json:"chip"` // label; empty: the board's, if there is one of a known label
	// AllowFallback lets readers work where the kernel gives neither times nor
	// numbers of edges. The package's comment says what is then not promised.
	AllowFallback bool `toml:"allow_fallback" json:"allow_fallback"`
}

// DefaultSettings is the board's own chip.
func DefaultSettings() *Settings { return &Settings{} }

// Device is a reader on two lines. Lines go by the names that the board gives
// them, such as GPIO23.
type Device struct {
	Chip string `toml:"chip" json:"chip,omitempty"` // label, if it is another than the driver's
	D0   string `toml:"d0" json:"d0,omitempty"`
	D1   string `toml:"d1" json:"d1,omitempty"`
	// Bias is up (if empty), the chip's own pull-up resistors, or none: the lines
	// have resistors of their own.
	Bias string `toml:"bias" json:"bias,omitempty"`

	// Keypad is how the reader's keypad sends what is typed; empty: it has none.
	Keypad badge.KeypadEncoding `toml:"keypad" json:"keypad,omitempty"`
	// KeypadFacility is the facility code of the PINs of a 26-bit keypad; its
	// 26-bit frames with another are cards.
	KeypadFacility uint64 `toml:"keypad_facility" json:"keypad_facility,omitempty"`

	// Gap is the silence that ends a frame, more than 20 ms and at most 1 s; 0:
	// 50 ms, or up to 150 ms where the bits are slow and the reader has longer frames.
	Gap time.Duration `toml:"gap" json:"gap,omitempty"`
	// ForeignTiming says what happens to a frame whose timing is not the
	// reader's: flag (if empty) or refuse.
	ForeignTiming string `toml:"foreign_timing" json:"foreign_timing,omitempty"`
}

// Lines are the lines that the device takes, each as chip/line; the chip is
// empty unless the device names its own.
func (d *Device) Lines() []string {
	var lines []string
	for _, l := range []string{d.D0, d.D1} {
		if l != "" {
			lines = append(lines, d.Chip+"/"+l)
		}
	}
	return lines
}

// Keys is how the reader's keypad sends what is typed, and the facility code of
// its PINs.
func (d *Device) Keys() (encoding badge.KeypadEncoding, facility uint64) {
	return d.Keypad, d.KeypadFacility
}

// Validate names every fault of a reader.
func (d *Device) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if d.D0 == "" {
		add("d0: it must name the line of the reader's D0, such as %q", "GPIO23")
	}
	if d.D1 == "" {
		add("d1: it must name the line of the reader's D1, such as %q", "GPIO24")
	}
	if d.D0 != "" && d.D0 == d.D1 {
		add("d1: %q is the line of d0 already", d.D1)
	}
	if d.Bias != "" && d.Bias != "up" && d.Bias != "none" {
		add("bias: %q is not %q or %q", d.Bias, "up", "none")
	}
	switch d.Keypad {
	case "", badge.Keypad4Bit, badge.Keypad8Bit, badge.Keypad26Bit:
	default:
		add("keypad: %q is not %q, %q or %q", d.Keypad, badge.Keypad4Bit, badge.Keypad8Bit, badge.Keypad26Bit)
	}
	switch {
	case d.KeypadFacility == 0:
	case d.Keypad != badge.Keypad26Bit:
		add("keypad_facility: it belongs to a %q keypad only", badge.Keypad26Bit)
	case d.KeypadFacility > 255:
		add("keypad_facility: %d is not a facility code of 26 bits: they go up to 255", d.KeypadFacility)
	}
	if d.Gap != 0 && (d.Gap < maxSpacing || d.Gap > mostGap) {
		add("gap: %v is outside %v to %v: bits may be 20 ms apart", d.Gap, maxSpacing, mostGap)
	}
	if d.ForeignTiming != "" && d.ForeignTiming != foreignFlag && d.ForeignTiming != foreignRefuse {
		add("foreign_timing: %q is not %q or %q", d.ForeignTiming, foreignFlag, foreignRefuse)
	}
	return errors.Join(faults...)
}

// ValidateAs names every fault of a device that is to be a part of a door:
// reader, strike, input or indicator.
func (d *Device) ValidateAs(part string) error {
	if part != "reader" {
		return errNoPart(part)
	}
	return d.Validate()
}

func errNoPart(part string) error {
	return fmt.Errorf("two data lines cannot be a %s: that has driver = %q", part, "gpio")
}
