package scanner_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/scanner"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sfm"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16") // they mostly wait
	os.Exit(m.Run())
}

// each runs a test for each family.
func each(t *testing.T, test func(t *testing.T, family string)) {
	t.Parallel()
	for family := range makes {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			test(t, family)
		})
	}
}

// begin opens the driver with a module, at its family's rate.
func begin(t testing.TB, far *sim.Module, d scanner.Device) (*world, biometric.Copier) {
	t.Helper()
	w := newWorld(t, far, sim.Plug)
	return w, beginAt(t, w, d)
}

func beginAt(t testing.TB, w *world, d scanner.Device) biometric.Copier {
	t.Helper()
	d.Port = w.port
	if d.Baud == 0 {
		d.Baud = bauds[d.Family]
	}
	bus, s := open(t, d)
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		w.unplug()
	})
	return s
}

// direct is a connection to a module without a scanner, until end.
func direct(t testing.TB, family string, far *sim.Module) (m fingerprint.Module, end func()) {
	t.Helper()
	cable := must[*sim.Cable](t)(sim.Plug(far))
	open := func(baud int) (fingerprint.Line, error) { return serial.Open(cable.Name, baud) }
	if family == "sfm" {
		m = must[*sfm.Module](t)(sfm.Open(t.Context(), sfm.Config{Open: open, Baud: bauds[family]}))
	} else {
		m = must[*zfm.Module](t)(zfm.Open(t.Context(), zfm.Config{Open: open, Baud: bauds[family]}))
	}
	return m, func() {
		m.Close()
		cable.Unplug()
	}
}

// scan has somebody touch the sensor; again, if the module was not seen to be
// free before.
func scan(t testing.TB, far *sim.Module, s biometric.Scanner, f sim.Finger, with ...biometric.Reference) biometric.Match {
	t.Helper()
	for {
		touch := time.AfterFunc(settled, func() { far.Touch(f) })
		m, err := s.Scan(t.Context(), with)
		touch.Stop()
		far.Lift()
		if err != nil {
			t.Fatal(err)
		}
		if m.Outcome != biometric.Nobody {
			return m
		}
	}
}

// enrol has a person do what the module asks.
func enrol(ctx context.Context, far *sim.Module, s biometric.Enroller, slot uint32, f sim.Finger) (biometric.Captured, []biometric.Step, error) {
	var steps []biometric.Step
	defer far.Lift()
	got, err := s.Enroll(ctx, biometric.Capture{Part: biometric.LeftIndex, Slot: slot, Tell: func(step biometric.Step) {
		steps = append(steps, step)
		if step.Action == biometric.Lift {
			far.Lift()
			time.Sleep(50 * time.Millisecond) // no person is faster
			return
		}
		far.Touch(f)
	}})
	return got, steps, err
}

// faultOf waits for a fault of the scanner.
func faultOf(t testing.TB, s biometric.Scanner) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var fault error
	if err := s.Watch(ctx, func(err error) {
		if fault = err; err != nil {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Fatalf("no fault is told: %v", err)
	}
	return fault
}

// usable waits until the scanner can be used.
func usable(t testing.TB, s biometric.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last error
	if err := s.Watch(ctx, func(err error) {
		if last = err; err == nil {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Fatalf("it cannot be used: %v", last)
	}
}

func TestAModuleWithAnotherSerialNumberIsAFaultThatNamesBoth(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		far := makes[family]("A")
		fill(t, far)
		w, s := begin(t, far, scanner.Device{Family: family, Serial: "4711"})
		fault := faultOf(t, s)
		if !errors.Is(fault, fingerprint.ErrWrongModule) || !strings.Contains(fault.Error(), `"4711"`) {
			t.Errorf("the fault is %v", fault)
		}
		_, err := s.Scan(t.Context(), nil)
		if !errors.Is(err, fingerprint.ErrWrongModule) {
			t.Errorf("Scan: %v", err)
		}
		var wrong *fingerprint.WrongModuleError
		if !errors.As(fault, &wrong) || wrong.Got == "" || !strings.Contains(fault.Error(), wrong.Got) {
			t.Fatalf("the fault does not name the module that is there: %v", fault)
		}
		// The number that it names is the one to set up.
		w.unplug()
		w.plug(far)
		_, set := begin(t, makes[family]("A"), scanner.Device{Family: family, Serial: wrong.Got})
		usable(t, set)
	})
}

func TestTheFirstModuleIsTakenWithAWarningAndThenNoOther(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log bytes.Buffer
	settings := scanner.DefaultSettings()
	scanner.Hasten(settings, wait)
	bus := must[*scanner.Bus](t)(scanner.Open(settings, slog.New(slog.NewTextHandler(writer{&mu, &log}, nil))))
	defer bus.Close()
	w := newWorld(t, makes["zfm"]("A"), sim.Plug)
	defer w.unplug()
	s := must[biometric.Scanner](t)(bus.Scanner(&scanner.Device{Family: "zfm", Port: w.port, Baud: 57600, Timeout: timeout}))
	usable(t, s)
	about := must[biometric.About](t)(s.(biometric.Enroller).About(t.Context()))
	mu.Lock()
	if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "serial="+about.Serial) {
		t.Errorf("the log says: %s", text)
	}
	mu.Unlock()
	w.unplug()
	w.plug(makes["zfm"]("B"))
	for fault := error(nil); !errors.Is(fault, fingerprint.ErrWrongModule); time.Sleep(late) {
		fault = faultOf(t, s)
	}
}

// writer is a log that is read while it is written.
type writer struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func TestAModuleWithoutASerialNumberIsRefusedUntilItKeepsOne(t *testing.T) {
	t.Parallel()
	far := sim.ZFM{Old: true}.New()
	_, s := begin(t, far, scanner.Device{Family: "zfm"})
	if fault := faultOf(t, s); !strings.Contains(fault.Error(), "mark = true") {
		t.Errorf("the fault is %v", fault)
	}
	marked := sim.ZFM{Old: true}.New()
	w, s := begin(t, marked, scanner.Device{Family: "zfm", Mark: true})
	about := must[biometric.About](t)(s.About(t.Context()))
	if !strings.HasPrefix(about.Serial, "mark-") {
		t.Errorf("it is %+v", about)
	}
	w.unplug()
	faultOf(t, s)
	w.plug(marked)
	usable(t, s)
	if again := must[biometric.About](t)(s.About(t.Context())); again != about {
		t.Errorf("it was %+v and is %+v", about, again)
	}
}

func TestTheLevelOfSecurityIsTheOneThatWasSet(t *testing.T) {
	t.Parallel()
	for family, level := range map[string]int{"zfm": 5, "sfm": 0x35} {
		far := makes[family]("A")
		_, s := begin(t, far, scanner.Device{Family: family, Security: level})
		usable(t, s)
		m, end := direct(t, family, far)
		defer end()
		if got, err := m.Security(t.Context()); err != nil || got != level {
			t.Errorf("%s: the level is %d, %v", family, got, err)
		}
	}
}

func TestAPasswordComesFromAFileThatNobodyElseCanRead(t *testing.T) {
	t.Parallel()
	const password = 0x00C0FFEE
	file := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, s := begin(t, sim.ZFM{Password: password}.New(), scanner.Device{Family: "zfm", PasswordFile: file("00C0FFEE\n", 0o600)})
	usable(t, s)

	_, s = begin(t, sim.ZFM{Password: password}.New(), scanner.Device{Family: "zfm", PasswordFile: file("00BADBAD", 0o400)})
	if fault := faultOf(t, s); !errors.Is(fault, fingerprint.ErrLocked) || strings.Contains(strings.ToUpper(fmt.Sprint(fault)), "BADBAD") {
		t.Errorf("with a wrong password: %v", fault)
	}

	bus := must[*scanner.Bus](t)(scanner.Open(scanner.DefaultSettings(), silent))
	defer bus.Close()
	for what, path := range map[string]string{
		"others can read":         file("00C0FFEE", 0o640),
		"no such file":            filepath.Join(t.TempDir(), "none"),
		"is no file":              t.TempDir(),
		"8 hexadecimal digits":    file("C0FFEE", 0o600),
		"8 hexadecimal digits, s": file("00C0FFEEE", 0o600),
		"8 hexadecimal":           file(strings.Repeat("00C0FFEE", 20), 0o600),
	} {
		_, err := bus.Scanner(&scanner.Device{Family: "zfm", Port: "/dev/none", PasswordFile: path})
		if err == nil || !strings.Contains(err.Error(), "password_file: ") || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "C0FFEE") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAPortIsGivenOutOnceWhateverItIsCalled(t *testing.T) {
	t.Parallel()
	bus := must[*scanner.Bus](t)(scanner.Open(scanner.DefaultSettings(), silent))
	w := newWorld(t, makes["zfm"]("A"), sim.Plug)
	defer w.unplug()
	must[biometric.Scanner](t)(bus.Scanner(&scanner.Device{Family: "zfm", Port: w.port}))
	for _, port := range []string{w.port, w.cable.Name, w.port + "/../serial0"} {
		if _, err := bus.Scanner(&scanner.Device{Family: "sfm", Port: port}); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s: %v", port, err)
		}
	}
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
	if _, err := bus.Scanner(&scanner.Device{Family: "sfm", Port: "/dev/another"}); !errors.Is(err, scanner.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAModuleIsNoOtherPartOfADoor(t *testing.T) {
	bus := must[*scanner.Bus](t)(scanner.Open(scanner.DefaultSettings(), silent))
	defer bus.Close()
	d := &scanner.Device{Family: "zfm", Port: "/dev/serial0"}
	for part, get := range map[string]func() (any, error){
		"reader":    func() (any, error) { return bus.Reader(d, nil) },
		"strike":    func() (any, error) { return bus.Strike(d) },
		"input":     func() (any, error) { return bus.Input(d) },
		"indicator": func() (any, error) { return bus.Indicator(d) },
	} {
		if _, err := get(); err == nil || d.ValidateAs(part) == nil {
			t.Errorf("it is a %s", part)
		}
	}
	if err := d.ValidateAs("scanner"); err != nil {
		t.Error(err)
	}
	if _, ok := any(d).(interface{ Authenticated() bool }); ok {
		t.Error("it says that it is authenticated")
	}
}

func TestAPoorFingerMayTryAgainAndAFakeOneIsTold(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		far := makes[family]("A")
		known := fill(t, far)
		_, s := begin(t, far, scanner.Device{Family: family})
		for _, with := range [][]biometric.Reference{nil, known[:1], known} {
			if m := scan(t, far, s, sim.Finger{Name: "Ann", Poor: true}, with...); m != (biometric.Match{Outcome: biometric.TryAgain}) {
				t.Errorf("a poor finger, %d references: %+v", len(with), m)
			}
			if family != "sfm" {
				continue
			}
			if m := scan(t, far, s, sim.Finger{Name: "Ann", Fake: true}, with...); m != (biometric.Match{Outcome: biometric.Fake}) {
				t.Errorf("a fake finger, %d references: %+v", len(with), m)
			}
		}
	})
}

// A door pauses for a second after a wrong finger. A Suprema module has a
// setting of its own for that.
func TestAFingerThatIsLeftOnTheSensorIsJudgedOnce(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		if family == "sfm" {
			return
		}
		far := makes[family]("A")
		fill(t, far)
		_, s := begin(t, far, scanner.Device{Family: family})
		stranger := sim.Finger{Name: "a stranger's"}
		if m := leave(t, far, s, stranger); m.Outcome != biometric.NoMatch {
			t.Fatalf("a stranger's finger: %+v", m)
		}
		time.Sleep(1100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m, err := s.Scan(ctx, nil); m.Outcome == biometric.NoMatch {
			t.Errorf("it was judged again: %+v, %v", m, err)
		}
		far.Lift()
		if m := scan(t, far, s, stranger); m.Outcome != biometric.NoMatch {
			t.Errorf("the next time: %+v", m)
		}
	})
}

// leave is scan of a finger that stays.
func leave(t testing.TB, far *sim.Module, s biometric.Scanner, f sim.Finger) biometric.Match {
	t.Helper()
	touch := time.AfterFunc(settled, func() { far.Touch(f) })
	defer touch.Stop()
	m, err := s.Scan(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAModulesOwnFingerForAThreatIsOneWhateverTheReferenceSays(t *testing.T) {
	t.Parallel()
	far := makes["sfm"]("A")
	known := fill(t, far)
	m, end := direct(t, "sfm", far)
	if _, err := m.Enroll(t.Context(), fingerprint.Enrollment{ID: fingerprint.ID(known[1].Slot), Duress: true, Progress: func(step fingerprint.Step) {
		if step.Action == fingerprint.Lift {
			far.Lift()
			time.Sleep(50 * time.Millisecond)
		} else {
			far.Touch(sim.Finger{Name: "Bob's other"})
		}
	}}); err != nil {
		t.Fatal(err)
	}
	far.Lift()
	end()
	_, s := begin(t, far, scanner.Device{Family: "sfm"})
	for _, with := range [][]biometric.Reference{nil, known[1:2], known} {
		for name, duress := range map[string]bool{"Bob": false, "Bob's other": true} {
			m := scan(t, far, s, sim.Finger{Name: name}, with...)
			if m.Outcome != biometric.Matched || m.Slot != known[1].Slot || m.Duress != duress {
				t.Errorf("%s, %d references: %+v", name, len(with), m)
			}
		}
	}
}

func TestEnrolmentSaysWhatToDoAndHowGoodItWas(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		far := makes[family]("A")
		_, s := begin(t, far, scanner.Device{Family: family})
		got, steps, err := enrol(t.Context(), far, s, 5, sim.Finger{Name: "Ann"})
		if err != nil {
			t.Fatal(err)
		}
		if !got.Template.Empty() || (got.Quality > 0) != (family == "sfm") {
			t.Errorf("it gave %+v", got)
		}
		captures := map[string]int{"zfm": 2, "sfm": 2, "gt521": 3}[family]
		if len(steps) != 2*captures-1 {
			t.Errorf("the steps are %v", steps)
		}
		for i, step := range steps {
			want := biometric.Step{Action: biometric.Place, Capture: i/2 + 1, Captures: captures}
			if i%2 == 1 {
				want.Action = biometric.Lift
				want.Capture = step.Capture // before the next one, or after the last
			}
			if step != want {
				t.Errorf("step %d is %+v, not %+v", i, step, want)
			}
		}
		for what, tt := range map[string]struct {
			slot uint32
			part biometric.Part
			name string
			want error
		}{
			"a slot in use":        {5, biometric.LeftIndex, "Bob", fingerprint.ErrInUse},
			"a finger that is in":  {6, biometric.LeftIndex, "Ann", fingerprint.ErrDuplicate},
			"a slot that is not":   {1 << 20, biometric.LeftIndex, "Bob", nil},
			"an eye":               {6, biometric.LeftIris, "Bob", biometric.ErrUnsupported},
			"a finger that is not": {6, "left-toe", "Bob", biometric.ErrUnsupported},
		} {
			if family == "sfm" && what == "a slot that is not" {
				continue // its slots are users' numbers, which are as large as they like
			}
			_, err := s.Enroll(t.Context(), biometric.Capture{Part: tt.part, Slot: tt.slot, Tell: func(step biometric.Step) {
				if step.Action == biometric.Lift {
					far.Lift()
					time.Sleep(50 * time.Millisecond)
				} else {
					far.Touch(sim.Finger{Name: tt.name})
				}
			}})
			far.Lift()
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if slots := must[[]uint32](t)(s.Slots(t.Context())); !slices.Equal(slots, []uint32{5}) {
			t.Errorf("slots %v are in use", slots)
		}
	})
}

// Whichever command it is that a module hears last, when it is back nothing is
// left of an enrolment that failed, and what was there before is there still.
func TestAModuleThatDiesDuringAnEnrolmentKeepsNothingOfIt(t *testing.T) {
	const commands = 60 // more than an enrolment has
	deaths := map[string]func(far *sim.Module, after int){
		// It does what it was told last, and nobody can take that back.
		"dead": func(far *sim.Module, after int) {
			far.InjectAfter(sim.DropReply, after, -1)
			far.InjectAfter(sim.Drop, after+1, -1)
		},
	}
	if everyFault {
		deaths["deaf"] = func(far *sim.Module, after int) { far.InjectAfter(sim.Drop, after, -1) }
		deaths["dumb"] = func(far *sim.Module, after int) { far.InjectAfter(sim.DropReply, after, -1) }
	}
	each(t, func(t *testing.T, family string) {
		for how, die := range deaths {
			var through, left atomic.Int64
			t.Run(how, func(t *testing.T) {
				for after := range commands {
					t.Run(strconv.Itoa(after), func(t *testing.T) {
						t.Parallel()
						err := dying(t, family, func(far *sim.Module) { die(far, after) })
						if err == nil {
							through.Add(1)
						}
						if _, ok := errors.AsType[*fingerprint.LeftError](err); ok {
							left.Add(1)
						}
					})
				}
			})
			if n := through.Load(); n == 0 || n == commands {
				t.Errorf("%s: %d of %d enrolments are through", how, n, commands)
			}
			if how != "deaf" && left.Load() == 0 {
				t.Errorf("%s: nothing was ever left behind", how)
			}
		}
	})
}

// dying has a module die during an enrolment, and come back.
func dying(t *testing.T, family string, die func(*sim.Module)) error {
	far := makes[family]("A")
	var want []uint32
	for _, r := range fill(t, far) {
		want = append(want, r.Slot)
	}
	_, s := begin(t, far, scanner.Device{Family: family})
	usable(t, s)
	die(far)
	_, _, err := enrol(t.Context(), far, s, 11, sim.Finger{Name: "Eve"})
	far.Inject(sim.Drop, 0)
	far.Inject(sim.DropReply, 0)
	if err == nil {
		want = append(want, 11)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(late) {
		slots, listed := s.Slots(t.Context())
		if listed == nil && slices.Equal(slots, want) {
			return err
		}
		if time.Now().After(end) {
			t.Errorf("%v; slots %v are in use (%v), not %v", err, slots, listed, want)
			return err
		}
	}
}

func TestTemplatesGoToAnotherModuleOfTheFamilyOnly(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		from, to := makes[family]("A"), makes[family]("BB")
		known := fill(t, from)
		_, a := begin(t, from, scanner.Device{Family: family})
		_, b := begin(t, to, scanner.Device{Family: family})
		is, other := must[biometric.About](t)(a.About(t.Context())), must[biometric.About](t)(b.About(t.Context()))
		if is.Family == "" || is.Family != other.Family || is.Serial == other.Serial || is.Model == "" {
			t.Errorf("they are %+v and %+v", is, other)
		}
		templates := must[[]biometric.Template](t)(a.ReadSlot(t.Context(), known[0].Slot))
		if err := b.WriteSlot(t.Context(), 7, templates); err != nil {
			t.Fatal(err)
		}
		if m := scan(t, to, b, sim.Finger{Name: "Ann"}); m != (biometric.Match{Outcome: biometric.Matched, Slot: 7}) {
			t.Errorf("what was copied: %+v", m)
		}
		for _, template := range templates {
			if template.Empty() {
				t.Error("the caller's template was cleared")
			}
			template.Clear()
		}
		if err := b.WriteSlot(t.Context(), 8, templates); !errors.Is(err, fingerprint.ErrTemplate) {
			t.Errorf("templates that were cleared: %v", err)
		}
		if _, err := a.ReadSlot(t.Context(), 12); !errors.Is(err, fingerprint.ErrEmpty) {
			t.Errorf("an empty slot: %v", err)
		}
		if slots := must[[]uint32](t)(b.Slots(t.Context())); !slices.Equal(slots, []uint32{7}) {
			t.Errorf("slots %v are in use", slots)
		}
		usable(t, a) // none of this is a fault
		usable(t, b)
	})
}

func TestTheLampSaysHowAScanGoes(t *testing.T) {
	t.Parallel()
	far := sim.ZFM{}.New()
	known := fill(t, far)
	_, s := begin(t, far, scanner.Device{Family: "zfm"})
	flash := func(c fingerprint.Colour) fingerprint.Light {
		return fingerprint.Light{Colour: c, Effect: fingerprint.Flash, Times: 2}
	}
	for _, tt := range []struct {
		finger sim.Finger
		want   fingerprint.Light
	}{
		{sim.Finger{Name: "Ann"}, flash(fingerprint.Green)},
		{sim.Finger{Name: "Bob"}, flash(fingerprint.Red)},
		{sim.Finger{Name: "Ann", Poor: true}, flash(fingerprint.Yellow)},
	} {
		// Where the module is slow, as on a busy machine, nobody waits for its lamp.
		for tries := 1; ; tries++ {
			waiting, shown := lampsOf(t, far, s, tt.finger, known[:1])
			if waiting == (fingerprint.Light{Colour: fingerprint.Blue, Effect: fingerprint.Breathe}) && shown == tt.want {
				break
			}
			if tries == 10 || shown != tt.want && shown != (fingerprint.Light{}) {
				t.Fatalf("%+v: while it waits it shows %+v, and then %+v", tt.finger, waiting, shown)
			}
		}
	}
	if m, err := s.Scan(t.Context(), known[:1]); err != nil || m.Outcome != biometric.Nobody {
		t.Errorf("%+v, %v", m, err)
	}
	if got := far.Lamp(); got != (fingerprint.Light{}) {
		t.Errorf("after nobody came it shows %+v", got)
	}
}

// lampsOf is what the lamp shows while a scan waits, and when a finger came.
func lampsOf(t *testing.T, far *sim.Module, s biometric.Scanner, f sim.Finger, with []biometric.Reference) (waiting, shown fingerprint.Light) {
	t.Helper()
	time.Sleep(1100 * time.Millisecond) // while it still shows what came of the last one
	before := far.Lamp()
	waits := make(chan fingerprint.Light, 1)
	go func() {
		for end := time.Now().Add(timeout / 2); far.Lamp() == before && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		waits <- far.Lamp()
		time.Sleep(settled)
		far.Touch(f)
	}()
	if _, err := s.Scan(t.Context(), with); err != nil {
		t.Fatal(err)
	}
	waiting, shown = <-waits, far.Lamp()
	far.Lift()
	return waiting, shown
}

func TestALampThatFailsIsNoFault(t *testing.T) {
	t.Parallel()
	far := sim.ZFM{Dark: true}.New()
	known := fill(t, far)
	_, s := begin(t, far, scanner.Device{Family: "zfm"})
	usable(t, s)
	if m := scan(t, far, s, sim.Finger{Name: "Ann"}, known[0]); m.Outcome != biometric.Matched {
		t.Errorf("%+v", m)
	}
	usable(t, s)
}

func TestAModuleThatNobodyUsesIsMissedAllTheSame(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		far := makes[family]("A")
		_, s := begin(t, far, scanner.Device{Family: family})
		usable(t, s)
		far.Silence(true)
		if fault := faultOf(t, s); !fingerprint.NoAnswer(fault) {
			t.Errorf("the fault is %v", fault)
		}
		far.Silence(false)
		usable(t, s)
	})
}

// exchange is a line on which another module takes the place of the first, while
// whoever has it open notices nothing.
type exchange struct {
	mu  sync.Mutex
	now *sim.Module
	to  map[*sim.Module]io.Writer
}

// plugExchange plugs the first of modules in.
func plugExchange(t *testing.T, modules ...*sim.Module) (port string, x *exchange) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x = &exchange{now: modules[0], to: make(map[*sim.Module]io.Writer)}
	var served sync.WaitGroup
	var commands []*io.PipeWriter
	for _, m := range modules {
		from, to := io.Pipe()
		x.to[m] = to
		commands = append(commands, to)
		served.Go(func() { m.Serve(far{x, m, from, master}, func() int { return 0 }) })
	}
	served.Go(func() {
		b := make([]byte, 1024)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			x.mu.Lock()
			to := x.to[x.now]
			x.mu.Unlock()
			to.Write(b[:n])
		}
	})
	t.Cleanup(func() {
		master.Close()
		slave.Close()
		for _, c := range commands {
			c.Close()
		}
		served.Wait()
	})
	return slave.Name(), x
}

// plug puts a module in the place of the one that is there.
func (x *exchange) plug(m *sim.Module) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = m
}

// far is a module's end of an exchange.
type far struct {
	x *exchange
	m *sim.Module
	io.Reader
	line io.Writer
}

func (f far) Write(b []byte) (int, error) {
	f.x.mu.Lock()
	plugged := f.x.now == f.m
	f.x.mu.Unlock()
	if !plugged {
		return len(b), nil
	}
	return f.line.Write(b)
}

// A door that identifies begins the next scan when one ends.
func TestAModuleThatIsExchangedBetweenScansIsMissedAllTheSame(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		right, wrong := makes[family]("A"), makes[family]("BB")
		port, x := plugExchange(t, right, wrong)
		bus, s := open(t, scanner.Device{Family: family, Port: port, Baud: bauds[family]})
		defer bus.Close()
		usable(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		exchanged := time.AfterFunc(2*settled, func() { x.plug(wrong) })
		defer exchanged.Stop()
		for {
			m, err := s.Scan(ctx, nil)
			if errors.Is(err, fingerprint.ErrWrongModule) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("another module scans: %+v, %v", m, err)
			}
		}
	})
}

// A module that lost its power and has it back has forgotten what it was told,
// and says so only when it is asked.
func TestAModuleThatRestartsIsUsedAgain(t *testing.T) {
	each(t, func(t *testing.T, family string) {
		far := makes[family]("A")
		known := fill(t, far)
		_, s := begin(t, far, scanner.Device{Family: family})
		usable(t, s)
		far.Power(false)
		far.Power(true)
		for end := time.Now().Add(time.Minute); ; {
			touch := time.AfterFunc(settled, func() { far.Touch(sim.Finger{Name: "Ann"}) })
			m, err := s.Scan(t.Context(), known[:1])
			touch.Stop()
			far.Lift()
			if err == nil && m.Outcome == biometric.Matched {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%+v, %v", m, err)
			}
		}
	})
}
