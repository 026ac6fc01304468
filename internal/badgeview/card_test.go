package badgeview

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// FuzzReadCard holds that a card that is read is written as a frame or
// refused, and that the frame reads back as that card.
func FuzzReadCard(f *testing.F) {
	f.Add(`{"format":"H10301","facility":123,"number":4567}`)
	f.Add(`{"format":"fascn200","bits":200,"facility":1,"number":2,"issue":3,"oem":4}`)
	f.Add(`{"format":"C1k35s","number":-1}`)
	table := badge.Builtin()
	f.Fuzz(func(t *testing.T, line string) {
		format, c, err := ReadCard(table, line)
		if err != nil {
			return
		}
		frame, err := format.Encode(c)
		if err != nil {
			return
		}
		back, err := format.Decode(frame)
		if err != nil || back.Number != c.Number || back.Facility != c.Facility {
			t.Fatalf("%s: the frame reads back as %+v, %v", line, back, err)
		}
	})
}

// FuzzDecode holds that what Decode prints of a frame ReadCard reads, and that
// the frame comes out again.
func FuzzDecode(f *testing.F) {
	f.Add("10111101100010001110101110", "4567")
	f.Add("0x2F623AE/26", "123,4567")
	f.Add("04:A1:B2:C3", "")
	table := badge.Builtin()
	f.Fuzz(func(t *testing.T, text, printed string) {
		var out, errs bytes.Buffer
		d := &Decoder{Stdout: &out, Stderr: &errs, All: table}
		if p, err := ParsePrinted(printed); err == nil {
			d.Printed = p
		}
		if err := d.Decode("frame 1", text); err != nil {
			t.Fatal(err)
		}
		if (out.Len() == 0) != d.Failed() || d.Failed() && errs.Len() == 0 {
			t.Fatalf("%q: failed %v, printed %q, explained %q", text, d.Failed(), out.String(), errs.String())
		}
		frame, err := badge.ParseText(text, 0)
		for line := range strings.Lines(out.String()) {
			format, c, rerr := ReadCard(table, line)
			if err != nil || rerr != nil {
				t.Fatalf("%s: %v, %v", line, err, rerr)
			}
			again, err := format.Encode(c)
			if err != nil || again.Bits() != frame.Bits() && !format.Spec().IgnoreUnused {
				t.Fatalf("%s is the frame %s, and was %s (%v)", line, again.Bits(), frame.Bits(), err)
			}
		}
	})
}

func TestThePrintedNumberIsReadAsItStandsOnCards(t *testing.T) {
	for text, want := range map[string]string{"4567": "4567", " 123 , 4567 ": "123,4567", "0": "0"} {
		p, err := ParsePrinted(text)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(p.number)
		if p.hasFacility {
			got = fmt.Sprintf("%d,%d", p.facility, p.number)
		}
		if got != want {
			t.Errorf("%q is read as %s", text, got)
		}
	}
	for _, text := range []string{"", ",", "1,", ",1", "1,2,3", "-1", "0x10", "18446744073709551616"} {
		if p, err := ParsePrinted(text); err == nil {
			t.Errorf("%q is read as %+v", text, p)
		}
	}
}
