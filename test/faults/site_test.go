// Package faults holds the real programs to what they promise while programs,
// brokers and lines between them fail: no strike moves without its durable
// record, and what was recorded arrives, once.
package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	people  = 64  // with a right to every door
	revoked = 900 // the card of one more, who has none any longer
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// enrol makes a controller with some doors, that the people may enter.
func enrol(s *rig.Site, name string, doors int) *rig.Controller {
	s.T.Helper()
	var names []string
	for i := range doors {
		names = append(names, "d"+strconv.Itoa(i))
	}
	c := s.Enrol(name, names...)
	c.Import(policy())
	return c
}

// begin starts a site with one controller.
func begin(s *rig.Site, doors int) *rig.Controller {
	s.T.Helper()
	c := enrol(s, "north-1", doors)
	s.StartCRM()
	c.Start()
	return c
}

func policy() string {
	var b strings.Builder
	person := func(id string, card int, more string) {
		fmt.Fprintf(&b, "[[people]]\nperson = %q\nname = \"Somebody\"\nkind = \"staff\"\nrights = [{ doors = [\"*\"], schedule = \"always\" }]\ncredentials = [{ format = %q, facility = %d, number = %d%s }]\n", id, rig.Format, rig.Facility, card, more)
	}
	for i := range people {
		person(fmt.Sprintf("p-%d", i), i+1, "")
	}
	person("p-revoked", revoked, `, state = "revoked"`)
	return b.String()
}

// cards are those of the people.
func cards(t *testing.T) (frames []badge.Frame) {
	t.Helper()
	for i := range people {
		frames = append(frames, rig.Card(t, uint64(i+1)))
	}
	return frames
}

// crowd sends people through every door of the controller until the function
// that it returns is called: each presents a badge, walks through if the door
// unlocks, and after a moment makes place for the next. At a controller that is not there
// they try again. One in eight has a badge that was revoked.
func crowd(t *testing.T, c *rig.Controller) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	frames, no := cards(t), rig.Card(t, revoked)
	var wg sync.WaitGroup
	for _, d := range c.Doors {
		wg.Go(func() {
			for n := rand.N(people); ctx.Err() == nil; n++ {
				frame := frames[n%people]
				if n%8 == 7 {
					frame = no
				}
				pass(ctx, c, d, frame)
			}
		})
	}
	return sync.OnceFunc(func() { cancel(); wg.Wait() })
}

// pass presents a badge, and walks through if the door unlocks.
func pass(ctx context.Context, c *rig.Controller, d string, frame badge.Frame) {
	const hesitate = 25 * time.Millisecond
	if c.Wires.Swipe(d+"-in", frame) != nil { // nobody there: it was killed
		select {
		case <-ctx.Done():
		case <-time.After(hesitate / 5):
		}
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(hesitate):
		if c.Unlocked(d) { // the daemon was too busy to see the door move, and each grant keeps it unlocked
			_ = walk(c, d)
		}
	case <-c.Opened(d):
		_ = walk(c, d) // an error means that it was killed meanwhile
		select {
		case <-ctx.Done():
		case <-time.After(hesitate):
		}
	}
}

// walk opens a door and lets it fall shut.
func walk(c *rig.Controller, d string) error {
	return errors.Join(c.Wires.Set(d+".contact", true), c.Wires.Set(d+".contact", false))
}

// comesIn waits until somebody more has come in, n times.
func comesIn(t *testing.T, c *rig.Controller, n int) {
	t.Helper()
	before := len(c.Unlocks())
	rig.Eventually(t, "somebody comes in", func() bool { return len(c.Unlocks()) >= before+n })
}

// countersigns waits until the CRM has countersigned something more.
func countersigns(t *testing.T, c *rig.Controller) {
	t.Helper()
	before := c.Acknowledged()
	rig.Eventually(t, "the CRM countersigns", func() bool { return c.Acknowledged() > before })
}

// records waits until the controller's log has at least n.
func records(t *testing.T, c *rig.Controller, n uint64) {
	t.Helper()
	rig.Eventually(t, fmt.Sprintf("%s has %d records", c.Name, n), func() bool {
		s := c.Status()
		return s != nil && s.Records.Size >= n
	})
}

// stop ends the daemon in good order, when nothing is left to be sent, and
// returns its records. What it writes at its end, such as how many more were
// denied of a kind, is sent by the next.
func stop(t *testing.T, c *rig.Controller) (own []rig.Record) {
	t.Helper()
	for range 3 {
		size := c.Settled()
		c.Process.Stop(t)
		if own = c.Own(); uint64(len(own)) == size {
			return own
		}
		c.Start()
	}
	c.Process.Stop(t)
	return c.Own()
}

// nothingLost ends everything in good order and holds the site to what it
// promises: no strike moved without its durable record, the CRM has each
// record once and as it was signed, both logs verify, and every door is
// locked. The fault must be over. It returns the records of each controller.
func nothingLost(t *testing.T, s *rig.Site) map[string][]rig.Record {
	t.Helper()
	all := make(map[string][]rig.Record)
	for _, c := range s.Controllers {
		if c.Process == nil {
			continue
		}
		all[c.Name] = stop(t, c)
		if !c.Locked() {
			t.Errorf("%s: a door is not locked", c.Name)
		}
	}
	s.CRM.Stop(t)
	for _, c := range s.Controllers {
		own := all[c.Name]
		if c.Process == nil {
			continue
		}
		c.Verify()
		once(t, c.Name, own)
		stored := s.Stored(c.Name)
		rig.Begins(t, "the CRM's records of "+c.Name, stored, own)
		if len(stored) != len(own) {
			t.Errorf("%s has %d records, and the CRM %d of it", c.Name, len(own), len(stored))
		}
		for _, u := range rig.Unaccounted(c.Unlocks(), own) {
			t.Errorf("%s: the door %s was unlocked at %v without a record", c.Name, u.Door, u.At)
		}
		t.Logf("%s: %d records, %d unlocks", c.Name, len(own), len(c.Unlocks()))
	}
	return all
}

// once wants records one after the other, readable, and each only once.
func once(t *testing.T, name string, own []rig.Record) {
	t.Helper()
	if len(own) == 0 {
		t.Errorf("%s has no records", name)
	}
	seen := make(map[string]bool)
	for i, r := range own {
		if r.Seq != uint64(i) || r.Invalid != nil || seen[r.JWS] {
			t.Errorf("%s: in place %d is record %d; there twice: %t; %v", name, i, r.Seq, seen[r.JWS], r.Invalid)
		}
		seen[r.JWS] = true
	}
}
