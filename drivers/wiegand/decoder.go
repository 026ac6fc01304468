package wiegand

import (
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// Times of the wires. The bounds of a bit's spacing are those of the readers
// that were found, 200 µs to 20 ms, with room for a clock that is off.
const (
	minSpacing = 160 * time.Microsecond
	maxSpacing = 22 * time.Millisecond

	atOnce     = 100 * time.Microsecond // edges closer than this are no two bits
	defaultGap = 50 * time.Millisecond
	longestGap = 150 * time.Millisecond // cards are never presented closer to each other than 200 ms
	shortest   = 2 * time.Millisecond   // that the end of a frame is waited for: an interrupt may be late
	endBits    = 3                      // of silence end a frame of the greatest length

	// After something that was refused a frame must be more than its rest:
	// silent before for as long as most cards' frames last.
	restBits = 64
	restMost = 200 * time.Millisecond

	minFrame = 8 // bits; what is shorter is noise, unless it is a key

	// storm is how long a tail may grow before it is told: mains hum has no
	// silence in it, and no card comes through it.
	storm = 64
)

// rules say which frames a reader sends.
type rules struct {
	formats  []*badge.Format // none: everything is taken
	keypad   badge.KeypadEncoding
	facility uint64        // of a 26-bit keypad's PINs
	pin      *badge.Format // that a 26-bit keypad sends
	longest  int           // bits; 0: not known
	gap      time.Duration // as configured; 0: defaultGap, or longer for slow bits
}

func newRules(formats []*badge.Format, d *Device) rules {
	r := rules{formats: formats, keypad: d.Keypad, facility: d.KeypadFacility, gap: d.Gap}
	for _, f := range formats {
		r.longest = max(r.longest, f.Bits())
	}
	if r.keypad == badge.Keypad26Bit {
		r.pin, _ = badge.Builtin().Format("H10301")
		if r.longest > 0 {
			r.longest = max(r.longest, r.pin.Bits())
		}
	}
	return r
}

// silence is what frames are apart, at least.
func (r *rules) silence() time.Duration {
	if r.gap > 0 {
		return r.gap
	}
	return defaultGap
}

// isKey reports whether a frame of so many bits is one key of the keypad.
func (r *rules) isKey(bits int) bool {
	return r.keypad == badge.Keypad4Bit && bits == 4 || r.keypad == badge.Keypad8Bit && bits == 8
}

// decoder makes frames of falling edges. It has no clock and does no I/O:
// edges go in with their times, frames come out. The same edges give the same
// frames, however they are divided among calls.
//
// A burst is what stands between two silences. The frame that it is comes out
// when it has ended; a burst of the greatest length has ended early, and what
// still comes before the silence is its tail.
type decoder struct {
	rules rules

	burst  []edge        // by sequence
	newest time.Duration // the latest At of the burst or its tail
	judged bool          // the burst came out
	tail   int           // edges after that, which were not told yet

	numbered bool   // edges have sequence numbers
	seq      uint32 // the highest so far; the first edge of lines that were opened has 1
	mixed    bool   // two edges of the burst have the same number

	// Of what stood before the burst.
	before  uint32        // its last sequence number
	quiet   time.Duration // since its last edge
	trusted bool          // it was a good card, so that the gap is enough

	end  time.Duration // of the last edge before the silence
	good bool          // that burst was a good card

	spacing []time.Duration // scratch
}

// newDecoder expects edges later than now. The lines may be in the middle of a
// frame: nothing counts before they have been silent for the gap.
func newDecoder(r rules, now time.Duration) *decoder {
	d := &decoder{rules: r}
	d.reset(now, 0)
	return d
}

// reset forgets all edges; the last before those to come had the number seq.
func (d *decoder) reset(now time.Duration, seq uint32) {
	*d = decoder{rules: d.rules, burst: d.burst[:0], spacing: d.spacing[:0], seq: seq, end: now, good: true}
}

// deadline is when advance has something to give, unless an edge comes before.
func (d *decoder) deadline() (time.Duration, bool) {
	switch {
	case len(d.burst) == 0 || d.judged && d.tail == 0:
		return 0, false
	case d.judged:
		return d.newest + d.rules.silence(), true
	}
	return d.newest + d.wait(), true
}

// advance says that no edge will come that is earlier than now.
func (d *decoder) advance(now time.Duration) (frame, bool) { return d.settle(now, false) }

// add takes the next edge in the order in which they are read. It gives the
// frame that this shows to have ended, which lies before the edge.
func (d *decoder) add(e edge) (frame, bool) {
	d.numbered = d.numbered || e.Seq != 0
	late := d.numbered && int32(e.Seq-d.seq) <= 0
	var f frame
	var ok bool
	if !late {
		f, ok = d.settle(e.At, d.numbered && e.Seq != d.seq+1)
	}
	idle := len(d.burst) == 0
	switch {
	case idle:
		d.begin(e)
	case d.judged:
		d.tail++
		d.newest = max(d.newest, e.At)
		if d.tail == storm {
			f, ok = d.giveTail(), true
		}
	case late:
		d.insert(e)
	default:
		d.burst = append(d.burst, e)
		d.newest = max(d.newest, e.At)
	}
	if !late || idle {
		d.seq = e.Seq
	}
	if len(d.burst) > badge.MaxBits && !d.judged { // noise without end
		f, ok = d.give(false), true
	}
	return f, ok
}

func (d *decoder) begin(e edge) {
	d.burst = append(d.burst, e)
	d.newest = e.At
	d.before = d.seq
	d.quiet, d.trusted = e.At-d.end, d.good
}

// insert puts an edge in its place among those that overtook it: each line has
// an interrupt thread of its own.
func (d *decoder) insert(e edge) {
	i := len(d.burst)
	for i > 0 && int32(d.burst[i-1].Seq-e.Seq) > 0 {
		i--
	}
	if i > 0 && d.burst[i-1].Seq == e.Seq {
		d.mixed = true
		return
	}
	d.burst = slices.Insert(d.burst, i, e)
	d.newest = max(d.newest, e.At)
}

// settle gives the burst if it has ended by now; lost: an edge is missing
// between it and now.
func (d *decoder) settle(now time.Duration, lost bool) (f frame, ok bool) {
	silent := now - d.newest
	if len(d.burst) == 0 || silent < shortest {
		return f, false
	}
	if !d.judged {
		if len(d.burst) != d.rules.longest && silent < d.rules.silence() || silent < d.wait() {
			return f, false
		}
		f, ok = d.give(lost), true
	}
	if silent < d.rules.silence() {
		return f, ok
	}
	if d.tail > 0 {
		f, ok = d.giveTail(), true
	}
	d.burst = d.burst[:0]
	d.end, d.judged, d.mixed = d.newest, false, false
	return f, ok
}

// give makes the burst a frame.
func (d *decoder) give(lost bool) frame {
	f := d.judge(lost)
	d.judged = true
	d.good = f.refused == "" && !f.ghost && !f.keypad
	return f
}

// giveTail makes the edges after the burst a frame.
func (d *decoder) giveTail() frame {
	f := frame{bits: d.tail, ghost: true, tail: true, at: d.newest}
	d.tail, d.good = 0, false
	return f
}

// wait is how long the lines must have been silent for the burst to be over.
func (d *decoder) wait() time.Duration {
	silence, n := d.rules.silence(), len(d.burst)
	switch {
	case n == d.rules.longest:
		return min(silence, max(endBits*d.median(), shortest))
	case n < 2 || n > d.rules.longest || d.rules.gap > 0 || d.rules.isKey(n):
		return silence
	}
	// A longer frame with a hole in it is not to be taken for a shorter one.
	rest := time.Duration(d.rules.longest-n+endBits) * d.median()
	return max(silence, min(rest, longestGap))
}

// lost reports whether edges are missing in the burst or right before it.
func (d *decoder) lost() bool {
	if !d.numbered {
		return false
	}
	first, last := d.burst[0].Seq, d.burst[len(d.burst)-1].Seq
	return d.mixed || first != d.before+1 || last-first != uint32(len(d.burst)-1)
}

// median is of the burst's spacings; 0 if it has none.
func (d *decoder) median() time.Duration {
	d.spacing = d.spacing[:0]
	for i := 1; i < len(d.burst); i++ {
		d.spacing = append(d.spacing, d.burst[i].At-d.burst[i-1].At)
	}
	if len(d.spacing) == 0 {
		return 0
	}
	slices.Sort(d.spacing)
	return d.spacing[len(d.spacing)/2]
}
