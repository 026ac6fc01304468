package wiegand

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// buckets are the upper bounds of the histogram of spacings.
var buckets = [...]time.Duration{
	atOnce, 200 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 1500 * time.Microsecond, 2 * time.Millisecond, 2500 * time.Microsecond, 3 * time.Millisecond,
	5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	math.MaxInt64,
}

type histogram [len(buckets)]uint64

func (h *histogram) add(spacing time.Duration) {
	for i, below := range buckets {
		if spacing < below || i == len(buckets)-1 {
			h[i]++
			return
		}
	}
}

// memory is how many bursts are looked back on, and how long: what was wrong
// before the wires were mended is forgotten.
const (
	memory    = 64
	memoryAge = 24 * time.Hour
)

// trace is what is remembered of a burst.
type trace struct {
	at      time.Duration
	bits    int
	ghost   bool
	tail    bool
	refused string
	foreign bool
	wire    wire
}

// tally counts what a reader's wires have shown.
type tally struct {
	delivered, ghosts, foreign uint64
	refused                    map[string]uint64
	last                       time.Time
	spacing                    histogram
	recent                     []trace // oldest first
}

// count takes a burst that came out.
func (t *tally) count(f *frame, foreign bool) {
	if f.ghost {
		t.ghosts += uint64(f.bits)
	} else {
		for i, n := range f.wire.hist {
			t.spacing[i] += n
		}
	}
	if f.refused != "" {
		if t.refused == nil {
			t.refused = make(map[string]uint64)
		}
		t.refused[f.refused]++
	}
	if foreign {
		t.foreign++
	}
	if len(t.recent) == memory {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	t.recent = append(t.recent, trace{f.at, f.bits, f.ghost, f.tail, f.refused, foreign, f.wire})
}

// health is the tally for people; longest is that of the reader's formats.
func (t *tally) health(now time.Duration, longest int) badge.Health {
	h := badge.Health{
		Frames: t.delivered, Refused: maps.Clone(t.refused), Ghosts: t.ghosts, Foreign: t.foreign, Last: t.last,
		Spacing: make([]badge.Bucket, len(buckets)),
	}
	for i, below := range buckets {
		h.Spacing[i] = badge.Bucket{Below: below, Count: t.spacing[i]}
	}
	recent := t.recent
	for len(recent) > 0 && now-recent[0].at > memoryAge {
		recent = recent[1:]
	}
	h.Likely = likely(recent, longest)
	return h
}

// What is likely wrong. A diagnosis needs several frames: one may be a bad
// swipe.
const (
	lookBack = 12 // frames, in which as many as enough must show the same
	enough   = 4
	inARow   = 4 // of the newest frames, where each one must show it
	noisy    = 12
	noisyFor = time.Hour // so many ghosts in it are interference
	strange  = 8         // frames in a row of another timing
	tellBits = 6         // a burst that tells something of the lines
)

// likely says what is probably wrong with the wires, from what they showed
// last; empty: nothing is. What explains the most comes first.
func likely(recent []trace, longest int) string {
	var frames []trace // newest first
	ghosts, keys := 0, 0
	for _, t := range slices.Backward(recent) {
		if t.bits >= tellBits && !t.tail {
			frames = append(frames, t)
		}
		if t.ghost && recent[len(recent)-1].at-t.at < noisyFor {
			ghosts++
			if t.bits == 4 && t.wire.even() {
				keys++
			}
		}
	}
	all := func(n int, is func(trace) bool) bool {
		return len(frames) >= n && !slices.ContainsFunc(frames[:n], func(t trace) bool { return !is(t) })
	}
	some := func(is func(trace) bool) bool {
		n := 0
		for _, t := range frames[:min(lookBack, len(frames))] {
			if is(t) {
				n++
			}
		}
		return n >= enough
	}
	refused := func(why string) func(trace) bool { return func(t trace) bool { return t.refused == why } }
	switch {
	case all(inARow, func(t trace) bool { return t.wire.zeros == t.bits }):
		return "nothing comes over D1: check that wire and its terminals"
	case all(inARow, func(t trace) bool { return t.wire.zeros == 0 }):
		return "nothing comes over D0: check that wire and its terminals"
	case all(inARow, func(t trace) bool { return t.wire.swapped }):
		return "D0 and D1 are swapped: exchange the two wires"
	case some(func(t trace) bool { return t.wire.both > 0 }):
		return "pulses come on both lines at once: the reader's 0 V is probably not joined to the controller's, or the two lines touch"
	case some(func(t trace) bool { return t.wire.doubles > 0 }):
		return "pulses come twice: the cable is probably too long or of the wrong kind, and rings; at most 150 m, shielded"
	case some(refused(RefusedLost)):
		return "the controller does not keep up with the reader: it is overloaded, or noise floods the lines"
	case all(inARow, func(t trace) bool {
		return t.refused == RefusedLength && t.wire.even() && t.bits == frames[0].bits
	}):
		return fmt.Sprintf("frames of %d bits come, and no format of this reader has that length: add the cards' format", frames[0].bits)
	case some(func(t trace) bool {
		return t.wire.holes > 0 || t.refused == RefusedLength && t.bits < longest
	}):
		return "bits are missing: the pulses are too weak; check the level shifter (5 V to 3.3 V), the reader's supply and the terminals"
	case all(inARow, refused(RefusedChecks)):
		return "no frame passes a format's checks: the cards probably have another format of the same length"
	case keys >= enough:
		return `single keys of 4 bits come: the reader has a keypad; say keypad = "4-bit"`
	case ghosts >= noisy:
		return "pulses come while nobody is there: interference; keep the cable away from mains and motors, ground its shield at one end, put a diode across the strike"
	case all(strange, func(t trace) bool { return t.foreign }):
		return "all frames come in another timing than was learned: the reader was exchanged, or something sends in its place; look at the wires, then let it be learned anew"
	}
	return ""
}

// even reports whether nothing is wrong with the edges' distances.
func (w wire) even() bool { return w.both == 0 && w.doubles == 0 && w.holes == 0 }
