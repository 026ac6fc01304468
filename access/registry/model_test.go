package registry

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/access"
)

// model is what the registry should hold, in maps.
type model struct {
	s       *site
	people  map[string]Person
	cards   map[string]Credential
	numbers map[uint64]string // by a card's number: whose it is
	groups  map[string]bool
	visits  map[string]Visit
	lines   uint64
	steps   int
}

var (
	somePeople = rapid.SampledFrom([]string{"p-1", "p-2", "p-3", "v-1", "v-2"})
	someGroups = rapid.SampledFrom([]string{"ops", "guards"})
	someCards  = rapid.SampledFrom([]string{"c-1", "c-2", "c-3", "b-1", "b-2"})
	someVisits = rapid.SampledFrom([]string{"visit-1", "visit-2", "visit-3"})
	someNumber = rapid.Uint64Range(1, 4)
)

func isVisitor(person string) bool { return person[0] == 'v' }

// begin makes enough for visits to happen.
func (m *model) begin(t *rapid.T) {
	for _, p := range []Person{{ID: "p-1", Kind: access.Staff}, {ID: "p-2", Kind: access.Staff}, {ID: "p-3", Kind: access.Staff}, {ID: "v-1", Kind: access.Visitor}} {
		m.people[p.ID] = must(m.s.People.Create(ctx, by, p))(t).Value
		m.lines++
	}
	m.cards["b-1"] = must(m.s.Credentials.Create(ctx, by, visitorsBadge("b-1", 1)))(t).Value
	m.numbers[1] = "b-1"
	m.lines++
}

// expect holds what a change answered to what it should have, and counts the
// lines of the audit where it was to be done.
func (m *model) expect(t *rapid.T, what string, err error, ok bool, lines int) bool {
	t.Helper()
	if (err == nil) != ok {
		t.Fatalf("%s: error %v, should it be done: %v", what, err, ok)
	}
	if ok {
		m.lines += uint64(lines)
	}
	return ok
}

func (m *model) createGroup(t *rapid.T) {
	name := someGroups.Draw(t, "group")
	_, err := m.s.Groups.Create(ctx, by, Group{Name: name})
	if m.expect(t, "create group", err, !m.groups[name], 1) {
		m.groups[name] = true
	}
}

func (m *model) removeGroup(t *rapid.T) {
	name := someGroups.Draw(t, "group")
	used := slices.ContainsFunc(slices.Collect(maps.Values(m.people)), func(p Person) bool { return slices.Contains(p.Groups, name) })
	if m.expect(t, "remove group", m.s.Groups.Remove(ctx, by, name, 0), m.groups[name] && !used, 1) {
		delete(m.groups, name)
	}
}

func (m *model) createPerson(t *rapid.T) {
	p := Person{ID: somePeople.Draw(t, "person"), Kind: access.Staff, Name: rapid.StringMatching(`[A-Z][a-zé]{0,9}`).Draw(t, "name")}
	if isVisitor(p.ID) {
		p.Kind = access.Visitor
	}
	_, err := m.s.People.Create(ctx, by, p)
	_, there := m.people[p.ID]
	if m.expect(t, "create person", err, !there, 1) {
		m.people[p.ID] = p
	}
}

func (m *model) changeGroups(t *rapid.T) {
	id, groups := somePeople.Draw(t, "person"), rapid.SliceOfN(someGroups, 0, 2).Draw(t, "groups")
	p, there := m.people[id]
	ok := there && !slices.ContainsFunc(groups, func(g string) bool { return !m.groups[g] }) && (len(groups) == 0 || p.Left.IsZero() && !isVisitor(id))
	row, err := m.s.People.Update(ctx, by, id, 0, func(p *Person) error { p.Groups = groups; return nil })
	next := sorted(groups)
	lines := 1
	if slices.Equal(next, p.Groups) {
		lines = 0
	}
	if m.expect(t, "change groups", err, ok, lines) {
		p.Groups = next
		m.people[id] = p
		if text(t, row.Value) != text(t, p) {
			t.Fatalf("answered %s, should be %s", text(t, row.Value), text(t, p))
		}
	}
}

func (m *model) createCard(t *rapid.T) {
	c := Credential{ID: someCards.Draw(t, "card"), State: access.Active, Format: "H10301"}
	number := someNumber.Draw(t, "number")
	c.Visitors = c.ID[0] == 'b'
	if !c.Visitors {
		c.Person = somePeople.Draw(t, "person")
	}
	c.SetCard(card(number))
	c.Ends = fmt.Sprintf("%02d", number)
	_, there := m.cards[c.ID]
	p, known := m.people[c.Person]
	fits := c.Visitors || known && p.Left.IsZero() && !isVisitor(c.Person)
	_, err := m.s.Credentials.Create(ctx, by, c)
	if m.expect(t, "create card", err, !there && m.numbers[number] == "" && fits, 1) {
		m.cards[c.ID], m.numbers[number] = c, c.ID
	}
}

func (m *model) changeState(t *rapid.T) {
	id, state := someCards.Draw(t, "card"), rapid.SampledFrom([]access.State{access.Active, access.Lost, access.Revoked}).Draw(t, "state")
	c, there := m.cards[id]
	found := c.Visitors && c.Person != "" && c.State != access.Active
	ok := there && (state != access.Active || c.Person == "" || m.people[c.Person].Left.IsZero() && !found)
	lines := 1
	if c.State == state {
		lines = 0
	}
	_, err := m.s.Credentials.Update(ctx, by, id, 0, func(c *Credential) error { c.State = state; return nil })
	if m.expect(t, "change state", err, ok, lines) {
		c.State = state
		m.cards[id] = c
	}
}

func (m *model) removeCard(t *rapid.T) {
	id := someCards.Draw(t, "card")
	c, there := m.cards[id]
	named := slices.ContainsFunc(slices.Collect(maps.Values(m.visits)), func(v Visit) bool { return v.State() != VisitClosed && v.Badge == id })
	if m.expect(t, "remove card", m.s.Credentials.Remove(ctx, by, id, 0), there && c.State == access.Revoked && !(c.Visitors && c.Person != "") && !named, 1) {
		delete(m.cards, id)
		maps.DeleteFunc(m.numbers, func(_ uint64, card string) bool { return card == id })
	}
}

func (m *model) leave(t *rapid.T) {
	id := somePeople.Draw(t, "person")
	p, there := m.people[id]
	_, err := m.s.Leave(ctx, by, id, 0)
	if !m.expect(t, "leave", err, there && p.Left.IsZero(), 1) {
		return
	}
	p.Groups, p.Left = nil, m.s.now
	m.people[id] = p
	for card, c := range m.cards {
		if c.Person == id && c.State != access.Revoked {
			c.State = access.Revoked
			m.cards[card] = c
			m.lines++
		}
	}
	for name, v := range m.visits {
		if v.State() == VisitPlanned && (v.Host == id || v.Visitor == id) {
			v.Closed, v.How, v.ClosedBy = m.s.now, CloseCancelled, by.By
			m.visits[name] = v
			m.lines++
		}
	}
}

func (m *model) present(id string) bool {
	p, ok := m.people[id]
	return ok && p.Left.IsZero()
}

func (m *model) planVisit(t *rapid.T) {
	v := Visit{ID: someVisits.Draw(t, "visit"), Visitor: rapid.SampledFrom([]string{"v-1", "v-2"}).Draw(t, "visitor"), Organisation: "Acme", Purpose: "see",
		Host: rapid.SampledFrom([]string{"p-1", "p-2"}).Draw(t, "host"), Authoriser: "p-3", From: m.s.now, Until: m.s.now.Add(time.Hour), Doors: []string{"front"}}
	_, there := m.visits[v.ID]
	_, err := m.s.Visits.Create(ctx, by, v)
	if m.expect(t, "plan visit", err, !there && m.present(v.Visitor) && m.present(v.Host) && m.present(v.Authoriser), 1) {
		m.visits[v.ID] = v
	}
}

func (m *model) checkIn(t *rapid.T) {
	id, badge := someVisits.Draw(t, "visit"), rapid.SampledFrom([]string{"", "b-1", "b-2", "c-1"}).Draw(t, "badge")
	v, there := m.visits[id]
	twice := slices.ContainsFunc(slices.Collect(maps.Values(m.visits)), func(o Visit) bool { return o.Visitor == v.Visitor && o.State() == VisitIn })
	ok := there && v.State() == VisitPlanned && !twice && m.present(v.Visitor) && m.present(v.Host)
	lines := 1
	c, known := m.cards[badge]
	if badge != "" {
		ok = ok && known && c.Visitors && c.Person == "" && c.State == access.Active
		lines = 3 // the visit twice, the badge
	}
	row, err := m.s.CheckIn(ctx, by, id, 0, arrival(badge))
	if !m.expect(t, "check in", err, ok, lines) {
		return
	}
	m.visits[id] = row.Value
	if row.Value.State() != VisitIn || row.Value.Badge != badge || !row.Value.CheckedIn.Equal(m.s.now) {
		t.Fatalf("checked in: %s", text(t, row.Value))
	}
	if badge != "" {
		c.Person = v.Visitor
		m.cards[badge] = c
	}
}

func (m *model) signOut(t *rapid.T) {
	id, lost := someVisits.Draw(t, "visit"), rapid.Bool().Draw(t, "lost")
	v, there := m.visits[id]
	lines := 1
	c := m.cards[v.Badge]
	switch {
	case !v.BadgeOut():
	case !lost: // badge and visit, then the visit again
		lines = 3
	case c.State == access.Active:
		lines = 2
	}
	row, err := m.s.SignOut(ctx, by, id, 0, lost)
	if !m.expect(t, "sign out", err, there && v.State() == VisitIn, lines) {
		return
	}
	m.visits[id] = row.Value
	if row.Value.How != CloseSignedOut || v.BadgeOut() && row.Value.BadgeOut() != lost {
		t.Fatalf("signed out: %s", text(t, row.Value))
	}
	if !v.BadgeOut() {
		return
	}
	switch {
	case lost && c.State == access.Active:
		c.State = access.Lost
	case !lost:
		c.Person = ""
		if c.State == access.Lost {
			c.State = access.Active
		}
	}
	m.cards[v.Badge] = c
}

// now and then everything is compared; verifying it takes as long as ten changes.
func (m *model) now(t *rapid.T) {
	if m.steps++; m.steps%8 == 0 {
		m.check(t)
	}
}

// check compares everything.
func (m *model) check(t *rapid.T) {
	compare(t, m.people, m.s.People)
	compare(t, m.cards, m.s.Credentials)
	compare(t, m.visits, m.s.Visits)
	v, err := m.s.Verify(ctx, Head{}, nil)
	if err != nil || v.Lines != m.lines {
		t.Fatalf("%d lines (%v), should be %d", v.Lines, err, m.lines)
	}
}

func compare[T any, P interface {
	*T
	object
}](t *rapid.T, want map[string]T, table Table[T, P]) {
	got := make(map[string]string)
	for _, row := range must(table.List(ctx, Page{Limit: 1000}))(t) {
		got[P(&row.Value).key()] = text(t, row.Value)
	}
	should := make(map[string]string)
	for id, v := range want {
		should[id] = text(t, v)
	}
	if diff := gocmp.Diff(should, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestWhateverIsDoneTheRegistryHoldsWhatAModelHolds(t *testing.T) {
	dir := memory(t)
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(must(os.MkdirTemp(dir, ""))(t), FileName)
		s := openSite(t, path)
		defer func() {
			if err := errors.Join(s.Close(), os.RemoveAll(filepath.Dir(path))); err != nil {
				t.Fatal(err)
			}
		}()
		must(s.Doors.Create(ctx, by, Door{Name: "front", Controller: "north-1"}))(t)
		m := &model{s: s, people: map[string]Person{}, cards: map[string]Credential{}, numbers: map[uint64]string{}, groups: map[string]bool{}, visits: map[string]Visit{}, lines: 1}
		m.begin(t)
		t.Repeat(map[string]func(*rapid.T){
			"create group": m.createGroup, "remove group": m.removeGroup, "create person": m.createPerson, "change groups": m.changeGroups,
			"create card": m.createCard, "change state": m.changeState, "remove card": m.removeCard, "leave": m.leave,
			"plan visit": m.planVisit, "check in": m.checkIn, "sign out": m.signOut, "": m.now,
		})
		m.check(t)
	})
}
