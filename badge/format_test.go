package badge

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyCredential draws over the whole range of each field of a format.
func anyCredential(t *rapid.T, f *Format) Credential {
	c := f.New()
	for _, d := range f.Fields() {
		if d.Fixed {
			continue
		}
		v := rapid.Uint64Range(0, d.Max).Draw(t, d.Name)
		switch d.Name {
		case "facility":
			c.Facility = v
		case "number":
			c.Number = v
		case "issue":
			c.Issue = v
		case "oem":
			c.OEM = v
		}
	}
	return c
}

func TestWhatIsEncodedDecodesToTheSameOverTheWholeRange(t *testing.T) {
	for _, f := range Builtin().Formats() {
		t.Run(f.Name(), rapid.MakeCheck(func(t *rapid.T) {
			c := anyCredential(t, f)
			frame, err := f.Encode(c)
			if err != nil {
				t.Fatal(err)
			}
			if frame.Len() != f.Bits() {
				t.Fatalf("the frame has %d bits, not %d", frame.Len(), f.Bits())
			}
			got, err := f.Decode(frame)
			if err != nil || got != c {
				t.Fatalf("decoded to %#v, %v", got, err)
			}
		}))
	}
}

func TestAFrameThatDecodesEncodesBackToItself(t *testing.T) {
	for _, f := range Builtin().Formats() {
		t.Run(f.Name(), rapid.MakeCheck(func(t *rapid.T) {
			// Near misses are likelier to decode than frames of pure chance.
			frame, err := f.Encode(anyCredential(t, f))
			if err != nil {
				t.Fatal(err)
			}
			bits := []byte(frame.Bits())
			for _, p := range rapid.SliceOfN(rapid.IntRange(0, f.Bits()-1), 0, 4).Draw(t, "flipped") {
				bits[p] ^= 1
			}
			frame, err = ParseFrame(string(bits))
			if err != nil {
				t.Fatal(err)
			}
			checkRoundTrip(t, f, frame)
		}))
	}
}

func checkRoundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, f *Format, frame Frame) {
	t.Helper()
	c, err := f.Decode(frame)
	if err != nil {
		return
	}
	again, err := f.Encode(c)
	if err != nil {
		t.Fatalf("%s: what decoded does not encode: %v", f.Name(), err)
	}
	if again != frame && !f.Spec().IgnoreUnused {
		t.Fatalf("%s: %s encodes back to %s", f.Name(), frame.Bits(), again.Bits())
	}
	if twice, err := f.Decode(again); err != nil || twice != c {
		t.Fatalf("%s: what was encoded again decodes to another credential: %v", f.Name(), err)
	}
}

func TestOneFlippedBitUnderACheckIsRefused(t *testing.T) {
	for _, f := range Builtin().Formats() {
		if !f.Protected() {
			continue
		}
		t.Run(f.Name(), rapid.MakeCheck(func(t *rapid.T) {
			frame, err := f.Encode(anyCredential(t, f))
			if err != nil {
				t.Fatal(err)
			}
			for p := range f.Bits() {
				if slices.Contains(f.unchecked, p) {
					continue
				}
				bits := []byte(frame.Bits())
				bits[p] ^= 1
				if _, err := f.Decode(Frame{string(bits)}); err == nil {
					t.Fatalf("bit %d of %s was flipped, and the frame still decodes", p, frame.Bits())
				}
			}
		}))
	}
}

func TestFormatsWithoutACheckAreNamedUnprotected(t *testing.T) {
	var got []string
	for _, f := range Builtin().Formats() {
		if !f.Protected() {
			got = append(got, f.Name())
		}
	}
	want := []string{"ind27", "indasc27", "Tecom27", "ind29", "ADT31", "HCP32", "Kantech", "WIE32", "Optus34", "SMP34",
		"P10004", "Casi40", "IR56", "MIFARE32", "MIFARE32R", "MIFARE56", "MIFARE56R", "EM32"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFieldBitsThatNoParityCoversAreNamed(t *testing.T) {
	for name, want := range map[string]string{"H10301": "", "BC40": "0-18", "MIFARE32": "0-31", "P10001": "", "FASCN200": "",
		"HGen37": "5,9,13,17,21,25,29,33"} {
		if got := mustFormat(t, name).Unchecked(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestDecodeSaysAllThatIsWrong(t *testing.T) {
	for _, tt := range []struct{ format, frame, want string }{
		{"H10301", "1011110110001000111010111", "H10301: the frame has 25 bits, not 26"},
		{"H10301", "00111101100010001110101111", "H10301: even parity at bit 0 over bits 1-12 is wrong; odd parity at bit 25 over bits 13-24 is wrong"},
		{"HCP32", "10000000000010001110101110000001", "HCP32: bit 0 is 1, which this format does not use; bit 31 is 1, which this format does not use"},
		{"Kastle", "10000000111101100010001110101110", "Kastle: even parity at bit 0 over bits 1-16 is wrong; bit 1 is not 1, as it always is in this format"},
		{"P10001", "1111000001111011000100011101011101001100", "P10001: the XOR check in bits 32-39 is wrong"},
		{"S12906b", strings.Repeat("0", 36), "S12906b: odd parity at bit 0 over bits 1-2,4-5,7-8,12-13,15-16,18-19,21-22,24-25,27-28,30-31,33-34 is wrong; facility is not 217, as it always is in this format"},
		{"FASCN200", "0" + encodeFASCN([fieldCount]uint64{}).bits[1:], "FASCN200: character 0 (bits 0-4): odd parity is wrong; character 0 (bits 0-4): it is not the start sentinel; character 39 (bits 195-199): the longitudinal check (LRC) is wrong"},
	} {
		frame, err := ParseFrame(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		_, err = mustFormat(t, tt.format).Decode(frame)
		if err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

func TestFASCNRefusesWhatIsNoDecimalDigit(t *testing.T) {
	// Character 1 is A (0101 least significant bit first, odd parity 1); the
	// LRC is corrected by the same A, so that nothing else is wrong.
	bits := []byte(encodeFASCN([fieldCount]uint64{}).bits)
	copy(bits[charBits:], "01011")
	for i, b := range []byte("0101") {
		bits[fascnLRC*charBits+i] ^= b & 1
	}
	_, err := mustFormat(t, "FASCN200").Decode(Frame{string(bits)})
	var wrong *CharacterError
	if !errors.As(err, &wrong) || len(err.(*DecodeError).Faults) != 1 || wrong.Character != 1 {
		t.Errorf("got %v, want character 1 alone refused", err)
	}
}

func TestEncodeRefusesWhatTheFormatCannotHoldAndPrintsNoNumber(t *testing.T) {
	for _, tt := range []struct {
		credential Credential
		want       string
	}{
		{Credential{Format: "H10301", Facility: 256, Number: 71234, Issue: 3},
			"H10301: facility is over 255, the most that it can hold\nH10301: number is over 65535, the most that it can hold\nH10301: the format has no field issue"},
		{Credential{Format: "S12906b", Facility: 77, Number: 71234}, "S12906b: facility is always 217 in this format"},
		{Credential{Format: "FASCN200", Facility: 271234567}, "FASCN200: facility is over 99999999, the most that it can hold"},
	} {
		_, err := mustFormat(t, tt.credential.Format).Encode(tt.credential)
		if err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
	if _, err := mustFormat(t, "H10301").Encode(Credential{Format: "ind26"}); err == nil {
		t.Error("a credential of another format was encoded")
	}
}

func TestNewFillsInWhatTheFormatItselfSays(t *testing.T) {
	for _, want := range []Credential{{Format: "C15001", OEM: 900}, {Format: "S12906b", Facility: 217}, {Format: "H10301"}} {
		if got := mustFormat(t, want.Format).New(); got != want {
			t.Errorf("%s: %d/%d/%d/%d", want.Format, got.Facility, got.Number, got.Issue, got.OEM)
		}
	}
}

func TestNothingPrintsAFrameOrANumber(t *testing.T) {
	f := mustFormat(t, "H10301")
	c := Credential{Format: "H10301", Facility: 123, Number: 4567}
	frame, err := f.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	read := Read{Frame: frame}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "frame", frame, "credential", c, "read", read)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+verb, frame, read.Frame)
	}
	fmt.Fprintf(&b, "%v%+v%#v%s%q%v", c, c, c, c, c, read)
	for _, secret := range []string{frame.Bits(), "4567", "123"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%q is in what was printed: %s", secret, b.String())
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	for _, v := range readVectors(t) {
		f := mustFormat(t, v.credential.Format)
		if n := testing.AllocsPerRun(1, func() {
			if _, err := f.Decode(v.frame); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Fatalf("%s: %v allocations", f.Name(), n)
		}
	}
}

// Every controller's index of cards is made of these bytes: another form would
// lose all cards.
func TestTheCanonicalFormNeverChanges(t *testing.T) {
	c := Credential{Format: "H10301", Facility: 123, Number: 4567, Issue: 1, OEM: 0x0102030405060708}
	want := "H10301\x00" + "\x00\x00\x00\x00\x00\x00\x00\x7b" + "\x00\x00\x00\x00\x00\x00\x11\xd7" +
		"\x00\x00\x00\x00\x00\x00\x00\x01" + "\x01\x02\x03\x04\x05\x06\x07\x08"
	if got := string(c.Canonical()); got != want {
		t.Errorf("got %q", got)
	}
}

func TestLayoutDrawsEachBit(t *testing.T) {
	for name, want := range map[string]string{
		"H10301":  "EFFFFFFFFNNNNNNNNNNNNNNNNO",
		"Kastle":  "E1IIIIIFFFFFFFFNNNNNNNNNNNNNNNNO",
		"P10001":  "1111FFFFFFFFFFFFNNNNNNNNNNNNNNNNXXXXXXXX",
		"ADT31":   ".FFFFNNNNNNNNNNNNNNNNNNNNNNN...",
		"S12906b": "OFFFFFFFFEENNNNNNNNNNNNNNNNNNNNNNNN.",
	} {
		if got := mustFormat(t, name).Layout(); got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
	for _, f := range Builtin().Formats() {
		if len(f.Layout()) != f.Bits() {
			t.Errorf("%s: the layout has %d letters for %d bits", f.Name(), len(f.Layout()), f.Bits())
		}
	}
}

// FuzzFrame holds every format to its word on frames of any kind.
func FuzzFrame(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.frame.Bits())
	}
	for _, row := range readTSV(f, "wiegand_bad_parity.tsv", "format", "bits", "flipped_bit", "frame") {
		f.Add(row[3])
	}
	f.Add("")
	f.Add("012")
	f.Add("00000011")
	f.Add(encodeFASCN([fieldCount]uint64{}).bits)
	table := Builtin()
	f.Fuzz(func(t *testing.T, bits string) {
		frame, err := ParseFrame(bits)
		if err != nil {
			return
		}
		for _, format := range table.Formats() {
			checkRoundTrip(t, format, frame)
		}
		report := table.Identify(frame)
		for _, c := range report.Fits {
			format, ok := table.Format(c.Format)
			if !ok {
				t.Fatalf("%q fits, and is not in the table", c.Format)
			}
			if got, err := format.Decode(frame); err != nil || got != c {
				t.Fatalf("%s is said to fit: %v", c.Format, err)
			}
		}
		if len(report.Fits) == 0 && len(report.Hints) == 0 && report.Advice == "" {
			t.Fatal("nothing fits, and nothing is said about it")
		}
		for _, hint := range append(report.Hints, report.Nearest, report.Advice) {
			if len(bits) > 12 && strings.Contains(hint, bits) {
				t.Fatalf("the frame is in a hint: %s", hint)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"H10301", "C1k48s", "P10001", "FASCN200"} {
		f := mustFormat(b, name)
		frame, err := f.Encode(f.New())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Decode(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	f := mustFormat(b, "H10301")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Encode(Credential{Format: "H10301", Facility: 123, Number: 4567}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdentify tries the whole table.
func BenchmarkIdentify(b *testing.B) {
	table := Builtin()
	frame, err := mustFormat(b, "H10301").Encode(Credential{Format: "H10301", Facility: 123, Number: 4567})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(table.Identify(frame).Fits) == 0 {
			b.Fatal("nothing fits")
		}
	}
}

func TestSpecIsACopy(t *testing.T) {
	f := mustFormat(t, "C15001")
	s := f.Spec()
	s.Default["oem"], s.Parity[0] = 1, "changed"
	if reflect.DeepEqual(f.Spec(), s) {
		t.Error("a change to what Spec returned changed the format")
	}
}
