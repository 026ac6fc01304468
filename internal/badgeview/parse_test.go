package badgeview

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/badge"
)

func TestACardIsReadAsAPersonWritesIt(t *testing.T) {
	table := badge.Builtin()
	for text, want := range map[string]badge.Credential{
		"H10301:123:45678": {Format: "H10301", Facility: 123, Number: 45678},
		"h10301:0:1":       {Format: "H10301", Number: 1},
		"H10302:45678":     {Format: "H10302", Number: 45678},
		`{"format":"H10301","bits":26,"facility":123,"number":45678,"issue":0,"oem":0}`: {Format: "H10301", Facility: 123, Number: 45678},
	} {
		if got, err := ParseCard(table, text); err != nil || got != want {
			t.Errorf("%q: %#v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"": "it is no card", "45678": "it is no card", "X:1:45678": "no format", "H10301:45678": "has a facility", "H10301:1:45678:1:1:1": "5 numbers",
		"H10301:1:-45678": "number 2 is not a whole number", "H10301:456:45678": "the most that it can hold", "H10301:1:4567800": "the most that it can hold",
		`{"format":"H10301","facility":456,"number":45678}`: "the most that it can hold", "{": "not a card",
	} {
		_, err := ParseCard(table, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "4567") {
			t.Errorf("%q: error %v, want %q and no number", text, err, want)
		}
	}
}

func FuzzParseCard(f *testing.F) {
	f.Add("H10301:123:4567")
	f.Add("H10302:4567")
	f.Add(`{"format":"H10301","facility":1,"number":2}`)
	table := badge.Builtin()
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCard(table, text)
		if err != nil {
			return
		}
		again, err := ParseCard(table, fmt.Sprintf("%s:%d:%d:%d:%d", c.Format, c.Facility, c.Number, c.Issue, c.OEM))
		if err != nil || again != c {
			t.Fatalf("%#v reads back as %#v, %v", c, again, err)
		}
	})
}
