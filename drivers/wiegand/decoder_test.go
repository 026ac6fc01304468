package wiegand

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// told is what a test says of a frame: its bits if they are to be trusted, or
// why not.
func told(frames []frame) []string {
	var out []string
	for _, f := range frames {
		switch {
		case f.ghost:
			out = append(out, fmt.Sprintf("%d ghosts", f.bits))
		case f.refused != "":
			out = append(out, f.refused)
		case f.keypad:
			out = append(out, "key "+f.card.Bits())
		default:
			out = append(out, f.card.Bits())
		}
	}
	return out
}

func same(t *testing.T, got []frame, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, told(got)); d != "" {
		t.Errorf("frames (-want +got):\n%s", d)
	}
}

func TestBitsMayBe200MicrosecondsTo20MillisecondsApart(t *testing.T) {
	f := format(t, "H10301")
	a, b := card(t, f, 1), card(t, f, 65534)
	for _, spacing := range []time.Duration{200 * us, 500 * us, 880 * us, 1 * ms, 2 * ms, 5 * ms, 20 * ms} {
		s := start().frame(a, spacing).silence(200*ms).frame(b, spacing)
		same(t, decodeAll(readerOf(formats(t, "H10301"), Device{}), s.number()), a, b)
		same(t, decodeLive(readerOf(formats(t, "H10301"), Device{}), s.number()), a, b)
	}
}

func TestAFrameOfTheGreatestLengthEndsAfterThreeOfItsBits(t *testing.T) {
	for _, c := range []struct{ spacing, wait time.Duration }{
		{200 * us, 2 * ms}, // an interrupt may be late: no less than this
		{1 * ms, 3 * ms},
		{2 * ms, 6 * ms},
		{20 * ms, 50 * ms}, // never later than the gap
	} {
		s := start().frame(card(t, format(t, "H10301"), 7), c.spacing)
		d := readerOf(formats(t, "H10301"), Device{})
		for _, e := range s.number() {
			if _, ok := d.add(e); ok {
				t.Fatalf("%v: a frame came before its end", c.spacing)
			}
		}
		if _, ok := d.advance(s.now + c.wait - 1); ok {
			t.Errorf("%v: the frame came before %v", c.spacing, c.wait)
		}
		if at, ok := d.deadline(); !ok || at != s.now+c.wait {
			t.Errorf("%v: it is to be asked %v after the last bit, not %v", c.spacing, at-s.now, c.wait)
		}
		if f, ok := d.advance(s.now + c.wait); !ok || f.refused != "" {
			t.Errorf("%v: no frame came (%q)", c.spacing, f.refused)
		}
	}
}

func TestAShorterFrameWaitsForTheGap(t *testing.T) {
	for _, c := range []struct {
		spacing, gap, wait time.Duration
	}{
		{1 * ms, 0, defaultGap},
		{2 * ms, 0, defaultGap},
		{5 * ms, 0, (37 - 26 + endBits) * 5 * ms}, // the longer one's rest might come still
		{20 * ms, 0, longestGap},
		{1 * ms, 25 * ms, 25 * ms},
		{20 * ms, 25 * ms, 25 * ms},
	} {
		s := start().frame(card(t, format(t, "H10301"), 7), c.spacing)
		d := readerOf(formats(t, "H10301", "H10302"), Device{Gap: c.gap})
		for _, e := range s.number() {
			d.add(e)
		}
		if at, ok := d.deadline(); !ok || at != s.now+c.wait {
			t.Errorf("%v, gap %v: it is to be asked %v after the last bit, not %v", c.spacing, c.gap, at-s.now, c.wait)
		}
		if _, ok := d.advance(s.now + c.wait - 1); ok {
			t.Errorf("%v, gap %v: the frame came before %v", c.spacing, c.gap, c.wait)
		}
		if f, ok := d.advance(s.now + c.wait); !ok || f.refused != "" {
			t.Errorf("%v, gap %v: no frame came (%q)", c.spacing, c.gap, f.refused)
		}
	}
}

func TestWhatIsRefusedAndWhy(t *testing.T) {
	f := format(t, "H10301")
	a, b := card(t, f, 4711), card(t, f, 815)
	flip := func(bits string, at ...int) string {
		out := []byte(bits)
		for _, i := range at {
			out[i] ^= 1
		}
		return string(out)
	}
	tests := []struct {
		rule  string
		edges []edge
		want  []string
	}{
		{"a lost first edge, which may have been the last of a longer frame before", lose(start().frame(b, ms).silence(time.Second).frame(a, ms).silence(time.Second).frame(b, ms).number(), 26),
			[]string{RefusedLost, RefusedLost, b}},
		{"a longer frame of which the kernel kept as much as this reader's have", lose(start().frame(a+"10110100101", ms).silence(time.Second).frame(b, ms).silence(time.Second).frame(b, ms).number(), between(26, 37)...),
			[]string{RefusedLost, RefusedLost, b}},
		{"a lost edge inside", lose(start().frame(a, ms).silence(time.Second).frame(b, ms).number(), 13),
			[]string{RefusedLost, b}},
		{"a lost last edge, which may have been the next frame's first", lose(start().frame(a, ms).silence(time.Second).frame(b, ms).silence(time.Second).frame(a, ms).number(), 25),
			[]string{RefusedLost, RefusedLost, a}},
		{"a whole frame that was lost: it may have been the rest of the one before, and the one after its rest", lose(start().frame(a, ms).silence(time.Second).frame(b, ms).silence(time.Second).frame(a, ms).number(), between(26, 52)...),
			[]string{RefusedLost, RefusedLost}},
		{"the same number twice", append(start().frame(a, ms).number(), edge{Seq: 26, At: time.Second + 26*ms}),
			[]string{RefusedLost}},
		{"both lines at once", start().frame(a[:20], ms).silence(30*us).pulse(1-(a[19]-'0')).silence(970*us).frame(a[20:], ms).number(),
			[]string{RefusedAtOnce}},
		{"an echo", start().frame(a[:20], ms).silence(30*us).pulse(a[19]-'0').silence(970*us).frame(a[20:], ms).number(),
			[]string{RefusedSpacing}},
		{"a pulse that did not come", start().frame(a, ms).remove(9).number(), []string{RefusedSpacing}},
		{"a first pulse that did not come", start().frame(a, ms).remove(0).number(), []string{RefusedLength}},
		{"a last pulse that did not come", start().frame(a, ms).remove(25).number(), []string{RefusedLength}},
		{"a pulse too many inside", start().frame(a[:20], ms).silence(400*us).pulse(1).silence(600*us).frame(a[20:], ms).number(), []string{RefusedSpacing}},
		{"a ghost at the frame's pace before it", start().frame("1"+a, ms).number(), []string{RefusedLength}},
		{"a ghost 10 ms before it", start().pulse(1).silence(10*ms).frame(a, ms).number(), []string{RefusedSpacing}},
		{"a ghost 10 ms after it is no part of it", start().frame(a, ms).silence(10 * ms).pulse(1).number(), []string{a, "1 ghosts"}},
		{"a ghost right after it", start().frame(a+"1", ms).number(), []string{RefusedLength}},
		{"a frame in two parts", start().frame(a[:12], ms).silence(100*ms).frame(a[12:], ms).number(), []string{RefusedLength, RefusedLength}},
		{"what follows a part at once, though it is whole", start().frame(a[:12], 2*ms).silence(100*ms).frame(b, 2*ms).silence(time.Second).frame(b, 2*ms).number(),
			[]string{RefusedLength, RefusedRest, b}},
		{"two frames in one", start().frame(a+b, ms).number(), []string{RefusedLength}},
		{"the end of one and the beginning of another", start().frame(a[13:], ms).silence(20*ms).frame(b[:13], ms).number(), []string{RefusedSpacing}},
		{"another length", start().frame(card(t, format(t, "H10306"), 4711), ms).number(), []string{RefusedLength}},
		{"a wrong parity", start().frame(flip(a, 3), ms).number(), []string{RefusedChecks}},
		{"bits that come too fast", start().frame(a, 150*us).number(), []string{RefusedSpacing}},
		{"bits that come too slowly", start().frame(a, 25*ms).number(), []string{RefusedSpacing}},
		{"noise", start().frame("0101", ms).silence(time.Second).pulse(0).number(), []string{"4 ghosts", "1 ghosts"}},
		{"a frame that was on its way when the lines were opened", (&script{now: ms}).frame(a, ms).silence(time.Second).frame(b, ms).number(),
			[]string{RefusedRest, b}},
		{"a time that goes back", []edge{{Seq: 1, At: time.Second}, {Seq: 2, At: 0}}, []string{"2 ghosts"}},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			same(t, decodeAll(readerOf(formats(t, "H10301"), Device{}), test.edges), test.want...)
		})
	}
}

func between(from, to int) []int {
	var all []int
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func TestAfterAStallFramesAreToldApartByTheKernelsTime(t *testing.T) {
	f := format(t, "H10301")
	a, b := card(t, f, 1), card(t, f, 2)
	s := start().frame(a, ms).silence(defaultGap).frame(b, ms).silence(200*ms).frame(a, ms)
	same(t, decodeAll(readerOf(formats(t, "H10301"), Device{}), s.number()), a, b, a)
}

func TestEdgesThatOvertookEachOtherArePutInOrder(t *testing.T) {
	a := card(t, format(t, "H10301"), 4711)
	for _, at := range [][2]int{{0, 1}, {4, 5}, {7, 10}, {24, 25}} {
		edges := start().frame(a, ms).number()
		edges[at[0]], edges[at[1]] = edges[at[1]], edges[at[0]]
		same(t, decodeAll(readerOf(formats(t, "H10301"), Device{}), edges), a)
	}
}

func TestSequenceNumbersWrap(t *testing.T) {
	a := card(t, format(t, "H10301"), 4711)
	edges := start().frame(a, ms).silence(time.Second).frame(a, ms).number()
	for i := range edges {
		edges[i].Seq += 1<<32 - 14 // the first frame holds 0
	}
	d := readerOf(formats(t, "H10301"), Device{})
	d.reset(0, 1<<32-14)
	same(t, decodeAll(d, edges), a, a)
}

func TestTheFirstEdgeOfLinesThatWereOpenedIsNumberOne(t *testing.T) {
	a := card(t, format(t, "H10301"), 4711)
	edges := start().frame("1"+a, ms).silence(time.Second).frame(a, ms).number()
	same(t, decodeAll(readerOf(formats(t, "H10301"), Device{}), edges[1:]), RefusedLost, a)
}

func TestWithoutSequenceNumbersTheRestStillHolds(t *testing.T) {
	a := card(t, format(t, "H10301"), 4711)
	s := start().frame(a, ms).silence(time.Second).frame(a, ms).silence(time.Second)
	s.frame(a[:7], ms).silence(2*ms).frame(a[8:], ms)
	same(t, decodeAll(readerOf(formats(t, "H10301"), Device{}), s.edges), a, a, RefusedSpacing)
}

func TestKeysAndCardsComeOverOnePair(t *testing.T) {
	h := format(t, "H10301")
	a := card(t, h, 4711)
	pin := card(t, h, 1234) // facility 0
	other := h.New()
	other.Facility, other.Number = 9, 1234
	foreign, err := h.Encode(other)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		rule   string
		device Device
		script *script
		want   []string
	}{
		{"4 bits a key", Device{Keypad: badge.Keypad4Bit},
			start().frame("0001", 2*ms).silence(100*ms).frame("1011", 2*ms).silence(500*ms).frame(a, 2*ms),
			[]string{"key 0001", "key 1011", a}},
		{"8 bits a key", Device{Keypad: badge.Keypad8Bit},
			start().frame("11100001", 2*ms).silence(100*ms).frame("01001011", 2*ms).silence(500*ms).frame(a, 2*ms),
			[]string{"key 11100001", "key 01001011", a}},
		{"a PIN as a card", Device{Keypad: badge.Keypad26Bit},
			start().frame(pin, 2*ms).silence(500*ms).frame(foreign.Bits(), 2*ms),
			[]string{"key " + pin, foreign.Bits()}},
		{"a PIN with a facility code", Device{Keypad: badge.Keypad26Bit, KeypadFacility: 9},
			start().frame(pin, 2*ms).silence(500*ms).frame(foreign.Bits(), 2*ms),
			[]string{pin, "key " + foreign.Bits()}},
		{"a key and a card within the gap are neither", Device{Keypad: badge.Keypad4Bit},
			start().frame("0001", 2*ms).silence(20*ms).frame(a, 2*ms),
			[]string{RefusedSpacing}},
		{"no key of a reader without a keypad", Device{},
			start().frame("0001", 2*ms).silence(500*ms).frame("11100001", 2*ms),
			[]string{"4 ghosts", RefusedLength}},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			same(t, decodeAll(readerOf([]*badge.Format{h}, test.device), test.script.number()), test.want...)
		})
	}
}

func TestAPINOf26BitsNeedsNoFormatOfThatLength(t *testing.T) {
	pin := card(t, format(t, "H10301"), 1234)
	d := readerOf(formats(t, "H10302"), Device{Keypad: badge.Keypad26Bit})
	same(t, decodeAll(d, start().frame(pin, 2*ms).number()), "key "+pin)
}

// TestWhatIsRefusedIsNoKey: a door tells a person that a frame was refused,
// and says nothing to a key.
func TestWhatIsRefusedIsNoKey(t *testing.T) {
	h := format(t, "H10301")
	for keypad, key := range map[badge.KeypadEncoding]string{
		badge.Keypad8Bit:  "11100001",
		badge.Keypad26Bit: card(t, h, 1234),
	} {
		d := readerOf([]*badge.Format{h}, Device{Keypad: keypad})
		edges := start().frame(key, 2*ms).silence(time.Second).frame("1"+key, 2*ms).number()
		frames := decodeAll(d, lose(edges, len(key))) // all of the key, and not what came before it
		same(t, frames, RefusedLost, RefusedLost)
		for _, f := range frames {
			if f.keypad {
				t.Errorf("%s: a frame that was refused is a key", keypad)
			}
		}
	}
}

func TestWithoutFormatsEveryLengthIsTaken(t *testing.T) {
	s := start().frame("10110111", ms).silence(time.Second).frame(strings.Repeat("10", 40), ms)
	same(t, decodeAll(readerOf(nil, Device{}), s.number()), "10110111", strings.Repeat("10", 40))
}

func TestNoiseWithoutEndTakesNoMemoryWithoutEnd(t *testing.T) {
	d := readerOf(formats(t, "H10301"), Device{})
	s := start()
	var frames []frame
	for i := range 100_000 {
		f, ok := d.add(edge{Line: uint8(i & 1), Seq: uint32(i + 1), At: s.now})
		s.now += 300 * us
		if ok {
			frames = append(frames, f)
		}
	}
	if f, ok := d.advance(s.now + time.Second); ok {
		frames = append(frames, f)
	}
	same(t, frames[:2], RefusedLength, fmt.Sprintf("%d ghosts", storm)) // it is told while it goes on
	edges := 0
	for _, f := range frames {
		edges += f.bits
	}
	if edges != 100_000 {
		t.Errorf("%d edges were told", edges)
	}
	if cap(d.burst) > 4*badge.MaxBits {
		t.Errorf("the decoder keeps %d edges", cap(d.burst))
	}
}

// TestFramesDoNotDependOnWhenEdgesAreRead gives the same edges as they happen
// and all at once, as after a stall.
func TestFramesDoNotDependOnWhenEdgesAreRead(t *testing.T) {
	h := formats(t, "H10301", "H10302")
	rapid.Check(t, func(rt *rapid.T) {
		s := start()
		for range rapid.IntRange(1, 8).Draw(rt, "bursts") {
			spacing := time.Duration(rapid.IntRange(100, 25_000).Draw(rt, "spacing")) * us
			for range rapid.SampledFrom([]int{1, 4, 7, 25, 26, 27, 36, 37, 38}).Draw(rt, "bits") {
				s.pulse(uint8(rapid.IntRange(0, 1).Draw(rt, "line"))).silence(spacing)
			}
			s.silence(time.Duration(rapid.IntRange(0, 300_000).Draw(rt, "silence")) * us)
		}
		all := decodeAll(readerOf(h, Device{}), s.number())
		live := decodeLive(readerOf(h, Device{}), s.number())
		if d := cmp.Diff(told(all), told(live)); d != "" {
			rt.Errorf("at once (-) and live (+):\n%s", d)
		}
	})
}

// FuzzDecoder takes any edges: five bytes each, line and way of time, time,
// sequence.
func FuzzDecoder(f *testing.F) {
	pack := func(edges []edge) []byte {
		var out []byte
		at, seq := time.Duration(0), uint32(0)
		for _, e := range edges {
			out = append(out, e.Line)
			out = binary.BigEndian.AppendUint16(out, uint16((e.At-at)/(10*us)))
			out = binary.BigEndian.AppendUint16(out, uint16(e.Seq-seq))
			at, seq = e.At, e.Seq
		}
		return out
	}
	h := format(f, "H10301")
	a := card(f, h, 4711)
	f.Add(pack(start().silence(-500*ms).frame(a, ms).silence(300*ms).frame(a, ms).number()))
	f.Add(pack(start().silence(-500*ms).frame(a[:12], ms).silence(30*ms).frame("0001", ms).number()))
	f.Add([]byte{2, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var edges []edge
		at, seq := time.Duration(0), uint32(0)
		for ; len(data) >= 5; data = data[5:] {
			step := time.Duration(binary.BigEndian.Uint16(data[1:])) * 10 * us
			if data[0]&2 != 0 {
				step = -step
			}
			at += step
			seq += uint32(int16(binary.BigEndian.Uint16(data[3:])))
			edges = append(edges, edge{Line: data[0] & 1, At: at, Seq: seq})
		}
		for _, device := range []Device{{}, {Keypad: badge.Keypad8Bit}, {Keypad: badge.Keypad26Bit, Gap: 30 * ms}} {
			formats := formats(t, "H10301", "H10302")
			for _, decode := range []func(*decoder, []edge) []frame{decodeAll, decodeLive} {
				bits := 0
				for _, f := range decode(readerOf(formats, device), edges) {
					bits += f.bits
					if f.refused != "" || f.ghost || f.keypad {
						continue
					}
					if !slices.ContainsFunc(formats, func(format *badge.Format) bool { _, err := format.Decode(f.card); return err == nil }) {
						t.Errorf("a frame of %d bits was taken that fits no format", f.bits)
					}
				}
				if bits > len(edges) {
					t.Errorf("%d bits came of %d edges", bits, len(edges))
				}
			}
		}
	})
}

func BenchmarkDecode26Bits(b *testing.B) {
	h := format(b, "H10301")
	edges := start().frame(card(b, h, 4711), ms).number()
	d := readerOf([]*badge.Format{h}, Device{})
	at, seq := time.Duration(0), uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range edges {
			e.At += at
			e.Seq += seq
			d.add(e)
		}
		at += 2 * time.Second
		seq += uint32(len(edges))
		if f, ok := d.advance(at); !ok || f.refused != "" {
			b.Fatalf("no frame came: %q", f.refused)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "got-ns")
	b.ReportMetric(20_000, "max-ns")
}
