package guest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/guest"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// TestContactsTellWhatPeopleDo moves the door's contact and its exit button,
// and reads what the daemon makes of it.
func TestContactsTellWhatPeopleDo(t *testing.T) {
	t.Parallel()
	c := newController(t, 3, "", typical)
	c.admit()
	m := boot(t, c.hardware(hardware{mode: inOrder}))
	m.synchronised()
	m.startDaemon(c)
	const moment = 100 * time.Millisecond
	var want []visitorlog.Type
	var steps []guest.Step
	does := func(more []guest.Step, types ...visitorlog.Type) {
		steps = append(append(steps, more...), sleep(2*time.Second))
		want = append(want, types...)
	}
	does([]guest.Step{pull(contactLine, true), sleep(moment), pull(contactLine, false)},
		visitorlog.DoorForced, visitorlog.DoorClosed)
	does([]guest.Step{c.swipe(0, 0), await(strikeLine, true, time.Second), pull(contactLine, true), sleep(moment), pull(contactLine, false), await(strikeLine, false, moment)},
		visitorlog.DecisionGranted, visitorlog.PassageEntered)
	does([]guest.Step{c.swipe(0, 1), await(strikeLine, true, time.Second), await(strikeLine, false, 2*time.Second)},
		visitorlog.DecisionGranted, visitorlog.PassageNotEntered)
	does([]guest.Step{c.swipe(0, 2), await(strikeLine, true, time.Second), pull(contactLine, true), sleep(held + time.Second), pull(contactLine, false), await(strikeLine, false, moment)},
		visitorlog.DecisionGranted, visitorlog.PassageEntered, visitorlog.DoorHeld, visitorlog.DoorClosed)
	does([]guest.Step{pull(rexLine, false), sleep(moment), pull(rexLine, true), pull(contactLine, true), sleep(moment), pull(contactLine, false)},
		visitorlog.RequestToExit) // and the opening is not forced

	m.entered(steps)
	var got []visitorlog.Type
	for _, r := range m.records() {
		if r.Data.Door == doorName {
			got = append(got, r.Type)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded:\n%q\nwant:\n%q", got, want)
	}
}
