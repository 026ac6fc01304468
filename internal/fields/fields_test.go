package fields

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestANameIsShortAndPlain(t *testing.T) {
	for s, want := range map[string]bool{
		"p-1": true, "Lab.2_b": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "é": false, "a/b": false, "a@b": false, "a\x00": false,
	} {
		if IsName(s) != want {
			t.Errorf("%q is a name: %t", s, !want)
		}
	}
}

func TestATextIsOneLineThatCanBeShown(t *testing.T) {
	for s, want := range map[string]string{"": "", "Zoë": "", strings.Repeat("x", 9): "is longer than 8 bytes", "a\xff": "is not UTF-8: save files as UTF-8", "a\nb": "has a control character"} {
		if err := CheckText(s, 8); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestANumberIsNotQuoted(t *testing.T) {
	for s, want := range map[string]string{
		"4711": "(a number of 4 digits)", "471": `"471"`, "p-4711": `"p-4711"`, "a\x1b": `"a\x1b"`, strings.Repeat("x", 41): `"` + strings.Repeat("x", 40) + `…"`,
	} {
		if got := Quote(s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestADateAloneIsItsFirstMomentOrTheOneAfterIt(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text string
		end  bool
		want string
	}{
		{"2026-03-01", false, "2026-03-01T00:00:00+01:00"}, {"2026-03-28", true, "2026-03-29T00:00:00+01:00"}, {"2026-03-29", true, "2026-03-30T00:00:00+02:00"},
		{"2026-03-01T08:00", true, "2026-03-01T08:00:00+01:00"}, {"2026-07-01 08:00:05", false, "2026-07-01T08:00:05+02:00"},
		{"2026-03-01T08:00:00Z", true, "2026-03-01T08:00:00Z"},
	} {
		if got, err := ParseMoment(tt.text, zone, tt.end); err != nil || got.Format(time.RFC3339) != tt.want {
			t.Errorf("%q: %v, %v", tt.text, got, err)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-02-30", "08:00", "20260301"} {
		if got, err := ParseMoment(text, zone, false); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestFaultsComeInTheOrderOfTheirLinesAndTheRestIsCounted(t *testing.T) {
	var f Faults
	if err := f.Err(); err != nil {
		t.Errorf("nothing wrong is %v", err)
	}
	f.Add(3, "third")
	f.AddAll(1, "holidays: ", errors.Join(errors.New("first"), errors.New("sec\x1bond")))
	if got, want := f.Err().Error(), "line 1: holidays: first\nline 1: holidays: sec?ond\nline 3: third"; got != want {
		t.Errorf("got %s", got)
	}
	for range 2 * maxFaults {
		f.Add(9, "more")
	}
	if f.Total() != 2*maxFaults+3 || len(f.List) != maxFaults || !strings.HasSuffix(f.Error(), "and 53 more") {
		t.Errorf("%d faults, %d kept", f.Total(), len(f.List))
	}
}

// FuzzParseMoment holds that a moment is read as the same one in each of the ways
// in which it can be written.
func FuzzParseMoment(f *testing.F) {
	f.Add("2026-03-01")
	f.Add("2026-03-01T08:00")
	f.Add("2026-03-01 08:00:05")
	f.Add("2026-03-01T08:00:00+01:00")
	f.Fuzz(func(t *testing.T, text string) {
		at, err := ParseMoment(text, time.UTC, false)
		end, errEnd := ParseMoment(text, time.UTC, true)
		if (err == nil) != (errEnd == nil) || err == nil && !end.Equal(at) && !end.Equal(at.AddDate(0, 0, 1)) {
			t.Fatalf("%q is %v, and %v as an end, %v, %v", text, at, end, err, errEnd)
		}
		if err != nil {
			return
		}
		if back, err := ParseMoment(at.Format(time.RFC3339), time.UTC, true); at.Year() > 0 && (err != nil || !back.Equal(at.Truncate(time.Second))) {
			t.Fatalf("%q reads back as %v, %v", text, back, err)
		}
	})
}
