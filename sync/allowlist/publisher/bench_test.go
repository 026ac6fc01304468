package publisher

import (
	"fmt"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/registry"
)

// BenchmarkRevocation makes the versions of a hundred controllers by which they
// know of a card that was lost, or found again.
func BenchmarkRevocation(b *testing.B) {
	c := newCRM(b)
	const n = 100
	for i := range n {
		d := fmt.Sprintf("d-%d", i)
		c.must(c.Doors.Create(b.Context(), by, registry.Door{Name: d, Controller: fmt.Sprintf("c-%d", i)}))
		c.must(c.Groups.Create(b.Context(), by, registry.Group{Name: d, Rights: []registry.Right{{Door: d, Schedule: access.AlwaysName}}}))
		c.add(i, d)
		c.peppers[fmt.Sprintf("c-%d", i)] = newPepper(b)
	}
	p := c.publisher()
	all := func() (versions int) {
		for i := range n {
			versions += c.make(p, fmt.Sprintf("c-%d", i), Everything).Versions
		}
		return versions
	}
	all()
	for b.Loop() {
		b.StopTimer()
		row, err := c.Credentials.Get(b.Context(), "c-7")
		if err != nil {
			b.Fatal(err)
		}
		state := access.Lost
		if row.Value.State == access.Lost {
			state = access.Active
		}
		c.state(7, state)
		b.StartTimer()
		if made := all(); made != n {
			b.Fatalf("%d versions, want %d: everybody is told of a lost card", made, n)
		}
	}
}
