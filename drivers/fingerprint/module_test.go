package fingerprint_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/gt521"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sfm"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// Of the drivers under test: how long an answer and a finger are waited for,
// and how late a late answer is.
const (
	wait       = 250 * time.Millisecond
	fingerWait = time.Second
	late       = 400 * time.Millisecond
)

// family is one of the three, with a simulated module.
type family struct {
	name string
	make func(serial string, capacity int) *sim.Module
	open func(ctx context.Context, line func(int) (fingerprint.Line, error), baud int) (fingerprint.Module, error)
}

func families() []family {
	return []family{
		{"zfm", func(serial string, capacity int) *sim.Module {
			return sim.ZFM{Serial: serial, Capacity: capacity}.New()
		}, func(ctx context.Context, line func(int) (fingerprint.Line, error), baud int) (fingerprint.Module, error) {
			m, err := zfm.Open(ctx, zfm.Config{Open: line, Baud: baud, Wait: wait, FingerWait: fingerWait})
			return module(m, err)
		}},
		{"sfm", func(serial string, capacity int) *sim.Module {
			return sim.SFM{Serial: uint32(len(serial)), Capacity: capacity}.New()
		}, func(ctx context.Context, line func(int) (fingerprint.Line, error), baud int) (fingerprint.Module, error) {
			m, err := sfm.Open(ctx, sfm.Config{Open: line, Baud: baud, Wait: wait, FingerWait: fingerWait})
			return module(m, err)
		}},
		{"gt521", func(serial string, capacity int) *sim.Module {
			return sim.GT521{Serial: serial, Capacity: capacity}.New()
		}, func(ctx context.Context, line func(int) (fingerprint.Line, error), baud int) (fingerprint.Module, error) {
			m, err := gt521.Connect(ctx, gt521.Config{Open: line, Baud: baud, Wait: wait, FingerWait: fingerWait})
			return module(m, err)
		}},
	}
}

// module keeps a nil of a family's own type from looking like a module.
func module[M fingerprint.Module](m M, err error) (fingerprint.Module, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// each runs a test for each family. All run at the same time, for they mostly
// wait.
func each(t *testing.T, test func(t *testing.T, f family)) {
	t.Parallel()
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

// TestMain looks that no goroutine and no descriptor is left behind.
func TestMain(m *testing.M) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			panic(err)
		}
		return len(entries)
	}
	flag.Parse()
	flag.Set("test.parallel", "16")
	cable, err := sim.Plug(sim.ZFM{}.New()) // has the runtime open what it keeps
	if err != nil {
		panic(err)
	}
	cable.Unplug()
	goroutines, open := runtime.NumGoroutine(), files()
	code := m.Run()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		g, f := runtime.NumGoroutine(), files()
		if g <= goroutines && f <= open {
			break
		}
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			fmt.Printf("%d goroutines and %d descriptors are left of %d and %d:\n%s\n", g, f, goroutines, open, stacks[:runtime.Stack(stacks, true)])
			os.Exit(1)
		}
	}
	os.Exit(code)
}

func plug(t *testing.T, far *sim.Module) *sim.Cable {
	t.Helper()
	far.LateBy = late
	cable, err := sim.Plug(far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cable.Unplug)
	return cable
}

func lineTo(cable *sim.Cable) func(int) (fingerprint.Line, error) {
	return func(baud int) (fingerprint.Line, error) { return serial.Open(cable.Name, baud) }
}

// connect connects to a simulated module over a real terminal.
func connect(t *testing.T, f family, far *sim.Module) fingerprint.Module {
	t.Helper()
	m, err := f.open(t.Context(), lineTo(plug(t, far)), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// enroll has a person do what the module asks.
func enroll(t *testing.T, m fingerprint.Module, far *sim.Module, e fingerprint.Enrollment, fingers ...sim.Finger) error {
	t.Helper()
	next := 0
	e.Progress = func(s fingerprint.Step) {
		if s.Action == fingerprint.Lift {
			far.Lift()
			time.Sleep(50 * time.Millisecond) // a person does not do so faster, and a sensor does not see it
			return
		}
		far.Touch(fingers[min(next, len(fingers)-1)])
		next++
	}
	defer far.Lift()
	_, err := m.Enroll(t.Context(), e)
	return err
}

// show holds a finger to the sensor for a comparison: once more if the module
// was not seen to be free before.
func show(t *testing.T, far *sim.Module, f sim.Finger, compare func(context.Context) (fingerprint.Match, error)) (got fingerprint.Match) {
	t.Helper()
	for range 5 {
		far.Lift()
		touch := time.AfterFunc(wait/2, func() { far.Touch(f) })
		var err error
		if got, err = compare(t.Context()); err != nil {
			t.Fatal(err)
		}
		touch.Stop()
		far.Lift()
		if got.Outcome != fingerprint.NoFinger {
			break
		}
	}
	return got
}

func verify(m fingerprint.Module, id fingerprint.ID) func(context.Context) (fingerprint.Match, error) {
	return func(ctx context.Context) (fingerprint.Match, error) { return m.Verify(ctx, id) }
}

func list(t *testing.T, m fingerprint.Module, far *sim.Module, want ...fingerprint.ID) {
	t.Helper()
	got, err := m.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) || !slices.Equal(far.Stored(), want) {
		t.Errorf("the list is %v, and %v is stored, not %v", got, far.Stored(), want)
	}
}

var ann, bob = sim.Finger{Name: "Ann"}, sim.Finger{Name: "Bob"}

func TestAFingerIsEnrolledFoundAndForgotten(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 16)
		m := connect(t, f, far)
		if i := m.Info(); i.Family != f.name || i.Capacity != 16 || i.Serial == "" || i.Firmware == "" {
			t.Errorf("it is %+v", i)
		}
		list(t, m, far)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 7}, ann); err != nil {
			t.Fatal(err)
		}
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 11}, sim.Finger{Name: "Cid"}); err != nil {
			t.Fatal(err)
		}
		list(t, m, far, 7, 11)
		for _, tt := range []struct {
			name    string
			finger  sim.Finger
			compare func(context.Context) (fingerprint.Match, error)
			want    fingerprint.Outcome
			id      fingerprint.ID
		}{
			{"identified", ann, m.Identify, fingerprint.Matched, 7},
			{"nobody's", bob, m.Identify, fingerprint.NoMatch, 0},
			{"hardly seen", sim.Finger{Name: "Ann", Poor: true}, m.Identify, fingerprint.TryAgain, 0},
			{"verified", ann, verify(m, 7), fingerprint.Matched, 7},
			{"another's", ann, verify(m, 11), fingerprint.NoMatch, 0},
		} {
			if got := show(t, far, tt.finger, tt.compare); got.Outcome != tt.want || got.ID != tt.id {
				t.Errorf("%s: %v of ID %d", tt.name, got.Outcome, got.ID)
			}
		}
		if _, err := m.Verify(t.Context(), 3); !errors.Is(err, fingerprint.ErrEmpty) || !fingerprint.IsRefusal(err) {
			t.Errorf("verifying an ID that is not in use: %v", err)
		}
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 7}, bob); !errors.Is(err, fingerprint.ErrInUse) {
			t.Errorf("enrolling under an ID that is in use: %v", err)
		}
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 8}, ann); !errors.Is(err, fingerprint.ErrDuplicate) {
			t.Errorf("enrolling a finger twice: %v", err)
		}
		list(t, m, far, 7, 11)
		if err := m.Delete(t.Context(), 7); err != nil {
			t.Error(err)
		}
		if err := m.Delete(t.Context(), 7); !errors.Is(err, fingerprint.ErrEmpty) {
			t.Errorf("deleting what is not there: %v", err)
		}
		list(t, m, far, 11)
		if got := show(t, far, ann, m.Identify); got.Outcome != fingerprint.NoMatch {
			t.Errorf("a finger that was deleted: %v", got.Outcome)
		}
		for range 2 {
			if err := m.Wipe(t.Context()); err != nil {
				t.Error(err)
			}
			list(t, m, far)
		}
	})
}

func TestAnEnrolmentOfTwoFingersOrOfNoneStoresNothing(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 16)
		m := connect(t, f, far)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 1}, ann, bob); !errors.Is(err, fingerprint.ErrPoorFinger) {
			t.Errorf("of two fingers: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := m.Enroll(ctx, fingerprint.Enrollment{ID: 1, Progress: func(s fingerprint.Step) {
			if s.Capture == 2 {
				cancel()
				return
			}
			if s.Action == fingerprint.Lift {
				far.Lift()
			} else {
				far.Touch(ann)
			}
		}})
		far.Lift()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("stopped half-way: %v", err)
		}
		list(t, m, far)
	})
}

func TestAFullModuleSaysSo(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 2)
		if f.name == "zfm" {
			far = sim.ZFM{Capacity: 2, Full: true}.New()
		}
		m := connect(t, f, far)
		var err error
		// An ID is a place in the other families; the one that is beyond is none.
		for id := fingerprint.ID(1); id < 4 && err == nil; id++ {
			err = enroll(t, m, far, fingerprint.Enrollment{ID: id}, sim.Finger{Name: string(rune('a' + id))})
		}
		if !errors.Is(err, fingerprint.ErrFull) && !(f.name == "gt521" && errors.Is(err, fingerprint.ErrNoSuchID)) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestEachFaultIsOvercome(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 8)
		m := connect(t, f, far)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 5}, ann); err != nil {
			t.Fatal(err)
		}
		for _, fault := range sim.Faults() {
			t.Run(fault.String(), func(t *testing.T) {
				far.Inject(fault, 1)
				list(t, m, far, 5)
				far.Inject(fault, 1)
				ids, err := m.ReadTemplates(t.Context(), 5)
				if err != nil || len(ids) == 0 {
					t.Errorf("the templates are lost: %v", err)
				}
				biometric.ClearAll(ids)
				far.Inject(fault, 0)
				if got := show(t, far, ann, m.Identify); got.Outcome != fingerprint.Matched {
					t.Errorf("afterwards: %v", got.Outcome)
				}
			})
		}
	})
}

// Whichever of the answers on the way to an outcome a fault befalls, nobody is
// taken for somebody else. That a scan is lost is an error of the connection,
// which Keep mends, or no finger; everything else goes through.
func TestNoFaultMakesOnePersonAnother(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 8)
		m := connect(t, f, far)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 5}, ann); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			fault sim.Fault
			skip  int
		}{{sim.Late, 0}, {sim.Late, 1}, {sim.Late, 2}, {sim.Late, 3}, {sim.DropReply, 1}, {sim.DropReply, 2}} {
			for _, person := range []struct {
				finger sim.Finger
				want   fingerprint.Outcome
			}{{ann, fingerprint.Matched}, {sim.Finger{Name: "Bob", Poor: true}, fingerprint.TryAgain}, {bob, fingerprint.NoMatch}} {
				far.Lift()
				far.InjectAfter(tt.fault, tt.skip, 1)
				touch := time.AfterFunc(wait/4, func() { far.Touch(person.finger) })
				got, err := m.Identify(t.Context())
				touch.Stop()
				far.Inject(tt.fault, 0)
				lost := errors.Is(err, fingerprint.ErrSilent) || errors.Is(err, fingerprint.ErrGarbled)
				if err == nil && got.Outcome != person.want && got.Outcome != fingerprint.NoFinger || err != nil && !lost {
					t.Errorf("%v after %d, %v: %v of ID %d, %v", tt.fault, tt.skip, person.finger, got.Outcome, got.ID, err)
				}
			}
		}
	})
}

func TestSilenceIsAnErrorAndNoOutcome(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 8)
		m := connect(t, f, far)
		for _, tt := range []struct {
			name      string
			end, mend func()
		}{
			{"mute", func() { far.Silence(true) }, func() { far.Silence(false) }},
			{"without power", func() { far.Power(false) }, func() { far.Power(true) }},
			{"deaf", func() { far.Inject(sim.Drop, -1) }, func() { far.Inject(sim.Drop, 0) }},
		} {
			tt.end()
			far.Touch(ann)
			if got, err := m.Identify(t.Context()); !errors.Is(err, fingerprint.ErrSilent) || fingerprint.IsRefusal(err) {
				t.Errorf("%s: %v, %v", tt.name, got.Outcome, err)
			}
			if _, err := m.List(t.Context()); !errors.Is(err, fingerprint.ErrSilent) {
				t.Errorf("%s: %v", tt.name, err)
			}
			far.Lift()
			tt.mend()
		}
	})
}

// The module may forget its password's being verified, its lamp and its
// buffers; nobody is let in by that.
func TestAfterALossOfPowerNobodyMatchesByMistake(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 8)
		m := connect(t, f, far)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 5}, ann); err != nil {
			t.Fatal(err)
		}
		far.Power(false)
		far.Power(true)
		far.Touch(bob)
		got, err := m.Identify(t.Context())
		if got.Outcome == fingerprint.Matched || err != nil && !errors.Is(err, fingerprint.ErrRestarted) && !errors.Is(err, fingerprint.ErrSilent) {
			t.Errorf("%v, %v", got.Outcome, err)
		}
		if fingerprint.IsRefusal(err) {
			t.Errorf("the connection is to be made anew, and the error does not say so: %v", err)
		}
		far.Lift()
	})
}

func TestARateIsFound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		family string
		far    *sim.Module
		baud   int
	}{
		{"zfm", sim.ZFM{Baud: 57600}.New(), 57600}, {"zfm", sim.ZFM{Baud: 9600}.New(), 9600},
		{"sfm", sim.SFM{Baud: 38400}.New(), 38400}, {"gt521", sim.GT521{Baud: 19200}.New(), 19200},
	} {
		i := slices.IndexFunc(families(), func(f family) bool { return f.name == tt.family })
		m := connect(t, families()[i], tt.far)
		if got := m.Info().Baud; got != tt.baud {
			t.Errorf("%s: found at %d baud, not at %d", tt.family, got, tt.baud)
		}
	}
}

func TestTheWrongRateAndTheWrongFamilyAreErrors(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		for _, other := range families() {
			far := other.make("A", 8)
			_, err := f.open(t.Context(), lineTo(plug(t, far)), 38400) // nobody's
			if !errors.Is(err, fingerprint.ErrSilent) {
				t.Errorf("%s at the wrong rate: %v", other.name, err)
			}
		}
		right := map[string]int{"zfm": 57600, "sfm": 115200, "gt521": 9600}
		for _, other := range families() {
			if other.name == f.name {
				continue
			}
			far := other.make("A", 8)
			far.Inject(sim.Garbage, -1)
			far.Inject(sim.Echo, -1)
			m, err := f.open(t.Context(), lineTo(plug(t, far)), right[other.name])
			if m != nil || !errors.Is(err, fingerprint.ErrSilent) && !errors.Is(err, fingerprint.ErrGarbled) {
				t.Errorf("a module of %s: %v", other.name, err)
			}
		}
	})
}

func TestTemplatesAreCopiedFromModuleToModule(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far, farther := f.make("A", 8), f.make("BB", 8)
		m, n := connect(t, f, far), connect(t, f, farther)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 5}, ann); err != nil {
			t.Fatal(err)
		}
		templates, err := m.ReadTemplates(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range []sim.Fault{sim.Late, sim.DropReply, sim.Flip} {
			farther.Inject(fault, 1)
			if err := n.WriteTemplates(t.Context(), 3, templates); err != nil {
				// Whether it was stored is not known then; that it is not left behind is.
				if fingerprint.IsRefusal(err) || len(farther.Stored()) != 0 {
					t.Fatalf("%v: %v, and %v is stored", fault, err, farther.Stored())
				}
				continue
			}
			list(t, n, farther, 3)
			if got := show(t, farther, ann, n.Identify); got.Outcome != fingerprint.Matched || got.ID != 3 {
				t.Errorf("%v: %v of ID %d", fault, got.Outcome, got.ID)
			}
			if err := n.WriteTemplates(t.Context(), 3, templates); !errors.Is(err, fingerprint.ErrInUse) {
				t.Errorf("over another's: %v", err)
			}
			if err := n.Delete(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
		}
		biometric.ClearAll(templates)
		if err := n.WriteTemplates(t.Context(), 3, templates); !errors.Is(err, fingerprint.ErrTemplate) {
			t.Errorf("templates that were cleared: %v", err)
		}
		if _, err := m.ReadTemplates(t.Context(), 4); !errors.Is(err, fingerprint.ErrEmpty) {
			t.Errorf("of an ID that is not in use: %v", err)
		}
	})
}

func TestWaitingForAFingerEnds(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		far := f.make("A", 8)
		m := connect(t, f, far)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if got, err := m.Identify(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with its context: %v, %v", got.Outcome, err)
		}
		if got, err := m.Identify(t.Context()); err != nil || got.Outcome != fingerprint.NoFinger {
			t.Errorf("with time: %v, %v", got.Outcome, err)
		}
		list(t, m, far) // and the module is well
		time.AfterFunc(100*time.Millisecond, func() { m.Close() })
		if got, err := m.Identify(t.Context()); !errors.Is(err, serial.ErrClosed) {
			t.Errorf("with the module: %v, %v", got.Outcome, err)
		}
	})
}

// A finger that stays on the sensor counts once. A Suprema module has a
// setting of its own for that.
func TestOneTouchCountsOnce(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		if f.name == "sfm" {
			return
		}
		far := f.make("A", 8)
		m := connect(t, f, far)
		if err := enroll(t, m, far, fingerprint.Enrollment{ID: 5}, ann); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Identify(t.Context()); err != nil || got.Outcome != fingerprint.NoFinger {
			t.Fatalf("nobody is there: %v, %v", got.Outcome, err)
		}
		far.Touch(ann)
		for i, want := range []fingerprint.Outcome{fingerprint.Matched, fingerprint.NoFinger, fingerprint.NoFinger} {
			if got, err := m.Identify(t.Context()); err != nil || got.Outcome != want {
				t.Errorf("look %d: %v, %v", i, got.Outcome, err)
			}
		}
		far.Lift()
	})
}

func TestADifferentModuleIsRefusedAtEveryConnection(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		var mu sync.Mutex
		right := f.make("A", 8)
		cable := plug(t, right)
		states := make(chan error, 64)
		used := make(chan fingerprint.Module, 64)
		keep := fingerprint.Keep{
			Open: func(ctx context.Context) (fingerprint.Module, error) {
				return f.open(ctx, func(baud int) (fingerprint.Line, error) {
					mu.Lock()
					defer mu.Unlock()
					return serial.Open(cable.Name, baud)
				}, 0)
			},
			Use: func(ctx context.Context, m fingerprint.Module) error {
				used <- m
				for {
					if _, err := m.Identify(ctx); err != nil && !fingerprint.IsRefusal(err) {
						return err
					}
				}
			},
			State:   func(err error) { states <- err },
			Backoff: serial.Backoff{First: 10 * time.Millisecond, Most: 100 * time.Millisecond},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- keep.Run(ctx) }()
		state := func(what string, ok func(error) bool) {
			t.Helper()
			for deadline := time.After(time.Minute); ; {
				select {
				case err := <-states:
					if ok(err) {
						return
					}
				case <-deadline:
					t.Fatalf("not within a minute: %s", what)
				}
			}
		}
		well := func(err error) bool { return err == nil }
		swap := func(far *sim.Module) {
			cable.Unplug()
			state("gone", func(err error) bool { return errors.Is(err, serial.ErrGone) })
			mu.Lock()
			cable = plug(t, far)
			mu.Unlock()
		}
		state("connected", well)
		<-used
		swap(right)
		state("connected again", well)
		<-used
		swap(f.make("BB", 8))
		state("refused", func(err error) bool { return errors.Is(err, fingerprint.ErrWrongModule) })
		cable.Unplug()
		mu.Lock()
		cable = plug(t, right)
		mu.Unlock()
		state("connected to the right one", well)
		<-used
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		if len(used) != 0 {
			t.Error("the wrong module was used")
		}
	})
}

// exchange is a line at whose other end a module can be exchanged while nobody
// looks, as on the pins of a controller, which do not tell.
type exchange struct {
	fingerprint.Line
	other fingerprint.Line
}

func (e *exchange) swap() { e.Line, e.other = e.other, e.Line }

func TestAModuleThatIsExchangedUnseenIsNoticed(t *testing.T) {
	each(t, func(t *testing.T, f family) {
		right, wrong := plug(t, f.make("A", 8)), plug(t, f.make("BB", 8))
		line := &exchange{}
		m, err := f.open(t.Context(), func(baud int) (_ fingerprint.Line, err error) {
			if line.Line, err = serial.Open(right.Name, baud); err != nil {
				return nil, err
			}
			line.other, err = serial.Open(wrong.Name, baud)
			return line, err
		}, map[string]int{"zfm": 57600, "sfm": 115200, "gt521": 9600}[f.name])
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			m.Close()
			line.other.Close()
		}()
		for range 2 {
			if err := m.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
		}
		line.swap()
		// One that has to be told a password says that it was not, which is as good.
		if err := m.Ping(t.Context()); !errors.Is(err, fingerprint.ErrWrongModule) && !errors.Is(err, fingerprint.ErrRestarted) {
			t.Errorf("Ping of another: %v", err)
		}
	})
}

func TestASerialNumberIsCompared(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{{"", "", true}, {"", "7", true}, {"7", "7", true}, {"7", "", false}, {"7", "8", false}} {
		err := fingerprint.CheckSerial(tt.want, fingerprint.Info{Serial: tt.got})
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, fingerprint.ErrWrongModule) {
			t.Errorf("%q for %q: %v", tt.got, tt.want, err)
		}
		if err != nil && !strings.Contains(err.Error(), `"7"`) {
			t.Errorf("the error does not name what was set up: %v", err)
		}
	}
}
