package figures

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	leavers = 50
	joiners = 1000
)

// BenchmarkLeaver is from the moment when the registry has it that somebody has
// left to that person's refusal at the door, and from an import to the last new
// credential at the door: the programs with Mosquitto between them.
func BenchmarkLeaver(b *testing.B) {
	s := rig.New(b)
	s.Mosquitto()
	s.Policy = "crm"
	c := s.Enrol("north-1", "d0")
	refused := make(chan time.Time, 1)
	c.Heard = func(e rig.Event) {
		if e.Msg == "decision" && e.Reason == "revoked" {
			refused <- time.Now()
		}
	}
	s.Register("doors", "add", "d0", "--controller", "north-1")
	s.Register("groups", "add", "all", "--right", "d0@always")
	hire := func(first, last int) {
		var text strings.Builder
		text.WriteString("person,name,kind,groups,format,facility,number\n")
		for i := first; i <= last; i++ {
			fmt.Fprintf(&text, "p-%d,Somebody,staff,all,%s,%d,%d\n", i, rig.Format, rig.Facility, i)
		}
		path := filepath.Join(s.Dir, "people.csv")
		rig.Write(b, path, text.String())
		s.Register("registry", "import", path)
	}
	knows := func(credentials int) {
		rig.Eventually(b, fmt.Sprintf("the door knows %d credentials", credentials), func() bool {
			return c.Metric("gatehouse_allowlist_credentials ") == float64(credentials)
		})
	}
	hire(1, leavers)
	s.StartCRM()
	c.Start()
	knows(leavers)

	var took []time.Duration
	for i := range leavers {
		before := c.Metric("gatehouse_allowlist_version ")
		s.Register("people", "remove", fmt.Sprintf("p-%d", i+1), "--wait", "0s")
		began := time.Now() // it was committed just before
		for c.Metric("gatehouse_allowlist_version ") == before {
			time.Sleep(time.Millisecond)
		}
		must(b, c.Wires.Swipe("d0-in", rig.Card(b, uint64(i+1))))
		select {
		case at := <-refused:
			took = append(took, at.Sub(began))
		case <-time.After(rig.Patience):
			b.Fatal("the leaver is not refused")
		}
	}
	for _, p := range []int{50, 99} {
		figure(b, fmt.Sprintf("leaver to refusal at the door, p%d", p), map[string]float64{"got-ms": percentile(took, p) / 1e6, "max-ms": 1000})
	}

	hire(leavers+1, leavers+joiners)
	began := time.Now()
	knows(leavers + joiners)
	figure(b, fmt.Sprintf("%d new credentials to the door", joiners), map[string]float64{"got-ms": float64(time.Since(began).Milliseconds()), "max-ms": 5000})
}
