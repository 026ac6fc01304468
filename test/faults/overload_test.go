package faults

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// A thousand swipes a second over eight doors: each has its record, before the
// strike moves, within a bounded time.
func TestOverload(t *testing.T) {
	const (
		doors     = 8
		perSecond = 1000
	)
	s := rig.New(t)
	c := enrol(s, "north-1", doors)
	var mu sync.Mutex
	var latencies []float64 // milliseconds
	c.Heard = func(e rig.Event) {
		if e.Msg == "decision" && e.Latency != nil {
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, *e.Latency)
		}
	}
	s.StartCRM()
	c.Start()
	frames := cards(t)
	var swipes atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(overloadFor)
	for _, d := range c.Doors {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * doors / perSecond)
			defer tick.Stop()
			for n := 0; time.Now().Before(end); n++ {
				<-tick.C
				if err := c.Wires.Swipe(d+"-in", frames[n%people]); err != nil {
					t.Error(err)
					return
				}
				swipes.Add(1)
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
	mu.Lock()
	defer mu.Unlock()
	late := slices.Sorted(slices.Values(latencies[len(latencies)*2/3:]))
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
	// What waits is bounded, so the last do not wait longer than the first.
	if median := time.Duration(late[len(late)/2] * float64(time.Millisecond)); median > door.Patience {
		t.Errorf("half of the last third waited for more than %v: nobody waits for so long", median)
	}
}
