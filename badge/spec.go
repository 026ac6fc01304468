package badge

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Spec declares a card format. The built-in table is written in these words,
// and so is each [[format]] in a configuration.
//
// A position list names bits from 0, the first on the wire; a field's list
// begins with its most significant bit: "1-8", "9,4,6", or "8-1" for a field
// that is sent least significant bit first.
type Spec struct {
	Name string `toml:"name" json:"name"`                     // letters, digits and ._- ; part of what a card is looked up by: never rename
	Note string `toml:"note,omitempty" json:"note,omitempty"` // for people: whose format it is
	Bits int    `toml:"bits" json:"bits"`                     // 1 to MaxBits

	// The fields, as position lists of at most 64 bits. Number is required.
	Facility string `toml:"facility,omitempty" json:"facility,omitempty"`
	Number   string `toml:"number,omitempty" json:"number,omitempty"`
	Issue    string `toml:"issue,omitempty" json:"issue,omitempty"`
	OEM      string `toml:"oem,omitempty" json:"oem,omitempty"`

	// Bits that are the same in every frame.
	Ones  string `toml:"ones,omitempty" json:"ones,omitempty"`
	Zeros string `toml:"zeros,omitempty" json:"zeros,omitempty"`

	// Parity bits in the order in which they are worked out: "E@0(1-12)" is
	// even parity at bit 0 over bits 1 to 12, "O@25(13-24)" odd parity at 25.
	Parity []string `toml:"parity,omitempty" json:"parity,omitempty"`

	// XOR is the width in bits of a closing check: the last XOR bits are the
	// exclusive or of all groups of as many bits before them. 0: none.
	XOR int `toml:"xor,omitempty" json:"xor,omitempty"`

	// ReverseBytes takes the number's bytes last first, as some readers send
	// a card's serial number.
	ReverseBytes bool `toml:"reverse_bytes,omitempty" json:"reverse_bytes,omitempty"`

	// IgnoreUnused accepts frames in which bits that belong to nothing above
	// are 1. Such a frame does not encode back to itself.
	IgnoreUnused bool `toml:"ignore_unused,omitempty" json:"ignore_unused,omitempty"`

	// Fixed gives fields that have the same value on every card, and Default
	// those that are so unless a card's maker says otherwise; by field name.
	Fixed   map[string]uint64 `toml:"fixed,omitempty" json:"fixed,omitempty"`
	Default map[string]uint64 `toml:"default,omitempty" json:"default,omitempty"`

	// Codec names a layout that these words cannot express, in place of all
	// but Name, Note and Bits. There is one: "fasc-n".
	Codec string `toml:"codec,omitempty" json:"codec,omitempty"`
}

func (s Spec) clone() Spec {
	s.Parity = slices.Clone(s.Parity)
	s.Fixed = maps.Clone(s.Fixed)
	s.Default = maps.Clone(s.Default)
	return s
}

const maxFieldBits = 64

var (
	nameSyntax   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	paritySyntax = regexp.MustCompile(`^([EO])@([0-9]{1,4})\((.*)\)$`)
)

// checker gathers every fault of a Spec while it builds the Format.
type checker struct {
	spec   Spec
	bits   int // the frame's, or MaxBits while that is at fault
	faults []error
	owner  []string // by bit: the word that claims it
}

func (c *checker) fault(key, format string, args ...any) {
	c.faults = append(c.faults, &SpecError{Format: c.spec.Name, Key: key, Err: fmt.Errorf(format, args...)})
}

// NewFormat checks a Spec. The error joins a *SpecError for every fault.
func NewFormat(s Spec) (*Format, error) {
	c := &checker{spec: s.clone(), bits: s.Bits}
	if !nameSyntax.MatchString(s.Name) {
		c.fault("name", "a name has 1 to 32 letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	}
	if s.Bits < 1 || s.Bits > MaxBits {
		c.fault("bits", "%d is not a length: a frame has 1 to %d bits", s.Bits, MaxBits)
		c.bits = MaxBits
	}
	f := &Format{spec: c.spec}
	if s.Codec != "" {
		c.checkCodec(f)
	} else {
		c.checkLayout(f)
	}
	if err := errors.Join(c.faults...); err != nil {
		return nil, err
	}
	return f, nil
}

func (c *checker) checkCodec(f *Format) {
	s := c.spec
	if s.Codec != codecFASCN {
		c.fault("codec", "there is no codec %q: the only one is %q", s.Codec, codecFASCN)
		return
	}
	if s.Bits != fascnBits {
		c.fault("bits", "a %s frame has %d bits, not %d", codecFASCN, fascnBits, s.Bits)
	}
	for _, w := range []struct {
		key string
		set bool
	}{
		{"facility", s.Facility != ""}, {"number", s.Number != ""}, {"issue", s.Issue != ""}, {"oem", s.OEM != ""},
		{"ones", s.Ones != ""}, {"zeros", s.Zeros != ""}, {"parity", s.Parity != nil}, {"xor", s.XOR != 0},
		{"reverse_bytes", s.ReverseBytes}, {"ignore_unused", s.IgnoreUnused}, {"fixed", s.Fixed != nil}, {"default", s.Default != nil},
	} {
		if w.set {
			c.fault(w.key, "it has no meaning beside a codec, which is the whole layout")
		}
	}
	f.codec = true
	f.fields = fascnFields()
	f.layout = fascnLayout()
}

func (c *checker) checkLayout(f *Format) {
	c.owner = make([]string, c.bits)
	s := c.spec
	for i, list := range [fieldCount]string{s.Facility, s.Number, s.Issue, s.OEM} {
		f.fields[i] = c.field(fieldNames[i], list)
	}
	for _, fixed := range []struct {
		key, list string
		want      byte
	}{{"ones", s.Ones, '1'}, {"zeros", s.Zeros, '0'}} {
		for _, p := range c.positions(fixed.key, fixed.list) {
			f.constant = append(f.constant, constant{bit: p, want: fixed.want})
		}
	}
	c.parities(f)
	c.xor(f)
	if s.ReverseBytes {
		c.reverseBytes(&f.fields[fieldNumber])
	}
	c.values(f)
	if !s.IgnoreUnused {
		for p, owner := range c.owner {
			if owner == "" {
				f.constant = append(f.constant, constant{bit: p, want: '0', unused: true})
			}
		}
	}
	if len(c.faults) == 0 {
		f.layout = f.drawLayout()
		f.unchecked = f.findUnchecked()
	}
}

// positions reads the list of a word and claims its bits.
func (c *checker) positions(key, list string) []int {
	if list == "" {
		return nil
	}
	ps, err := parsePositions(list, c.bits)
	if err != nil {
		c.fault(key, "%w", err)
		return nil
	}
	c.claim(key, ps)
	return ps
}

// claim gives bits to a word. Each bit belongs to one word: what two fields
// share could not be encoded.
func (c *checker) claim(key string, positions []int) {
	shared := map[string][]int{}
	for _, p := range positions {
		if c.owner[p] != "" {
			shared[c.owner[p]] = append(shared[c.owner[p]], p)
			continue
		}
		c.owner[p] = key
	}
	for _, other := range slices.Sorted(maps.Keys(shared)) {
		verb := "belong"
		if len(shared[other]) == 1 {
			verb = "belongs"
		}
		c.fault(key, "%s %s to %s already", bitsWord(shared[other]), verb, other)
	}
}

func (c *checker) field(key, list string) field {
	if list == "" {
		if key == fieldNames[fieldNumber] {
			c.fault(key, "it is missing: a card without a number identifies nobody")
		}
		return field{name: key}
	}
	ps := c.positions(key, list)
	if len(ps) > maxFieldBits {
		c.fault(key, "it has %d bits, and a field has at most %d", len(ps), maxFieldBits)
		ps = nil
	}
	return field{name: key, list: list, positions: ps, max: maxValue(len(ps))}
}

func maxValue(bits int) uint64 {
	if bits == 0 {
		return 0
	}
	return math.MaxUint64 >> (maxFieldBits - bits)
}

func (c *checker) parities(f *Format) {
	for i, text := range c.spec.Parity {
		key := fmt.Sprintf("parity[%d]", i)
		m := paritySyntax.FindStringSubmatch(strings.TrimSpace(text))
		if m == nil {
			c.fault(key, `%q is not a parity: write "E@0(1-12)" for even parity at bit 0 over bits 1 to 12, O for odd`, text)
			continue
		}
		bit, err := strconv.Atoi(m[2])
		if err == nil && bit >= c.bits {
			err = fmt.Errorf("its parity bit %d is outside the frame: its bits are 0-%d", bit, c.bits-1)
		}
		if err != nil {
			c.fault(key, "%w", err)
			continue
		}
		over, err := parsePositions(m[3], c.bits)
		if err != nil {
			c.fault(key, "%w", err)
			continue
		}
		if slices.Contains(over, bit) {
			c.fault(key, "its mask covers its own bit %d", bit)
		}
		c.claim(key, []int{bit})
		f.parity = append(f.parity, parity{key: key, bit: bit, odd: m[1] == "O", over: over, list: m[3]})
	}
	// Parities are worked out in turn, so one may cover those before it only.
	for i, p := range f.parity {
		for _, later := range f.parity[i+1:] {
			if slices.Contains(p.over, later.bit) {
				c.fault(p.key, "its mask covers bit %d, which %s sets afterwards: change their order", later.bit, later.key)
			}
		}
	}
}

func (c *checker) xor(f *Format) {
	w := c.spec.XOR
	if w == 0 {
		return
	}
	if w < 2 || w > maxFieldBits || c.bits%w != 0 || c.bits < 2*w {
		c.fault("xor", "the frame's %d bits are not two or more groups of %d", c.bits, w)
		return
	}
	from := c.bits - w
	ps := make([]int, w)
	for i := range ps {
		ps[i] = from + i
	}
	c.claim("xor", ps)
	for _, p := range f.parity {
		if slices.ContainsFunc(p.over, func(bit int) bool { return bit >= from }) {
			c.fault(p.key, "its mask covers bits of the XOR check, which is worked out last")
		}
	}
	f.xor = w
}

func (c *checker) reverseBytes(number *field) {
	n := len(number.positions)
	if n == 0 {
		return // at fault already
	}
	if n%8 != 0 || n < 16 {
		c.fault("reverse_bytes", "the number has %d bits, which are not two or more bytes", n)
		return
	}
	reversed := make([]int, 0, n)
	for i := n - 8; i >= 0; i -= 8 {
		reversed = append(reversed, number.positions[i:i+8]...)
	}
	number.positions = reversed
}

func (c *checker) values(f *Format) {
	for _, v := range []struct {
		key    string
		values map[string]uint64
	}{{"fixed", c.spec.Fixed}, {"default", c.spec.Default}} {
		for _, name := range slices.Sorted(maps.Keys(v.values)) {
			key := v.key + "." + name
			i := slices.Index(fieldNames[:], name)
			switch {
			case i < 0:
				c.fault(key, "there is no such field: the fields are %s", strings.Join(fieldNames[:], ", "))
				continue
			case i == fieldNumber:
				c.fault(key, "a number that is the same on every card identifies nobody")
				continue
			case f.fields[i].list == "":
				c.fault(key, "the format has no field %s", name)
				continue
			case f.fields[i].positions != nil && v.values[name] > f.fields[i].max:
				c.fault(key, "%d does not fit: the field goes up to %d", v.values[name], f.fields[i].max)
				continue
			}
			value := v.values[name]
			if v.key == "fixed" {
				f.fields[i].fixed = &value
				f.fields[i].initial = value
				continue
			}
			if f.fields[i].fixed != nil {
				c.fault(key, "the field has a fixed value already")
				continue
			}
			f.fields[i].initial = value
		}
	}
}

// joinFaults adds a fault to those that NewFormat joined, as one flat list.
func joinFaults(err error, fault *SpecError) error {
	faults := []error{error(fault)}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		faults = append(faults, joined.Unwrap()...)
	}
	return errors.Join(faults...)
}
