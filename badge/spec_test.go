package badge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func TestASpecNamesEveryFaultAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"nothing said", Spec{}, []string{
			`format "": name: a name has 1 to 32 letters, digits, dots, dashes and underscores, and begins with a letter or digit`,
			`format "": bits: 0 is not a length: a frame has 1 to 1024 bits`,
			`format "": number: it is missing: a card without a number identifies nobody`}},
		{"overlapping fields", Spec{Name: "x", Bits: 26, Facility: "1-12", Number: "9-24", Issue: "24", Ones: "0", Zeros: "0"}, []string{
			`format "x": number: bits 9-12 belong to facility already`,
			`format "x": issue: bit 24 belongs to number already`,
			`format "x": zeros: bit 0 belongs to ones already`}},
		{"positions", Spec{Name: "x", Bits: 26, Facility: "1-26", Number: "9,9", Issue: "2-", OEM: "a", Ones: "-1", Zeros: "3,,4"}, []string{
			`format "x": facility: bit 26 is outside the frame: its bits are 0-25`,
			`format "x": number: bit 9 stands twice in "9,9"`,
			`format "x": issue: "" is not a bit position: write a list such as "1-8" or "9,4,6"`,
			`format "x": oem: "a" is not a bit position: write a list such as "1-8" or "9,4,6"`,
			`format "x": ones: "" is not a bit position: write a list such as "1-8" or "9,4,6"`,
			`format "x": zeros: "" is not a bit position: write a list such as "1-8" or "9,4,6"`}},
		{"a field over 64 bits", Spec{Name: "x", Bits: 100, Number: "1-65"}, []string{
			`format "x": number: it has 65 bits, and a field has at most 64`}},
		{"parities", Spec{Name: "x", Bits: 26, Number: "1-24", Parity: []string{"E@0(1-12)", "O@26(13-24)", "even", "E@25(25)", "O@3(1-2)", "E@99999(1)"}}, []string{
			`format "x": parity[1]: its parity bit 26 is outside the frame: its bits are 0-25`,
			`format "x": parity[2]: "even" is not a parity: write "E@0(1-12)" for even parity at bit 0 over bits 1 to 12, O for odd`,
			`format "x": parity[3]: its mask covers its own bit 25`,
			`format "x": parity[4]: bit 3 belongs to number already`,
			`format "x": parity[5]: "E@99999(1)" is not a parity: write "E@0(1-12)" for even parity at bit 0 over bits 1 to 12, O for odd`,
			`format "x": parity[0]: its mask covers bit 3, which parity[4] sets afterwards: change their order`}},
		{"parities out of order", Spec{Name: "x", Bits: 10, Number: "2-8", Parity: []string{"O@0(1-9)", "E@1(2-8)"}}, []string{
			`format "x": parity[0]: its mask covers bit 1, which parity[1] sets afterwards: change their order`}},
		{"xor", Spec{Name: "x", Bits: 26, Number: "0-24", XOR: 8}, []string{
			`format "x": xor: the frame's 26 bits are not two or more groups of 8`}},
		{"xor over a field and under a parity", Spec{Name: "x", Bits: 16, Number: "1-8", XOR: 8, Parity: []string{"E@0(1-15)"}}, []string{
			`format "x": xor: bit 8 belongs to number already`,
			`format "x": parity[0]: its mask covers bits of the XOR check, which is worked out last`}},
		{"bytes reversed", Spec{Name: "x", Bits: 26, Number: "1-20", ReverseBytes: true}, []string{
			`format "x": reverse_bytes: the number has 20 bits, which are not two or more bytes`}},
		{"values", Spec{Name: "x", Bits: 26, Facility: "1-8", Number: "9-24",
			Fixed: map[string]uint64{"facility": 256, "colour": 1, "issue": 1}, Default: map[string]uint64{"number": 1, "facility": 3}}, []string{
			`format "x": fixed.colour: there is no such field: the fields are facility, number, issue, oem`,
			`format "x": fixed.facility: 256 does not fit: the field goes up to 255`,
			`format "x": fixed.issue: the format has no field issue`,
			`format "x": default.number: a number that is the same on every card identifies nobody`}},
		{"fixed and default", Spec{Name: "x", Bits: 26, Facility: "1-8", Number: "9-24",
			Fixed: map[string]uint64{"facility": 2}, Default: map[string]uint64{"facility": 3}}, []string{
			`format "x": default.facility: the field has a fixed value already`}},
		{"codec", Spec{Name: "x", Bits: 26, Number: "1-24", Parity: []string{"E@0(1)"}, Codec: "fasc-n"}, []string{
			`format "x": bits: a fasc-n frame has 200 bits, not 26`,
			`format "x": number: it has no meaning beside a codec, which is the whole layout`,
			`format "x": parity: it has no meaning beside a codec, which is the whole layout`}},
		{"unknown codec", Spec{Name: "x", Bits: 26, Codec: "magstripe"}, []string{
			`format "x": codec: there is no codec "magstripe": the only one is "fasc-n"`}},
		{"a name taken, and a fault besides", Spec{Name: "h10301", Bits: 26}, []string{
			`format "h10301": name: there is a format "H10301" already`,
			`format "h10301": number: it is missing: a card without a number identifies nobody`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := Builtin()
			err := table.Add(tt.spec)
			if err == nil {
				t.Fatal("it was taken")
			}
			if d := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); d != "" {
				t.Error(d)
			}
			if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != len(tt.want) {
				t.Errorf("%T does not hold one error a fault", err)
			}
			var fault *SpecError
			if !errors.As(err, &fault) || fault.Format != tt.spec.Name || fault.Key == "" {
				t.Errorf("no *SpecError with the format's name and a key: %#v", fault)
			}
			if len(table.Formats()) != len(Builtin().Formats()) {
				t.Error("a format at fault is in the table")
			}
		})
	}
}

func TestAFormatFromAConfigurationUsesTheSameWords(t *testing.T) {
	var doc struct{ Format []Spec }
	meta, err := toml.Decode(`
[[format]]
name = "our-cards"
bits = 40
facility = "8-1"         # least significant bit first
number = "9-24"
oem = "26-27"
ones = "25"
zeros = "28"
parity = ["E@0(1-12)"]
xor = 8
reverse_bytes = true
fixed = { facility = 7 }
default = { oem = 2 }

[[format]]
name = "AWID34"
bits = 34
facility = "1-8"
number = "9-32"
ignore_unused = true

[[format]]
name = "PIV"
bits = 200
codec = "fasc-n"
`, &doc)
	if err != nil {
		t.Fatal(err)
	}
	if left := meta.Undecoded(); len(left) > 0 {
		t.Fatalf("not read: %v", left)
	}
	table := Builtin()
	for _, s := range doc.Format {
		if err := table.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	f, ok := table.Format("our-cards")
	if !ok {
		t.Fatal("our-cards is not in the table")
	}
	c := f.New()
	if c.Facility != 7 || c.OEM != 2 {
		t.Errorf("the fixed and default values are %d and %d", c.Facility, c.OEM)
	}
	c.Number = 0x1234
	frame, err := f.Encode(c)
	// Parity 1 (over three ones of the facility and two of the number); facility
	// 7, number 34 12, the fixed 1, oem 2, the fixed 0, unused bits; the
	// exclusive or of F0, 1A, 09 and 60.
	if want := "1" + "11100000" + "0011010000010010" + "1" + "10" + "0" + "000" + "10000011"; err != nil || frame.Bits() != want {
		t.Errorf("encoded to %s, %v\nwant       %s", frame.Bits(), err, want)
	}
	checkRoundTrip(t, f, frame)
}

func TestIgnoreUnusedTakesFramesWithUnusedBitsSet(t *testing.T) {
	s := Spec{Name: "AWID34", Bits: 34, Facility: "1-8", Number: "9-32"}
	frame, err := ParseText("1 01111011 000000000001000111010111 1", 0)
	if err != nil {
		t.Fatal(err)
	}
	strict, err := NewFormat(s)
	if err != nil {
		t.Fatal(err)
	}
	var bit *BitError
	if _, err := strict.Decode(frame); !errors.As(err, &bit) || !bit.Unused {
		t.Errorf("an unused bit that is 1 was taken: %v", err)
	}
	s.IgnoreUnused = true
	lax, err := NewFormat(s)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := lax.Decode(frame); err != nil || c.Facility != 123 || c.Number != 4567 {
		t.Errorf("got %d/%d, %v", c.Facility, c.Number, err)
	}
	if lax.Protected() {
		t.Error("a format without any check is said to be protected")
	}
}

func TestFindForgivesCaseAndSuggests(t *testing.T) {
	table := Builtin()
	if f, err := table.Find("h10301"); err != nil || f.Name() != "H10301" {
		t.Errorf("h10301: %v", err)
	}
	if _, ok := table.Format("h10301"); ok {
		t.Error("Format found another spelling: names are part of what a card is looked up by")
	}
	for name, want := range map[string]string{
		"H1031":   `there is no format "H1031"; is it H10301?`,
		"26":      `there is no format "26"; is it ind26 or ZKTeco26?`,
		"fascn":   `there is no format "fascn"; is it FASCN200?`,
		"nothing": `there is no format "nothing"`,
		"":        `there is no format ""`,
	} {
		if _, err := table.Find(name); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
}

func TestTablesAreSeparate(t *testing.T) {
	a, b := Builtin(), Builtin()
	if err := a.Add(Spec{Name: "ours", Bits: 8, Number: "0-7"}); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Format("ours"); ok {
		t.Error("a format added to one table is in another")
	}
}

func TestPositionLists(t *testing.T) {
	for list, want := range map[string][]int{
		"1-8": {1, 2, 3, 4, 5, 6, 7, 8}, "9,4,6": {9, 4, 6}, "8-5": {8, 7, 6, 5}, " 0 , 2 - 3 ": {0, 2, 3}, "5-5": {5},
	} {
		if got, err := parsePositions(list, 10); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	if got := formatPositions([]int{9, 4, 6, 5, 0}); got != "0,4-6,9" {
		t.Error(got)
	}
}

// FuzzSpec reads any words for a Spec; one that is taken holds its word.
func FuzzSpec(f *testing.F) {
	for _, s := range builtin {
		var value uint64
		for _, v := range s.Fixed {
			value = v
		}
		f.Add(s.Name, s.Bits, s.Facility, s.Number, s.Issue, s.OEM, s.Ones, s.Zeros, strings.Join(s.Parity, ";"), s.XOR, s.ReverseBytes, s.IgnoreUnused, value, s.Codec, uint64(4567))
	}
	f.Add("x", 2000, "1-9999999999999999999999", "5-1", "1,1", "-", "0", "0", "E@1(2);O@2(1)", 3, true, true, uint64(1), "", uint64(1))
	f.Fuzz(func(t *testing.T, name string, bits int, facility, number, issue, oem, ones, zeros, parities string, xor int, reverse, ignore bool, fixed uint64, codec string, card uint64) {
		s := Spec{Name: name, Bits: bits, Facility: facility, Number: number, Issue: issue, OEM: oem, Ones: ones, Zeros: zeros,
			XOR: xor, ReverseBytes: reverse, IgnoreUnused: ignore, Codec: codec}
		if parities != "" {
			s.Parity = strings.Split(parities, ";")
		}
		if fixed != 0 {
			s.Fixed = map[string]uint64{"facility": fixed}
		}
		format, err := NewFormat(s)
		if err != nil {
			var fault *SpecError
			if !errors.As(err, &fault) {
				t.Fatalf("%T is no *SpecError", err)
			}
			return
		}
		if len(format.Layout()) != bits {
			t.Fatalf("the layout has %d letters for %d bits", len(format.Layout()), bits)
		}
		c := format.New()
		for _, d := range format.Fields() {
			if d.Name == "number" {
				c.Number = min(card, d.Max)
			}
		}
		frame, err := format.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := format.Decode(frame)
		if err != nil || got != c {
			t.Fatalf("decoded to %#v, %v", got, err)
		}
		checkRoundTrip(t, format, frame)
	})
}

func ExampleTable_Add() {
	table := Builtin()
	err := table.Add(Spec{
		Name: "campus", Bits: 32,
		Facility: "1-10", Number: "11-30",
		Parity: []string{"E@0(1-15)", "O@31(16-30)"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	f, _ := table.Format("campus")
	c := f.New()
	c.Facility, c.Number = 5, 1000
	frame, err := f.Encode(c)
	fmt.Println(frame.Bits(), err)
	// Output: 00000000101000000000011111010001 <nil>
}
