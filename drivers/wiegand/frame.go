package wiegand

import (
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// Why a frame is refused: [badge.Read.Refused], and the keys of
// [badge.Health.Refused].
const (
	RefusedLost    = "edges were lost"             // their sequence numbers are missing
	RefusedAtOnce  = "both lines at once"          // no reader pulls both
	RefusedSpacing = "uneven spacing"              // or out of the bounds of all readers
	RefusedRest    = "too close to a broken frame" // it may be that one's rest
	RefusedLength  = "no format has this length"
	RefusedChecks  = "parity"                       // or another check of every format of this length
	RefusedTiming  = "not the timing of its reader" // only if the configuration says so
)

// A frame's spacings lie within these parts of their median: a missing bit
// doubles one, and a pulse too many leaves one short on either side.
const (
	unevenLeast = 0.5
	unevenMost  = 1.75
)

// frame is a burst that has been judged.
type frame struct {
	bits    int
	at      time.Duration // of its last edge
	card    badge.Frame   // unless refused
	refused string        // why; empty: it is good
	keypad  bool
	ghost   bool // noise: too short for a frame, or after one
	tail    bool // the noise came right after a frame

	pace pace
	wire wire
}

// pace is how a frame's bits came.
type pace struct {
	spacing time.Duration // the median; 0: there are no two bits
	spread  time.Duration // the middle half of the spacings lies within it
}

// wire is what a burst says of the wires.
type wire struct {
	zeros   int
	doubles int  // edges right after one of the same line
	both    int  // edges right after one of the other line
	holes   int  // spacings in which bits are missing
	swapped bool // with D0 and D1 exchanged it fits a format, and does not as it is
	hist    histogram
}

// judge says what the burst is; lost: an edge is missing right after it.
func (d *decoder) judge(lost bool) frame {
	n := len(d.burst)
	f := frame{bits: n, at: d.newest}
	f.pace.spacing = d.median() // sorts d.spacing
	if k := len(d.spacing); k > 0 {
		f.pace.spread = d.spacing[k*3/4] - d.spacing[k/4]
	}
	even := d.measure(&f)
	key := d.rules.isKey(n)
	f.keypad, f.ghost = key, n < minFrame && !key

	switch {
	case f.ghost:
	case d.lost() || lost:
		f.refused = RefusedLost
	case f.wire.both > 0:
		f.refused = RefusedAtOnce
	case !even:
		f.refused = RefusedSpacing
	case d.quiet < d.silenceBefore(f.pace.spacing, key):
		f.refused = RefusedRest
	}
	if n > badge.MaxBits {
		f.refused = RefusedLength
		return f
	}
	if !f.ghost {
		d.read(&f)
	}
	return f
}

// silenceBefore is what must stand before the burst.
func (d *decoder) silenceBefore(spacing time.Duration, key bool) time.Duration {
	silence := d.rules.silence()
	if d.trusted || key {
		return silence
	}
	return max(silence, min(restBits*spacing, restMost))
}

// measure looks at the edges' distances, and reports whether they are even.
func (d *decoder) measure(f *frame) (even bool) {
	spacing := f.pace.spacing
	least := time.Duration(unevenLeast * float64(spacing))
	most := time.Duration(unevenMost * float64(spacing))
	even = spacing >= minSpacing && spacing <= maxSpacing
	for i, e := range d.burst {
		if e.Line == 0 {
			f.wire.zeros++
		}
		if i == 0 {
			continue
		}
		gap := e.At - d.burst[i-1].At
		f.wire.hist.add(gap)
		switch {
		case gap >= atOnce:
		case e.Line == d.burst[i-1].Line:
			f.wire.doubles++
		default:
			f.wire.both++
		}
		if gap > most {
			f.wire.holes++
		}
		even = even && gap >= least && gap <= most
	}
	return even
}

// read holds the bits against the formats.
func (d *decoder) read(f *frame) {
	text := make([]byte, len(d.burst))
	for i, e := range d.burst {
		text[i] = '0' + e.Line&1
	}
	card, err := badge.ParseFrame(string(text))
	if err != nil {
		f.refused = RefusedLength
		return
	}
	why := RefusedLength
	switch {
	case f.keypad || len(d.rules.formats) == 0:
		why = ""
	case d.rules.isPIN(card):
		why, f.keypad = "", true
	default:
		for _, format := range d.rules.formats {
			if format.Bits() != card.Len() {
				continue
			}
			if _, err := format.Decode(card); err == nil {
				why = ""
				break
			}
			why = RefusedChecks
		}
	}
	f.wire.swapped = why == RefusedChecks && d.rules.fitsSwapped(text)
	if f.refused == "" {
		f.refused = why
	}
	if f.refused == "" {
		f.card = card
	} else {
		f.keypad = false // it may have been anything
	}
}

// isPIN reports whether a frame is the whole PIN of a 26-bit keypad.
func (r *rules) isPIN(card badge.Frame) bool {
	if r.pin == nil || card.Len() != r.pin.Bits() {
		return false
	}
	c, err := r.pin.Decode(card)
	return err == nil && c.Facility == r.facility
}

// fitsSwapped exchanges 0 and 1 in text and reports whether it then fits a
// format.
func (r *rules) fitsSwapped(text []byte) bool {
	for i := range text {
		text[i] ^= '0' ^ '1'
	}
	swapped, err := badge.ParseFrame(string(text))
	if err != nil {
		return false
	}
	for _, format := range r.formats {
		if _, err := format.Decode(swapped); err == nil {
			return true
		}
	}
	return false
}

// blank is a frame of which nothing is told but its length.
func blank(bits int) badge.Frame {
	f, err := badge.ParseFrame(strings.Repeat("0", min(max(bits, 1), badge.MaxBits)))
	if err != nil {
		panic(err) // zeros are a frame
	}
	return f
}
