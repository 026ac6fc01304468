package faults

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/door"
)

// A thousand swipes a second over eight doors: each has its record, before the
// strike moves, within a bounded time.
func TestOverload(t *testing.T) {
	const (
		doors     = 8
		perSecond = 1000
	)
	s := newSite(t, "")
	c := s.enrol("north-1", doors, s.inside())
	var mu sync.Mutex
	var latencies []float64 // milliseconds
	c.heard = func(e event) {
		if e.Msg == "decision" && e.Latency != nil {
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, *e.Latency)
		}
	}
	s.startCRM()
	c.start()
	eventually(t, "the wires are connected", func() bool {
		s := c.status()
		return s != nil && len(s.Faults) == 0
	})
	var frames []badge.Frame
	for i := range people {
		frames = append(frames, card(t, i+1))
	}
	var swipes atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(overloadFor)
	for i := range doors {
		d := doorName(i)
		wg.Go(func() {
			tick := time.NewTicker(time.Second * doors / perSecond)
			defer tick.Stop()
			for n := 0; time.Now().Before(end); n++ {
				<-tick.C
				if err := c.wires.Swipe(d+"-in", frames[n%people]); err != nil {
					t.Error(err)
					return
				}
				swipes.Add(1)
				select {
				case <-c.moved[d]: // they walk through, and the door falls shut
					if err := c.wires.Set(d+".contact", true); err != nil {
						t.Error(err)
					}
					if err := c.wires.Set(d+".contact", false); err != nil {
						t.Error(err)
					}
				default:
				}
			}
		})
	}
	wg.Wait()
	records := s.nothingLost()[c.name]
	decided, said := 0, ""
	for _, r := range records {
		if r.Data.Decision != "" {
			decided++
		}
		if strings.Contains(r.Data.Detail, "frames were lost") {
			said = r.Data.Detail
		}
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(latencies)
	at := func(p float64) time.Duration {
		return time.Duration(latencies[int(p*float64(len(latencies)-1))] * float64(time.Millisecond)).Round(10 * time.Microsecond)
	}
	t.Logf("%d swipes in %v, %d decisions recorded; from the last bit to the durable record p50 %v, p99 %v, at most %v",
		swipes.Load(), overloadFor, decided, at(0.5), at(0.99), at(1))
	if want := int(overloadFor.Seconds() * perSecond / 2); int(swipes.Load()) < want {
		t.Errorf("%d swipes are no overload: want %d", swipes.Load(), want)
	}
	// On a machine that is too busy a reader's own queue overflows, as a real
	// one's would. Then a record says so.
	if lost := int(swipes.Load()) - decided; lost < 0 || lost > 0 && said == "" {
		t.Errorf("%d swipes, and %d decisions are recorded", swipes.Load(), decided)
	}
	if at(0.99) > door.Patience {
		t.Errorf("p99 is %v: nobody waits for so long", at(0.99))
	}
}
