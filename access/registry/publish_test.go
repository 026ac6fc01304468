package registry

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
)

// follower is a controller that is told of changes, as a publisher tells it.
type follower struct {
	controller string
	index      allowlist.Indexer
	profiles   []string
	rows       map[[16]byte][]byte
	policy     []byte
	head       uint64
}

// follow tells the follower what was changed since the last time.
func (s *site) follow(t tester, f *follower) {
	t.Helper()
	b := allowlist.NewBuilder(f.index, f.profiles)
	words, head, err := s.Publish(ctx, f.controller, f.head, func(h *allowlist.Holder) error {
		rows, err := b.Rows(h)
		for _, row := range rows {
			if row.Entry == nil {
				delete(f.rows, row.Key)
			} else {
				f.rows[row.Key] = row.Entry
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rights := must(s.Rights(ctx, f.controller, b.Profiles()))(t)
	for source, r := range rights {
		if err := b.Define(source, r); err != nil {
			t.Fatal(err)
		}
	}
	f.policy, f.profiles, f.head = must(b.Policy(words))(t), b.Profiles(), head
}

// anew is a follower of the same profiles that is told everything.
func (s *site) anew(t tester, f *follower) *follower {
	t.Helper()
	g := &follower{controller: f.controller, index: f.index, profiles: f.profiles, rows: make(map[[16]byte][]byte)}
	s.follow(t, g)
	return g
}

func newFollower(t tester, controller string) *follower {
	_, pepper := newKeys(t)
	return &follower{controller: controller, index: pepper, rows: make(map[[16]byte][]byte)}
}

// Whatever is done, in whatever order and in however many steps it is told, a
// controller that hears of the changes knows what one that hears everything knows.
func TestChangesTellWhatEverythingTells(t *testing.T) {
	dir := memory(t)
	rapid.Check(t, func(t *rapid.T) {
		own := must(os.MkdirTemp(dir, ""))(t)
		s := openSite(t, filepath.Join(own, FileName))
		defer func() {
			if err := errors.Join(s.Close(), os.RemoveAll(own)); err != nil {
				t.Fatal(err)
			}
		}()
		s.staff()
		// With few that are kept in mind, everybody is looked at.
		s.touched = rapid.SampledFrom([]int{1, mostTouched}).Draw(t, "touched")
		followers := []*follower{newFollower(t, "north-1"), newFollower(t, "south-1")}
		for _, f := range followers {
			s.follow(t, f)
		}
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				anyChange(t, s)
			}
			f := followers[rapid.IntRange(0, 1).Draw(t, "follower")]
			if there := must(s.Doors.List(ctx, Page{}))(t); !slices.ContainsFunc(there, func(d Row[Door]) bool { return d.Value.Controller == f.controller }) {
				continue
			}
			s.follow(t, f)
			want := s.anew(t, f)
			if diff := gocmp.Diff(hexed(want.rows), hexed(f.rows)); diff != "" {
				t.Fatalf("%s, rows (-everything +changes):\n%s", f.controller, diff)
			}
			if !bytes.Equal(want.policy, f.policy) {
				t.Fatalf("%s, policy by changes:\n%s\nand anew:\n%s", f.controller, f.policy, want.policy)
			}
			if head := must(s.Changes(ctx))(t); head > f.head {
				t.Fatalf("changes up to %d, told up to %d", head, f.head)
			}
		}
	})
}

func hexed(rows map[[16]byte][]byte) map[string]string {
	out := make(map[string]string)
	for key, entry := range rows {
		out[fmt.Sprintf("%x", key)] = fmt.Sprintf("%q", entry)
	}
	return out
}

// anyChange does something that the registry may refuse.
func anyChange(t *rapid.T, s *site) {
	person := rapid.SampledFrom([]string{"p-1", "p-2", "p-3", "p-4", "v-1", "v-2"})
	group := rapid.SampledFrom([]string{"ops", "guards"})
	door := rapid.SampledFrom([]string{"front", "lab-door", "store", "roof"})
	credential := rapid.SampledFrom([]string{"c-1", "c-2", "c-3", "b-1", "b-2"})
	visit := rapid.SampledFrom([]string{"visit-1", "visit-2", "visit-3"})
	number := rapid.Uint64Range(1, 4)
	anyState := rapid.SampledFrom([]access.State{access.Active, access.Lost, access.Revoked})
	changes := map[string]func() error{
		"add a person": func() error {
			id := person.Draw(t, "person")
			kind := access.Staff
			if isVisitor(id) {
				kind = access.Visitor
			}
			_, err := s.People.Create(ctx, by, Person{ID: id, Kind: kind})
			return err
		},
		"change a person": func() error {
			_, err := s.People.Update(ctx, by, person.Draw(t, "person"), 0, func(p *Person) error {
				p.Groups = rapid.SliceOfN(group, 0, 2).Draw(t, "groups")
				p.MayEscort = rapid.Bool().Draw(t, "may escort")
				p.Clearance = access.Threat(rapid.IntRange(0, 5).Draw(t, "clearance"))
				return nil
			})
			return err
		},
		"leave": func() error {
			_, err := s.Leave(ctx, by, person.Draw(t, "person"), 0)
			return err
		},
		"add a credential": func() error {
			c := Credential{ID: credential.Draw(t, "credential"), State: access.Active}
			c.Visitors = c.ID[0] == 'b'
			if !c.Visitors {
				c.Person = person.Draw(t, "person")
			}
			if c.Biometric = !c.Visitors && rapid.Bool().Draw(t, "finger"); !c.Biometric {
				c.SetCard(card(number.Draw(t, "number")))
			}
			_, err := s.Credentials.Create(ctx, by, c)
			return err
		},
		"change a credential": func() error {
			_, err := s.Credentials.Update(ctx, by, credential.Draw(t, "credential"), 0, func(c *Credential) error {
				c.State = anyState.Draw(t, "state")
				if !c.Biometric && rapid.Bool().Draw(t, "another card") {
					c.SetCard(card(number.Draw(t, "number")))
				}
				return nil
			})
			return err
		},
		"remove a credential": func() error { return s.Credentials.Remove(ctx, by, credential.Draw(t, "credential"), 0) },
		"add a group": func() error {
			_, err := s.Groups.Create(ctx, by, Group{Name: group.Draw(t, "group")})
			return err
		},
		"change a group": func() error {
			_, err := s.Groups.Update(ctx, by, group.Draw(t, "group"), 0, func(g *Group) error {
				g.Rights = nil
				for range rapid.IntRange(0, 2).Draw(t, "rights") {
					r := Right{Door: door.Draw(t, "door"), Schedule: rapid.SampledFrom([]string{"always", "office"}).Draw(t, "schedule")}
					if rapid.Bool().Draw(t, "area") {
						r.Door, r.Area = "", "lab"
					}
					g.Rights = append(g.Rights, r)
				}
				return nil
			})
			return err
		},
		"remove a group": func() error { return s.Groups.Remove(ctx, by, group.Draw(t, "group"), 0) },
		"add a door": func() error {
			_, err := s.Doors.Create(ctx, by, Door{Name: door.Draw(t, "door"), Controller: "north-1", Into: "lab"})
			return err
		},
		"move a door": func() error {
			_, err := s.Doors.Update(ctx, by, door.Draw(t, "door"), 0, func(d *Door) error {
				d.Controller = rapid.SampledFrom([]string{"north-1", "south-1"}).Draw(t, "controller")
				d.Into = rapid.SampledFrom([]string{"", "lab"}).Draw(t, "into")
				return nil
			})
			return err
		},
		"remove a door": func() error { return s.Doors.Remove(ctx, by, door.Draw(t, "door"), 0) },
		"plan a visit": func() error {
			v := s.visit(visit.Draw(t, "visit"))
			v.Visitor, v.Host, v.Authoriser, v.Escort, v.EscortNeeded = rapid.SampledFrom([]string{"v-1", "v-2"}).Draw(t, "visitor"), "p-1", "p-2", "", false
			v.Doors = rapid.SliceOfNDistinct(door, 1, 2, rapid.ID).Draw(t, "doors")
			_, err := s.Visits.Create(ctx, by, v)
			return err
		},
		"change a visit": func() error {
			_, err := s.Visits.Update(ctx, by, visit.Draw(t, "visit"), 0, func(v *Visit) error {
				v.Doors = rapid.SliceOfNDistinct(door, 1, 2, rapid.ID).Draw(t, "doors")
				v.Purpose = rapid.SampledFrom([]string{"see", "mend"}).Draw(t, "purpose")
				if v.State() == VisitPlanned {
					v.Visitor = rapid.SampledFrom([]string{"v-1", "v-2"}).Draw(t, "visitor")
				}
				return nil
			})
			return err
		},
		"check in": func() error {
			_, err := s.CheckIn(ctx, by, visit.Draw(t, "visit"), 0, arrival(rapid.SampledFrom([]string{"", "b-1", "b-2"}).Draw(t, "badge")))
			return err
		},
		"surrender": func() error {
			_, err := s.Surrender(ctx, by, visit.Draw(t, "visit"))
			return err
		},
		"sign out": func() error {
			_, err := s.SignOut(ctx, by, visit.Draw(t, "visit"), 0, rapid.Bool().Draw(t, "lost"))
			return err
		},
		"issue a code": func() error {
			_, _, err := s.IssueCode(ctx, by, CodeOrder{Visit: visit.Draw(t, "visit"), Door: door.Draw(t, "door")})
			return err
		},
		"use a code": func() error {
			for _, row := range must(s.Codes.List(ctx, Page{}))(t) {
				return s.CodeUsed(ctx, row.Value.ID, s.now)
			}
			return nil
		},
		"withdraw a code": func() error {
			for _, row := range must(s.Codes.List(ctx, Page{}))(t) {
				_, err := s.WithdrawCode(ctx, by, row.Value.ID, 0)
				return err
			}
			return nil
		},
		"let time pass": func() error {
			s.now = s.now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "hours")) * time.Hour)
			_, err := s.Tend(ctx, time.Hour)
			return err
		},
	}
	what := rapid.SampledFrom(slices.Sorted(maps.Keys(changes))).Draw(t, "change")
	err := changes[what]()
	if _, invalid := errors.AsType[*Invalid](err); err == nil || invalid {
		return
	}
	if _, no := errors.AsType[*Refused](err); !no && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrExists) && !errors.Is(err, ErrInUse) {
		t.Fatalf("%s: %v", what, err)
	}
}

// published is what a controller is told of everybody, in lines.
func (s *site) published(t tester, controller string, since uint64) string {
	t.Helper()
	var lines []string
	_, _, err := s.Publish(ctx, controller, since, func(h *allowlist.Holder) error {
		for _, c := range h.Credentials {
			what := fmt.Sprint("code ", c.CodeID, " at ", c.CodeDoor)
			if c.Card != nil {
				what = fmt.Sprint("card ", c.Card.Number)
			} else if c.Biometric {
				what = "finger"
			}
			if c.Removed {
				what += " removed"
			}
			lines = append(lines, fmt.Sprintf("%s %q %s: %s %s", h.Entry.Person, h.Name, cmp.Or(h.Source, "nothing"), c.State, what))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestAControllerIsToldWhatItsDoorsNeedAndNoMore(t *testing.T) {
	s := staffed(t)
	must(s.Credentials.Create(ctx, by, cardOf("c-2", "p-2", 4712)))(t)
	lost := cardOf("c-3", "p-2", 4713)
	lost.State = access.Lost
	must(s.Credentials.Create(ctx, by, lost))(t)
	must(s.Areas.Update(ctx, by, "lab", 0, func(a *Area) error {
		a.Passback, a.Timed, a.Most = access.PassbackHard, Span(10*time.Minute), 4
		return nil
	}))(t)
	must(s.Areas.Create(ctx, by, Area{Name: "cellar"}))(t)
	must(s.Doors.Update(ctx, by, "lab-door", 0, func(d *Door) error {
		d.ServerRoom, d.TwoPerson, d.Together, d.Interlock, d.FirstPerson = true, true, Span(45*time.Second), []string{"front"}, true
		d.Disabled, d.StaleAfter, d.ExpiredAfter, d.ExpiredKinds, d.ClockUnsetKinds = "the lock is mended", Span(time.Hour), Span(48*time.Hour),
			[]access.Kind{access.Staff}, []access.Kind{access.Contractor}
		return nil
	}))(t)
	if got, want := s.published(t, "north-1", 0), `p-1 "Ada Lovelace" groups:ops: active card 4711
p-2 "" nothing: lost card 4713`; got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	if got, want := s.published(t, "south-1", 0), `p-2 "" nothing: lost card 4713`; got != want {
		t.Errorf("the other is told:\n%s\nwant:\n%s", got, want)
	}
	words, head, err := s.Publish(ctx, "north-1", 0, func(*allowlist.Holder) error { return nil })
	if err != nil || head != s.verify().Lines {
		t.Errorf("head %d (%v)", head, err)
	}
	want := allowlist.Rules{
		Schedules: map[string]map[string][]string{"office": {"mon-fri": {"07:00-19:00"}, "holiday": {"10:00-12:00"}}}, Holidays: []string{"2026-12-25"},
		Doors: map[string][]allowlist.DoorRule{"lab-door": {{Direction: "in", Schedule: "office", AnyOf: []string{"badge"}}, {Direction: "in", Schedule: "always", AnyOf: []string{"badge+pin", "badge+fingerprint"}}}},
		Areas: map[string]allowlist.Area{"lab": {Passback: access.PassbackHard, Timed: "10m", Occupancy: 4}},
		Sites: map[string]allowlist.Site{"lab-door": {Into: "lab", ServerRoom: true, TwoPerson: true, Together: "45s", Interlock: []string{"front"}, FirstPerson: true,
			Disabled: "the lock is mended", StaleAfter: "1h", ExpiredAfter: "48h", ExpiredKinds: []access.Kind{access.Staff}, ClockUnsetKinds: []access.Kind{access.Contractor}}},
	}
	if diff := gocmp.Diff(want, words); diff != "" {
		t.Error(diff)
	}
	_, _, err = s.Publish(ctx, "west-1", 0, nil)
	wantIs(t, err, ErrNotFound)
	wantIs(t, err, ErrNoDoors)
}

func TestALookOfAnExportIsNoChange(t *testing.T) {
	s := staffed(t)
	before := must(s.Changes(ctx))(t)
	must(s.Export(ctx, by, "north-1"))(t)
	if err := s.Viewed(ctx, View{By: "guard.1", Kind: KindPerson}); err != nil {
		t.Fatal(err)
	}
	if after := must(s.Changes(ctx))(t); after != before {
		t.Errorf("changes up to %d, before it %d", after, before)
	}
	if got := s.published(t, "north-1", before); got != "" {
		t.Errorf("told of: %s", got)
	}
}

func TestOnlyThoseAreToldOfWhoWereTouched(t *testing.T) {
	s := staffed(t)
	must(s.Credentials.Create(ctx, by, cardOf("c-3", "p-3", 4713)))(t)
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"a name", func() error {
			_, err := s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.Name = "Ada King"; return nil })
			return err
		}, `p-1 "Ada King" groups:ops: active card 4711`},
		{"who is in no group", func() error {
			_, err := s.People.Update(ctx, by, "p-3", 0, func(p *Person) error { p.Groups = nil; return nil })
			return err
		}, `p-3 "" nothing: active card 4713 removed`},
		{"a group's schedule", func() error {
			_, err := s.Groups.Update(ctx, by, "ops", 0, func(g *Group) error { g.Rights = g.Rights[:1]; return nil })
			return err
		}, ``},
		{"a group that gives nothing here", func() error {
			_, err := s.Groups.Update(ctx, by, "ops", 0, func(g *Group) error { g.Rights = nil; return nil })
			return err
		}, "p-1 \"\" nothing: active card 4711 removed"},
		{"a visitor's badge", func() error {
			_, err := s.CheckIn(ctx, by, "visit-1", 0, arrival("b-1"))
			return err
		}, `v-1 "Vera Visitor" visit:front+lab-door: active card 9001`},
		{"its surrender", func() error {
			_, err := s.SignOut(ctx, by, "visit-1", 0, false)
			return err
		}, `nobody "" nothing: active card 9001 removed`},
		{"a card that is revoked", func() error {
			_, err := s.Credentials.Update(ctx, by, "c-3", 0, func(c *Credential) error { c.State = access.Revoked; return nil })
			return err
		}, `p-3 "" nothing: revoked card 4713`},
		{"a card that is removed", func() error { return s.Credentials.Remove(ctx, by, "c-3", 0) }, `p-3 "" nothing: revoked card 4713 removed`},
	} {
		before := must(s.Changes(ctx))(t)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := s.published(t, "north-1", before); got != step.want {
			t.Errorf("%s: told\n%s\nwant\n%s", step.what, got, step.want)
		}
	}
}

func TestWhatIsTooLongAgoIsNotMadeUp(t *testing.T) {
	s := staffed(t)
	none := func(*allowlist.Holder) error { return nil }
	_, _, err := s.Publish(ctx, "north-1", must(s.Changes(ctx))(t)+1, none)
	wantIs(t, err, ErrForgotten)
	before := must(s.Changes(ctx))(t)
	must(s.Credentials.Update(ctx, by, "c-1", 0, func(c *Credential) error { c.State = access.Revoked; return nil }))(t)
	if err := s.Credentials.Remove(ctx, by, "c-1", 0); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(29 * 24 * time.Hour)
	must(s.Tend(ctx, time.Hour))(t)
	if got := s.published(t, "north-1", before); !strings.Contains(got, "card 4711 removed") {
		t.Errorf("after 29 days: %s", got)
	}
	s.now = s.now.Add(2 * 24 * time.Hour)
	must(s.Tend(ctx, time.Hour))(t)
	_, _, err = s.Publish(ctx, "north-1", before, none)
	wantIs(t, err, ErrForgotten)
	s.verify()
}
