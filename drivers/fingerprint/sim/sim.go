// Package sim simulates serial fingerprint modules of the three families, on a
// pseudo-terminal, with fingers that come and go and faults on demand. They are
// for tests and for trying a door without hardware.
package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Fault is a way to misbehave.
type Fault uint8

const (
	Drop      Fault = iota // does not hear the command
	DropReply              // hears it, and what it answers is lost
	Flip                   // one bit of the answer is another
	Truncate               // only half of the answer comes
	Garbage                // noise comes before the answer
	Late                   // the answer comes after Module.LateBy
	Echo                   // the command comes back before the answer
)

var faultNames = [...]string{"drop", "drop-reply", "flip", "truncate", "garbage", "late", "echo"}

// Faults are all of them.
func Faults() []Fault {
	all := make([]Fault, len(faultNames))
	for i := range all {
		all[i] = Fault(i)
	}
	return all
}

func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// ParseFault reads a fault's name, such as "drop-reply".
func ParseFault(name string) (Fault, error) {
	i := slices.Index(faultNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("sim: unknown fault %q: there are %v", name, faultNames)
	}
	return Fault(i), nil
}

// Finger is one that is held to a sensor. Fingers of one name are the same
// finger.
type Finger struct {
	Name string
	Poor bool // too little is seen of it
	Fake bool // it is not alive, which only sfm sees
}

// template makes a finger's template; no two fingers' are alike.
func (f Finger) template(size int) []byte {
	t := make([]byte, 0, size+sha256.Size)
	for i := byte(0); len(t) < size; i++ {
		block := sha256.Sum256(append([]byte(f.Name), i))
		t = append(t, block[:]...)
	}
	return t[:size]
}

// protocol is a family's side. The module calls it one at a time.
type protocol interface {
	// next finds a command in what has come, as fingerprint.Wire.Receive's scan.
	next(b []byte) (n int, ok bool)
	// answer carries out a command and gives what comes back.
	answer(command []byte, finger *Finger) [][]byte
	// later gives what comes without being asked, and whether something waits.
	later(now time.Time, finger *Finger) (out [][]byte, waits bool)
	// reset is the loss of power.
	reset()
	baud() int
	stored() []fingerprint.ID
	store(fingerprint.ID, Finger)
	lamp() fingerprint.Light
}

// Module is a simulated one. Its methods may be called from any goroutine.
type Module struct {
	// LateBy is how much later a Late answer comes; 1 s.
	LateBy time.Duration

	mu     sync.Mutex
	p      protocol
	faults map[Fault]due
	off    bool
	mute   bool
	finger *Finger
	lifted bool // since the module looked last, wherever the finger is now
	woken  chan struct{}
	heard  int
}

func newModule(p protocol) *Module {
	return &Module{LateBy: time.Second, p: p, faults: map[Fault]due{}, woken: make(chan struct{}, 1)}
}

// due is when a fault is.
type due struct{ skip, n int }

// Inject makes the next n commands suffer from a fault; -1: all of them, 0:
// none any more.
func (m *Module) Inject(f Fault, n int) { m.InjectAfter(f, 0, n) }

// InjectAfter is Inject for the commands after the next few.
func (m *Module) InjectAfter(f Fault, skip, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults[f] = due{skip, n}
}

// hit reports whether a fault is due, and counts it.
func (m *Module) hit(f Fault) bool {
	d := m.faults[f]
	switch {
	case d.n == 0:
		return false
	case d.skip > 0:
		d.skip--
		m.faults[f] = d
		return false
	case d.n > 0:
		d.n--
		m.faults[f] = d
	}
	return true
}

// Silence makes the module say nothing, or speak again. It hears and does what
// it is told all the same.
func (m *Module) Silence(mute bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute = mute
}

// Power switches the module off or on. It keeps what it has stored.
func (m *Module) Power(on bool) {
	m.mu.Lock()
	if m.off = !on; on {
		m.p.reset()
	}
	m.mu.Unlock()
	m.wake()
}

// Touch holds a finger to the sensor.
func (m *Module) Touch(f Finger) {
	m.mu.Lock()
	m.finger = &f
	m.mu.Unlock()
	m.wake()
}

// Lift takes it away.
func (m *Module) Lift() {
	m.mu.Lock()
	m.finger, m.lifted = nil, true
	m.mu.Unlock()
	m.wake()
}

// Stored is what is in use.
func (m *Module) Stored() []fingerprint.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p.stored()
}

// Store stores a finger under an ID, as if it had been enrolled there.
func (m *Module) Store(id fingerprint.ID, f Finger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.store(id, f)
}

// Lamp is what a lamp with colours shows.
func (m *Module) Lamp() fingerprint.Light {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p.lamp()
}

// Heard is how many commands the module was sent.
func (m *Module) Heard() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard
}

func (m *Module) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// maxCommand bounds what is kept of a command that does not end.
const maxCommand = 32 << 10

// Serve puts the module on a line, until reading from it fails: close rw to
// end it. Rate is the rate of the other end, 0: the right one.
func (m *Module) Serve(rw io.ReadWriter, rate func() int) error {
	come, failed := make(chan []byte), make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			b := make([]byte, 1024)
			n, err := rw.Read(b)
			if err != nil {
				failed <- err
				return
			}
			select {
			case come <- b[:n]:
			case <-done:
				return
			}
		}
	}()
	var b []byte
	for {
		out, waits := m.unasked()
		if err := write(rw, out); err != nil {
			return err
		}
		var tick <-chan time.Time
		if waits {
			tick = time.After(20 * time.Millisecond)
		}
		select {
		case err := <-failed:
			return err
		case <-tick:
		case <-m.woken:
		case more := <-come:
			b = append(b, more...)
			for {
				n, ok := m.next(b)
				if n == 0 && len(b) > maxCommand {
					n = len(b)
				}
				if n == 0 {
					break
				}
				command := b[:n]
				b = b[n:]
				if !ok {
					continue
				}
				out, late := m.command(command, rate())
				if late > 0 {
					time.Sleep(late)
				}
				if err := write(rw, out); err != nil {
					return err
				}
			}
		}
	}
}

func (m *Module) next(b []byte) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p.next(b)
}

func write(w io.Writer, frames [][]byte) error {
	for _, f := range frames {
		if _, err := w.Write(f); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) unasked() ([][]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, false
	}
	now := time.Now()
	if m.lifted && m.finger != nil { // put on again already, on a machine that is busy
		if out, _ := m.p.later(now, nil); len(out) > 0 {
			m.lifted = false
			return m.spoil(out, nil), false
		}
	}
	m.lifted = false
	out, waits := m.p.later(now, m.finger)
	if len(out) > 0 {
		out = m.spoil(out, nil)
	}
	return out, waits
}

func (m *Module) command(command []byte, rate int) (out [][]byte, late time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard++
	if m.off || rate != 0 && rate != m.p.baud() || m.hit(Drop) {
		return nil, 0
	}
	out = m.p.answer(command, m.finger)
	if len(out) == 0 {
		return nil, 0
	}
	if m.hit(Late) {
		late = m.LateBy
	}
	return m.spoil(out, command), late
}

// spoil does to an answer what is to be done. Command is nil for one that was
// not asked for just now.
func (m *Module) spoil(out [][]byte, command []byte) [][]byte {
	if m.mute || m.hit(DropReply) {
		return nil
	}
	if m.hit(Flip) {
		last := slices.Clone(out[len(out)-1])
		last[len(last)/2] ^= 0x10
		out[len(out)-1] = last
	}
	if m.hit(Truncate) {
		last := out[len(out)-1]
		out[len(out)-1] = last[:len(last)/2]
	}
	if m.hit(Garbage) {
		out = append([][]byte{{0x55, 0x00, 0xEF, 0x01, 0x40, 0x55, 0xAA, 0xFF, 0x5A, 0xA5, 0x0A, 0x13}}, out...)
	}
	if command != nil && m.hit(Echo) {
		out = append([][]byte{slices.Clone(command)}, out...)
	}
	return out
}

// library is what a module has stored, each ID's templates in order.
type library map[fingerprint.ID][][]byte

func (l library) ids() []fingerprint.ID { return slices.Sorted(maps.Keys(l)) }

// find looks for a template.
func (l library) find(t []byte) (fingerprint.ID, int, bool) {
	for _, id := range l.ids() {
		for i, stored := range l[id] {
			if string(stored) == string(t) {
				return id, i, true
			}
		}
	}
	return 0, 0, false
}

func (l library) templates() (n int) {
	for _, t := range l {
		n += len(t)
	}
	return n
}

// serialNumber makes one of a text.
func serialNumber(text string, size int) []byte {
	b := sha256.Sum256([]byte(text))
	return b[:size]
}

var (
	be = binary.BigEndian
	le = binary.LittleEndian
)
