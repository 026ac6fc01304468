package guest_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/test/guest"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// TestAJumpOfTheClockDoesNotStopTheDoor boots without an idea of the time, is
// told it, is told it wrong by a day, and right again. Each jump is a record;
// the door goes on, the allowlist does not grow old by it, and the wrong time
// is not held to have passed.
func TestAJumpOfTheClockDoesNotStopTheDoor(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	c := newController(t, 5, "[allowlist]\nstale_after = \"12h\"\nexpired_after = \"18h\"\nexpired_kinds = [\"staff\"]\n", typical)
	c.admit()
	m := boot(t, c.hardware(hardware{mode: inOrder, rtc: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}))
	m.startDaemon(c)
	clock := func(at time.Time) []guest.Step {
		return []guest.Step{{Clock: &guest.Clock{Set: at, Synchronised: true}}, sleep(3 * time.Second)}
	}
	now := time.Now()
	steps := c.enter(0, 0) // with a right that is not bound in time
	for i, ahead := range []time.Duration{0, day, 0} {
		steps = append(append(steps, clock(now.Add(ahead))...), c.enter(0, i+1)...)
	}
	m.entered(steps)
	// What a daemon remembers of the clock it remembers for the next one.
	m.ask(guest.Request{Kill: &guest.Signal{Name: "gatehouse", Signal: int(syscall.SIGTERM)}})
	m.until("the daemon stops", func() bool { return m.ended["gatehouse"] != "" })
	if state := m.ended["gatehouse"]; state != "exit status 0" {
		t.Errorf("gatehouse: %s", state)
	}
	delete(m.ended, "gatehouse")
	m.startDaemon(c)
	m.entered(c.enter(0, 4))

	records := m.records()
	jumps := 0
	for _, r := range records {
		if r.Type == visitorlog.ClockCorrected {
			jumps++
		}
	}
	if jumps != 3 {
		t.Errorf("%d clock corrections are recorded, not 3", jumps)
	}
	for i, r := range grants(records) {
		want := access.ClockSynchronised
		if i == 0 {
			want = access.ClockUnset
		}
		if r.Data.Clock.State != want {
			t.Errorf("entry %d: the clock is %s, not %s", i, r.Data.Clock.State, want)
		}
		if i > 0 && r.Data.Policy.Freshness != access.Fresh {
			t.Errorf("entry %d: the allowlist is %s", i, r.Data.Policy.Freshness)
		}
	}
	if n := len(grants(records)); n != c.cards {
		t.Errorf("%d came in, and %d are recorded", c.cards, n)
	}
	m.verifies()
}
