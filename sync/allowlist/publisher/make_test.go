package publisher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"pgregory.net/rapid"
)

func TestTheFirstVersionIsEverythingThatTheDoorsNeed(t *testing.T) {
	c := staffed(t, 3)
	c.add(4, "store")
	p := c.publisher()
	if m := c.make(p, "north-1", Everything); m.Version != 1 || m.Rows != 3 || m.Pending {
		t.Errorf("made %+v", m)
	}
	got := c.follow(p, c.manifest(p, "north-1"), state{})
	wantState(t, got, c.said(p, "north-1"))
	if _, ok := got.rows[c.cardKey("north-1", 4)]; ok || len(got.rows) != 3 {
		t.Error("north-1 is told of somebody who has no right there")
	}
}

func TestWhatWasNotChangedIsNotPublishedAgain(t *testing.T) {
	c := staffed(t, 2)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	c.add(3, "store") // nothing to north-1
	if m := c.make(p, "north-1", Everything); m.Version != 1 || m.Versions != 0 {
		t.Errorf("made %+v", m)
	}
	c.add(4, "front")
	if m := c.make(p, "north-1", Everything); m.Version != 2 || m.Rows != 1 {
		t.Errorf("made %+v, want a version with one row", m)
	}
}

func TestAGroupsNewRightChangesThePolicyAndNoRow(t *testing.T) {
	c := staffed(t, 5)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	before := c.follow(p, c.manifest(p, "north-1"), state{})
	c.must(c.Groups.Update(t.Context(), by, "front", 0, func(g *registry.Group) error {
		g.Rights = append(g.Rights, registry.Right{Door: "lab", Schedule: access.AlwaysName})
		return nil
	}))
	if m := c.make(p, "north-1", Everything); m.Version != 2 || m.Rows != 0 {
		t.Errorf("made %+v, want a version without rows", m)
	}
	after := c.follow(p, c.manifest(p, "north-1"), before)
	wantState(t, after, c.said(p, "north-1"))
	if after.policy == before.policy {
		t.Error("the policy is as before")
	}
}

// TestEveryPathLeadsToWhatTheRegistrySays changes the registry at random, and
// follows what was published from versions at random.
func TestEveryPathLeadsToWhatTheRegistrySays(t *testing.T) {
	c := staffed(t, 3)
	p := c.publisher()
	people := 3
	history := []state{{}}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 3).Draw(rt, "changes") {
			i := rapid.IntRange(1, people).Draw(rt, "person")
			row, err := c.People.Get(t.Context(), person(i))
			if err != nil {
				rt.Fatal(err)
			}
			here := row.Value.Left.IsZero()
			switch change := rapid.SampledFrom([]string{"add", "groups", "lost", "found", "leave", "group", "door"}).Draw(rt, "change"); {
			case change == "add":
				people++
				c.add(people, rapid.SampledFrom([]string{"front", "lab", "store"}).Draw(rt, "group"))
			case change == "groups" && here:
				c.groups(i, rapid.SampledFrom([][]string{nil, {"front"}, {"lab"}, {"front", "lab"}, {"store"}}).Draw(rt, "groups")...)
			case change == "lost":
				c.state(i, access.Lost)
			case change == "found" && here:
				c.state(i, access.Active)
			case change == "leave" && here:
				c.leave(i)
			case change == "group":
				c.must(c.Groups.Update(t.Context(), by, "lab", 0, func(g *registry.Group) error {
					g.Rights = []registry.Right{{Door: rapid.SampledFrom([]string{"front", "lab", "store"}).Draw(rt, "right"), Schedule: access.AlwaysName}}
					return nil
				}))
			case change == "door":
				c.must(c.Doors.Update(t.Context(), by, "lab", 0, func(d *registry.Door) error {
					d.Controller = rapid.SampledFrom([]string{"north-1", "south-1"}).Draw(rt, "controller")
					return nil
				}))
			}
		}
		c.make(p, "north-1", Everything)
		if rapid.IntRange(0, 4).Draw(rt, "compact") == 0 {
			c.compactNow(p, "north-1")
		}
		got := c.follow(p, c.manifest(p, "north-1"), rapid.SampledFrom(history).Draw(rt, "from"))
		wantState(rt, got, c.said(p, "north-1"))
		history = append(history, got)
	})
}

// compactNow makes a snapshot however few deltas there are.
func (c *crm) compactNow(p *Publisher, controller string) {
	c.t.Helper()
	all, err := current(c.t.Context(), p.store.r, controller)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(all) < 2 {
		return
	}
	if err := p.compactAll(c.t.Context(), controller, all); err != nil {
		c.t.Fatal(err)
	}
}

func TestTwoPublishersAtOnceGiveNoVersionTwice(t *testing.T) {
	c := staffed(t, 1)
	one, other := c.publisher(), c.publisher()
	c.make(one, "north-1", Everything)
	const each = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := 1
	made := make(map[uint64]int)
	for _, p := range []*Publisher{one, other, one, other} {
		wg.Go(func() {
			for range each {
				mu.Lock()
				next++
				c.add(next, "front")
				mu.Unlock()
				if _, err := p.Make(t.Context(), "north-1", Everything, nil); err != nil {
					t.Error(err)
				}
				m := c.manifest(p, "north-1")
				mu.Lock()
				if rows, ok := made[m.Version]; ok && rows != int(m.Count) {
					t.Errorf("version %d was made with %d rows and with %d", m.Version, rows, m.Count)
				}
				made[m.Version] = int(m.Count)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	c.make(one, "north-1", Everything)
	wantState(t, c.follow(other, c.manifest(other, "north-1"), state{}), c.said(one, "north-1"))
	files, err := os.ReadDir(one.blobs())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if is, err := one.store.isBlob(t.Context(), f.Name()); err != nil || !is {
			t.Errorf("the blob %s is nobody's (%v)", f.Name(), err)
		}
	}
}

func TestWhatTakesAwayGoesOutBeforeALargeRest(t *testing.T) {
	c := staffed(t, 2)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	before := c.follow(p, c.manifest(p, "north-1"), state{})
	p.urgentAlone = 200
	for i := range 10 {
		c.add(3+i, "front")
	}
	c.leave(1)
	var versions []*wire.Manifest
	m, err := p.Make(t.Context(), "north-1", Everything, func() { versions = append(versions, c.manifest(p, "north-1")) })
	if err != nil || m.Versions != 2 || len(versions) != 2 {
		t.Fatalf("made %+v, %v", m, err)
	}
	if !versions[0].Urgent || versions[1].Urgent {
		t.Errorf("urgent: %v, %v; want only the first", versions[0].Urgent, versions[1].Urgent)
	}
	first := c.follow(p, versions[0], before)
	if len(first.rows) != 2 || first.rows[c.cardKey("north-1", 1)] == before.rows[c.cardKey("north-1", 1)] {
		t.Errorf("the first has %d rows, or the leaver's as before", len(first.rows))
	}
	wantState(t, c.follow(p, versions[1], first), c.said(p, "north-1"))
}

func TestARightThatAGroupLosesGoesOutBeforeALargeRest(t *testing.T) {
	c := staffed(t, 2)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	before := c.follow(p, c.manifest(p, "north-1"), state{})
	p.urgentAlone = 200
	for i := range 10 {
		c.add(3+i, "front")
	}
	c.must(c.Groups.Update(t.Context(), by, "front", 0, func(g *registry.Group) error { g.Rights[0].Door = "lab"; return nil }))
	var versions []*wire.Manifest
	m, err := p.Make(t.Context(), "north-1", Everything, func() { versions = append(versions, c.manifest(p, "north-1")) })
	if err != nil || m.Versions != 2 || len(versions) != 2 {
		t.Fatalf("made %+v, %v; want the right alone, and then the rest", m, err)
	}
	first := c.follow(p, versions[0], before)
	if !versions[0].Urgent || versions[1].Urgent || len(first.rows) != 2 || first.policy == before.policy {
		t.Errorf("urgent: %v, %v; the first has %d rows", versions[0].Urgent, versions[1].Urgent, len(first.rows))
	}
	wantState(t, c.follow(p, versions[1], first), c.said(p, "north-1"))
}

func TestByCommandVeryManyRevocationsGoOutAtOnceToo(t *testing.T) {
	c := staffed(t, 12)
	p := c.publisher()
	p.mostChanged = 5
	c.make(p, "north-1", Everything)
	before := c.follow(p, c.manifest(p, "north-1"), state{})
	for i := range 10 {
		c.leave(1 + i)
	}
	c.add(13, "front") // waits
	if m := c.make(p, "north-1", Revocations); m.Rows != 10 || !m.Pending {
		t.Fatalf("made %+v, want ten rows, and one that waits", m)
	}
	after := c.follow(p, c.manifest(p, "north-1"), before)
	if key := c.cardKey("north-1", 1); after.rows[key] == before.rows[key] {
		t.Error("a leaver's card is as before")
	}
	if _, ok := after.rows[c.cardKey("north-1", 13)]; ok {
		t.Error("a new person went out without a command")
	}
}

func TestCommandsAlonePublishOnForEver(t *testing.T) {
	c := staffed(t, 1)
	p := c.publisher()
	for i := range wire.MaxDeltas + 3 {
		c.add(2+i, "front")
		c.make(p, "north-1", Everything)
	}
	wantState(t, c.follow(p, c.manifest(p, "north-1"), state{}), c.said(p, "north-1"))
}

func TestByCommandOnlyWhatTakesAwayGoesOutAtOnce(t *testing.T) {
	c := staffed(t, 4)
	p := c.publisher()
	if m := c.make(p, "north-1", Revocations); m.Version != 0 || !m.Pending {
		t.Errorf("before anything was published: %+v", m)
	}
	c.make(p, "north-1", Everything)
	before := c.follow(p, c.manifest(p, "north-1"), state{})

	c.add(5, "front")
	c.groups(2, "front", "lab")
	if m := c.make(p, "north-1", Revocations); m.Versions != 0 || !m.Pending {
		t.Errorf("who gains something: %+v", m)
	}
	c.leave(1)                                                                                                         // a credential
	c.groups(3)                                                                                                        // all rights
	c.must(c.Groups.Update(t.Context(), by, "front", 0, func(g *registry.Group) error { g.Rights = nil; return nil })) // a group's
	c.must(c.Doors.Update(t.Context(), by, "lab", 0, func(d *registry.Door) error { d.TwoPerson = true; return nil })) // waits
	m := c.make(p, "north-1", Revocations)
	if m.Versions != 1 || !m.Pending {
		t.Fatalf("what takes away: %+v", m)
	}
	after := c.follow(p, c.manifest(p, "north-1"), before)
	if _, ok := after.rows[c.cardKey("north-1", 5)]; ok {
		t.Error("a new person went out without a command")
	}
	if _, ok := after.rows[c.cardKey("north-1", 3)]; ok {
		t.Error("who has no right any more is still there")
	}
	if m := c.make(p, "north-1", Revocations); m.Versions != 0 {
		t.Errorf("again: %+v", m)
	}
	if m := c.make(p, "north-1", Everything); m.Pending {
		t.Errorf("by command: %+v", m)
	}
	wantState(t, c.follow(p, c.manifest(p, "north-1"), after), c.said(p, "north-1"))
	wantState(t, c.follow(p, c.manifest(p, "north-1"), before), c.said(p, "north-1"))
}

func TestManyDeltasBecomeASnapshot(t *testing.T) {
	c := staffed(t, 2)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	var old state
	for i := 3; i < 3+mostDeltas+5; i++ {
		c.add(i, "front")
		c.make(p, "north-1", Everything)
		if err := p.compact(t.Context(), "north-1"); err != nil {
			t.Fatal(err)
		}
		m := c.manifest(p, "north-1")
		if len(m.Deltas) > mostDeltas {
			t.Fatalf("version %d has %d deltas", m.Version, len(m.Deltas))
		}
		if m.Version == 40 {
			old = c.follow(p, m, state{})
		}
	}
	m := c.manifest(p, "north-1")
	if m.Snapshot.To == 1 {
		t.Error("the snapshot is the first one still")
	}
	wantState(t, c.follow(p, m, state{}), c.said(p, "north-1"))
	wantState(t, c.follow(p, m, old), c.said(p, "north-1"))

	// What no manifest names any more can be fetched for a while, and then goes.
	files := func() int {
		all, err := os.ReadDir(p.blobs())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if err := p.sweep(t.Context()); err != nil || files() <= 1+len(m.Deltas) {
		t.Errorf("%d files, %v: gone at once", files(), err)
	}
	c.now = c.now.Add(keepSuperseded + time.Second)
	if err := p.sweep(t.Context()); err != nil || files() != 1+len(m.Deltas) {
		t.Errorf("%d files, %v; want those of the manifest, %d", files(), err, 1+len(m.Deltas))
	}
}

func TestWhatIsOfNoUseToAControllerIsMadeAnew(t *testing.T) {
	c := staffed(t, 3)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	m := c.manifest(p, "north-1")

	if err := os.Remove(p.blobPath(m.Snapshot.ID)); err != nil {
		t.Fatal(err)
	}
	if made := c.make(p, "north-1", Everything); made.Version != 2 {
		t.Errorf("a blob was lost: %+v", made)
	}
	wantState(t, c.follow(p, c.manifest(p, "north-1"), state{}), c.said(p, "north-1"))

	c.peppers["north-1"] = newPepper(t)
	if made := c.make(p, "north-1", Everything); made.Version != 3 {
		t.Errorf("another pepper: %+v", made)
	}
	m = c.manifest(p, "north-1")
	if m.Generation != c.peppers["north-1"].Generation() || len(m.Deltas) != 0 {
		t.Errorf("another pepper: generation %s, %d deltas", m.Generation, len(m.Deltas))
	}
	wantState(t, c.follow(p, m, state{}), c.said(p, "north-1"))

	// The CRM was put back to an older state, or somebody imported at the door.
	if err := p.store.report(t.Context(), map[string]report{"north-1": {57, c.now}}); err != nil {
		t.Fatal(err)
	}
	if made := c.make(p, "north-1", Everything); made.Version != 58 {
		t.Errorf("the controller uses version 57: %+v", made)
	}
	wantState(t, c.follow(p, c.manifest(p, "north-1"), state{}), c.said(p, "north-1"))
	if err := p.store.report(t.Context(), map[string]report{"north-1": {wire.MaxSize, c.now}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Make(t.Context(), "north-1", Everything, nil); err == nil {
		t.Error("a version beyond all is exceeded")
	}
}

// A registry that is put back to yesterday's copy counts its lines on from there:
// what a line was says nothing of the line that has its number now.
func TestWhatARegistryThatWasPutBackSaysIsPublishedWhole(t *testing.T) {
	for _, scope := range []Scope{Everything, Revocations} {
		c := staffed(t, 4)
		copied := filepath.Join(c.dir, "copy.db")
		db, err := sql.Open("sqlite3", c.path)
		c.must(nil, err)
		c.must(db.ExecContext(t.Context(), `VACUUM INTO ?`, copied))
		c.must(nil, errors.Join(db.Close(), os.Chmod(copied, 0o600)))
		p := c.publisher()
		for i := range 10 {
			c.groups(2, []string{"front", "lab"}[i%2])
		}
		c.make(p, "north-1", Everything)
		published := c.follow(p, c.manifest(p, "north-1"), state{})
		line, err := c.Changes(t.Context())
		c.must(line, err)

		old := c.Registry
		c.Registry, err = registry.Open(t.Context(), copied, c.registry)
		c.must(nil, errors.Join(err, old.Close()))
		p.o.Registry = c.Registry
		c.leave(1)
		left, err := c.Changes(t.Context())
		c.must(left, err)
		if left >= line {
			t.Fatalf("line %d is not one of those before %d", left, line)
		}
		if a, err := p.Applied(t.Context(), "north-1", left); err != nil || a.Version != 0 {
			t.Errorf("before it is published: %+v, %v", a, err)
		}
		for n := 0; ; n++ { // past what was published before
			c.groups(3, []string{"front", "lab"}[n%2])
			if now, err := c.Changes(t.Context()); err != nil || now > line {
				break
			}
		}
		m := c.make(p, "north-1", scope)
		if a, err := p.Applied(t.Context(), "north-1", left); err != nil || a.Version != m.Version || m.Version < 2 {
			t.Errorf("made %+v; %+v, %v", m, a, err)
		}
		key := c.cardKey("north-1", 1)
		if got := c.follow(p, c.manifest(p, "north-1"), published); got.rows[key] == published.rows[key] {
			t.Error("the leaver's card is as it was before")
		}
		c.make(p, "north-1", Everything)
		wantState(t, c.follow(p, c.manifest(p, "north-1"), published), c.said(p, "north-1"))
	}
}

func TestVeryManyChangesMakeASnapshot(t *testing.T) {
	c := staffed(t, 30)
	p := c.publisher()
	p.mostChanged = 20
	c.make(p, "north-1", Everything)
	first := c.manifest(p, "north-1").Snapshot.ID
	for i := 1; i <= 25; i++ {
		c.groups(i, "front", "lab")
	}
	c.leave(30)
	c.make(p, "north-1", Everything)
	m := c.manifest(p, "north-1")
	if m.Snapshot.ID == first || len(m.Deltas) != 0 {
		t.Errorf("snapshot %s, %d deltas", m.Snapshot.ID, len(m.Deltas))
	}
	wantState(t, c.follow(p, m, state{}), c.said(p, "north-1"))
	lists, err := p.store.orphans(t.Context())
	if err != nil || len(lists) > 0 {
		t.Errorf("lists %v are nobody's (%v)", lists, err)
	}
}

func TestWhenTheLastDoorIsGoneSoIsEverything(t *testing.T) {
	c := staffed(t, 3)
	p := c.publisher()
	if m := c.make(p, "south-1", Everything); m.Version != 1 {
		t.Errorf("a door without anybody: %+v", m)
	}
	c.make(p, "north-1", Everything)
	for _, door := range []string{"front", "lab"} {
		c.must(c.Doors.Update(t.Context(), by, door, 0, func(d *registry.Door) error { d.Controller = "south-1"; return nil }))
	}
	if m := c.make(p, "north-1", Everything); m.Versions != 1 {
		t.Errorf("made %+v", m)
	}
	if got := c.follow(p, c.manifest(p, "north-1"), state{}); len(got.rows) != 0 {
		t.Errorf("%d rows are left", len(got.rows))
	}
	c.make(p, "south-1", Everything)
	wantState(t, c.follow(p, c.manifest(p, "south-1"), state{}), c.said(p, "south-1"))
}

// damaged is a registry in which something is not found that must be there.
type damaged struct{ Registry }

func (damaged) Publish(context.Context, string, uint64, func(*allowlist.Holder) error) (words allowlist.Rules, head uint64, err error) {
	return words, 0, fmt.Errorf("schedule \"office\" is %w", registry.ErrNotFound)
}

func TestADamagedRegistryEmptiesNoDoor(t *testing.T) {
	c := staffed(t, 3)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	p.o.Registry = damaged{p.o.Registry}
	if m, err := p.Make(t.Context(), "north-1", Everything, nil); err == nil || m.Versions != 0 {
		t.Errorf("made %+v, %v", m, err)
	}
	if m := c.manifest(p, "north-1"); m.Count != 3 {
		t.Errorf("%d rows are published", m.Count)
	}
}

func TestNothingIsPublishedWithoutACertifiedKey(t *testing.T) {
	c := staffed(t, 1)
	c.ended = errors.New("the policy key is not certified: run gatehouse-crm policy certify")
	p := c.publisher()
	if _, err := p.Make(t.Context(), "north-1", Everything, nil); !errors.Is(err, c.ended) {
		t.Errorf("%v, want %v", err, c.ended)
	}
	if v, err := readPublished(t.Context(), p.store.r, "north-1"); err != nil || v.version != 0 {
		t.Errorf("version %d, %v", v.version, err)
	}
}

func TestWhatAPublisherLeftUnfinishedIsClearedAway(t *testing.T) {
	c := staffed(t, 2)
	p, err := Open(t.Context(), c.options())
	if err != nil {
		t.Fatal(err)
	}
	c.make(p, "north-1", Everything)
	if _, err := p.store.newList(t.Context(), []sentRow{{person: "p-9"}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.blobPath("half"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	beside := c.publisher() // while somebody is at work nothing is cleared
	if lists, err := beside.store.orphans(t.Context()); err != nil || len(lists) != 1 {
		t.Errorf("lists %v, %v", lists, err)
	}
	if err := errors.Join(p.Close(), beside.lock.Close()); err != nil {
		t.Fatal(err)
	}
	beside.lock = nil
	again := c.publisher()
	if lists, err := again.store.orphans(t.Context()); err != nil || len(lists) != 0 {
		t.Errorf("lists %v, %v", lists, err)
	}
	if _, err := os.Stat(again.blobPath("half")); err == nil {
		t.Error("a half blob is there still")
	}
	wantState(t, c.follow(again, c.manifest(again, "north-1"), state{}), c.said(again, "north-1"))
}

func TestADifferenceSaysWhoGainsAndLosesWhat(t *testing.T) {
	c := staffed(t, 4)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	if d, err := p.Diff(t.Context(), "north-1"); err != nil || !d.Empty() {
		t.Errorf("nothing was changed: %+v, %v", d, err)
	}
	c.leave(1)
	c.groups(2, "front", "lab")
	c.add(5, "front")
	c.must(c.Groups.Update(t.Context(), by, "front", 0, func(g *registry.Group) error {
		g.Rights = []registry.Right{{Door: "lab", Schedule: access.AlwaysName}}
		return nil
	}))
	c.must(c.Doors.Update(t.Context(), by, "lab", 0, func(d *registry.Door) error { d.TwoPerson = true; return nil }))
	d, err := p.Diff(t.Context(), "north-1")
	if err != nil {
		t.Fatal(err)
	}
	people := make(map[string]string)
	for _, v := range d.People {
		people[v.Person] = fmt.Sprint(v.Gains, v.Loses, v.Added, v.Removed, v.Changed)
	}
	for who, want := range map[string]string{
		"p-1": "[] [{front always}] 0 0 1",
		"p-2": "[{lab always}] [{front always}] 0 0 1",
		"p-5": "[{lab always}] [] 1 0 0",
	} {
		if people[who] != want {
			t.Errorf("%s: %s, want %s", who, people[who], want)
		}
	}
	if len(d.People) != 3 || len(d.Sources) != 1 || d.Sources[0].People != 4 || len(d.Sources[0].Gains) != 1 || len(d.Sources[0].Loses) != 1 {
		t.Errorf("people %v, sources %+v", people, d.Sources)
	}
	if !slices.ContainsFunc(d.Words, func(w WordDifference) bool { return w.Name == "lab" }) {
		t.Errorf("words %+v, want the door lab among them", d.Words)
	}
	c.make(p, "north-1", Everything)
	if d, err := p.Diff(t.Context(), "north-1"); err != nil || !d.Empty() {
		t.Errorf("after it was published: %+v, %v", d, err)
	}
}

func TestAControllerThatClaimsEverHigherVersionsIsHeldBack(t *testing.T) {
	c := staffed(t, 1)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	written := int64(-1)
	if err := errors.Join(p.list(t.Context()), p.look(t.Context(), &written)); err != nil {
		t.Fatal(err)
	}
	now, lane := time.Now(), p.lanes["north-1"]
	for _, l := range p.lanes {
		l.begun, l.made, l.version, l.renew = true, p.head, 1, now.Add(time.Hour)
	}
	anew := func(version uint64, at time.Duration) bool {
		t.Helper()
		p.Report("north-1", version)
		if err := p.writeReports(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.due(now.Add(at))
		is := !lane.begun
		lane.begun, lane.busy = true, false
		return is
	}
	if !anew(7, 0) {
		t.Error("nothing is made for a controller that uses a later version")
	}
	if anew(9, time.Second) {
		t.Error("everything is made anew a second later")
	}
	if !anew(9, anewAgain) {
		t.Error("it is forgotten")
	}
}

func TestWhoLetsALeaverInIsToldFirst(t *testing.T) {
	c := newCRM(t)
	for i := range 6 {
		door := fmt.Sprintf("d-%d", i)
		c.must(c.Doors.Create(t.Context(), by, registry.Door{Name: door, Controller: fmt.Sprintf("c-%d", i)}))
		c.must(c.Groups.Create(t.Context(), by, registry.Group{Name: door, Rights: []registry.Right{{Door: door, Schedule: access.AlwaysName}}}))
		c.add(i, door)
		c.peppers[fmt.Sprintf("c-%d", i)] = newPepper(t)
	}
	p := c.publisher()
	for name := range c.peppers {
		c.make(p, name, Everything)
	}
	written := int64(-1)
	if err := errors.Join(p.list(t.Context()), p.look(t.Context(), &written)); err != nil {
		t.Fatal(err)
	}
	next := func(want string) {
		t.Helper()
		if err := p.look(t.Context(), &written); err != nil {
			t.Fatal(err)
		}
		if p.ready[0].name != want {
			t.Errorf("%s is the first, want %s", p.ready[0].name, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.lanes)) {
		p.lanes[name].begun = true
		p.enqueue(p.lanes[name]) // there is much to do
	}
	c.leave(4)
	next("c-4")
	c.state(2, access.Lost)
	next("c-2")
	lane := p.take()
	c.groups(2)
	next("c-4") // c-2 is with a worker
	p.release(t.Context(), lane, nil)
	if p.ready[0] != lane || len(p.ready) != len(p.lanes) {
		t.Errorf("%s is the first of %d, want c-2 of %d", p.ready[0].name, len(p.ready), len(p.lanes))
	}
}

func TestALeaverIsGoneWhenEachControllerSaysSo(t *testing.T) {
	c := staffed(t, 2)
	p := c.publisher()
	c.make(p, "north-1", Everything)
	c.make(p, "south-1", Everything)
	names, err := p.Holding(t.Context(), "p-1")
	if err != nil || !slices.Equal(names, []string{"north-1"}) {
		t.Fatalf("p-1 is known at %v, %v", names, err)
	}
	c.leave(1)
	line, err := c.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	applied := func() Applied {
		t.Helper()
		a, err := p.Applied(context.Background(), "north-1", line)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := applied(); a.Version != 0 || !a.At.IsZero() {
		t.Errorf("before it is published: %+v", a)
	}
	c.make(p, "north-1", Revocations)
	if a := applied(); a.Version != 2 || !a.At.IsZero() {
		t.Errorf("before it is applied: %+v", a)
	}
	c.now = c.now.Add(time.Minute)
	if err := p.store.report(t.Context(), map[string]report{"north-1": {2, c.now}}); err != nil {
		t.Fatal(err)
	}
	if a := applied(); !a.At.Equal(c.now) {
		t.Errorf("after it was applied: %+v, want %s", a, c.now)
	}
	// What concerns nobody at a controller is applied there with the version that it has.
	c.add(3, "store")
	if line, err = c.Changes(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.make(p, "north-1", Everything)
	if a := applied(); a.Version != 2 || a.At.IsZero() {
		t.Errorf("what does not concern it: %+v", a)
	}
}
