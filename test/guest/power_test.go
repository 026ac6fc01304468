package guest_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/test/guest"
)

// TestAPowerCutLosesNoRecordOfAMovement cuts the power while people come in,
// again and again on the same disk. Each movement of the strike is told to
// this machine as it happens, and no cut can take that back: its record has to
// be there. Every third boot has no idea of the time.
func TestAPowerCutLosesNoRecordOfAMovement(t *testing.T) {
	t.Parallel()
	c := newController(t, 200, "", patient)
	c.admit()
	disk := c.newDisk()
	type life struct {
		boot  string
		unset bool
		moved []time.Duration
	}
	var lives []life
	next := 0 // card
	for cut := range cuts {
		h := hardware{mode: free, disk: disk}
		unset := cut%3 == 1
		if unset {
			h.rtc = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // before this program was written
		}
		m := boot(t, c.hardware(h))
		if !unset {
			m.synchronised()
		}
		m.ask(guest.Request{Watch: []int{strikeLine}})
		if cut%4 == 3 { // while the daemon starts
			m.launch(c)
			time.Sleep(rand.N(time.Second))
			m.powerCut()
			continue
		}
		m.startDaemon(c)
		m.mu.Lock()
		if len(m.moved) > 0 {
			t.Errorf("cut %d: the strike moves when the daemon starts", cut)
		}
		m.mu.Unlock()
		var people sync.WaitGroup
		people.Go(func() {
			for err := error(nil); err == nil; { // until the power is cut
				next = (next + 1) % c.cards
				_, err = m.try(guest.Request{Play: c.enter(0, next)}, patience)
			}
		})
		m.until("somebody comes in", func() bool { return len(m.moved) > 0 })
		time.Sleep(rand.N(time.Second))
		m.powerCut()
		people.Wait()

		l := life{boot: m.bootID, unset: unset}
		for _, moved := range m.moved {
			if moved.High {
				l.moved = append(l.moved, moved.At)
			}
		}
		lives = append(lives, l)
	}

	m := boot(t, c.hardware(hardware{mode: free, disk: disk}))
	m.synchronised()
	m.ask(guest.Request{Watch: []int{strikeLine}})
	m.startDaemon(c)
	m.verifies()
	records := m.records()
	granted := grants(records)
	movements := 0
	for _, l := range lives {
		movements += len(l.moved)
		own := 0 // grants of this life
		for _, r := range granted {
			if r.Data.Clock.Boot != l.boot || r.Data.Late {
				continue // a late one accounts for no movement: the disk took too long, and the door stayed locked
			}
			uptime := time.Duration(r.Data.Clock.UptimeMS) * time.Millisecond
			if own < len(l.moved) && uptime > l.moved[own] {
				t.Errorf("boot %s: the strike moved at %v without a record", l.boot, l.moved[own])
			}
			if (r.Data.Clock.State == access.ClockUnset) != l.unset {
				t.Errorf("record %d: its clock is %s; it is unset: %t", r.Data.Sequence, r.Data.Clock.State, l.unset)
			}
			own++
		}
		if own < len(l.moved) {
			t.Errorf("boot %s: the strike moved %d times, and %d grants are recorded", l.boot, len(l.moved), own)
		}
	}
	for _, r := range records {
		if r.Data.Epoch != records[0].Data.Epoch {
			t.Errorf("record %d is of another epoch: a power cut must not damage the log", r.Data.Sequence)
			break
		}
	}
	if len(m.moved) > 0 {
		t.Error("the strike moves when the daemon starts")
	}
	t.Logf("%d power cuts, %d movements of the strike, %d grants recorded", cuts, movements, len(granted))
}
