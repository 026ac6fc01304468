package scanner_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/scanner"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
)

const (
	// On a busy machine even a module in the same process answers late.
	wait    = 400 * time.Millisecond  // for an answer
	late    = 30 * time.Millisecond   // by which one may come late
	timeout = 1500 * time.Millisecond // for a finger
	settled = 100 * time.Millisecond  // until a scan waits for one
)

// everyFault: those too that look like others, which take longer.
var everyFault bool

var silent = slog.New(slog.DiscardHandler)

// world is a port at which modules are plugged in and out.
type world struct {
	t      testing.TB
	port   string
	cabled func(*sim.Module) (*sim.Cable, error)

	mu    sync.Mutex
	cable *sim.Cable
	far   *sim.Module // nil: nothing is plugged in
}

func newWorld(t testing.TB, far *sim.Module, cabled func(*sim.Module) (*sim.Cable, error)) *world {
	t.Helper()
	w := &world{t: t, port: filepath.Join(t.TempDir(), "serial0"), cabled: cabled}
	w.plug(far)
	return w
}

func (w *world) plug(far *sim.Module) {
	w.t.Helper()
	far.LateBy = late
	cable, err := w.cabled(far)
	if err != nil {
		w.t.Fatal(err)
	}
	aside := w.port + "~"
	if err := os.Symlink(cable.Name, aside); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(aside, w.port); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cable, w.far = cable, far
}

func (w *world) unplug() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.far == nil {
		return
	}
	os.Remove(w.port)
	w.cable.Unplug()
	w.far = nil
}

func (w *world) touch(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.far != nil {
		w.far.Touch(sim.Finger{Name: name})
	}
}

func (w *world) lift() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.far != nil {
		w.far.Lift()
	}
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

// open opens the driver as the configuration would.
func open(t testing.TB, d scanner.Device) (drivers.Bus, biometric.Copier) {
	t.Helper()
	driver, ok := drivers.Lookup("fingerprint")
	if !ok || driver.Simulated || !driver.Scans {
		t.Fatal("the driver is not in the table as one with scanners")
	}
	settings := driver.Settings().(*scanner.Settings)
	scanner.Hasten(settings, wait)
	bus := must[drivers.Bus](t)(driver.Open(settings, silent))
	device := driver.Device().(*scanner.Device)
	*device = d
	if device.Timeout == 0 {
		device.Timeout = timeout
	}
	s := must[biometric.Scanner](t)(bus.Scanner(device))
	return bus, s.(biometric.Copier)
}

// makes are a module of each family.
var makes = map[string]func(serial string) *sim.Module{
	"zfm":   func(serial string) *sim.Module { return sim.ZFM{Serial: serial, Capacity: 16}.New() },
	"sfm":   func(serial string) *sim.Module { return sim.SFM{Serial: uint32(len(serial)), Capacity: 16}.New() },
	"gt521": func(serial string) *sim.Module { return sim.GT521{Serial: serial, Capacity: 16}.New() },
}

// bauds are their rates. To look for them again at each connection takes long.
var bauds = map[string]int{"zfm": 57600, "sfm": 115200, "gt521": 9600}

var people = []string{"Ann", "Bob", "Cid"}

// fill enrols people, in slots from 3 on.
func fill(t testing.TB, far *sim.Module) []biometric.Reference {
	t.Helper()
	var all []biometric.Reference
	for i, name := range people {
		id := fingerprint.ID(3 + i)
		far.Store(id, sim.Finger{Name: name})
		all = append(all, biometric.Reference{Part: biometric.Parts(biometric.Fingerprint)[i], Slot: uint32(id)})
	}
	return all
}

func rig(t *testing.T, family string) *drivertest.Rig {
	right, wrong := makes[family]("A"), makes[family]("BB")
	known := fill(t, right)
	w := newWorld(t, right, sim.Plug)
	bus, s := open(t, scanner.Device{Family: family, Port: w.port, Baud: bauds[family]})
	inject := func(f sim.Fault, harmless bool) drivertest.Trouble {
		return drivertest.Trouble{
			Name:     f.String(),
			Begin:    func() { right.Inject(f, -1) },
			End:      func() { right.Inject(f, 0) },
			Harmless: harmless,
		}
	}
	troubles := []drivertest.Trouble{
		{Name: "another module", Begin: func() { w.unplug(); w.plug(wrong) }, End: func() { w.unplug(); w.plug(right) }},
		{Name: "no power", Begin: func() { right.Power(false) }, End: func() { right.Power(true) }},
		inject(sim.Flip, false),
		inject(sim.Garbage, true), inject(sim.Late, true), inject(sim.Echo, true),
	}
	if everyFault {
		troubles = append(troubles,
			drivertest.Trouble{Name: "silence", Begin: func() { right.Silence(true) }, End: func() { right.Silence(false) }},
			inject(sim.Drop, false), inject(sim.DropReply, false), inject(sim.Truncate, false),
		)
	}
	return &drivertest.Rig{
		Close: bus.Close,
		Scanner: &drivertest.Scanner{
			Scanner: s,
			Known:   known,
			Keeps:   true,
			Touch: func(person int) {
				name := "stranger"
				if person >= 0 {
					name = people[person]
				}
				w.touch(name)
			},
			Lift:     w.lift,
			Blank:    &biometric.Reference{Part: biometric.LeftThumb, Slot: 9},
			Troubles: troubles,
		},
		Break:    w.unplug,
		Mend:     func() { w.plug(right) },
		TearDown: w.unplug,
	}
}

// conformanceOf is the environment variable that names a family to a process
// that is to hold it to the suite.
const conformanceOf = "GATEHOUSE_TEST_CONFORMANCE_OF"

// TestConformance holds each family to what doors expect of scanners: each in a
// process of its own, for the suite counts what a process leaves behind, and
// all at the same time, for they mostly wait.
func TestConformance(t *testing.T) {
	if family := os.Getenv(conformanceOf); family != "" {
		drivertest.Test(t, func(t *testing.T) *drivertest.Rig { return rig(t, family) })
		return
	}
	self := must[string](t)(os.Executable())
	var all sync.WaitGroup
	for family := range makes {
		all.Go(func() {
			c := exec.CommandContext(t.Context(), self, "-test.run=^TestConformance$", "-test.v")
			c.Env = append(os.Environ(), conformanceOf+"="+family)
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestConformance/a_scan_waits_for_somebody") {
				t.Errorf("%s: %v\n%s", family, err, out)
			}
		})
	}
	all.Wait()
}
