package badge

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Report is what can be said of a frame whose format nobody knows.
type Report struct {
	Fits   []Credential   // one for each format that fits, in the order of the table
	Misses []*DecodeError // the formats of the frame's length that do not fit, the fewest faults first

	// What to tell the person at the reader, in whole sentences; none holds a
	// digit of the card.
	Hints   []string // causes that the frame itself points to
	Nearest string   // where no format has the frame's length: the nearest that have another
	Advice  string   // where nothing fits and nothing points to a cause: what to do
}

// Identify tries every format on a frame, and where none fits looks for the
// usual causes: lines swapped, bits lost, a reader that sends twice, a keypad.
func (t *Table) Identify(f Frame) Report {
	var r Report
	for _, format := range t.formats {
		if format.Bits() != f.Len() {
			continue
		}
		values, faults := format.decode(f.bits)
		if faults == nil {
			r.Fits = append(r.Fits, format.credential(values))
			continue
		}
		r.Misses = append(r.Misses, &DecodeError{Format: format.Name(), Faults: faults})
	}
	slices.SortStableFunc(r.Misses, func(a, b *DecodeError) int { return len(a.Faults) - len(b.Faults) })
	r.Hints = stuckHints(f)
	if len(r.Fits) > 0 {
		return r
	}
	r.Hints = append(r.Hints, t.missHints(f)...)
	advice := adviceLength
	if len(r.Misses) > 0 {
		advice = adviceChecks
	} else {
		r.Nearest = t.nearest(f.Len())
	}
	if r.Hints == nil {
		r.Advice = advice
	}
	return r
}

const (
	adviceChecks = "If this card fails every time, it has a format of its own: ask its seller for the layout and add it as a [[format]]. If it fails now and then, look at the wiring: a common 0 V, the cable's length, a second reader on the same lines."
	adviceLength = "If the length changes from one presentation to the next, bits are lost or noise is read: look at the common 0 V, the cable, the power at the reader. If it never changes, the card has a format of its own: ask its seller for the layout and add it as a [[format]]."
)

// stuckHints see to a frame of one kind of bit: it fits some formats, but is
// seldom a card.
func stuckHints(f Frame) []string {
	switch {
	case f.Len() == 0:
		return nil
	case !strings.Contains(f.bits, "1"):
		return []string{"Every bit is 0: nothing came over D1. Check that wire and its terminal."}
	case !strings.Contains(f.bits, "0"):
		return []string{"Every bit is 1: nothing came over D0. Check that wire and its terminal."}
	}
	return nil
}

// missHints look for the causes that a frame itself points to.
func (t *Table) missHints(f Frame) []string {
	var hints []string
	if f.Len() == 4 || f.Len() == 8 {
		hints = append(hints, fmt.Sprintf("A frame of %d bits is how a keypad sends one key: this may be no card.", f.Len()))
	}
	for _, change := range []struct {
		frame Frame
		text  string
	}{
		{f.inverted(), "With 0 and 1 exchanged it fits %s: D0 and D1 may be swapped at the terminals."},
		{f.reversed(), "Read from its last bit to its first it fits %s: the reader may send the least significant bit first."},
		{f.inverted().reversed(), "Read backwards with 0 and 1 exchanged it fits %s: D0 and D1 may be swapped, and the order of bits reversed."},
	} {
		if names := t.protectedFits(change.frame); names != nil {
			hints = append(hints, fmt.Sprintf(change.text, orList(names)))
		}
	}
	if half := f.Len() / 2; f.Len()%2 == 0 && f.bits[:half] == f.bits[half:] {
		if names := t.protectedFits(Frame{f.bits[:half]}); names != nil {
			hints = append(hints, fmt.Sprintf("It is one frame of %d bits sent twice, which fits %s: the pause between the two is too short to tell them apart.", half, orList(names)))
		}
	}
	return hints
}

// protectedFits names the formats with a check that a frame fits. One without
// fits anything of its length, and so would say nothing.
func (t *Table) protectedFits(f Frame) []string {
	var names []string
	for _, format := range t.formats {
		if !format.Protected() {
			continue
		}
		if _, faults := format.decode(f.bits); faults == nil {
			names = append(names, format.Name())
		}
	}
	return names
}

// nearest names the formats of the nearest lengths.
func (t *Table) nearest(length int) string {
	byLength := map[int][]string{}
	shorter, longer := 0, MaxBits+1
	for _, f := range t.formats {
		byLength[f.Bits()] = append(byLength[f.Bits()], f.Name())
		if f.Bits() < length {
			shorter = max(shorter, f.Bits())
		} else {
			longer = min(longer, f.Bits())
		}
	}
	var near []string
	if shorter > 0 {
		near = append(near, fmt.Sprintf("%s too long for %s (%d bits)", countBits(length-shorter), orList(byLength[shorter]), shorter))
	}
	if longer <= MaxBits {
		near = append(near, fmt.Sprintf("%s too short for %s (%d bits)", countBits(longer-length), orList(byLength[longer]), longer))
	}
	if near == nil {
		return ""
	}
	return "It is " + strings.Join(near, ", and ") + "."
}

func countBits(n int) string {
	if n == 1 {
		return "1 bit"
	}
	return fmt.Sprintf("%d bits", n)
}

func (f Frame) inverted() Frame {
	b := []byte(f.bits)
	for i := range b {
		b[i] ^= '0' ^ '1'
	}
	return Frame{string(b)}
}

func (f Frame) reversed() Frame {
	b := []byte(f.bits)
	slices.Reverse(b)
	return Frame{string(b)}
}

// locateBits is the shortest run of bits that Locate looks for: shorter ones
// stand in most frames by chance.
const locateBits = 8

// Locate looks for a number, such as the one printed on a card, in a frame:
// most significant bit first, least significant bit first, and with its bytes
// reversed. It returns position lists as a Spec takes them; leading zeros are not
// part of them. A number under 128 is too short to look for.
func Locate(f Frame, number uint64) []string {
	width := bits.Len64(number)
	if width < locateBits {
		return nil
	}
	var found []string
	pattern := fmt.Sprintf("%b", number)
	for _, at := range indexAll(f.bits, pattern) {
		found = append(found, fmt.Sprintf("%d-%d", at, at+width-1))
	}
	for _, at := range indexAll(f.bits, Frame{pattern}.reversed().bits) {
		found = append(found, fmt.Sprintf("%d-%d", at+width-1, at))
	}
	if width <= 8 {
		return found
	}
	// Bytes reversed: the whole bytes, leading zeros too.
	n := (width + 7) / 8
	var swapped strings.Builder
	for i := range n {
		fmt.Fprintf(&swapped, "%08b", byte(number>>(8*i)))
	}
	for _, at := range indexAll(f.bits, swapped.String()) {
		var list []string
		for i := n - 1; i >= 0; i-- {
			list = append(list, fmt.Sprintf("%d-%d", at+8*i, at+8*i+7))
		}
		found = append(found, strings.Join(list, ","))
	}
	return found
}

// indexAll is the positions at which sub begins in s, overlapping ones too.
func indexAll(s, sub string) []int {
	var all []int
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			all = append(all, i)
		}
	}
	return all
}
