package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const (
	manifestTopic = "gatehouse/north-1/down/manifest"
	chunkTopic    = "gatehouse/north-1/down/chunk"
)

// governed is a site around a broker that will misbehave, whose CRM says who may
// enter at its one door: the people p-1, p-2 and so on, with cards of these
// numbers.
type governed struct {
	*rig.Site
	door   *rig.Controller
	broker *broker

	card      uint64 // that was presented last
	presented time.Time

	mu        sync.Mutex
	decisions []rig.Event
}

// away is for how long a card has to be away until it is read anew.
const away = 1200 * time.Millisecond

// govern makes such a site; its controller is not started yet.
func govern(t *testing.T, people int) *governed {
	t.Helper()
	b := newBroker(t)
	g := &governed{Site: rig.New(t), broker: b}
	g.Broker, g.Policy = b.url(), "crm"
	g.door = g.Enrol("north-1", "d0")
	g.door.Heard = g.hear
	g.Register("doors", "add", "d0", "--controller", "north-1")
	g.Register("groups", "add", "all", "--right", "d0@always")
	g.hire(1, people)
	g.StartCRM()
	return g
}

func (g *governed) hear(e rig.Event) {
	if e.Msg != "decision" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.decisions = append(g.decisions, e)
}

func (g *governed) decided() []rig.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]rig.Event(nil), g.decisions...)
}

// hire adds people to the registry.
func (g *governed) hire(first, last int) {
	g.T.Helper()
	var b strings.Builder
	b.WriteString("person,name,kind,groups,format,facility,number\n")
	for i := first; i <= last; i++ {
		fmt.Fprintf(&b, "p-%d,Somebody,staff,all,%s,%d,%d\n", i, rig.Format, rig.Facility, i)
	}
	path := filepath.Join(g.Dir, "people.csv")
	rig.Write(g.T, path, b.String())
	g.Register("registry", "import", path)
}

// leave removes somebody, and waits until the door says that it knows.
func (g *governed) leave(person string) {
	g.T.Helper()
	if said := g.Register("people", "remove", person, "--wait", rig.Patience.String()); !strings.Contains(said, "door d0: applied") {
		g.T.Fatalf("of the leaver's doors it is said: %s", said)
	}
}

// present presents a card, if it can be read anew and somebody is there to do so.
func (g *governed) present(card uint64) bool {
	g.T.Helper()
	if card == g.card && time.Since(g.presented) < away {
		return false
	}
	g.card, g.presented = card, time.Now()
	return g.door.Wires.Swipe("d0-in", rig.Card(g.T, card)) == nil
}

// admits presents a card until it opens the door, and walks through.
func (g *governed) admits(card uint64) {
	g.T.Helper()
	before := len(g.door.Unlocks())
	rig.Eventually(g.T, fmt.Sprintf("card %d opens the door", card), func() bool {
		g.present(card)
		return len(g.door.Unlocks()) > before
	})
	if err := walk(g.door, "d0"); err != nil {
		g.T.Fatal(err)
	}
	rig.Eventually(g.T, "the door is locked", g.door.Locked)
}

// refuses presents a card, which must not open the door, and gives the reason.
func (g *governed) refuses(card uint64) (reason string) {
	g.T.Helper()
	before, unlocked := len(g.decided()), len(g.door.Unlocks())
	rig.Eventually(g.T, fmt.Sprintf("card %d is read", card), func() bool { return g.present(card) })
	rig.Eventually(g.T, "there is a decision", func() bool { return len(g.decided()) > before })
	e := g.decided()[before]
	if e.Decision != "denied" || len(g.door.Unlocks()) != unlocked {
		g.T.Errorf("card %d: %+v", card, e)
	}
	return e.Reason
}

// kept is what the broker retains of a topic.
func (b *broker) kept(topic string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.retained[topic]; m != nil {
		return m.Payload
	}
	return nil
}

// What the registry says is so at the door; and a leaver is refused from the moment
// on at which the command has said so.
func TestWhatTheRegistrySaysIsSoAtTheDoor(t *testing.T) {
	t.Parallel()
	g := govern(t, 3)
	g.door.Start()
	g.admits(1)
	g.hire(4, 4)
	g.admits(4)
	g.leave("p-4")
	if reason := g.refuses(4); reason != "revoked" {
		t.Errorf("the leaver is refused because %q", reason)
	}
	g.admits(2)
	nothingLost(t, g.Site)
}

// A broker gives out again what it kept from yesterday: nobody who has left since
// is let in, and that it was tried is on record.
func TestYesterdaysManifestBringsNobodyBack(t *testing.T) {
	t.Parallel()
	g := govern(t, 3)
	g.door.Start()
	g.admits(1)
	yesterday := g.broker.kept(manifestTopic)
	g.leave("p-2")
	g.broker.inject(manifestTopic, yesterday)
	rig.Eventually(t, "it is refused", func() bool { return g.door.Metric("gatehouse_allowlist_refused_total") > 0 })
	if reason := g.refuses(2); reason != "revoked" {
		t.Errorf("the leaver is refused because %q", reason)
	}
	g.admits(1)
	refused := 0
	for _, r := range nothingLost(t, g.Site)["north-1"] {
		if r.Type == "gatehouse.policy.refused" {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no record says that a manifest was refused")
	}
}

// The connection breaks at each part of a list in turn: what came is kept, and the
// list is put in force whole.
func TestAListArrivesWhereverItsWayBreaksOff(t *testing.T) {
	t.Parallel()
	const people = 20_000 // several parts
	g := govern(t, people)
	var parts atomic.Int32
	g.broker.be(func(_, topic string) treatment {
		if topic == chunkTopic {
			if parts.Add(1)%2 == 1 {
				go func() { g.broker.die(); g.broker.revive() }()
				return treatment{acknowledge: true}
			}
		}
		return good
	})
	g.door.Start()
	g.admits(people)
	if n := parts.Load(); n < 6 {
		t.Errorf("parts were sent %d times: nothing is proven", n)
	}
	nothingLost(t, g.Site)
}

// An older list that somebody puts in the place of the one that was in force does
// not let anybody in who has left since, with the CRM or without.
func TestAnOlderListIsNotServed(t *testing.T) {
	t.Parallel()
	g := govern(t, 3)
	g.door.Start()
	g.admits(1)
	stop(t, g.door)
	const list = "allowlist.db"
	older, err := os.ReadFile(filepath.Join(g.door.Data, list))
	if err != nil {
		t.Fatal(err)
	}
	g.door.Start()
	g.admits(1)
	g.leave("p-2")
	stop(t, g.door)
	g.CRM.Stop(t)
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(filepath.Join(g.door.Data, list+suffix))
	}
	rig.Write(t, filepath.Join(g.door.Data, list), string(older))
	g.door.Start()
	g.refuses(2)
	g.StartCRM()
	g.admits(1)
	if reason := g.refuses(2); reason != "revoked" {
		t.Errorf("the leaver is refused because %q", reason)
	}
	nothingLost(t, g.Site)
}
