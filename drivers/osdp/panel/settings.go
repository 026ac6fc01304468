package panel

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/iris"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// Settings are the driver's own table in the configuration.
type Settings struct {
	Lines []Line `toml:"line" json:"line"`

	ring   string                                         // where the readers' keys are
	sealer *sealer                                        // of the ring; nil: there is none
	open   func(port string, baud int) (osdp.Line, error) // Serial
	keys   func(line string, address byte) osdp.KeyStore  // in place of the ring
}

// Line is an RS-485 line.
type Line struct {
	Name string `toml:"name" json:"name"`
	Port string `toml:"port" json:"port"` // such as /dev/ttyAMA2
	Baud int    `toml:"baud" json:"baud"` // 0: osdp.DefaultBaud
	Mark bool   `toml:"mark" json:"mark"` // for a converter that cuts off the first byte that it sends
}

// DefaultSettings has no line.
func DefaultSettings() *Settings { return &Settings{open: Serial, ring: keyring.FileName} }

// Serial opens a port that nobody else here may have open.
func Serial(port string, baud int) (osdp.Line, error) {
	p, err := serial.Open(port, baud)
	if err != nil {
		return nil, err // and no line that is not nil
	}
	return p, nil
}

var lineName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Validate names every fault.
func (s *Settings) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(s.Lines) == 0 {
		add("line: there is none: describe each in a [[drivers.osdp.line]] with its name and port")
	}
	for i, l := range s.Lines {
		at := fmt.Sprintf("line[%d]", i)
		same := func(is func(Line) bool) bool { return slices.ContainsFunc(s.Lines[:i], is) }
		switch {
		case !lineName.MatchString(l.Name):
			add("%s.name: %q is no name: use A-Z a-z 0-9 . _ -, such as %q", at, l.Name, "rs485-1")
		case same(func(o Line) bool { return o.Name == l.Name }):
			add("%s.name: there is a line %q already", at, l.Name)
		}
		switch {
		case !filepath.IsAbs(l.Port):
			add("%s.port: %q is no serial port: name its path, such as %q", at, l.Port, "/dev/ttyAMA2")
		case same(func(o Line) bool { return filepath.Clean(o.Port) == filepath.Clean(l.Port) }):
			add("%s.port: %q is another line's already", at, l.Port)
		}
		if l.Baud != 0 && !slices.Contains(osdp.Bauds, l.Baud) {
			add("%s.baud: %d is not one of %v", at, l.Baud, osdp.Bauds)
		}
	}
	return errors.Join(faults...)
}

// Ports are the serial ports that the lines take.
func (s *Settings) Ports() []string {
	ports := make([]string, len(s.Lines))
	for i, l := range s.Lines {
		ports[i] = filepath.Clean(l.Port)
	}
	return ports
}

// Resolve says where the controller's data are: the readers' keys are there.
func (s *Settings) Resolve(dir string) { s.ring = filepath.Join(dir, keyring.FileName) }

// SealWith says with what the readers' keys are sealed. Without it, only
// peripherals in clear text can be used.
func (s *Settings) SealWith(seal func(plain, additional []byte) []byte, open func(sealed, additional []byte) ([]byte, error)) {
	s.sealer = &sealer{seal, open}
}

// sealer is a keyring.Sealer.
type sealer struct {
	seal func(plain, additional []byte) []byte
	open func(sealed, additional []byte) ([]byte, error)
}

func (s *sealer) Seal(plain, additional []byte) []byte           { return s.seal(plain, additional) }
func (s *sealer) Open(sealed, additional []byte) ([]byte, error) { return s.open(sealed, additional) }

// line finds one by its name.
func (s *Settings) line(name string) (Line, error) {
	i := slices.IndexFunc(s.Lines, func(l Line) bool { return l.Name == name })
	if i < 0 {
		names := make([]string, len(s.Lines))
		for i, l := range s.Lines {
			names[i] = l.Name
		}
		return Line{}, fmt.Errorf("line: there is no [[drivers.osdp.line]] with the name %q: those that are described are %s", name, strings.Join(names, ", "))
	}
	return s.Lines[i], nil
}

// ValidateDevices names what is wrong between the devices and the lines, and
// among the devices of one peripheral: a fault for each device, nil where there
// is none.
func (s *Settings) ValidateDevices(devices []*Device) []error {
	faults := make([]error, len(devices))
	for i, d := range devices {
		if _, err := s.line(d.Line); err != nil && d.Line != "" {
			faults[i] = err
			continue
		}
		for _, o := range devices[:i] {
			if o.Line == d.Line && o.Address == d.Address {
				faults[i] = d.agrees(o)
				break
			}
		}
	}
	return faults
}

// agrees is an error if two parts do not say the same of their peripheral.
func (d *Device) agrees(o *Device) error {
	const differ = "%s: another part of the reader at address %d says otherwise: they are one peripheral"
	switch {
	case d.ClearText != o.ClearText:
		return fmt.Errorf(differ, "clear_text", d.Address)
	case d.Checksum != o.Checksum:
		return fmt.Errorf(differ, "checksum", d.Address)
	}
	return nil
}

// Device is a part of a peripheral: a reader, an input, an indicator or a
// scanner.
type Device struct {
	Line    string `toml:"line" json:"line"`
	Address int    `toml:"address" json:"address"` // 0 to 126
	// ClearText says that there is no Secure Channel with this peripheral, and
	// none is wanted: whoever has access to the wires can read and forge all of it.
	ClearText bool `toml:"clear_text" json:"clear_text,omitempty"`
	// Checksum is for peripherals that do not know the CRC.
	Checksum bool `toml:"checksum" json:"checksum,omitempty"`

	// A reader, an indicator or a scanner: which of the peripheral's; the first is
	// 0, and most have one.
	Reader int `toml:"reader" json:"reader,omitempty"`
	// A reader: it has a keypad.
	Keypad bool `toml:"keypad" json:"keypad,omitempty"`

	// An input: its number, the first is 0; or the peripheral's own tamper switch,
	// which is active too while its power fails.
	Input  *int `toml:"input" json:"input,omitempty"`
	Tamper bool `toml:"tamper" json:"tamper,omitempty"`
	// An input: whether its contact is open or closed while nothing is the matter.
	// Peripherals say "active" of one that is closed.
	Normally string `toml:"normally" json:"normally,omitempty"`

	// A scanner: what it compares, the least score that is a match, the least
	// quality of what is enrolled (0: any), both as the reader counts, and how its
	// templates of fingers are written: the maker's way (if empty) or ansi-378.
	Parts     []biometric.Part `toml:"parts" json:"parts,omitempty"`
	Threshold int              `toml:"threshold" json:"threshold,omitempty"`
	Quality   int              `toml:"quality" json:"quality,omitempty"`
	Format    string           `toml:"format" json:"format,omitempty"`

	part string // what ValidateAs made of it
}

// The parts of a door.
const (
	asReader    = "reader"
	asStrike    = "strike"
	asInput     = "input"
	asIndicator = "indicator"
	asScanner   = "scanner"
)

const (
	normallyOpen   = "open"
	normallyClosed = "closed"

	formatANSI378 = "ansi-378"
)

// ValidateAs names every fault of a device that is to be a part of a door:
// reader, input, indicator or scanner.
func (d *Device) ValidateAs(part string) error {
	d.part = part
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if part == asStrike {
		return fmt.Errorf("a reader's output is no strike: whoever takes the reader off the wall has its wires in hand; a relay inside is driver = %q", "gpio")
	}
	for _, key := range d.besides(part) {
		add("%s: it does not belong to the %s", key, part)
	}
	if d.Line == "" {
		add("line: it must name a [[drivers.osdp.line]]")
	}
	if d.Address < 0 || d.Address > osdp.MaxAddress {
		add("address: %d is outside 0 to %d", d.Address, osdp.MaxAddress)
	}
	if d.Reader < 0 || d.Reader > mostReader {
		add("reader: %d is outside 0 to %d", d.Reader, mostReader)
	}
	switch part {
	case asReader, asIndicator:
	case asInput:
		switch {
		case (d.Input == nil) != d.Tamper:
			add("an input has either input = N or tamper = true")
		case d.Tamper && d.Normally != "":
			add("normally: it does not belong to the tamper switch, which says itself what it is")
		case d.Tamper:
		case *d.Input < 0 || *d.Input > mostInput:
			add("input: %d is outside 0 to %d", *d.Input, mostInput)
		}
		if !d.Tamper && d.Normally != normallyOpen && d.Normally != normallyClosed {
			add("normally: it must be %q or %q", normallyOpen, normallyClosed)
		}
	case asScanner:
		if d.ClearText {
			add("clear_text: fingers and eyes go over the Secure Channel only")
		}
		if d.Format != "" && d.Format != formatANSI378 {
			add("format: %q is not %q", d.Format, formatANSI378)
		}
		if d.Threshold < 0 || d.Threshold > 255 {
			add("threshold: %d is outside 1 to 255", d.Threshold)
		}
		if d.Quality < 0 || d.Quality > 255 {
			add("quality: %d is outside 0 to 255", d.Quality)
		}
		c := d.scanner()
		if err := c.Validate(); err != nil {
			faults = append(faults, err)
		}
	default:
		add("an OSDP peripheral cannot be a %s", part)
	}
	return errors.Join(faults...)
}

const (
	mostReader = 7
	mostInput  = 254
)

// besides are the keys that are set and do not belong to a part.
func (d *Device) besides(part string) []string {
	keys := []struct {
		key string
		set bool
		of  []string
	}{
		{"reader", d.Reader != 0, []string{asReader, asIndicator, asScanner}},
		{"keypad", d.Keypad, []string{asReader}},
		{"input", d.Input != nil, []string{asInput}},
		{"tamper", d.Tamper, []string{asInput}},
		{"normally", d.Normally != "", []string{asInput}},
		{"parts", d.Parts != nil, []string{asScanner}},
		{"threshold", d.Threshold != 0, []string{asScanner}},
		{"quality", d.Quality != 0, []string{asScanner}},
		{"format", d.Format != "", []string{asScanner}},
	}
	var others []string
	for _, k := range keys {
		if k.set && !slices.Contains(k.of, part) {
			others = append(others, k.key)
		}
	}
	return others
}

// Lines is the one part of a peripheral that the device takes, once ValidateAs
// has said which: such as osdp:rs485-1#0/reader.
func (d *Device) Lines() []string {
	name := d.part
	switch {
	case name == "":
		return nil
	case d.Tamper:
		name = "tamper"
	case d.Input != nil:
		name = fmt.Sprintf("input%d", *d.Input)
	case name == asScanner: // a reader of fingers and of eyes is two
		name = fmt.Sprintf("%s-%s", d.Modality(), name)
	}
	if d.Reader > 0 {
		name += fmt.Sprint(d.Reader)
	}
	return []string{fmt.Sprintf("osdp:%s#%d/%s", d.Line, d.Address, name)}
}

// Authenticated reports whether nobody who taps the line can speak in the
// device's name.
func (d *Device) Authenticated() bool { return !d.ClearText }

// Keys is how a reader's keypad sends what is typed; empty: it has none.
func (d *Device) Keys() (encoding badge.KeypadEncoding, facility uint64) {
	if d.Keypad {
		encoding = badge.Keypad4Bit
	}
	return encoding, 0
}

// Modality is what a scanner compares; empty: it does not say.
func (d *Device) Modality() biometric.Modality {
	if len(d.Parts) == 0 {
		return ""
	}
	return d.Parts[0].Modality()
}

// scanner is the configuration of a scanner.
func (d *Device) scanner() iris.Config {
	c := iris.Config{Parts: d.Parts, Threshold: byte(min(d.Threshold, 255)), Quality: byte(d.Quality), Reader: byte(d.Reader)}
	if d.Format == formatANSI378 {
		c.Format = osdp.BioFormatANSI378
	}
	return c
}
