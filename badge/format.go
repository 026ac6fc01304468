package badge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	fieldFacility = iota
	fieldNumber
	fieldIssue
	fieldOEM
	fieldCount
)

var fieldNames = [fieldCount]string{"facility", "number", "issue", "oem"}

// fieldLetters stand for the fields in a layout; M is for maker.
const fieldLetters = "FNIM"

type field struct {
	name      string
	list      string // as the Spec says it; empty: the format has no such field
	positions []int  // most significant bit first
	max       uint64
	initial   uint64
	fixed     *uint64
}

type constant struct {
	bit    int
	want   byte
	unused bool
}

type parity struct {
	key  string
	bit  int
	odd  bool
	over []int
	list string
}

// Format is a checked Spec. It is safe for use by several goroutines.
type Format struct {
	spec      Spec
	fields    [fieldCount]field
	constant  []constant
	parity    []parity
	xor       int
	codec     bool
	layout    string
	unchecked []int
}

// Name is the format's name, which is part of what a card is looked up by.
func (f *Format) Name() string { return f.spec.Name }

// Bits is the length of its frames.
func (f *Format) Bits() int { return f.spec.Bits }

// Note says for people whose format it is.
func (f *Format) Note() string { return f.spec.Note }

// Spec is the declaration behind the format.
func (f *Format) Spec() Spec { return f.spec.clone() }

// Protected says whether the format has any check on what was read: parity, an
// XOR group, or a codec's own. Any frame of the right length may pass for one
// of an unprotected format, a misread one too.
func (f *Format) Protected() bool { return len(f.parity) > 0 || f.xor > 0 || f.codec }

// Unchecked is the position list of field bits that no check covers, empty if
// there are none: a misread there goes unnoticed.
func (f *Format) Unchecked() string { return formatPositions(f.unchecked) }

// Layout draws a frame of the format, a letter a bit: F facility, N number, I
// issue, M maker's code (oem), E and O even and odd parity, X check, 0 and 1 fixed, and
// a dot for an unused bit.
func (f *Format) Layout() string { return f.layout }

// Field describes one field of a format.
type Field struct {
	Name      string // facility, number, issue or oem
	Positions string // position list as in the Spec; in words where a codec has the layout
	Max       uint64
	Fixed     bool   // it always has the value Initial
	Initial   uint64 // what [Format.New] puts there
}

// Fields are the fields that the format defines.
func (f *Format) Fields() []Field {
	var fields []Field
	for _, d := range f.fields {
		if d.list != "" {
			fields = append(fields, Field{Name: d.name, Positions: d.list, Max: d.max, Fixed: d.fixed != nil, Initial: d.initial})
		}
	}
	return fields
}

// New is a credential of the format in which nothing is filled in but what the
// format itself says: fixed values and defaults.
func (f *Format) New() Credential {
	return f.credential([fieldCount]uint64{
		f.fields[fieldFacility].initial, f.fields[fieldNumber].initial, f.fields[fieldIssue].initial, f.fields[fieldOEM].initial,
	})
}

func (f *Format) credential(v [fieldCount]uint64) Credential {
	return Credential{Format: f.spec.Name, Facility: v[fieldFacility], Number: v[fieldNumber], Issue: v[fieldIssue], OEM: v[fieldOEM]}
}

// Decode reads a frame. The error is a *DecodeError with all that is wrong.
func (f *Format) Decode(frame Frame) (Credential, error) {
	values, faults := f.decode(frame.bits)
	if faults != nil {
		return Credential{}, &DecodeError{Format: f.spec.Name, Faults: faults}
	}
	return f.credential(values), nil
}

func (f *Format) decode(bits string) (values [fieldCount]uint64, faults []error) {
	if len(bits) != f.spec.Bits {
		return values, []error{&LengthError{Want: f.spec.Bits, Got: len(bits)}}
	}
	if f.codec {
		return decodeFASCN(bits)
	}
	for i := range f.parity {
		p := &f.parity[i]
		if p.value(bits) != bits[p.bit] {
			faults = append(faults, &ParityError{Bit: p.bit, Odd: p.odd, Over: p.list})
		}
	}
	for _, c := range f.constant {
		if bits[c.bit] != c.want {
			faults = append(faults, &BitError{Bit: c.bit, Want: c.want, Unused: c.unused})
		}
	}
	if f.xor > 0 && xorGroups(bits, f.xor) != 0 {
		faults = append(faults, &XORError{From: f.spec.Bits - f.xor, To: f.spec.Bits - 1})
	}
	for i := range f.fields {
		d := &f.fields[i]
		for _, p := range d.positions {
			values[i] = values[i]<<1 | uint64(bits[p]&1)
		}
		if d.fixed != nil && values[i] != *d.fixed {
			faults = append(faults, &ValueError{Field: d.name, Want: *d.fixed})
		}
	}
	return values, faults
}

// value is the parity bit over bits, '0' or '1'. The low bit of those two
// characters is the bit itself.
func (p *parity) value(bits string) byte {
	var sum byte
	if p.odd {
		sum = 1
	}
	for _, i := range p.over {
		sum ^= bits[i] & 1
	}
	return '0' + sum
}

// xorGroups is the exclusive or of all groups of width bits, closing check
// included: 0 in a good frame.
func xorGroups(bits string, width int) uint64 {
	var sum, group uint64
	for i := range len(bits) {
		group = group<<1 | uint64(bits[i]&1)
		if (i+1)%width == 0 {
			sum ^= group
			group = 0
		}
	}
	return sum
}

// Encode writes the frame of a credential. It refuses one of another format,
// and any value that the format cannot hold or does not have; no error text
// holds a value.
func (f *Format) Encode(c Credential) (Frame, error) {
	values := [fieldCount]uint64{c.Facility, c.Number, c.Issue, c.OEM}
	if err := f.checkValues(c.Format, values); err != nil {
		return Frame{}, err
	}
	if f.codec {
		return encodeFASCN(values), nil
	}
	bits := []byte(strings.Repeat("0", f.spec.Bits))
	for i := range f.fields {
		ps := f.fields[i].positions
		for j, p := range ps {
			bits[p] = '0' + byte(values[i]>>(len(ps)-1-j)&1)
		}
	}
	for _, k := range f.constant {
		bits[k.bit] = k.want
	}
	for i := range f.parity {
		p := &f.parity[i]
		bits[p.bit] = p.value(string(bits))
	}
	if f.xor > 0 {
		sum := xorGroups(string(bits), f.xor) // its own group is still 0
		for i := range f.xor {
			bits[len(bits)-1-i] = '0' + byte(sum>>i&1)
		}
	}
	return Frame{string(bits)}, nil
}

func (f *Format) checkValues(format string, values [fieldCount]uint64) error {
	var faults []error
	fault := func(text string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: "+text, append([]any{f.spec.Name}, args...)...))
	}
	if format != f.spec.Name {
		fault("the credential is of format %q", format)
	}
	for i, d := range f.fields {
		switch v := values[i]; {
		case d.list == "" && v != 0:
			fault("the format has no field %s", d.name)
		case v > d.max:
			fault("%s is over %d, the most that it can hold", d.name, d.max)
		case d.fixed != nil && v != *d.fixed:
			fault("%s is always %d in this format", d.name, *d.fixed)
		}
	}
	return errors.Join(faults...)
}

func (f *Format) drawLayout() string {
	l := []byte(strings.Repeat(".", f.spec.Bits))
	for i, d := range f.fields {
		for _, p := range d.positions {
			l[p] = fieldLetters[i]
		}
	}
	for _, c := range f.constant {
		if !c.unused {
			l[c.bit] = c.want
		}
	}
	for _, p := range f.parity {
		l[p.bit] = 'E'
		if p.odd {
			l[p.bit] = 'O'
		}
	}
	for i := range f.xor {
		l[len(l)-1-i] = 'X'
	}
	return string(l)
}

func (f *Format) findUnchecked() []int {
	if f.xor > 0 {
		return nil
	}
	var open []int
	for _, d := range f.fields {
		for _, p := range d.positions {
			if !slices.ContainsFunc(f.parity, func(q parity) bool { return slices.Contains(q.over, p) }) {
				open = append(open, p)
			}
		}
	}
	return open
}
