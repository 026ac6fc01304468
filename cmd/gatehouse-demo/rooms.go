package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"github.com/gatehouse-acs/gatehouse/biometric"
	fingers "github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"golang.org/x/term"
)

// lifted is how long a finger is off the sensor until it counts as another one,
// though nobody looked meanwhile.
const lifted = 1600 * time.Millisecond

// sensors are the fingerprint module of server-room-c and the OSDP reader of
// server-room-d, each at the far end of a pseudo-terminal: the controller
// speaks to them as to real ones.
type sensors struct {
	finger *fingers.Module
	module *fingers.Cable

	eye  *pd.Peripheral
	line *cable
	// memory is the file in which the reader keeps its key while it is off.
	memory string

	mu   sync.Mutex
	left map[biometric.Modality]time.Time // when a finger or an eye was last taken away
}

// plugIn makes both and connects them.
func plugIn(memory string) (*sensors, error) {
	key, err := remembered(memory)
	if err != nil {
		return nil, err
	}
	s := &sensors{
		finger: fingers.ZFM{Serial: "demo"}.New(),
		eye:    pd.New(pd.Config{Baud: eyeBaud, Key: key, ScanTimeout: 4 * time.Second}),
		memory: memory,
		left:   make(map[biometric.Modality]time.Time),
	}
	if s.module, err = fingers.Plug(s.finger); err != nil {
		return nil, err
	}
	if s.line, err = newCable(func(end io.ReadWriter, _ func() int) { pd.Serve(end, pd.Wire{}, s.eye) }); err != nil {
		s.module.Unplug()
		return nil, err
	}
	return s, nil
}

// remembered is the key that the reader was given in an earlier run; zero: none.
func remembered(memory string) (key osdp.Key, err error) {
	b, err := os.ReadFile(memory)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return key, nil
	case err != nil:
		return key, err
	case copy(key[:], b) != len(key) || len(b) != len(key):
		return key, fmt.Errorf("%s does not hold a reader's key: remove the folder and begin anew", memory)
	}
	return key, nil
}

// keyed reports whether the reader has a key of its own.
func (s *sensors) keyed() bool { return s.eye.Key() != osdp.Key{} }

// remember keeps the reader's key, as the reader does.
func (s *sensors) remember() error {
	key := s.eye.Key()
	return os.WriteFile(s.memory, key[:], 0o600)
}

// unplug takes both away.
func (s *sensors) unplug() {
	s.module.Unplug()
	s.line.unplug()
}

// give holds a finger or an eye of somebody to its sensor. The one before was
// away for a while: a sensor does not take what never left it for another.
func (s *sensors) give(ctx context.Context, who person, part biometric.Part) error {
	s.mu.Lock()
	left := s.left[part.Modality()]
	s.mu.Unlock()
	if err := pause(ctx, lifted-time.Since(left)); err != nil {
		return err
	}
	if part.Modality() == biometric.Fingerprint {
		s.finger.Touch(fingers.Finger{Name: who.id + " " + string(part)})
		return nil
	}
	template := sha256.Sum256([]byte(who.id + " " + string(part)))
	kind := osdp.RightIris
	if part == biometric.LeftIris {
		kind = osdp.LeftIris
	}
	s.eye.Hold(&pd.Trait{Type: kind, Quality: 230, Template: template[:]})
	return nil
}

// away takes the finger or the eye away again.
func (s *sensors) away(of biometric.Modality) {
	s.mu.Lock()
	s.left[of] = time.Now()
	s.mu.Unlock()
	if of == biometric.Fingerprint {
		s.finger.Lift()
	} else {
		s.eye.Hold(nil)
	}
}

// cable is a pseudo-terminal.
type cable struct {
	name          string // of the near end
	master, slave *os.File
	served        chan struct{}
	once          sync.Once
}

// newCable makes one, whose far end is served until it is unplugged. Rate is
// that at which the near end was opened.
func newCable(serve func(end io.ReadWriter, rate func() int)) (*cable, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	if _, err := term.MakeRaw(int(slave.Fd())); err != nil { // until the controller opens it: no echo
		return nil, errors.Join(err, master.Close(), slave.Close())
	}
	c := &cable{name: slave.Name(), master: master, slave: slave, served: make(chan struct{})}
	go func() {
		defer close(c.served)
		serve(master, c.rate)
	}()
	return c, nil
}

func (c *cable) unplug() {
	c.once.Do(func() {
		c.master.Close()
		c.slave.Close()
		<-c.served
	})
}

// The configuration of the two rooms with scanners.
const (
	eyeBaud = 115200

	fingerDoor = `
[[door]]
name = "server-room-c"
unlock = "%[1]v"
held_after = "%[2]v"
held_warning = "%[3]v"
factors = ["badge+fingerprint"]
factor_window = "%[4]v"
duress = "open"
strike = { driver = "sim", line = "c.strike" }
contact = { driver = "sim", line = "c.contact" }
indicator = { driver = "sim", line = "c.indicator" }

[[door.reader]]
name = "c-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "c-in" }

[[door.scanner]]
name = "c-finger"
direction = "in"
factor = "fingerprint"
device = { driver = "fingerprint", family = "zfm", port = %[5]q }
`

	eyeDoor = `
[[drivers.osdp.line]]
name = "rs485-d"
port = %[5]q
baud = %[6]d

[[door]]
name = "server-room-d"
unlock = "%[1]v"
held_after = "%[2]v"
held_warning = "%[3]v"
factors = ["badge+iris"]
factor_window = "%[4]v"
strike = { driver = "sim", line = "d.strike" }
contact = { driver = "sim", line = "d.contact" }
indicator = { driver = "sim", line = "d.indicator" }

[[door.reader]]
name = "d-in"
direction = "in"
formats = ["H10301"]
device = { driver = "osdp", line = "rs485-d", address = 0 }

[[door.scanner]]
name = "d-eye"
direction = "in"
factor = "iris"
device = { driver = "osdp", line = "rs485-d", address = 0, parts = ["right-iris", "left-iris"], threshold = 128 }
`
)

// config describes both rooms.
func (s *sensors) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, fingerDoor, unlockFor, heldAfter, heldWarning, factorWindow, s.module.Name)
	fmt.Fprintf(&b, eyeDoor, unlockFor, heldAfter, heldWarning, factorWindow, s.line.name, eyeBaud)
	return b.String()
}

// lights are what the indicators of the doors show.
type lights struct {
	mu      sync.Mutex
	shows   map[string]string // by line
	changed chan struct{}     // closed and made anew with each change
}

func newLights() *lights {
	return &lights{shows: make(map[string]string), changed: make(chan struct{})}
}

// follow notes what becomes of outputs, until there are no more.
func (l *lights) follow(outputs <-chan sim.Output) {
	for o := range outputs {
		l.mu.Lock()
		l.shows[o.Line] = o.State
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}

// until waits until a line shows a pattern.
func (l *lights) until(ctx context.Context, line, pattern string) error {
	for {
		l.mu.Lock()
		shows, changed := l.shows[line], l.changed
		l.mu.Unlock()
		if shows == pattern {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s shows %q and not %q: %w", line, shows, pattern, ctx.Err())
		}
	}
}
