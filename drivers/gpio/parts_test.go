package gpio

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTheChipGoesByItsLabel(t *testing.T) {
	chip := func(label string, lines ...string) Chip {
		c := Chip{Name: "gpiochip0", Label: label}
		for _, l := range lines {
			c.Lines = append(c.Lines, Line{Name: l})
		}
		return c
	}
	rp1, expander := chip("pinctrl-rp1", "ID_SDA", "GPIO2", "GPIO3", "", "GPIO27"), chip("expander")
	for _, c := range []struct {
		chips []Chip
		label string
		want  string // label, or a part of the error
		fails bool
	}{
		{[]Chip{rp1, expander}, "", "pinctrl-rp1", false},
		{[]Chip{expander, rp1}, "", "pinctrl-rp1", false},
		{[]Chip{rp1, expander}, "expander", "expander", false},
		{[]Chip{rp1, chip("pinctrl-sim")}, "", "more than one GPIO controller may be the board's", true},
		{[]Chip{rp1, chip("pinctrl-sim")}, "pinctrl-sim", "pinctrl-sim", false},
		{[]Chip{expander, expander}, "expander", `2 GPIO controllers have the label "expander"`, true},
		{[]Chip{expander}, "", `name another with chip; there are "expander" (no line with a name)`, true},
		{[]Chip{rp1}, "gpiochip0", `no GPIO controller has the label "gpiochip0": there are "pinctrl-rp1" (ID_SDA, GPIO2 to GPIO3, GPIO27)`, true},
	} {
		found, err := findChip(c.chips, c.label)
		switch {
		case c.fails != (err != nil):
			t.Errorf("%q: %v", c.label, err)
		case c.fails && !strings.Contains(err.Error(), c.want):
			t.Errorf("%q: %q does not say %q", c.label, err, c.want)
		case !c.fails && found.Label != c.want:
			t.Errorf("%q: found %q, want %q", c.label, found.Label, c.want)
		}
	}
}

func TestAMachineWithoutGPIOSaysSo(t *testing.T) {
	dir := t.TempDir()
	if _, err := chipsIn(dir); err == nil || !strings.Contains(err.Error(), "this machine has no GPIO controller") {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "gpiochip0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := chipsIn(dir); err == nil || !strings.Contains(err.Error(), "gpiochip0 is no GPIO controller") {
		t.Error(err)
	}
}

func TestADeviceNamesEveryFault(t *testing.T) {
	for _, c := range []struct {
		part string
		d    Device
		want string // "": it is right
	}{
		{"strike", Device{Line: "GPIO17", Wiring: "fail-secure", Active: "low"}, ""},
		{"strike", Device{Chip: "expander", Line: "RELAY", Wiring: "fail-safe"}, ""},
		{"input", Device{Line: "GPIO22", Normally: "closed"}, ""},
		{"input", Device{Line: "GPIO22", Normally: "open", Bias: "none", Debounce: time.Second}, ""},
		{"input", Device{ADC: "ads1015/in_voltage0", Normally: "closed", Debounce: time.Millisecond}, ""},
		{"input", Device{ADC: "/var/lib/x/in_voltage0", Normally: "open", SupplyMV: 5000, PullUpOhm: 1000, SeriesOhm: 1000, ParallelOhm: 2000}, ""},
		{"indicator", Device{Green: "GPIO5", Active: "low"}, ""},

		{"strike", Device{}, "line: it must name the line of the relay\n" + `wiring: it must be "fail-secure" or "fail-safe"`},
		{"input", Device{}, `normally: it must be "open" or "closed"` + "\nan input has either line or adc"},
		{"indicator", Device{}, "an indicator has at least one of green, red and beeper"},
		{"strike", Device{Line: "GPIO17", Wiring: "fail-open", Active: "up"}, `wiring: "fail-open" is not "fail-secure" or "fail-safe"` + "\n" + `active: "up" is not "high" or "low"`},
		{"strike", Device{Wiring: "fail-safe", Normally: "open"}, "normally: it does not belong to the strike\nline: it must name the line of the relay"},
		{"input", Device{Line: "GPIO22", Bias: "left"}, `normally: it must be "open" or "closed"` + "\n" + `bias: "left" is not "up", "down" or "none"`},
		{"input", Device{Line: "GPIO22", Normally: "open", Debounce: 2 * time.Second}, "debounce: 2s is outside 1ms to 1s"},
		{"input", Device{Line: "GPIO22", Normally: "open", SupplyMV: 5}, "supply_mv: it does not belong to the input"},
		{"input", Device{Line: "GPIO22", ADC: "x/in_voltage0", Normally: "open"}, "an input has either line or adc"},
		{"input", Device{ADC: "ads1015", Normally: "open"}, `adc: "ads1015" is no analogue input`},
		{"input", Device{ADC: "../x/in_voltage0", Normally: "open", Bias: "up"}, "bias: it does not belong to the input"},
		{"input", Device{ADC: "x/../in_voltage0", Normally: "open"}, `is no analogue input`},
		{"input", Device{ADC: "x/in_voltage0", Normally: "open", SupplyMV: -1, SeriesOhm: math.NaN()}, "supply_mv: -1 is outside 500 to 30000 mV\nseries_ohm: NaN is outside 100 to 1e+06 Ω"},
		{"input", Device{ADC: "x/in_voltage0", Normally: "open", ParallelOhm: 100}, "a closed and an open contact differ by only"},
		{"input", Device{ADC: "x/in_voltage0", Normally: "open", SeriesOhm: 100}, "a short and a closed contact differ by only"},
		{"input", Device{ADC: "x/in_voltage0", Normally: "open", ParallelOhm: 100000}, "an open contact and a cut cable differ by only"},
		{"indicator", Device{Green: "GPIO5", Red: "GPIO5"}, `line "GPIO5" is there twice`},
		{"indicator", Device{Green: "GPIO5", Line: "GPIO6"}, "line: it does not belong to the indicator"},
	} {
		err := c.d.ValidateAs(c.part)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: %v, want %s", c.part, c.d, err, c.want)
		}
	}
}

func TestADeviceIsHeldToThePartThatItIs(t *testing.T) {
	strike, input, lights := Device{Line: "GPIO17", Wiring: failSafe}, Device{Line: "GPIO22", Normally: normallyOpen}, Device{Red: "GPIO5"}
	for part, right := range map[string]Device{"strike": strike, "input": input, "indicator": lights, "reader": {}} {
		for _, d := range []Device{strike, input, lights} {
			err := d.ValidateAs(part)
			if (err == nil) != (d == right) {
				t.Errorf("%+v as %s: %v", d, part, err)
			}
		}
	}
}

func TestADeviceNamesItsLines(t *testing.T) {
	for _, c := range []struct {
		d    Device
		want []string
	}{
		{Device{Line: "GPIO17"}, []string{"/GPIO17"}},
		{Device{Chip: "expander", Line: "RELAY"}, []string{"expander/RELAY"}},
		{Device{Green: "GPIO5", Beeper: "GPIO6"}, []string{"/GPIO5", "/GPIO6"}},
		{Device{ADC: "ads1015/in_voltage0"}, []string{"ads1015/in_voltage0"}},
	} {
		if got := c.d.Lines(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.d, got, c.want)
		}
	}
}

// TestAValueCountsOnlyAfterItStoodStill replays random readings and looks at
// each decision from outside.
func TestAValueCountsOnlyAfterItStoodStill(t *testing.T) {
	type reading struct {
		v     int
		moved bool
		after time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		hold := time.Duration(rapid.IntRange(0, 100).Draw(t, "hold")) * time.Millisecond
		readings := rapid.SliceOf(rapid.Custom(func(t *rapid.T) reading {
			return reading{rapid.IntRange(0, 2).Draw(t, "v"), rapid.Bool().Draw(t, "moved"), time.Duration(rapid.IntRange(0, 60).Draw(t, "after")) * time.Millisecond}
		})).Draw(t, "readings")
		d := debounce[int]{hold: hold}
		now := time.Unix(0, 0)
		still := now // since when the last value has stood still
		last, told := 0, 0
		for _, r := range readings {
			now = now.Add(r.after)
			if r.v != last || r.moved {
				last, still = r.v, now
			}
			counts := last != told && now.Sub(still) >= hold
			if got := d.see(r.v, r.moved, now); got != counts {
				t.Fatalf("%d after standing still for %v of %v: counts %v", r.v, now.Sub(still), hold, got)
			}
			if counts {
				told = last
			}
			if d.told != told {
				t.Fatalf("%d counts, not %d", d.told, told)
			}
			due := d.due(time.Hour, now)
			if want := hold - now.Sub(still); last != told && due != want || last == told && due != time.Hour {
				t.Fatalf("due in %v, want %v", due, want)
			}
		}
	})
}

func TestALoopsStatesLieHalfWayBetweenItsVoltages(t *testing.T) {
	l := (&Device{}).loop() // 3300 mV and 2.2 kΩ each: 0, 1650, 2200 and 3300 mV
	for _, c := range []struct {
		mv             float64
		closed, opened state // of a contact that is normally closed, normally open
	}{
		{-10, short, short}, {0, short, short}, {824, short, short},
		{826, normal, active}, {1650, normal, active}, {1924, normal, active},
		{1926, active, normal}, {2200, active, normal}, {2749, active, normal},
		{2751, open, open}, {3300, open, open}, {3400, open, open},
	} {
		if got := l.state(c.mv, true); got != c.closed {
			t.Errorf("%v mV, normally closed: %v, want %v", c.mv, got, c.closed)
		}
		if got := l.state(c.mv, false); got != c.opened {
			t.Errorf("%v mV, normally open: %v, want %v", c.mv, got, c.opened)
		}
	}
}

// TestResistorsThatAreOffAreToldApart: a loop that Validate lets pass keeps
// its states though every resistor is off by 2 %.
func TestResistorsThatAreOffAreToldApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ohms := rapid.Float64Range(100, 1e6)
		l := loop{rapid.Float64Range(500, 30000).Draw(t, "supply"), ohms.Draw(t, "pull-up"), ohms.Draw(t, "series"), ohms.Draw(t, "parallel")}
		if l.validate() != nil {
			return
		}
		off := rapid.Float64Range(0.98, 1.02)
		real := loop{l.supply, l.pullUp * off.Draw(t, "a"), l.series * off.Draw(t, "b"), l.parallel * off.Draw(t, "c")}
		closed, opened := real.volts()
		for mv, want := range map[float64]state{0: short, closed: normal, opened: active, l.supply: open} {
			if got := l.state(mv, true); got != want {
				t.Fatalf("%v mV of %+v: %v, want %v", mv, l, got, want)
			}
		}
	})
}

func TestAnAnalogueInputGoesByItsDevicesName(t *testing.T) {
	devices := t.TempDir()
	for dir, files := range map[string]map[string]string{
		"iio:device0": {"name": "ads1015\n", "in_voltage0_raw": "1000\n", "in_voltage0_scale": "2\n", "in_voltage1_raw": "-5\n", "in_voltage_scale": "0.125\n", "in_voltage1_offset": "9\n", "in_voltage2_raw": "x\n"},
		"iio:device1": {"name": "twin\n"},
		"iio:device2": {"name": "twin\n"},
		"iio:device3": {"name": "bare\n", "in_voltage0_raw": "700\n"},
		"iio:device4": {"name": "odd\n", "in_voltage0_raw": "700\n", "in_voltage0_scale": "0\n"},
	} {
		c := channel{filepath.Join(devices, dir)}
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range files {
			c.set(t, file, text)
		}
	}
	for _, c := range []struct {
		name string
		mv   float64
		want string // a part of the error
	}{
		{"ads1015/in_voltage0", 2000, ""},
		{"ads1015/in_voltage1", 0.5, ""},
		{"bare/in_voltage0", 700, ""},
		{filepath.Join(devices, "iio:device0/in_voltage0"), 2000, ""},
		{"ads1115/in_voltage0", 0, `no analogue input device "ads1115": there are "ads1015", "bare", "odd", "twin", "twin"`},
		{"twin/in_voltage0", 0, `2 analogue input devices are called "twin"`},
		{"ads1015/in_voltage7", 0, "in_voltage7_raw: no such file"},
		{"ads1015/in_voltage2", 0, `"x\n" is not a number`},
		{"odd/in_voltage0", 0, "scale of 0, which is not above 0"},
	} {
		a, err := openADC(devices, c.name)
		if err != nil || c.want != "" {
			if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if mv := must[float64](t)(a.millivolts()); mv != c.mv {
			t.Errorf("%s: %v mV, want %v", c.name, mv, c.mv)
		}
	}
	if _, err := openADC(t.TempDir(), "ads1015/in_voltage0"); err == nil || !strings.Contains(err.Error(), "is its overlay loaded?") {
		t.Errorf("no device at all: %v", err)
	}
}

// FuzzAttribute: whatever a file holds, it is refused or a finite number.
func FuzzAttribute(f *testing.F) {
	for _, text := range []string{"1234\n", "-5", "0.125000000\n", "", "\n", "1e9\n", "NaN", "+1", "0x10", "1.2.3", "--1", " 1", strings.Repeat("9", 400), strings.Repeat("9", maxAttribute+1)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseAttribute(text)
		if err == nil && (math.IsNaN(v) || math.IsInf(v, 0) || strings.ContainsAny(string(text), "eExX+ ") || len(text) > maxAttribute) {
			t.Errorf("%q is read as %v", text, v)
		}
	})
}

// event is one struct gpio_v2_line_event, as the kernel writes it.
func event(at uint64, offset, seq uint32) []byte {
	raw := make([]byte, eventSize)
	binary.NativeEndian.PutUint64(raw, at)
	binary.NativeEndian.PutUint32(raw[8:], 2) // a falling edge
	binary.NativeEndian.PutUint32(raw[12:], offset)
	binary.NativeEndian.PutUint32(raw[16:], seq)
	binary.NativeEndian.PutUint32(raw[20:], 77) // of the line alone
	return raw
}

func TestTheKernelsEventsAreReadInTheirOrder(t *testing.T) {
	raw := slices.Concat(event(1000, 24, 2), event(900, 23, 1), event(1<<40, 23, 3))
	edges := make([]Edge, 4)
	n, err := parseEdges(raw, [2]uint32{23, 24}, edges)
	if err != nil || n != 3 {
		t.Fatalf("%d edges, %v", n, err)
	}
	want := []Edge{{1, 2, 1000}, {0, 1, 900}, {0, 3, 1 << 40}}
	if !slices.Equal(edges[:n], want) {
		t.Errorf("%v, want %v", edges[:n], want)
	}
	for _, raw := range [][]byte{event(1, 25, 1), raw[:eventSize+1]} {
		if _, err := parseEdges(raw, [2]uint32{23, 24}, edges); err == nil {
			t.Errorf("% x is read", raw)
		}
	}
}

// FuzzEdges: whatever the kernel tells, an edge is of one of the two lines.
func FuzzEdges(f *testing.F) {
	f.Add(slices.Concat(event(1, 23, 1), event(2, 24, 2)), 4)
	f.Add([]byte{1}, 0)
	f.Fuzz(func(t *testing.T, raw []byte, room int) {
		edges := make([]Edge, min(max(room, 0), 100))
		n, err := parseEdges(raw, [2]uint32{23, 24}, edges)
		if n > len(edges) || n*eventSize > len(raw) || err == nil && n*eventSize != len(raw) {
			t.Fatalf("%d edges from %d bytes (%v)", n, len(raw), err)
		}
		for _, e := range edges[:n] {
			if e.Line > 1 {
				t.Errorf("an edge of line %d", e.Line)
			}
		}
	})
}

func TestAPairIsTwoLinesWithAKnownBias(t *testing.T) {
	if _, err := OpenPair("", "GPIO23", "GPIO23", PairOptions{}); err == nil || !strings.Contains(err.Error(), "the same line") {
		t.Error(err)
	}
	if _, err := OpenPair("", "GPIO23", "GPIO24", PairOptions{Bias: biasDown}); err == nil || !strings.Contains(err.Error(), `bias: "down"`) {
		t.Error(err)
	}
}

// TestAPairThatEndsIsAnError reads a pair whose request is a file that holds
// what a kernel would tell.
func TestAPairThatEndsIsAnError(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := &kernelPair{request: r, offsets: [2]uint32{23, 24}}
	if _, err := w.Write(slices.Concat(event(5, 23, 1), event(6, 24, 2), event(7, 24, 3))); err != nil {
		t.Fatal(err)
	}
	buf := make([]Edge, 2)
	// However little time there is to wait, what is waiting comes.
	for _, want := range [][]Edge{{{0, 1, 5}, {1, 2, 6}}, {{1, 3, 7}}, {}} {
		n, err := p.Read(buf, 0)
		if err != nil || !slices.Equal(buf[:n], want) {
			t.Errorf("%v, %v, want %v", buf[:n], err, want)
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { w.Write(event(8, 23, 4)) })
	if n, err := p.Read(buf, time.Minute); err != nil || !slices.Equal(buf[:n], []Edge{{0, 4, 8}}) {
		t.Errorf("waited for: %v, %v", buf[:n], err)
	}
	// A pipe is no line: that its levels cannot be asked for is what a chip that
	// has gone away looks like to a reader who waits.
	if n, err := p.Read(buf, time.Millisecond); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("gone: %d edges, %v", n, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Read(buf, time.Millisecond); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := p.Levels(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}
