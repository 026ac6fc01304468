package faults

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// A thousand swipes a second over eight doors, or as many as the machine makes:
// each has its record before the strike moves, or is said to have been lost.
// How long that takes is measured by BenchmarkSwipe.
func TestOverload(t *testing.T) {
	t.Parallel()
	const (
		doors     = 8
		perSecond = 1000
	)
	s := rig.New(t)
	c := enrol(s, "north-1", doors)
	s.StartCRM()
	c.Start()
	frames := cards(t)
	var wg sync.WaitGroup
	for _, d := range c.Doors {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * doors / perSecond)
			defer tick.Stop()
			for n := range overload / doors {
				<-tick.C
				if err := c.Wires.Swipe(d+"-in", frames[n%people]); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-c.Opened(d):
					if err := walk(c, d); err != nil {
						t.Error(err)
					}
				default:
				}
			}
		})
	}
	wg.Wait()
	own := nothingLost(t, s)[c.Name]
	decided, said := 0, ""
	for _, r := range own {
		if r.Data.Decision != "" {
			decided++
		}
		if strings.Contains(r.Data.Detail, "frames were lost") {
			said = r.Data.Detail
		}
	}
	t.Logf("%d swipes, %d decisions recorded", overload, decided)
	// On a machine that is too busy a reader's own queue overflows, as a real
	// one's would. Then a record says so.
	if lost := overload - decided; lost < 0 || lost > 0 && said == "" {
		t.Errorf("%d swipes, and %d decisions are recorded", overload, decided)
	}
}
