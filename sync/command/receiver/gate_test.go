package receiver

import (
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"pgregory.net/rapid"
)

func nonce(n int) string { return fmt.Sprintf("%032x", n) }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestACommandIsObeyedOnlyForTheNonceOfThisMoment(t *testing.T) {
	synchronised := func(at time.Time) reading {
		return reading{monotonic: at, wall: at, state: access.ClockSynchronised}
	}
	for name, tt := range map[string]struct {
		change func(*wire.Command)
		now    func(reading) reading
		want   Refusal
	}{
		"in time":                        {nil, nil, ""},
		"just in time":                   {nil, func(reading) reading { return synchronised(noon.Add(NonceFor)) }, ""},
		"late":                           {nil, func(reading) reading { return synchronised(noon.Add(NonceFor + 1)) }, Late},
		"for another controller":         {func(c *wire.Command) { c.Controller = "south-1" }, nil, WrongController},
		"another nonce":                  {func(c *wire.Command) { c.Nonce = nonce(9) }, nil, WrongNonce},
		"a nonce from before":            {func(c *wire.Command) { c.Nonce = nonce(1) }, nil, Replayed},
		"no nonce":                       {func(c *wire.Command) { c.Nonce = "" }, nil, WrongNonce},
		"expired":                        {func(c *wire.Command) { c.Expires = noon.Add(-skew - 1) }, nil, Expired},
		"expired, within the skew":       {func(c *wire.Command) { c.Expires = noon.Add(-skew) }, nil, ""},
		"from the future":                {func(c *wire.Command) { c.Issued = noon.Add(skew + 1) }, nil, Early},
		"from the future, within":        {func(c *wire.Command) { c.Issued = noon.Add(skew) }, nil, ""},
		"expired, by a clock of no date": {func(c *wire.Command) { c.Expires = noon.Add(-time.Hour) }, func(r reading) reading { r.state = access.ClockUnset; return r }, ""},
		"early, by a clock of no date":   {func(c *wire.Command) { c.Issued = noon.Add(time.Hour) }, func(r reading) reading { r.state = access.ClockDrifting; return r }, ""},
		"expired by the CRM's own word": {nil, func(r reading) reading {
			r.state, r.floor = access.ClockUnset, noon.Add(time.Hour)
			return r
		}, Expired},
	} {
		g := gate{controller: "north-1", used: []string{nonce(1)}}
		g.ask(noon, nonce(2))
		c := &wire.Command{Controller: "north-1", Nonce: nonce(2), Issued: noon, Expires: noon.Add(wire.CommandFor)}
		if tt.change != nil {
			tt.change(c)
		}
		now := synchronised(noon)
		if tt.now != nil {
			now = tt.now(now)
		}
		err := g.admit(c, now)
		if got := Refusal(""); err != nil {
			if got, _ = why(err); got != tt.want {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		} else if tt.want != "" {
			t.Errorf("%s: obeyed, want %q", name, tt.want)
		}
		// The nonce of a command that came here is used up, whatever else was wrong.
		if c.Controller == "north-1" && c.Nonce == nonce(2) {
			if got, _ := why(g.admit(c, synchronised(noon))); got != Replayed {
				t.Errorf("%s: the same again: %q, want %q", name, got, Replayed)
			}
		}
	}
}

func TestANewStartKnowsOfNoNonce(t *testing.T) {
	g := gate{controller: "north-1"}
	g.ask(noon, nonce(1))
	g = gate{controller: "north-1"}
	c := &wire.Command{Controller: "north-1", Nonce: nonce(1), Issued: noon, Expires: noon.Add(wire.CommandFor)}
	if got, _ := why(g.admit(c, reading{monotonic: noon})); got != WrongNonce {
		t.Errorf("%q, want %q", got, WrongNonce)
	}
	if g.offered(noon) != "" {
		t.Error("a nonce is offered that nobody asked for")
	}
}

func TestWhoeverAsksAgainDoesNotSpoilACommandOnItsWay(t *testing.T) {
	var g gate
	g.ask(noon, nonce(1))
	g.ask(noon.Add(repeatFor), nonce(2))
	if got := g.offered(noon.Add(repeatFor)); got != nonce(1) {
		t.Errorf("offered %q, want the first", got)
	}
	g.ask(noon.Add(repeatFor+1), nonce(3))
	if got := g.offered(noon.Add(repeatFor + 1)); got != nonce(3) {
		t.Errorf("offered %q, want the third", got)
	}
	if got := g.offered(noon.Add(repeatFor + 1 + NonceFor + 1)); got != "" {
		t.Errorf("offered %q, which is too old", got)
	}
}

// TestANonceLetsNoTwoCommandsThrough plays asks, commands and time in any order.
func TestANonceLetsNoTwoCommandsThrough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gate{controller: "north-1"}
		now, drawn := noon, 0
		given := map[string]time.Time{}
		obeyed := map[string]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			if rapid.Bool().Draw(t, "ask") {
				drawn++
				g.ask(now, nonce(drawn))
				if n := g.offered(now); given[n].IsZero() {
					given[n] = now
				}
				continue
			}
			n := nonce(rapid.IntRange(0, drawn+1).Draw(t, "nonce"))
			c := &wire.Command{Controller: "north-1", Nonce: n, Issued: now, Expires: now.Add(wire.CommandFor)}
			if g.admit(c, reading{monotonic: now, wall: now, state: access.ClockSynchronised}) != nil {
				continue
			}
			if obeyed[n] || given[n].IsZero() || now.Sub(given[n]) > NonceFor {
				t.Fatalf("nonce %s is obeyed at %v: before: %t, given out at %v", n, now, obeyed[n], given[n])
			}
			obeyed[n] = true
		}
	})
}
