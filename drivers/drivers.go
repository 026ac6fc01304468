// Package drivers lists the device families that a door can be built from.
// Table is the whole list: a new driver is one folder, one line here and one
// sample configuration.
package drivers

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/scanner"
	"github.com/gatehouse-acs/gatehouse/drivers/gpio"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/panel"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/wiegand"
)

// Table is every driver, in the order in which documentation shows them.
var Table = []Driver{
	define("gpio", false, gpio.DefaultSettings, gpio.Open),
	define("wiegand", false, wiegand.DefaultSettings, wiegand.Open),
	define("osdp", false, panel.DefaultSettings, panel.Open),
	define("fingerprint", false, scanner.DefaultSettings, scanner.Open),
	define("sim", true, sim.DefaultSettings, sim.Open),
}

// Lookup finds a driver by its name in the configuration.
func Lookup(name string) (Driver, bool) {
	for _, d := range Table {
		if d.Name == name {
			return d, true
		}
	}
	return Driver{}, false
}

// Driver is one device family.
//
// Settings and Device return pointers to structs with toml tags, filled with
// the defaults. The configuration finds these methods of theirs, each of which
// may be missing:
//
//	Validate() error              // of either: names every fault
//	Resolve(dir string)           // of Settings: makes paths relative to the controller's data directory
//	ValidateAs(part string) error // of Device: as the reader, strike, input, indicator or scanner that it is to be
//	Lines() []string              // of Device: the wires that it takes, which no other device may: "chip/line",
//	                              // with the chip empty where it is the board's or the driver's own
//	Authenticated() bool          // of a reader's or scanner's Device: whoever taps its wires cannot speak in its name
//	Keys() (encoding badge.KeypadEncoding, facility uint64) // of a reader's Device: how its keypad sends; empty: it has none
//	Modality() biometric.Modality // of a scanner's Device: what it compares; empty or no such method: any
//	Identifies() bool             // of a scanner's Device: it finds out who somebody is among all that it keeps (1:N)
//	SealWith(seal func(plain, aad []byte) []byte, open func(sealed, aad []byte) ([]byte, error))
//	                              // of Settings: what the driver keeps on disk is sealed so; called before Open
//	Ports() []string              // of Settings: the serial ports that they take, which no device may
//	ValidateDevices(devices []*Device) []error // of Settings: what is wrong with each, and nil where nothing is
type Driver struct {
	Name      string
	Simulated bool       // moves nothing real: refused outside the demo
	Scans     bool       // its bus has scanners
	Settings  func() any // of [drivers.NAME], one for the whole program
	Device    func() any // of one device = { driver = NAME, … }, the key driver left out
	// Together says what is wrong with each of all devices of the driver, beside
	// its settings and the others; nil: nothing.
	Together func(settings any, devices []any) []error
	Open     func(settings any, log *slog.Logger) (Bus, error) // settings as made by Settings
}

// Bus is an opened driver. Its methods take what Device made and give the one
// device of that description; they fail when it does not exist or was already
// given out. Close makes every device safe (strikes locked) and every blocked
// call return an error.
type Bus interface {
	// Reader is told the formats that its cards may have, so that it can end a
	// frame when no longer one can come.
	Reader(device any, formats []*badge.Format) (Reader, error)
	Strike(device any) (Strike, error)
	Input(device any) (Input, error)
	Indicator(device any) (Indicator, error)
	// Scanner is an error of a driver that has none: its own bus then lacks the
	// method.
	Scanner(device any) (biometric.Scanner, error)
	Close() error
}

// Reader delivers presentations. Read blocks until there is one. An error
// other than ctx's own means that the reader is faulty; Read may be called
// again. One goroutine calls Read.
//
// A Reader may have a method Health() badge.Health, which any goroutine may
// call: the door then shows it, and records what is likely wrong.
//
// A Strike, an Input and an Indicator may have a method Look() (string, error),
// which tells an installer what the wires say at this moment.
type Reader interface {
	Read(ctx context.Context) (badge.Read, error)
}

// Strike is the lock. Both methods are idempotent and return soon; an error
// means that the strike may not have moved.
type Strike interface {
	Unlock() error
	Lock() error
}

// Input is a contact, a button or a key switch. Watch calls changed with the
// present state at once and then with each debounced change, from one
// goroutine, until ctx ends (it then returns ctx's error) or the input is
// faulty. A contact is active while the door is open.
type Input interface {
	Watch(ctx context.Context, changed func(active bool)) error
}

// Indicator shows a pattern by whatever lights and sounds it has: idle,
// waiting, granted, denied, fault, held_warning, try_again, identify, or what is
// asked of the person next: ask_badge, ask_fingerprint, ask_iris, ask_pin or, of
// somebody else, ask_company. Show is idempotent.
type Indicator interface {
	Show(pattern string) error
}

// typed is a Bus in the driver's own types.
type typed[D any, R Reader, S Strike, I Input, N Indicator] interface {
	Reader(D, []*badge.Format) (R, error)
	Strike(D) (S, error)
	Input(D) (I, error)
	Indicator(D) (N, error)
	Close() error
}

// scanning is a typed bus that has scanners.
type scanning[D any] interface {
	Scanner(*D) (biometric.Scanner, error)
}

// define makes the table's entry of a driver that is written in types of its
// own, so that no driver has to know this package or to assert a type.
func define[C, D any, B typed[*D, R, S, I, N], R Reader, S Strike, I Input, N Indicator](
	name string, simulated bool, settings func() *C, open func(*C, *slog.Logger) (B, error),
) Driver {
	var own B
	_, scans := any(own).(scanning[D])
	return Driver{
		Name:      name,
		Simulated: simulated,
		Scans:     scans,
		Settings:  func() any { return settings() },
		Device:    func() any { return new(D) },
		Together:  together[D],
		Open: func(s any, log *slog.Logger) (Bus, error) {
			own, ok := s.(*C)
			if !ok {
				return nil, fmt.Errorf("driver %s: settings are a %T, not a %T", name, s, own)
			}
			b, err := open(own, log)
			if err != nil {
				return nil, fmt.Errorf("driver %s: %w", name, err)
			}
			return bus[D, B, R, S, I, N]{name, b}, nil
		},
	}
}

// together lets settings validate all devices that belong to them.
func together[D any](settings any, devices []any) []error {
	s, ok := settings.(interface{ ValidateDevices([]*D) []error })
	if !ok {
		return nil
	}
	typed := make([]*D, len(devices))
	for i, d := range devices {
		typed[i], _ = d.(*D) // as made by Device
	}
	return s.ValidateDevices(typed)
}

// bus makes a Bus of a typed one.
type bus[D any, B typed[*D, R, S, I, N], R Reader, S Strike, I Input, N Indicator] struct {
	name string
	own  B
}

func (b bus[D, B, R, S, I, N]) Reader(device any, formats []*badge.Format) (Reader, error) {
	open := func(d *D) (R, error) { return b.own.Reader(d, formats) }
	return part[D, R, Reader](b.name, open, device)
}

func (b bus[D, B, R, S, I, N]) Strike(device any) (Strike, error) {
	return part[D, S, Strike](b.name, b.own.Strike, device)
}

func (b bus[D, B, R, S, I, N]) Input(device any) (Input, error) {
	return part[D, I, Input](b.name, b.own.Input, device)
}

func (b bus[D, B, R, S, I, N]) Indicator(device any) (Indicator, error) {
	return part[D, N, Indicator](b.name, b.own.Indicator, device)
}

func (b bus[D, B, R, S, I, N]) Scanner(device any) (biometric.Scanner, error) {
	own, ok := any(b.own).(scanning[D])
	if !ok {
		return nil, fmt.Errorf("driver %s: it has no scanners of fingers or eyes", b.name)
	}
	return part[D, biometric.Scanner, biometric.Scanner](b.name, own.Scanner, device)
}

func (b bus[D, B, R, S, I, N]) Close() error { return b.own.Close() }

// part gets one device; Want is the interface that P satisfies.
func part[D, P, Want any](driver string, get func(*D) (P, error), device any) (Want, error) {
	var none Want
	own, ok := device.(*D)
	if !ok {
		return none, fmt.Errorf("driver %s: the device is a %T, not a %T", driver, device, own)
	}
	p, err := get(own)
	if err != nil {
		return none, fmt.Errorf("driver %s: %w", driver, err)
	}
	return any(p).(Want), nil
}
