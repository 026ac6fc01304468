package wiegand

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
	"github.com/gatehouse-acs/gatehouse/drivers/gpio"
)

var silent = slog.New(slog.DiscardHandler)

// TestConformance holds readers to what doors expect; broken by lines that are
// gone, and by a line that is low for good.
func TestConformance(t *testing.T) {
	f := format(t, "H10301")
	var cards []badge.Frame
	for _, n := range []uint64{1, 4711, 65534} {
		frame, err := badge.ParseFrame(card(t, f, n))
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, frame)
	}
	for name, broken := range map[string]func(w *world, is bool){
		"lines that are gone": func(w *world, is bool) {
			w.broken = nil
			if is {
				w.broken = errUnplugged
			}
		},
		"a line that is low": func(w *world, is bool) { w.low[1] = is },
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Test(t, func(t *testing.T) *drivertest.Rig {
				w := newWorld()
				bus := w.bus()
				r, err := bus.Reader(&Device{D0: "D0", D1: "D1"}, []*badge.Format{f})
				if err != nil {
					t.Fatal(err)
				}
				return &drivertest.Rig{
					Read: r.Read, Close: bus.Close, Frames: cards,
					Swipe: func(f badge.Frame) { w.swipe(f.Bits(), 400*us) },
					Break: func() { w.change(func() { broken(w, true) }) },
					Mend:  func() { w.change(func() { broken(w, false) }) },
				}
			})
		})
	}
}

func read(t *testing.T, r *Reader) badge.Read {
	t.Helper()
	got, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestACardIsThereWithinTenMillisecondsOfItsLastBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{})
		a := card(t, format(t, "H10301"), 4711)
		for range 3 {
			end := w.swipe(a, ms)
			got := read(t, r)
			if got.Frame.Bits() != a || got.Refused != "" || got.Keypad || got.Foreign {
				t.Errorf("read %+v", got)
			}
			if late := time.Since(end); late < 3*ms || late > 10*ms {
				t.Errorf("it came %v after its last bit", late)
			}
			if off := got.At.Sub(end); max(off, -off) > us {
				t.Errorf("it is told to be of %v after its last bit", off)
			}
		}
	})
}

func TestCardsThatWaitedAreReadWithTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{})
		f := format(t, "H10301")
		a, b := card(t, f, 1), card(t, f, 2)
		ends := []time.Time{w.swipe(a, ms), w.swipe(b, 2*ms)}
		time.Sleep(10 * time.Second) // the program stands still
		for i, want := range []string{a, b} {
			got := read(t, r)
			if off := got.At.Sub(ends[i]); got.Frame.Bits() != want || max(off, -off) > us {
				t.Errorf("frame %d: %v, %v off", i, got, off)
			}
		}
	})
}

func TestARefusedFrameComesWithItsReasonAndWithoutItsBits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{})
		a := []byte(card(t, format(t, "H10301"), 4711))
		a[3] ^= 1
		w.swipe(string(a), ms)
		got := read(t, r)
		if got.Refused != RefusedChecks || got.Frame.Bits() != strings.Repeat("0", 26) {
			t.Errorf("read %q with %s", got.Refused, got.Frame.Bits())
		}
		w.swipe(strings.Repeat("10", 700), ms) // a storm is told as the longest frame
		if got := read(t, r); got.Refused != RefusedLength || got.Frame.Len() != badge.MaxBits {
			t.Errorf("read %q with %v", got.Refused, got.Frame)
		}
	})
}

func TestNoiseIsCountedAndNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{})
		w.swipe("0110", ms)
		w.swipe("1", ms)
		a := card(t, format(t, "H10301"), 4711)
		w.swipe(a, ms)
		if got := read(t, r); got.Frame.Bits() != a {
			t.Errorf("read %+v", got)
		}
		if h := r.Health(); h.Ghosts != 5 || h.Frames != 1 || h.Last.IsZero() || len(h.Refused) != 0 {
			t.Errorf("health %+v", h)
		}
	})
}

func TestALineThatIsLowForASecondIsAFaultAndHeals(t *testing.T) {
	for i, line := range []string{"D0", "D1"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			r := w.reader(t, Device{})
			a := card(t, format(t, "H10301"), 4711)
			w.swipe(a, ms)
			read(t, r)
			w.change(func() { w.low[i] = true })
			start := time.Now()
			_, err := r.Read(t.Context())
			if err == nil || !strings.Contains(err.Error(), line+" has been low for over a second") {
				t.Fatalf("Read: %v", err)
			}
			if took := time.Since(start); took < stuckFor || took > stuckFor+3*turn {
				t.Errorf("it was noticed after %v", took)
			}
			if h := r.Health(); h.Likely != "" {
				t.Errorf("health says it again: %q", h.Likely)
			}
			for range 3 {
				start := time.Now()
				w.swipe(strings.Repeat(string('1'-byte(i)), 26), ms) // over the other line
				if _, err := r.Read(t.Context()); err == nil || time.Since(start) > 3*turn {
					t.Errorf("Read after %v: %v", time.Since(start), err)
				}
				time.Sleep(time.Second)
			}
			w.change(func() { w.low[i] = false })
			w.swipe(a, ms)
			if got := read(t, r); got.Frame.Bits() != a {
				t.Errorf("read %+v", got)
			}
			if h := r.Health(); h.Likely != "" {
				t.Errorf("health says %q", h.Likely)
			}
		})
	}
}

func TestPulsesThatAreSeenLowAreNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{})
		a := card(t, format(t, "H10301"), 4711)
		w.change(func() { w.low[0] = true }) // whenever it is looked
		for range 40 {
			w.swipe(a, ms)
			if got := read(t, r); got.Frame.Bits() != a {
				t.Fatalf("read %+v", got)
			}
		}
	})
}

func TestLinesThatAreGoneAreAFaultAndAreTakenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{})
		w.change(func() { w.broken = errUnplugged })
		for range 3 {
			if _, err := r.Read(t.Context()); !errors.Is(err, errUnplugged) || !strings.Contains(err.Error(), "lines are gone") {
				t.Errorf("Read: %v", err)
			}
		}
		w.change(func() { w.broken = nil })
		got := make(chan badge.Read)
		go func() { got <- read(t, r) }()
		synctest.Wait()
		a := card(t, format(t, "H10301"), 4711)
		w.swipe(a, ms) // numbered anew
		if got := <-got; got.Frame.Bits() != a {
			t.Errorf("read %+v", got)
		}
		if w.opened != 2 {
			t.Errorf("the lines were taken %d times", w.opened)
		}
	})
}

func TestAForeignTimingIsFlaggedOrRefused(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			d := Device{}
			if refuse {
				d.ForeignTiming = "refuse"
			}
			r := w.reader(t, d)
			a := card(t, format(t, "H10301"), 4711)
			if _, ok := r.Timing(); ok {
				t.Error("something was learned of nothing")
			}
			for range learnFrames {
				w.swipe(a, ms)
				if got := read(t, r); got.Foreign || got.Refused != "" {
					t.Fatalf("read %+v", got)
				}
			}
			w.swipe(a, 1200*us)
			got := read(t, r)
			if !got.Foreign || (got.Refused == RefusedTiming) != refuse || (got.Frame.Bits() == a) == refuse {
				t.Errorf("refuse %v: read %+v", refuse, got)
			}
			if h := r.Health(); h.Foreign != 1 {
				t.Errorf("%d foreign frames", h.Foreign)
			}
			learned, ok := r.Timing()
			if !ok || learned.Spacing != ms {
				t.Errorf("learned %+v", learned)
			}

			if err := r.SetTiming(Timing{}); err != nil { // the reader was exchanged
				t.Fatal(err)
			}
			w.swipe(a, 1200*us)
			if got := read(t, r); got.Foreign {
				t.Errorf("read %+v", got)
			}
			if err := r.SetTiming(learned); err != nil {
				t.Fatal(err)
			}
			w.swipe(a, 1200*us)
			if got := read(t, r); !got.Foreign {
				t.Errorf("read %+v", got)
			}
			if err := r.SetTiming(Timing{Learned: time.Hour}); err == nil {
				t.Error("a timing that no reader has is taken")
			}
		})
	}
}

func TestEdgesWithoutNumbersAreReadAndWarnedOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		w := newWorld()
		w.unnumbered, w.log = true, slog.New(slog.NewTextHandler(&log, nil))
		r := w.reader(t, Device{})
		a := card(t, format(t, "H10301"), 4711)
		for range 3 {
			w.swipe(a, ms)
			if got := read(t, r); got.Frame.Bits() != a {
				t.Errorf("read %+v", got)
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Contains(log.String(), a) {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
	})
}

func TestKeysAreDeliveredAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{Keypad: badge.Keypad4Bit})
		pad, err := badge.NewKeypad(badge.Keypad4Bit, 0, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var pin *badge.PIN
		for _, key := range []int{1, 9, 0, 11} {
			w.swipe(fmt.Sprintf("%04b", key), 2*ms)
			got := read(t, r)
			if !got.Keypad {
				t.Errorf("read %+v", got)
			}
			if pin, err = pad.Press(got); err != nil {
				t.Error(err)
			}
		}
		if pin == nil || string(pin.Digits()) != "190" {
			t.Error("another PIN was read than was typed")
		}
	})
}

func TestAKeyThatIsRefusedIsOnlyCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader(t, Device{Keypad: badge.Keypad4Bit})
		w.swipe("0001", 25*ms)
		a := card(t, format(t, "H10301"), 4711)
		w.swipe(a, ms)
		if got := read(t, r); got.Frame.Bits() != a {
			t.Errorf("read %+v", got)
		}
		if h := r.Health(); h.Refused[RefusedSpacing] != 1 {
			t.Errorf("refused %v", h.Refused)
		}
	})
}

// stopped is a pair whose reader is stopped for a while whenever it found
// nothing.
type stopped struct {
	gpio.Pair
	stop time.Duration
}

func (p stopped) Read(buf []edge, wait time.Duration) (int, error) {
	n, err := p.Pair.Read(buf, wait)
	if n == 0 {
		time.Sleep(p.stop)
	}
	return n, err
}

// TestWhatComesWhileTheProgramIsStoppedIsSeenBeforeAFrameIsOver: silence counts
// up to when the program looked, not up to when it thinks about it.
func TestWhatComesWhileTheProgramIsStoppedIsSeenBeforeAFrameIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		bus := &Bus{log: silent, open: func(d *Device) (gpio.Pair, error) {
			p, err := w.open(d)
			return stopped{p, 60 * ms}, err
		}}
		r, err := bus.Reader(&Device{D0: "D0", D1: "D1"}, formats(t, "H10301", "H10302"))
		if err != nil {
			t.Fatal(err)
		}
		w.swipe(card(t, format(t, "H10301"), 4711), 10*ms) // which would be over after 140 ms
		w.swipe("10110100101", 10*ms)                      // but goes on after 130
		if got := read(t, r); got.Refused != RefusedSpacing || got.Frame.Len() != 37 {
			t.Errorf("read %+v", got)
		}
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestHealthMayBeAskedWhileAReadWaits(t *testing.T) {
	w := newWorld()
	r := w.reader(t, Device{})
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			r.Read(ctx)
		}
	})
	for n := range uint64(2) {
		w.swipe(card(t, format(t, "H10301"), n), 400*us)
	}
	for end := time.Now().Add(time.Minute); r.Health().Frames < 2; time.Sleep(time.Millisecond) {
		r.Timing()
		if time.Now().After(end) {
			t.Error("two cards were not read within 5 s")
			break
		}
	}
	cancel()
	reading.Wait()
}

func TestReadersOfOneDriverDoNotDisturbEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worlds := map[string]*world{"GPIO1": newWorld(), "GPIO3": newWorld()}
		bus := &Bus{log: silent, open: func(d *Device) (gpio.Pair, error) { return worlds[d.D0].open(d) }}
		f := format(t, "H10301")
		give := func(d0, d1 string) (*Reader, error) {
			return bus.Reader(&Device{D0: d0, D1: d1}, []*badge.Format{f})
		}
		readers := make(map[string]*Reader)
		for d0, d1 := range map[string]string{"GPIO1": "GPIO2", "GPIO3": "GPIO4"} {
			r, err := give(d0, d1)
			if err != nil {
				t.Fatal(err)
			}
			readers[d0] = r
		}
		cards := map[string]string{"GPIO1": card(t, f, 1), "GPIO3": card(t, f, 2)}
		for d0, bits := range cards { // at the same time
			worlds[d0].swipe(bits, ms)
		}
		for d0, bits := range cards {
			if got := read(t, readers[d0]); got.Frame.Bits() != bits {
				t.Errorf("the reader on %s read another card than it was shown", d0)
			}
		}
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
		for d0, w := range worlds {
			if _, err := readers[d0].Read(t.Context()); !errors.Is(err, gpio.ErrClosed) || w.pairs != 0 {
				t.Errorf("closed: %v, %d pairs of lines are not given back", err, w.pairs)
			}
		}
		if _, err := give("GPIO1", "GPIO2"); !errors.Is(err, gpio.ErrClosed) {
			t.Errorf("a reader of a closed driver: %v", err)
		}
	})
}

func TestAReaderIsNoOtherPart(t *testing.T) {
	b, err := Open(DefaultSettings(), silent)
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{D0: "GPIO23", D1: "GPIO24"}
	if err := d.ValidateAs("reader"); err != nil {
		t.Error(err)
	}
	_, strike := b.Strike(d)
	_, input := b.Input(d)
	_, indicator := b.Indicator(d)
	for part, err := range map[string]error{"strike": strike, "input": input, "indicator": indicator} {
		if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), `"gpio"`) {
			t.Errorf("%s: %v", part, err)
		}
		if d.ValidateAs(part) == nil {
			t.Errorf("a configuration may say that it is a %s", part)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestEveryFaultOfADeviceIsNamed(t *testing.T) {
	if err := (&Device{D0: "GPIO23", D1: "GPIO24"}).Validate(); err != nil {
		t.Error(err)
	}
	full := &Device{Chip: "pinctrl-sim", D0: "GPIO23", D1: "GPIO24", Bias: "none", Keypad: badge.Keypad26Bit, KeypadFacility: 255, Gap: 30 * ms, ForeignTiming: "refuse"}
	if err := full.Validate(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(full.Lines(), " "); got != "pinctrl-sim/GPIO23 pinctrl-sim/GPIO24" {
		t.Errorf("lines %q", got)
	}
	if got := (&Device{D1: "GPIO24"}).Lines(); len(got) != 1 || got[0] != "/GPIO24" {
		t.Errorf("lines %q", got)
	}
	tests := map[string]Device{
		"d0":              {D1: "GPIO24"},
		"d1":              {D0: "GPIO23", D1: "GPIO23"},
		"bias":            {D0: "a", D1: "b", Bias: "down"},
		"keypad":          {D0: "a", D1: "b", Keypad: "6-bit"},
		"keypad_facility": {D0: "a", D1: "b", Keypad: badge.Keypad26Bit, KeypadFacility: 256},
		"gap":             {D0: "a", D1: "b", Gap: 20 * ms},
		"foreign_timing":  {D0: "a", D1: "b", ForeignTiming: "no"},
	}
	for key, d := range tests {
		err := d.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), key+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", key, err)
		}
	}
	all := &Device{Bias: "x", Keypad: "x", KeypadFacility: 1, Gap: 2 * time.Second, ForeignTiming: "x"}
	if got := len(strings.Split(all.Validate().Error(), "\n")); got != 7 {
		t.Errorf("%d of 7 faults are named: %v", got, all.Validate())
	}
}
