package registry

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

func TestWhatAsksForTheImpossibleIsRefusedWithWords(t *testing.T) {
	s := staffed(t)
	must(s.Doors.Create(ctx, by, Door{Name: "south-lab", Controller: "south-1", Into: "lab"}))(t)
	must(s.Doors.Create(ctx, by, Door{Name: "gate", Controller: "north-1", Free: "office"}))(t)
	door := func(f func(*Door)) func() error {
		return func() error {
			_, err := s.Doors.Update(ctx, by, "front", 0, func(d *Door) error { f(d); return nil })
			return err
		}
	}
	area := func(f func(*Area)) func() error {
		return func() error {
			_, err := s.Areas.Update(ctx, by, "lab", 0, func(a *Area) error { f(a); return nil })
			return err
		}
	}
	person := func(id string, f func(*Person)) func() error {
		return func() error {
			_, err := s.People.Update(ctx, by, id, 0, func(p *Person) error { f(p); return nil })
			return err
		}
	}
	for want, change := range map[string]func() error{
		"free: the door cannot stand unlocked for everybody: it is marked as a server room's": door(func(d *Door) { d.ServerRoom, d.Free = true, "office" }),
		"free: the door cannot stand unlocked for everybody: it lets people in only two":      door(func(d *Door) { d.TwoPerson, d.Free = true, "office" }),
		"free: the door cannot stand unlocked for everybody: it opens only while others":      door(func(d *Door) { d.Interlock, d.Free = []string{"lab-door"}, "office" }),
		`free: schedule "never" is not there`:                                                 door(func(d *Door) { d.Free = "never" }),
		"interlock: the door waits for itself":                                                door(func(d *Door) { d.Interlock = []string{"front"} }),
		`interlock: door "nowhere" is not there`:                                              door(func(d *Door) { d.Interlock = []string{"nowhere"} }),
		"interlock: door store is on controller south-1":                                      door(func(d *Door) { d.Interlock = []string{"store"} }),
		"interlock: door gate stands unlocked in schedule office":                             door(func(d *Door) { d.Interlock = []string{"gate"} }),
		"together: 500ms is not between 1s and 5m":                                            door(func(d *Door) { d.Together = Span(500 * time.Millisecond) }),
		"stale_after: 1s is not between 1m and 8760h":                                         door(func(d *Door) { d.StaleAfter = Span(time.Second) }),
		"expired_after: 1h is not longer than stale_after, which is 2h":                       door(func(d *Door) { d.StaleAfter, d.ExpiredAfter = Span(2*time.Hour), Span(time.Hour) }),
		"expired_kinds: without expired_after nothing of this door expires":                   door(func(d *Door) { d.ExpiredKinds = []access.Kind{access.Staff} }),
		`clock_unset_kinds: "boss": use staff, contractor or visitor`:                         door(func(d *Door) { d.ClockUnsetKinds = []access.Kind{"boss"} }),
		`passback: "firm"`:                                         area(func(a *Area) { a.Passback = "firm" }),
		"timed: -10m is not between 1s and 24h":                    area(func(a *Area) { a.Timed = Span(-10 * time.Minute) }),
		"occupancy: 1000001 is not between":                        area(func(a *Area) { a.Most = 1_000_001 }),
		"passback: area lab keeps account of who is in":            area(func(a *Area) { a.Most = 4 }),
		"escorted: somebody who is escorted":                       person("p-3", func(p *Person) { p.Escorted = true }),
		"clearance: 6 is not between 0 and 5":                      person("p-1", func(p *Person) { p.Clearance = 6 }),
		"escorted: whether a visitor is escorted":                  person("v-1", func(p *Person) { p.Escorted = true }),
		"kind: a visitor escorts nobody":                           person("v-1", func(p *Person) { p.Exempt = true }),
		"instead: instead of pin the person gives a one-time code": person("p-1", func(p *Person) { p.Instead = map[string]string{"pin": "totp"} }),
		"escort: p-2 may not escort others": func() error {
			_, err := s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { v.Escort, v.Authoriser = "p-2", "p-2"; return nil })
			return err
		},
	} {
		wantError(t, change(), want)
	}
	s.verify()
}

func TestASpanIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]Span{"30s": Span(30 * time.Second), "10m": Span(10 * time.Minute), "1h30m": Span(90 * time.Minute), "72h": Span(72 * time.Hour), "0s": 0} {
		var got Span
		if err := json.Unmarshal([]byte(`"`+text+`"`), &got); err != nil || got != want || got.String() != text {
			t.Errorf("%s is %v (%v)", text, got, err)
		}
	}
	var d Span
	wantError(t, json.Unmarshal([]byte(`"soon"`), &d), `"soon" is not a length of time such as 30s, 10m or 1h30m`)
}
