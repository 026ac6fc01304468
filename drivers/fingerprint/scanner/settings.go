package scanner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/gt521"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sfm"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

const (
	defaultTimeout = 10 * time.Second
	leastTimeout   = 500 * time.Millisecond
	mostTimeout    = time.Minute
)

// Settings are the driver's own table in the configuration. There is nothing
// to set in it: each module has settings of its own.
type Settings struct {
	wait    time.Duration  // for an answer; 0: the families' own
	idle    time.Duration  // after which a module that nobody uses is asked whether it is there
	backoff serial.Backoff // between attempts to connect
}

// DefaultSettings are those of every installation.
func DefaultSettings() *Settings {
	return &Settings{idle: 5 * time.Second, backoff: serial.Backoff{Most: 5 * time.Second}}
}

// Device is a module on its port.
type Device struct {
	Family string `toml:"family" json:"family,omitempty"` // zfm, sfm or gt521
	Port   string `toml:"port" json:"port,omitempty"`     // such as /dev/serial0
	Baud   int    `toml:"baud" json:"baud,omitempty"`     // 0: the module's rate is looked for, once
	// Serial is the module's serial number. Another module is a fault. Empty: the
	// first that answers after the start of the program, which warns of it.
	Serial string `toml:"serial" json:"serial,omitempty"`
	// Mark has a module of zfm that tells no serial number keep one in its notepad.
	Mark bool `toml:"mark" json:"mark,omitempty"`
	// Security is the level that the module is set to: 1 to 5 of zfm; 0x33 to
	// 0x37, 0x43 to 0x46 or 0x50 to 0x52 of sfm; gt521 has none. 0: it is left as it
	// is.
	Security int `toml:"security" json:"security,omitempty"`
	// PasswordFile has the password of a module of zfm, 8 hexadecimal digits.
	// Nobody else may read it. Empty: 00000000.
	PasswordFile string `toml:"password_file" json:"password_file,omitempty"`
	Address      uint32 `toml:"address" json:"address,omitempty"`   // of zfm; 0: any
	Terminal     uint16 `toml:"terminal" json:"terminal,omitempty"` // of sfm on RS-485; 0: not on RS-485
	// Captures is of how many captures zfm makes a template, 2 to 6; 0: 2.
	Captures int `toml:"captures" json:"captures,omitempty"`
	// Timeout is how long a finger is waited for, 500 ms to 1 min; 0: 10 s.
	Timeout time.Duration `toml:"timeout" json:"timeout,omitempty"`
}

// Lines is the port, which one device has to itself. It is of no chip.
func (d *Device) Lines() []string {
	if d.Port == "" {
		return nil
	}
	return []string{"/" + filepath.Clean(d.Port)}
}

// Modality is fingerprints.
func (d *Device) Modality() biometric.Modality { return biometric.Fingerprint }

// Identifies is true: a module knows who somebody is among all that it keeps.
func (d *Device) Identifies() bool { return true }

// ValidateAs names every fault of a device that is to be a part of a door,
// which can be a scanner.
func (d *Device) ValidateAs(part string) error {
	if part != "scanner" {
		return errNoPart(part)
	}
	return d.Validate()
}

func errNoPart(part string) error {
	return fmt.Errorf("a fingerprint module is a scanner, and no %s", part)
}

// Validate names every fault.
func (d *Device) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	f, known := families[d.Family]
	if !known {
		add("family: %q is not %q, %q or %q", d.Family, "zfm", "sfm", "gt521")
	}
	if !filepath.IsAbs(d.Port) {
		add("port: %q is not the path of a serial port, such as %q", d.Port, "/dev/serial0")
	}
	if d.Timeout != 0 && (d.Timeout < leastTimeout || d.Timeout > mostTimeout) {
		add("timeout: %v is outside %v to %v", d.Timeout, leastTimeout, mostTimeout)
	}
	if d.PasswordFile != "" && !filepath.IsAbs(d.PasswordFile) {
		add("password_file: %q is not the whole path of a file, from / on", d.PasswordFile)
	}
	if d.Captures != 0 && (d.Captures < 2 || d.Captures > 6) {
		add("captures: %d is outside 2 to 6", d.Captures)
	}
	if !known {
		return errors.Join(faults...)
	}
	if d.Baud != 0 && !slices.Contains(f.bauds, d.Baud) {
		add("baud: %d is none of family %s, which has %v: leave it out, and it is looked for", d.Baud, d.Family, slices.Sorted(slices.Values(f.bauds)))
	}
	for _, k := range []struct {
		key string
		is  bool
	}{
		{"mark", d.Mark}, {"security", d.Security != 0}, {"password_file", d.PasswordFile != ""},
		{"address", d.Address != 0}, {"terminal", d.Terminal != 0}, {"captures", d.Captures != 0},
	} {
		if k.is && !slices.Contains(f.keys, k.key) {
			add("%s: family %s has none", k.key, d.Family)
		}
	}
	if d.Security != 0 && f.security != nil {
		if err := f.security(d.Security); err != nil {
			add("security: %d (%#02x) is no level of family %s, or too weak a one", d.Security, d.Security, d.Family)
		}
	}
	return errors.Join(faults...)
}

// family is what is a family's own of a device.
type family struct {
	model    string // in words
	first    uint32 // slot
	bauds    []int
	keys     []string // that not every family has
	security func(level int) error
	open     func(ctx context.Context, d *Device, way way) (fingerprint.Module, error)
}

// way is how a module is reached.
type way struct {
	line     func(baud int) (fingerprint.Line, error)
	password zfm.Password
	wait     time.Duration
}

var families = map[string]family{
	"zfm": {
		model: "EF01 module", bauds: zfm.Bauds, security: zfm.CheckSecurity, open: openZFM,
		keys: []string{"mark", "security", "password_file", "address", "captures"},
	},
	"sfm": {
		model: "Suprema SFM", first: 1, bauds: sfm.Bauds, security: sfm.CheckSecurity, open: openSFM,
		keys: []string{"security", "terminal"},
	},
	"gt521": {
		model: "GT-521", bauds: gt521.Bauds, open: openGT521,
	},
}

func openZFM(ctx context.Context, d *Device, w way) (fingerprint.Module, error) {
	c := zfm.Config{
		Open: w.line, Baud: d.Baud, Address: d.Address, Password: w.password,
		Captures: d.Captures, FingerWait: cmp.Or(d.Timeout, defaultTimeout), Wait: w.wait,
	}
	m, err := zfm.Open(ctx, c)
	if err != nil || !d.Mark || m.Info().Serial != "" {
		return module(m, err)
	}
	_, err = m.Mark(ctx)
	if err := errors.Join(err, m.Close()); err != nil {
		return nil, err
	}
	m, err = zfm.Open(ctx, c)
	return module(m, err)
}

func openSFM(ctx context.Context, d *Device, w way) (fingerprint.Module, error) {
	m, err := sfm.Open(ctx, sfm.Config{
		Open: w.line, Baud: d.Baud, Terminal: d.Terminal, FingerWait: cmp.Or(d.Timeout, defaultTimeout), Wait: w.wait,
	})
	return module(m, err)
}

func openGT521(ctx context.Context, d *Device, w way) (fingerprint.Module, error) {
	m, err := gt521.Connect(ctx, gt521.Config{
		Open: w.line, Baud: d.Baud, FingerWait: cmp.Or(d.Timeout, defaultTimeout), Wait: w.wait,
	})
	return module(m, err)
}

// module keeps a nil of a family's own type from looking like a module.
func module[M fingerprint.Module](m M, err error) (fingerprint.Module, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
