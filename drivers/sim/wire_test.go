package sim

import (
	"testing"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/google/go-cmp/cmp"
)

var sameFrames = cmp.Comparer(func(a, b badge.Frame) bool { return a.Bits() == b.Bits() })

// FuzzFromSite: whatever a site sends, the parser refuses it or takes it for
// something that comes out the same when it is written and read again.
func FuzzFromSite(f *testing.F) {
	for _, line := range []string{
		`{"site":1}`,
		`{"site":1,"active":["a.contact"],"faults":{"b-in":"cable cut"}}`,
		`{"line":"a-in","frame":"10111101100010001110101110"}`,
		`{"line":"a-in","keys":"4711#"}`,
		`{"line":"a-in","keys":"0*"}`,
		`{"line":"a-in","keys":""}`,
		`{"line":"a.contact","active":false}`,
		`{"line":"b-in","fault":""}`,
		`{"line":"b-in","active":null}`,
		`{"site":null,"line":"x"}`,
		`[]`, `null`, ``,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseSite(line)
		if err != nil {
			return
		}
		again, err := parseSite(m.marshal())
		if err != nil {
			t.Fatalf("%q is written as %q, which is refused: %v", line, m.marshal(), err)
		}
		if diff := cmp.Diff(m, again, sameFrames); diff != "" {
			t.Errorf("%q (-read +read again):\n%s", line, diff)
		}
	})
}

// FuzzFromBus is FuzzFromSite for the other direction.
func FuzzFromBus(f *testing.F) {
	for _, line := range []string{
		`{"welcome":1}`,
		`{"error":"another site is connected"}`,
		`{"line":"a.strike","state":"unlocked","at":"2026-03-01T08:00:00.123456789Z"}`,
		`{"line":"a.lamp","state":"held_warning","at":"2026-03-01T09:00:00+01:00"}`,
		`{"line":"a.lamp","state":"disco","at":"2026-03-01T08:00:00Z"}`,
		`{"welcome":1,"error":"x"}`,
		`{}`, `null`, ``,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseBus(line)
		if err != nil {
			return
		}
		again, err := parseBus(m.marshal())
		if err != nil {
			t.Fatalf("%q is written as %q, which is refused: %v", line, m.marshal(), err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("%q (-read +read again):\n%s", line, diff)
		}
	})
}
