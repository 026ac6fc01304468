package badge

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const known = "10111101100010001110101110" // H10301, facility 123, number 4567

func identify(t *testing.T, bits string) Report {
	t.Helper()
	f, err := ParseFrame(bits)
	if err != nil {
		t.Fatal(err)
	}
	return Builtin().Identify(f)
}

func TestIdentifyNamesEveryFormatThatFits(t *testing.T) {
	var names []string
	for _, c := range identify(t, known).Fits {
		names = append(names, c.Format)
	}
	if d := cmp.Diff([]string{"H10301", "ind26", "ZKTeco26"}, names); d != "" {
		t.Error(d)
	}
}

func TestIdentifyFindsTheUsualCauses(t *testing.T) {
	inverted := strings.Map(func(r rune) rune { return '0' + '1' - r }, known)
	reversed := []byte(known)
	slices.Reverse(reversed)
	for _, tt := range []struct{ name, bits, want string }{
		{"lines swapped", inverted, "With 0 and 1 exchanged it fits H10301, ind26 or ZKTeco26: D0 and D1 may be swapped"},
		{"bits backwards", string(reversed), "from its last bit to its first it fits H10301, ind26 or ZKTeco26"},
		{"sent twice", known + known, "one frame of 26 bits sent twice, which fits H10301, ind26 or ZKTeco26"},
		{"a bit lost", known[1:], "It is 1 bit too short for H10301, ind26 or ZKTeco26 (26 bits)"},
		{"only D0", strings.Repeat("0", 26), "nothing came over D1"},
		{"only D1", strings.Repeat("1", 26), "nothing came over D0"},
		{"a keypad", "10010110", "how a keypad sends one key"},
		{"longer than all", strings.Repeat("01", 150), "100 bits too long for FASCN200 (200 bits)"},
		{"a layout of its own", "00111101100010001110101110", "it has a format of its own"},
	} {
		r := identify(t, tt.bits)
		said := strings.Join(append(r.Hints, r.Nearest, r.Advice), "\n")
		if len(r.Fits) > 0 || !strings.Contains(said, tt.want) {
			t.Errorf("%s: %d fit; said:\n%s", tt.name, len(r.Fits), said)
		}
		if len(r.Hints) > 0 && r.Advice != "" {
			t.Errorf("%s: beside a cause there is advice for when there is none", tt.name)
		}
	}
}

func TestIdentifyPutsTheNearestMissFirst(t *testing.T) {
	r := identify(t, "1"+strings.Repeat("0", 31))
	for i := 1; i < len(r.Misses); i++ {
		if len(r.Misses[i-1].Faults) > len(r.Misses[i].Faults) {
			t.Errorf("%s with %d faults stands before %s with %d", r.Misses[i-1].Format, len(r.Misses[i-1].Faults), r.Misses[i].Format, len(r.Misses[i].Faults))
		}
	}
	if len(r.Misses) == 0 {
		t.Error("nothing missed")
	}
}

func TestLocateFindsAPrintedNumber(t *testing.T) {
	for _, tt := range []struct {
		name, frame string
		number      uint64
		want        []string
	}{
		{"as it stands", known, 4567, []string{"12-24"}},
		{"facility and number in one", known, 123<<16 | 4567, []string{"2-24"}},
		{"least significant bit first", "000" + "1110101110001" + "0000", 4567, []string{"15-3"}},
		{"bytes reversed", "0xC3B2A104/32", 0x04A1B2C3, []string{"24-31,16-23,8-15,0-7"}},
		{"too short to say anything", known, 127, nil},
		{"not there", known, 9999, nil},
	} {
		f, err := ParseText(tt.frame, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := Locate(f, tt.number)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
		// What it found reads as that number when it is put in a Spec.
		for _, list := range got {
			format, err := NewFormat(Spec{Name: "x", Bits: f.Len(), Number: list, IgnoreUnused: true})
			if err != nil {
				t.Fatal(err)
			}
			if c, err := format.Decode(f); err != nil || c.Number != tt.number {
				t.Errorf("%s: %q reads as %d, %v", tt.name, list, c.Number, err)
			}
		}
	}
}

func TestFramesAsPeopleWriteThem(t *testing.T) {
	for _, tt := range []struct {
		text string
		bits int
		want string
	}{
		{known, 0, known},
		{known, 26, known},
		{"1 01111011 0001000111010111 0", 0, known},
		{"1_0111-1011:0001.000111010111 0\n", 0, known},
		{"0x2F623AE/26", 0, known},
		{"0X2f623ae/26", 0, known},
		{"0x0002F623AE", 26, known},
		{"2f623ae/26", 0, known},
		{"2F 62 3A E", 26, known},
		{"04:A1:B2:C3", 32, "00000100101000011011001011000011"},
		{"00101101", 32, "00000000000100000001000100000001"}, // hexadecimal: it is not 32 bits long
		{"101/3", 0, "101"},
		{"0x0/4", 0, "0000"},
	} {
		f, err := ParseText(tt.text, tt.bits)
		if err != nil || f.Bits() != tt.want {
			t.Errorf("%q: %s, %v; want %s", tt.text, f.Bits(), err, tt.want)
			continue
		}
		if again, err := ParseText(f.Hex(), 0); err != nil || again != f {
			t.Errorf("%q: its hexadecimal form %s reads as %s, %v", tt.text, f.Hex(), again.Bits(), err)
		}
	}
	for _, tt := range []struct {
		text string
		bits int
		want string
	}{
		{"", 0, "the frame is empty"},
		{"0x/26", 0, "the frame is empty"},
		{"10", 26, "the frame has 2 bits, not 26"},
		{"0x2F623AE", 0, "must say how many bits"},
		{"2F623AE", 0, "must say how many bits"},
		{"0xFFFFFFF/26", 0, "the hexadecimal number has 28 bits, more than 26"},
		{"101z", 0, `'z' at position 3 is no digit of a frame`},
		{"0x12/x", 0, `"x" is not a number of bits from 1 to 1024`},
		{"0x12/0", 0, `"0" is not a number of bits from 1 to 1024`},
		{"0x12/2000", 0, `"2000" is not a number of bits from 1 to 1024`},
		{"0x12", -1, "-1 is not a number of bits"},
		{strings.Repeat("1", MaxBits+1), 0, "more than 1024"},
		{"0x" + strings.Repeat("1", MaxBits) + "/26", 0, "more than 1024"},
	} {
		if f, err := ParseText(tt.text, tt.bits); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q: %d bits, %v; want %s", tt.text, f.Len(), err, tt.want)
		}
	}
}

func FuzzParseText(f *testing.F) {
	f.Add(known, 0)
	f.Add("0x2F623AE/26", 0)
	f.Add("04:A1:B2:C3", 32)
	f.Add("0xFFFFFFFFFFFFFFFFFFFFFFFF/1", 5)
	f.Fuzz(func(t *testing.T, text string, bits int) {
		frame, err := ParseText(text, bits)
		if err != nil {
			return
		}
		if frame.Len() < 1 || frame.Len() > MaxBits || strings.Trim(frame.Bits(), "01") != "" {
			t.Fatalf("%q is not a frame", frame.Bits())
		}
		for _, text := range []string{frame.Bits(), frame.Hex()} {
			if again, err := ParseText(text, frame.Len()); err != nil || again != frame {
				t.Fatalf("it reads as another frame the second time: %v", err)
			}
		}
	})
}
