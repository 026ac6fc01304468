package panel

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

var (
	silent = slog.New(slog.DiscardHandler)
	key    = osdp.Key{0: 0xA1, 15: 0x5F}
)

// cable is the line to simulated peripherals, which can be unplugged.
type cable interface {
	settings() *Settings
	plug(...*pd.Peripheral)
	unplug()
}

// terminal is a cable over a pseudo-terminal: what the driver opens is a
// serial port.
type terminal struct {
	*testing.T
	port          string // a link to the slave
	master, slave *os.File
	served        chan struct{}
}

func newTerminal(t *testing.T) cable {
	return &terminal{T: t, port: filepath.Join(t.TempDir(), "port")}
}

func (c *terminal) settings() *Settings {
	s := DefaultSettings()
	s.Lines = []Line{{Name: "a", Port: c.port, Baud: 115200}}
	return s
}

func (c *terminal) plug(far ...*pd.Peripheral) {
	var err error
	if c.master, c.slave, err = pty.Open(); err != nil {
		c.Fatal(err)
	}
	if err := os.Symlink(c.slave.Name(), c.port); err != nil {
		c.Fatal(err)
	}
	c.served = make(chan struct{})
	master, served := c.master, c.served
	go func() {
		defer close(served)
		pd.Serve(master, pd.Wire{}, far...)
	}()
}

func (c *terminal) unplug() {
	if c.master == nil {
		return
	}
	os.Remove(c.port)
	// Its own read ends when nobody has the near end open, which the driver does
	// when it is hung up.
	c.master.Close()
	c.slave.Close()
	<-c.served
	c.master = nil
}

// memory is a cable without a kernel in between.
type memory struct {
	mu   sync.Mutex
	far  []*pd.Peripheral
	line osdp.Line
}

func newMemory(*testing.T) cable { return &memory{} }

func (c *memory) settings() *Settings {
	s := DefaultSettings()
	s.Lines = []Line{{Name: "a", Port: "/dev/none", Baud: 115200}}
	s.open = func(_ string, baud int) (osdp.Line, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.far == nil {
			return nil, errors.New("no such device")
		}
		c.line = pd.NewLine(pd.Wire{}, baud, c.far...)
		return c.line, nil
	}
	return s
}

func (c *memory) plug(far ...*pd.Peripheral) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.far = far
}

func (c *memory) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.far = nil
	if c.line != nil {
		c.line.Close()
	}
}

// eyes are of two people and of a stranger, who is the last.
var eyes = []pd.Trait{
	{Type: osdp.RightIris, Quality: 200, Template: osdp.Secret("an eye"), Brief: true},
	{Type: osdp.LeftIris, Quality: 200, Template: osdp.Secret("another one"), Brief: true},
	{Type: osdp.RightIris, Quality: 200, Template: osdp.Secret("a third"), Brief: true},
}

// newFar is a peripheral at the rate of the tests' lines.
func newFar(c pd.Config) *pd.Peripheral {
	c.Baud = 115200
	return pd.New(c)
}

// site is a driver with one peripheral and all its parts.
type site struct {
	*testing.T
	cable     cable
	far       *pd.Peripheral
	bus       *Bus
	reader    *Reader
	input     *Input
	tamper    *Input
	indicator *Indicator
	scanner   biometric.Enroller

	mu    sync.Mutex
	heard []osdp.Command // lights, sounds and words that the peripheral was told
}

// device is of the peripheral at address 0.
func device(more func(*Device)) *Device {
	d := &Device{Line: "a"}
	if more != nil {
		more(d)
	}
	return d
}

func eyeDevice() *Device {
	return device(func(d *Device) {
		d.Parts, d.Threshold = []biometric.Part{biometric.RightIris, biometric.LeftIris}, 180
	})
}

func newSite(t *testing.T, c cable, far pd.Config) *site {
	t.Helper()
	s := &site{T: t, cable: c}
	if far.ScanTimeout == 0 {
		far.ScanTimeout = time.Second
	}
	if far.Handle == nil {
		far.Handle = s.hear
	}
	s.far = newFar(far)
	c.plug(s.far)
	settings := c.settings()
	settings.keys = func(string, byte) osdp.KeyStore { return osdp.NewMemoryKeys(key) }
	s.bus = must[*Bus](t)(Open(settings, silent))
	clear := func(d *Device) { d.ClearText = far.ClearText }
	s.reader = must[*Reader](t)(s.bus.Reader(device(func(d *Device) { clear(d); d.Keypad = true }), nil))
	s.input = must[*Input](t)(s.bus.Input(device(func(d *Device) { clear(d); d.Input, d.Normally = new(int), normallyOpen })))
	s.tamper = must[*Input](t)(s.bus.Input(device(func(d *Device) { clear(d); d.Tamper = true })))
	s.indicator = must[*Indicator](t)(s.bus.Indicator(device(clear)))
	if !far.ClearText {
		s.scanner = must[biometric.Scanner](t)(s.bus.Scanner(eyeDevice())).(biometric.Enroller)
	}
	return s
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (s *site) hear(c osdp.Command) {
	switch c.(type) {
	case osdp.SetLEDs, osdp.Buzz, osdp.ShowText:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heard = append(s.heard, c)
	}
}

// shown is the pattern that the reader shows, as far as its light, its buzzer
// and its display tell.
func (s *site) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range patterns {
		want := s.indicator.commands(p, osdp.Capabilities{{Function: osdp.FunctionLED, Level: 4}, {Function: osdp.FunctionBuzzer, Level: 2}})
		if n := len(s.heard) - len(want); n >= 0 && reflect.DeepEqual(s.heard[n:], want) {
			return name
		}
	}
	return ""
}

func (s *site) hold(person int) {
	if person == drivertest.Stranger {
		person = len(eyes) - 1
	}
	trait := eyes[person]
	s.far.Hold(&trait)
}

func frame26(t testing.TB, bits string) badge.Frame {
	t.Helper()
	return must[badge.Frame](t)(badge.ParseFrame(bits))
}

// known are the references of the people whose eyes are known.
func known() []biometric.Reference {
	return []biometric.Reference{
		{Part: biometric.RightIris, Template: biometric.NewTemplate([]byte("an eye"))},
		{Part: biometric.LeftIris, Template: biometric.NewTemplate([]byte("another one"))},
	}
}

// rig is the site for the suite.
func (s *site) rig() *drivertest.Rig {
	injected := func(name string, f pd.Fault, n int) drivertest.Trouble {
		return drivertest.Trouble{Name: name, Harmless: true, Begin: func() { s.far.Inject(f, n) }, End: func() { s.far.Inject(f, 0) }}
	}
	forged := func(f pd.Fault) drivertest.Trouble {
		trouble := injected(f.String(), f, -1)
		trouble.Harmless = false
		return trouble
	}
	other := func(name string, c pd.Config) drivertest.Trouble {
		return drivertest.Trouble{Name: name,
			Begin: func() { s.cable.unplug(); s.cable.plug(newFar(c)) },
			End:   func() { s.cable.unplug(); s.cable.plug(s.far) },
		}
	}
	return &drivertest.Rig{
		Read: s.reader.Read, Watch: s.input.Watch, Show: s.indicator.Show, Close: s.bus.Close,
		Swipe: func(f badge.Frame) { s.far.Present(f.Bits()) },
		Set: func(active bool) {
			state := osdp.InputInactive
			if active {
				state = osdp.InputActive
			}
			s.far.SetInput(0, state)
		},
		Shown: s.shown,
		Scanner: &drivertest.Scanner{
			Scanner: s.scanner, Known: known(), Touch: s.hold, Lift: func() { s.far.Hold(nil) },
			Troubles: []drivertest.Trouble{
				injected("silence", pd.Drop, 2), injected("lost replies", pd.DropReply, 2), injected("flipped bits", pd.Flip, 2),
				injected("cut replies", pd.Truncate, 2), injected("garbage", pd.Noise, -1), injected("echo", pd.Echo, -1),
				injected("slow", pd.Late, 2), injected("busy", pd.Busy, 2),
				forged(pd.WrongMAC), forged(pd.Clear),
				other("wrong device", pd.Config{Key: osdp.Key{1}}), other("device without a key", pd.Config{}),
				other("device without security", pd.Config{NoSecurity: true, ClearText: true}),
			},
		},
		Break:    s.cable.unplug,
		Mend:     func() { s.cable.plug(s.far) },
		TearDown: s.cable.unplug,
		Frames: []badge.Frame{
			frame26(s, "1"), frame26(s, "10111101100010001110101110"), frame26(s, strings.Repeat("01", badge.MaxBits/2)),
		},
	}
}

// TestConformance holds the driver to what doors expect, over a serial port.
func TestConformance(t *testing.T) {
	drivertest.Test(t, func(t *testing.T) *drivertest.Rig { return newSite(t, newTerminal(t), pd.Config{Key: key}).rig() })
}
