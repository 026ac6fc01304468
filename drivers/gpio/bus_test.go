package gpio

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
)

func TestConformance(t *testing.T) {
	drivertest.Test(t, func(t *testing.T) *drivertest.Rig {
		m := newBoard()
		b := m.open(t)
		strike := must[*Strike](t)(b.Strike(&Device{Line: "GPIO1", Wiring: failSafe, Active: low}))
		contact := must[*Input](t)(b.Input(&Device{Line: "GPIO2", Normally: normallyClosed}))
		lights := must[*Indicator](t)(b.Indicator(&Device{Green: "GPIO3", Red: "GPIO4", Beeper: "GPIO5"}))
		return &drivertest.Rig{
			Unlock: strike.Unlock, Lock: strike.Lock, Watch: contact.Watch, Show: lights.Show, Close: b.Close,
			Set:      func(active bool) { m.set("GPIO2", active) },
			Unlocked: func() bool { return m.isHigh("GPIO1") },
			Shown: func() string {
				return shown(t, func() lamps {
					on := dark
					for line, lamp := range map[string]lamps{"GPIO3": green, "GPIO4": red, "GPIO5": beep} {
						if m.isHigh(line) {
							on |= lamp
						}
					}
					return on
				})
			},
			Break: func() { m.breaks(errors.New("no such device")) },
			Mend:  func() { m.breaks(nil) },
		}
	})
}

// TestALockIsLockedFromItsFirstLevelToItsLast holds every wiring to every
// level that its line ever has.
func TestALockIsLockedFromItsFirstLevelToItsLast(t *testing.T) {
	for _, c := range []struct {
		wiring, active string
		locked         bool // the level
	}{
		{failSecure, "", false},
		{failSecure, high, false},
		{failSecure, low, true},
		{failSafe, "", true},
		{failSafe, high, true},
		{failSafe, low, false},
	} {
		m := newBoard()
		b := m.open(t)
		s := must[*Strike](t)(b.Strike(&Device{Line: "GPIO1", Wiring: c.wiring, Active: c.active}))
		if err := errors.Join(s.Unlock(), s.Lock(), s.Unlock(), b.Close()); err != nil {
			t.Fatal(err)
		}
		w := m.lines["GPIO1"]
		if want := []bool{c.locked, !c.locked, c.locked, !c.locked, c.locked}; !slices.Equal(w.levels, want) {
			t.Errorf("%s, active %q: the levels were %v, not %v", c.wiring, c.active, w.levels, want)
		}
		if w.released != 1 {
			t.Errorf("the line was given back %d times", w.released)
		}
	}
}

func TestAStrikeThatCannotMoveIsAnError(t *testing.T) {
	m := newBoard()
	b := m.open(t)
	s := must[*Strike](t)(b.Strike(&Device{Line: "GPIO1", Wiring: failSecure}))
	m.breaks(errors.New("no such device"))
	for i, f := range []func() error{s.Unlock, s.Lock, b.Close} {
		if err := f(); err == nil || !strings.Contains(err.Error(), `line "GPIO1": no such device`) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestWhatCannotBeOpenedSaysWhatThereIs(t *testing.T) {
	m := newBoard()
	m.lines["GPIO5"].consumer = "door-bell"
	m.others = []Chip{{Name: "gpiochip1", Label: "expander", Lines: []Line{{Name: "RELAY"}, {Name: "TWICE"}, {Name: "TWICE"}}}}
	b := m.open(t)
	defer b.Close()
	if _, err := b.Strike(&Device{Line: "GPIO6", Wiring: failSecure}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		chip string
		line string
		want []string
	}{
		{"", "GPIO5", []string{`line "GPIO5" of chip "pinctrl-sim" is taken by "door-bell"`}},
		{"", "GPIO6", []string{`line "GPIO6" of chip "pinctrl-sim" is already in use by this program: is it in the configuration twice?`}},
		{"", "GPI4", []string{`no line "GPI4"`, `did you mean "GPIO4"?`, "GPIO0 to GPIO7"}},
		{"", "6", []string{`no line "6"`, "by its name, never by its number", "GPIO0 to GPIO7"}},
		{"expander", "RELAYS", []string{`chip "expander" has no line "RELAYS"`, `did you mean "RELAY"?`}},
		{"expander", "TWICE", []string{`more than one line "TWICE"`}},
		{"expandr", "RELAY", []string{`"expandr"`, `"pinctrl-sim" (GPIO0 to GPIO7), "expander" (RELAY, TWICE, TWICE)`}},
	} {
		_, err := b.Input(&Device{Chip: c.chip, Line: c.line, Normally: normallyOpen})
		if err == nil {
			t.Errorf("line %q of chip %q: no error", c.line, c.chip)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("line %q of chip %q: %q does not say %q", c.line, c.chip, err, want)
			}
		}
	}
}

func TestAnIndicatorThatCannotBeOpenedGivesItsLinesBack(t *testing.T) {
	m := newBoard()
	b := m.open(t)
	defer b.Close()
	if _, err := b.Indicator(&Device{Green: "GPIO1", Red: "GPIO2", Beeper: "GPIO9"}); err == nil {
		t.Fatal("it has a line that does not exist")
	}
	for _, line := range []string{"GPIO1", "GPIO2"} {
		if m.lines[line].consumer != "" {
			t.Errorf("%s is still held", line)
		}
	}
	if _, err := b.Indicator(&Device{Green: "GPIO1", Red: "GPIO2"}); err != nil {
		t.Errorf("they cannot be had again: %v", err)
	}
}

func TestAGPIOLineIsNoReader(t *testing.T) {
	b := newBoard().open(t)
	defer b.Close()
	if _, err := b.Reader(&Device{Line: "GPIO1"}, nil); err == nil || !strings.Contains(err.Error(), `driver = "wiegand"`) {
		t.Errorf("%v", err)
	}
}

func TestAClosedDriverGivesNothingOut(t *testing.T) {
	b := newBoard().open(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, strike := b.Strike(&Device{Line: "GPIO1", Wiring: failSafe})
	_, input := b.Input(&Device{Line: "GPIO2", Normally: normallyOpen})
	_, lights := b.Indicator(&Device{Green: "GPIO3"})
	for _, err := range []error{strike, input, lights} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
}

// watched is a Watch in the background of a synctest bubble.
type watched struct {
	states []bool
	at     []time.Duration // since the watch began
	cancel context.CancelFunc
	ended  chan error
}

func watch(in *Input) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{cancel: cancel, ended: make(chan error, 1)}
	began := time.Now()
	go func() {
		w.ended <- in.Watch(ctx, func(active bool) {
			w.states = append(w.states, active)
			w.at = append(w.at, time.Since(began))
		})
	}()
	synctest.Wait()
	return w
}

// levelAt is the level of a line from a time on, in milliseconds.
type levelAt struct {
	at   int
	high bool
}

func TestAContactCountsWhenItHasStoodStill(t *testing.T) {
	for _, c := range []struct {
		name   string
		d      Device
		script []levelAt
		states []bool
		at     []int // milliseconds
	}{
		{
			"a clean change, after 30 ms", Device{Normally: normallyClosed},
			[]levelAt{{1000, true}, {2000, false}},
			[]bool{false, true, false}, []int{0, 1030, 2030},
		},
		{
			"a bouncing change, 30 ms after it came to rest", Device{Normally: normallyClosed},
			[]levelAt{{1000, true}, {1005, false}, {1010, true}, {1015, false}, {1020, true}},
			[]bool{false, true}, []int{0, 1050},
		},
		{
			"a pulse that is too short, never", Device{Normally: normallyClosed},
			[]levelAt{{1000, true}, {1029, false}},
			[]bool{false}, []int{0},
		},
		{
			"with the time that is configured", Device{Normally: normallyClosed, Debounce: 5 * time.Millisecond},
			[]levelAt{{1000, true}, {1029, false}},
			[]bool{false, true, false}, []int{0, 1005, 1034},
		},
		{
			"normally open: low is active", Device{Normally: normallyOpen},
			[]levelAt{{1000, true}},
			[]bool{true, false}, []int{0, 1030},
		},
		{
			"with a resistor to ground high is closed", Device{Normally: normallyOpen, Bias: biasDown},
			[]levelAt{{1000, true}},
			[]bool{false, true}, []int{0, 1030},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newBoard()
				b := m.open(t)
				defer b.Close()
				c.d.Line = "GPIO2"
				w := watch(must[*Input](t)(b.Input(&c.d)))
				now := 0
				for _, s := range c.script {
					time.Sleep(time.Duration(s.at-now) * time.Millisecond)
					now = s.at
					m.set("GPIO2", s.high)
				}
				time.Sleep(time.Second)
				w.cancel()
				if err := <-w.ended; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				at := make([]time.Duration, len(c.at))
				for i, ms := range c.at {
					at[i] = time.Duration(ms) * time.Millisecond
				}
				if !slices.Equal(w.states, c.states) || !slices.Equal(w.at, at) {
					t.Errorf("told %v at %v, want %v at %v", w.states, w.at, c.states, at)
				}
			})
		})
	}
}

func TestAnInputThatNeverStandsStillIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newBoard()
		b := m.open(t)
		defer b.Close()
		w := watch(must[*Input](t)(b.Input(&Device{Line: "GPIO2", Normally: normallyClosed})))
		for range 1100 {
			time.Sleep(10 * time.Millisecond)
			m.set("GPIO2", !m.isHigh("GPIO2"))
		}
		if err := <-w.ended; err == nil || !strings.Contains(err.Error(), `line "GPIO2": it has not been still for 10s`) {
			t.Error(err)
		}
		if len(w.states) != 1 {
			t.Errorf("told %v", w.states)
		}
	})
}

func TestAnInputIsWatchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard().open(t)
		in := must[*Input](t)(b.Input(&Device{Line: "GPIO2", Normally: normallyClosed}))
		w := watch(in)
		if err := in.Watch(t.Context(), func(bool) {}); err == nil || !strings.Contains(err.Error(), "already watched") {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-w.ended; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// TestALineIsGivenBackByWhoeverUsesItLast: a line may not be closed under
// somebody who waits for it.
func TestALineIsGivenBackByWhoeverUsesItLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newBoard()
		b := m.open(t)
		w := watch(must[*Input](t)(b.Input(&Device{Line: "GPIO2", Normally: normallyClosed})))
		if _, err := b.Input(&Device{Line: "GPIO3", Normally: normallyClosed}); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		released := func() [2]int {
			m.mu.Lock()
			defer m.mu.Unlock()
			return [2]int{m.lines["GPIO2"].released, m.lines["GPIO3"].released}
		}
		if got := released(); got != [2]int{0, 1} {
			t.Errorf("given back at once: %v", got)
		}
		<-w.ended
		synctest.Wait()
		if got := released(); got != [2]int{1, 1} {
			t.Errorf("given back in the end: %v", got)
		}
	})
}

// channel is an analogue input of plain files.
type channel struct{ dir string }

func (c channel) set(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASupervisedLoopTellsItsContactAndItsFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newBoard()
		b := m.open(t)
		defer b.Close()
		c := channel{filepath.Join(b.devices, "iio:device3")}
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c.set(t, "name", "ads1015\n")
		c.set(t, "in_voltage_scale", "0.500000000\n")
		c.set(t, "in_voltage1_offset", "-100\n")
		volts := map[state]string{short: "100\n", normal: "3400\n", active: "4500\n", open: "6700\n"} // 0, 1650, 2200 and 3300 mV
		c.set(t, "in_voltage1_raw", volts[normal])
		in := must[*Input](t)(b.Input(&Device{ADC: "ads1015/in_voltage1", Normally: normallyClosed}))

		w := watch(in)
		for _, s := range []state{active, normal} {
			c.set(t, "in_voltage1_raw", volts[short])
			time.Sleep(19 * time.Millisecond) // a fault that is too short to count
			c.set(t, "in_voltage1_raw", volts[s])
			time.Sleep(time.Second)
		}
		if text := must[string](t)(in.Look()); text != `loop at "ads1015/in_voltage1": normal (1650 mV)` {
			t.Errorf("it looks like %s", text)
		}
		c.set(t, "in_voltage1_raw", volts[open])
		if err := <-w.ended; !errors.Is(err, ErrOpen) || !strings.Contains(err.Error(), "(3300 mV)") {
			t.Errorf("a cut cable: %v", err)
		}
		if !slices.Equal(w.states, []bool{false, true, false}) {
			t.Errorf("told %v", w.states)
		}

		c.set(t, "in_voltage1_raw", volts[short])
		w = watch(in)
		if err := <-w.ended; !errors.Is(err, ErrShort) || len(w.states) != 0 {
			t.Errorf("a short: %v, told %v", err, w.states)
		}

		c.set(t, "in_voltage1_raw", volts[active])
		w = watch(in)
		if !slices.Equal(w.states, []bool{true}) {
			t.Errorf("mended: told %v", w.states)
		}
		c.set(t, "in_voltage1_raw", "soon\n")
		if err := <-w.ended; err == nil || !strings.Contains(err.Error(), `"soon\n" is not a number`) {
			t.Errorf("no number: %v", err)
		}
	})
}

// played is what an indicator's lines did: what was on from when.
func played(t *testing.T, pattern string, long time.Duration) (on []lamps, at []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		m := newBoard()
		b := m.open(t)
		i := must[*Indicator](t)(b.Indicator(&Device{Green: "GPIO3", Red: "GPIO4", Beeper: "GPIO5", Active: low}))
		synctest.Wait()
		if err := i.Show(pattern); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for time.Since(began) < long {
			synctest.Wait()
			now := dark
			for line, lamp := range map[string]lamps{"GPIO3": green, "GPIO4": red, "GPIO5": beep} {
				if !m.isHigh(line) {
					now |= lamp
				}
			}
			if len(on) == 0 || on[len(on)-1] != now {
				on, at = append(on, now), append(at, time.Since(began))
			}
			time.Sleep(10 * time.Millisecond)
			if err := i.Show(pattern); err != nil { // which is no reason to begin again
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		for _, line := range []string{"GPIO3", "GPIO4", "GPIO5"} {
			if !m.isHigh(line) {
				t.Errorf("%s: it is not dark when it is closed", pattern)
			}
		}
	})
	return on, at
}

func TestPatternsAreSeenAndHeard(t *testing.T) {
	for pattern, want := range map[string]struct {
		on []lamps
		at []int // ms
	}{
		"idle":    {[]lamps{red}, []int{0}},
		"waiting": {[]lamps{green | beep, green, dark, green, dark}, []int{0, 100, 500, 900, 1300}},
		"granted": {[]lamps{green | beep, green}, []int{0, 400}},
		"denied": {[]lamps{red | beep, dark, red | beep, dark, red | beep, dark, red, dark, red, dark, red, dark, red},
			[]int{0, 120, 240, 360, 480, 600, 720, 840, 960, 1080, 1200, 1320, 1440}},
		"fault":        {[]lamps{green | red | beep, red, green}, []int{0, 800, 1300}},
		"held_warning": {[]lamps{red | beep, dark, red | beep, dark, red | beep, dark}, []int{0, 250, 500, 750, 1000, 1250}},
		"ask_badge":    {[]lamps{green | beep, dark, green, dark, green}, []int{0, 100, 700, 800, 1400}},
		"ask_fingerprint": {[]lamps{green | beep, dark, green, dark, green, dark, green, dark},
			[]int{0, 100, 250, 350, 950, 1050, 1200, 1300}},
		"ask_iris": {[]lamps{green | beep, dark, green, dark, green, dark, green, dark, green},
			[]int{0, 100, 250, 350, 500, 600, 1200, 1300, 1450}},
		"ask_pin": {[]lamps{green | beep, dark, green, dark, green, dark, green, dark, green},
			[]int{0, 100, 250, 350, 500, 600, 750, 850, 1450}},
		"ask_company": {[]lamps{green | beep, dark, green, dark, green, dark, green, dark, green, dark},
			[]int{0, 100, 250, 350, 500, 600, 750, 850, 1000, 1100}},
		"identify": {[]lamps{green | red, dark, green | red, dark, green | red}, []int{0, 300, 600, 900, 1200}},
		"try_again": {[]lamps{red | beep, dark, red | beep, dark, green, red, dark, green, red, dark},
			[]int{0, 120, 240, 360, 480, 630, 780, 1080, 1230, 1380}},
	} {
		on, at := played(t, pattern, 1500*time.Millisecond)
		wantAt := make([]time.Duration, len(want.at))
		for i, t := range want.at {
			wantAt[i] = time.Duration(t) * time.Millisecond
		}
		if !slices.Equal(on, want.on) || !slices.Equal(at, wantAt) {
			t.Errorf("%s: %v at %v, want %v at %v", pattern, on, at, want.on, wantAt)
		}
		if _, ok := patterns[pattern]; !ok {
			t.Errorf("there is no pattern %q", pattern)
		}
	}
	if len(patterns) != 13 {
		t.Errorf("there are %d patterns", len(patterns))
	}
}

func TestAnIndicatorThatFailsSaysSoOnceAndWorksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newBoard()
		b := m.open(t)
		defer b.Close()
		i := must[*Indicator](t)(b.Indicator(&Device{Green: "GPIO3"}))
		m.breaks(errors.New("no such device"))
		if err := i.Show("granted"); err != nil {
			t.Error(err) // nothing is known of it yet
		}
		synctest.Wait()
		m.breaks(nil)
		if err := i.Show("granted"); err == nil || !strings.Contains(err.Error(), `line "GPIO3": no such device`) {
			t.Errorf("it said %v", err)
		}
		synctest.Wait()
		if err := i.Show("granted"); err != nil || !m.isHigh("GPIO3") {
			t.Errorf("mended: %v, high %v", err, m.isHigh("GPIO3"))
		}
	})
}

func TestLookTellsWhatTheInstallerSees(t *testing.T) {
	m := newBoard()
	b := m.open(t)
	s := must[*Strike](t)(b.Strike(&Device{Line: "GPIO1", Wiring: failSafe}))
	in := must[*Input](t)(b.Input(&Device{Line: "GPIO2", Normally: normallyClosed}))
	i := must[*Indicator](t)(b.Indicator(&Device{Red: "GPIO4", Beeper: "GPIO5", Active: low}))
	m.set("GPIO2", true)
	for _, c := range []struct {
		look func() (string, error)
		want string
	}{
		{s.Look, `line "GPIO1": locked (high)`},
		{in.Look, `line "GPIO2": active (high)`},
		{i.Look, `line "GPIO4": off (high), line "GPIO5": off (high)`},
	} {
		if got := must[string](t)(c.look()); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, look := range []func() (string, error){s.Look, in.Look, i.Look} {
		if text, err := look(); !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %q, %v", text, err)
		}
	}
}

// slowLine is a line that takes its time to go high.
type slowLine struct {
	*wire
	begun, goOn chan struct{}
}

func (l *slowLine) Set(high bool) error {
	if high {
		close(l.begun)
		<-l.goOn
	}
	return l.wire.Set(high)
}

func TestAnUnlockThatIsUnderWayWhenItIsClosedEndsLocked(t *testing.T) {
	m := newBoard()
	line := &slowLine{m.lines["GPIO1"], make(chan struct{}), make(chan struct{})}
	s := &Strike{&driven{name: "GPIO1", onHigh: true, line: line}}
	both := make(chan error, 2)
	go func() { both <- s.Unlock() }()
	<-line.begun
	go func() { both <- s.line.close() }()
	time.Sleep(20 * time.Millisecond) // in which it would end, if it did not wait
	close(line.goOn)
	if err := errors.Join(<-both, <-both); err != nil {
		t.Error(err)
	}
	if m.isHigh("GPIO1") {
		t.Error("it is unlocked")
	}
	if line.released != 1 {
		t.Errorf("it was given back %d times", line.released)
	}
}
