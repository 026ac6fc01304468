package figures

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	besides     = 99 // simulated controllers beside a real one
	revocations = 50 // one after the other
	staff       = 200
)

// everywhere gives everybody a card that opens every door.
func everywhere(b *testing.B, s *rig.Site, people int) {
	b.Helper()
	s.Register("groups", "add", "all", "--right", access.EveryDoor+"@"+access.AlwaysName)
	var text strings.Builder
	text.WriteString("person,name,kind,groups,format,facility,number\n")
	for i := 1; i <= people; i++ {
		fmt.Fprintf(&text, "p-%d,Somebody,staff,all,%s,%d,%d\n", i, rig.Format, rig.Facility, i)
	}
	path := filepath.Join(s.Dir, "people.csv")
	rig.Write(b, path, text.String())
	s.Register("registry", "import", path)
}

func cardOf(person int) badge.Credential {
	return badge.Credential{Format: rig.Format, Facility: rig.Facility, Number: uint64(person)}
}

// BenchmarkRevocation is from the registry's commit that somebody has left to the
// refusal at every door: a real controller and simulated ones, each with a list of
// its own, and the real CRM and Mosquitto. At the real door the card is presented
// as soon as its program says that it has a new list; at the others it is the moment
// from which they use that.
func BenchmarkRevocation(b *testing.B) {
	s := rig.New(b)
	s.Mosquitto()
	s.Policy = "crm"
	door := s.Enrol("north-1", "d0")
	changed, refused := make(chan struct{}, 1), make(chan time.Time, 1)
	door.Heard = func(e rig.Event) {
		switch {
		case e.Msg == "allowlist":
			select {
			case changed <- struct{}{}:
			default:
			}
		case e.Msg == "decision" && e.Reason == "revoked":
			refused <- time.Now()
		}
	}
	s.Register("doors", "add", "d0", "--controller", "north-1")
	everywhere(b, s, staff)
	c := gather(b, s, besides)
	s.StartCRM()
	door.Start()
	c.run(b)
	rig.Eventually(b, "the real door knows everybody", func() bool { return door.Metric("gatehouse_allowlist_credentials ") == staff })
	c.until(b, rig.Patience, "it knows everybody, and the CRM knows that", func(m *simulated) bool {
		m.mu.Lock()
		n := len(m.list.rows)
		m.mu.Unlock()
		return n == staff && m.settled()
	})

	var there, all []time.Duration
	for person := 1; person <= revocations; person++ {
		before := make(map[*simulated]uint64)
		for _, m := range c.all {
			before[m], _ = m.Newest()
		}
		select {
		case <-changed: // of before
		default:
		}
		_, err := c.registry.Leave(b.Context(), by, fmt.Sprintf("p-%d", person), 0)
		must(b, err)
		began := time.Now()
		within(b, "the real door has a new list", changed)
		must(b, door.Wires.Swipe("d0-in", rig.Card(b, uint64(person))))
		took := within(b, "the leaver is refused at the real door", refused).Sub(began)
		there, all = append(there, took), append(all, took)
		c.until(b, rig.Patience, "it knows of the leaver, and the CRM knows that", func(m *simulated) bool {
			now, _ := m.Newest()
			return now > before[m] && m.settled()
		})
		for _, m := range c.all {
			m.mu.Lock()
			all = append(all, m.applied[before[m]+1].Sub(began))
			m.mu.Unlock()
		}
		if person == 1 || person == revocations {
			c.refuses(b, c.all, cardOf(person), cardOf(staff))
		}
	}
	for _, p := range []int{50, 99} {
		figure(b, fmt.Sprintf("to refusal at the real door of %d, p%d", besides+1, p), map[string]float64{"got-ms": percentile(there, p) / 1e6, "max-ms": 1000})
		figure(b, fmt.Sprintf("to a new list at all %d doors, p%d", besides+1, p), map[string]float64{"got-ms": percentile(all, p) / 1e6, "max-ms": 1000})
	}
}

// within waits for what must happen.
func within[T any](b *testing.B, what string, c <-chan T) T {
	b.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(rig.Patience):
		b.Fatalf("never: %s", what)
		panic("unreachable")
	}
}
