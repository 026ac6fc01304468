//go:build long

package figures

import (
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	outage        = 10 * time.Second // of the broker, in which somebody leaves
	stormPatience = 5 * time.Minute
)

// BenchmarkStorm is a broker that comes back after an outage in which somebody has
// left: from its start until every controller is connected, uses a list without the
// leaver, and has the CRM's receipt for having said so. The controllers are
// simulated and share the machine with the CRM and Mosquitto.
func BenchmarkStorm(b *testing.B) {
	for _, n := range []int{200, 1000} {
		b.Run(fmt.Sprintf("%d_controllers", n), func(b *testing.B) { storm(b, n) })
	}
}

func storm(b *testing.B, n int) {
	s := rig.New(b)
	broker := s.Mosquitto()
	s.Policy = "crm"
	const people = 20
	everywhere(b, s, people)
	c := gather(b, s, n)
	s.StartCRM()
	began := time.Now()
	c.run(b)
	c.until(b, stormPatience, "it knows everybody, and the CRM knows that", (*simulated).settled)
	figure(b, "all of them for the first time", map[string]float64{"got-s": time.Since(began).Seconds()})

	before := make(map[*simulated]uint64)
	for _, m := range c.all {
		before[m], _ = m.Newest()
	}
	must(b, broker.Kill())
	_, err := c.registry.Leave(b.Context(), by, "p-1", 0)
	must(b, err)
	time.Sleep(outage) // all have noticed, and wait longer and longer from one attempt to the next
	for _, m := range c.all {
		if m.conn.Connected() {
			b.Fatalf("the broker is gone, and %s is connected", m.name)
		}
	}
	must(b, broker.Restart())
	began = time.Now()
	c.until(b, stormPatience, "it is connected", func(m *simulated) bool { return m.conn.Connected() })
	figure(b, "all are connected after an outage", map[string]float64{"got-s": time.Since(began).Seconds()})
	c.until(b, stormPatience, "it knows of the leaver, and the CRM knows that", func(m *simulated) bool {
		now, _ := m.Newest()
		return now > before[m] && m.settled()
	})
	figure(b, "all know of a leaver after an outage", map[string]float64{"got-s": time.Since(began).Seconds()})
	c.refuses(b, c.all[:50], cardOf(1), cardOf(people))
}
