package test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const placePolicy = `
[areas.hall]
passback = "hard"
occupancy = 1

[doors.a]
into = "hall"
[doors.b]
into = "hall"

[[people]]
person = "p-1"
kind = "staff"
name = "Ada Lovelace"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 1 }]

[[people]]
person = "p-2"
kind = "staff"
name = "Bob Noyce"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 2 }]
`

// TestWhoIsInStaysInThoughTheProgramIsKilled: an area holds over two doors, and
// over a kill in the middle.
func TestWhoIsInStaysInThoughTheProgramIsKilled(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	c := s.Controller("north-1", filepath.Join(s.Dir, "north-1"), "a", "b")
	c.Broker = ""
	c.Init()
	c.Import(placePolicy)
	c.Start()
	comes := func(door string, card uint64) {
		t.Helper()
		rig.Eventually(t, "the wires are connected", func() bool { return c.Wires.Swipe(door+"-in", rig.Card(t, card)) == nil })
	}
	decided := func(n float64) {
		t.Helper()
		rig.Eventually(t, "it is decided", func() bool { return c.Metric("gatehouse_decisions_total") == n })
	}
	comes("a", 1)
	rig.Eventually(t, "the door opens", func() bool { return len(c.Unlocks()) == 1 })
	for _, open := range []bool{true, false} {
		if err := c.Wires.Set("a.contact", open); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, "the passage is recorded", func() bool { return c.Locked() && c.Metric("gatehouse_records_pending") == 0 })
	c.Process.Kill(t)
	if err := c.Wires.Close(); err != nil {
		t.Fatal(err)
	}
	c.Wires = nil
	c.Start()
	comes("b", 1)
	decided(1)
	comes("a", 2)
	decided(2)
	var got []string
	for _, r := range c.Own() {
		if r.Data.Decision != "" {
			got = append(got, r.Subject+" "+r.Data.Door+" "+r.Data.Reason)
		}
	}
	want := []string{"p-1 a granted", "p-1 b passback", "p-2 a occupancy"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
