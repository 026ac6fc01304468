package registry

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
)

func TestAChangeIsForTheVersionThatWasRead(t *testing.T) {
	s := staffed(t)
	row := must(s.People.Get(ctx, "p-2"))(t)
	if row.Version != 1 || row.ETag() != `"1"` {
		t.Errorf("version %d, ETag %s", row.Version, row.ETag())
	}
	rename := func(name string) func(*Person) error {
		return func(p *Person) error { p.Name = name; return nil }
	}
	if row = must(s.People.Update(ctx, by, "p-2", 1, rename("Grace B. Hopper")))(t); row.Version != 2 {
		t.Errorf("version %d after a change", row.Version)
	}
	_, err := s.People.Update(ctx, by, "p-2", 1, rename("Nobody"))
	wantIs(t, err, ErrChanged)
	wantIs(t, s.Groups.Remove(ctx, by, "ops", 7), ErrChanged)
	if row = must(s.People.Update(ctx, by, "p-2", 0, rename("Grace Hopper")))(t); row.Version != 3 {
		t.Errorf("version %d after another", row.Version)
	}
	if got := must(s.People.Get(ctx, "p-2"))(t); !gocmp.Equal(text(t, got), text(t, row)) {
		t.Errorf("read %s, written %s", text(t, got), text(t, row))
	}
	_, err = s.People.Update(ctx, by, "p-2", 0, func(p *Person) error { p.ID = "p-9"; return nil })
	wantError(t, err, "cannot be changed")
	_, err = s.People.Update(ctx, by, "p-99", 0, rename("x"))
	wantIs(t, err, ErrNotFound)
	_, err = s.People.Create(ctx, by, Person{ID: "p-2", Kind: access.Staff})
	wantIs(t, err, ErrExists)
}

func TestWhatSaysTheSameIsNoChange(t *testing.T) {
	s := staffed(t)
	before := s.verify()
	row := must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error {
		p.Groups = []string{"ops", "ops"}
		return nil
	}))(t)
	if after := s.verify(); row.Version != 1 || after != before {
		t.Errorf("version %d, audit from %v to %v", row.Version, before.Head, after.Head)
	}
}

func TestAVersionIsNeverUsedForAnotherObjectOfThatName(t *testing.T) {
	s := staffed(t)
	must(s.Areas.Create(ctx, by, Area{Name: "roof"}))(t)
	if err := s.Areas.Remove(ctx, by, "roof", 1); err != nil {
		t.Fatal(err)
	}
	if row := must(s.Areas.Create(ctx, by, Area{Name: "roof", Title: "another"}))(t); row.Version != 3 {
		t.Errorf("version %d, want 3", row.Version)
	}
	s.verify()
}

func TestNothingIsChangedWithoutANameAndAReason(t *testing.T) {
	s := staffed(t)
	before := s.verify()
	for _, tt := range []struct {
		c    Change
		want string
	}{
		{Change{}, "by: "}, {Change{By: "me"}, "why: "}, {Change{By: "me too", Why: "x"}, "by: "},
		{Change{By: "me", Why: strings.Repeat("x", 201)}, "why: is longer"}, {Change{By: "me", Why: "a\nb"}, "control character"},
	} {
		_, err := s.Areas.Create(ctx, tt.c, Area{Name: "roof"})
		wantError(t, err, tt.want)
		wantError(t, s.Areas.Remove(ctx, tt.c, "lab", 0), tt.want)
		_, err = s.Leave(ctx, tt.c, "p-1", 0)
		wantError(t, err, tt.want)
	}
	if after := s.verify(); after != before {
		t.Errorf("audit from %v to %v", before.Head, after.Head)
	}
}

func TestEveryFaultOfAnObjectIsToldAndNothingIsWritten(t *testing.T) {
	s := staffed(t)
	must(s.Visits.Create(ctx, by, s.visit("visit-2")))(t)
	before := s.verify()
	at := func(day int) time.Time { return time.Date(2026, 3, day, 0, 0, 0, 0, time.UTC) }
	person := func(f func(*Person)) func() error {
		return func() error {
			p := Person{ID: "p-9", Kind: access.Staff}
			f(&p)
			_, err := s.People.Create(ctx, by, p)
			return err
		}
	}
	credential := func(f func(*Credential)) func() error {
		return func() error {
			c := cardOf("c-9", "p-1", 5000)
			f(&c)
			_, err := s.Credentials.Create(ctx, by, c)
			return err
		}
	}
	door := func(rules ...Rule) func() error {
		return func() error {
			_, err := s.Doors.Create(ctx, by, Door{Name: "d", Controller: "north-1", Rules: rules})
			return err
		}
	}
	visit := func(f func(*Visit)) func() error {
		return func() error {
			v := s.visit("visit-9")
			f(&v)
			_, err := s.Visits.Create(ctx, by, v)
			return err
		}
	}
	for name, tt := range map[string]struct {
		do   func() error
		want []string
	}{
		"person without anything":         {func() error { _, err := s.People.Create(ctx, by, Person{}); return err }, []string{`person: "": use 1 to 64`, "kind: "}},
		"person's id is a number":         {person(func(p *Person) { p.ID = "12 345" }), []string{`"12 345": use 1 to 64`}},
		"texts":                           {person(func(p *Person) { p.Name = "a\x00b" }), []string{"control character"}},
		"not UTF-8":                       {person(func(p *Person) { p.Name = "a\xffb" }), []string{"not UTF-8"}},
		"long":                            {person(func(p *Person) { p.Name = strings.Repeat("x", 201) }), []string{"longer than 200 bytes"}},
		"group":                           {person(func(p *Person) { p.Groups = []string{"ops", "admins"} }), []string{`groups: group "admins" is not there`}},
		"bounds":                          {person(func(p *Person) { p.From, p.Until = at(3), at(3) }), []string{"until: is not after from"}},
		"year":                            {person(func(p *Person) { p.Until = at(3).AddDate(900, 0, 0) }), []string{"year 2926"}},
		"PIN":                             {person(func(p *Person) { p.SetPIN("12a4", "") }), []string{"pin: is not 4 to 16 digits"}},
		"the sign of a threat is another": {person(func(p *Person) { p.SetPIN("1234", "1234") }), []string{"nobody could tell"}},
		"the sign alone":                  {person(func(p *Person) { p.SetPIN("", "1234") }), []string{"give both"}},
		"instead":                         {person(func(p *Person) { p.Instead = map[string]string{"nose": "pin"} }), []string{"each is one of"}},
		"instead without PIN":             {person(func(p *Person) { p.Instead = map[string]string{"fingerprint": "pin"} }), []string{"but has none"}},
		"instead of itself":               {person(func(p *Person) { p.Instead = map[string]string{"iris": "iris"} }), []string{"itself"}},
		"instead of a badge":              {person(func(p *Person) { p.Instead = map[string]string{"badge": "iris"} }), []string{"nothing stands instead"}},
		"a chain": {person(func(p *Person) {
			p.SetPIN("1234", "")
			p.Instead = map[string]string{"fingerprint": "iris", "iris": "pin"}
		}), []string{"name what they do give"}},
		"visitor in a group": {person(func(p *Person) { p.Kind, p.Groups, p.Operator, p.Until = access.Visitor, []string{"ops"}, true, at(9) }),
			[]string{"groups: a visitor", "operator: a visitor", "until: a visitor"}},
		"left by hand": {person(func(p *Person) { p.Left = at(1) }), []string{"left: "}},

		"card is there":                {credential(func(c *Credential) { c.SetCard(card(4711)) }), []string{"the same card or finger is there already, as credential c-1"}},
		"no card":                      {credential(func(c *Credential) { c.card = nil }), []string{"the card is missing"}},
		"no such format":               {credential(func(c *Credential) { v := card(1); v.Format = "X"; c.SetCard(v) }), []string{`format: "X" is not known`}},
		"no such number":               {credential(func(c *Credential) { c.SetCard(card(1 << 20)) }), []string{"out of its range"}},
		"nobody's":                     {credential(func(c *Credential) { c.Person = "" }), []string{"say whose it is"}},
		"a stranger's":                 {credential(func(c *Credential) { c.Person = "p-77" }), []string{`person "p-77" is not there`}},
		"a visitor's":                  {credential(func(c *Credential) { c.Person = "v-1" }), []string{"visitors have visitors' badges"}},
		"state":                        {credential(func(c *Credential) { c.State = "mislaid" }), []string{"use active, lost or revoked"}},
		"finger and card":              {credential(func(c *Credential) { c.Biometric = true }), []string{"give no card with it"}},
		"finger that breaks the glass": {credential(func(c *Credential) { c.Biometric, c.BreakGlass, c.card = true, true, nil }), []string{"only a card breaks the glass"}},
		"visitors' badge of somebody":  {credential(func(c *Credential) { c.Visitors = true }), []string{"nobody's until it is issued", "nobody else has one"}},
		"visitors' badge with bounds":  {credential(func(c *Credential) { c.Visitors, c.Person, c.Until = true, "", at(9) }), []string{"as long as the visit"}},

		"week": {func() error {
			_, err := s.Schedules.Create(ctx, by, Schedule{Name: "s", Week: map[string][]string{"mon": {"7-19"}, "foo": {}}})
			return err
		}, []string{"interval", "not a day"}},
		"built in": {func() error { _, err := s.Schedules.Create(ctx, by, Schedule{Name: "always"}); return err }, []string{"built in"}},
		"holiday":  {func() error { _, err := s.Holidays.Create(ctx, by, Holiday{Date: "25.12."}); return err }, []string{"not a date"}},
		"group's rights": {func() error {
			_, err := s.Groups.Create(ctx, by, Group{Name: "g", Rights: []Right{{Door: "front", Area: "lab", Schedule: "nights"}, {Schedule: "always"}, {Door: "nowhere", Schedule: "always"}}})
			return err
		}, []string{`schedule "nights" is not there`, "to a door or to an area", `door "nowhere" is not there`}},

		"door of no controller": {func() error {
			_, err := s.Doors.Create(ctx, by, Door{Name: "d", Into: "lab", OutOf: "lab"})
			return err
		}, []string{"controller: ", "out_of: "}},
		"last rule":             {door(Rule{"in", "office", []string{"badge"}}), []string{`the last rule for the way in has the schedule "always"`}},
		"rule that never holds": {door(Rule{"in", "always", []string{"badge"}}, Rule{"in", "always", []string{"badge+pin"}}), []string{"no rule for the way in after number 1"}},
		"rule's sets":           {door(Rule{"in", "always", []string{"badge+nose", "badge+pin", "pin+badge"}}), []string{"not a factor", "badge+pin twice"}},
		"rule of no direction":  {door(Rule{"up", "always", []string{"badge"}}), []string{`rule 1 has the direction "up": use in or out`}},
		"last rule on the way out": {door(Rule{"out", "office", []string{"badge"}}, Rule{"", "always", []string{"badge"}}),
			[]string{`the last rule for the way out has the schedule "always"`}},
		"rule of a PIN alone": {door(Rule{"in", "always", []string{"pin"}}), []string{"rule 1: a pin alone does not say whose it is"}},
		"rule without sets":   {door(Rule{"in", "always", nil}), []string{"asks for nothing"}},

		"visit of nobody": {func() error { _, err := s.Visits.Create(ctx, by, Visit{ID: "x"}); return err },
			[]string{"visitor: ", "host: ", "authoriser: ", "organisation: ", "purpose: ", "until: ", "doors: "}},
		"visit authorised by its host":    {visit(func(v *Visit) { v.Authoriser = "p-1" }), []string{"another person authorises"}},
		"visit authorised by its escort":  {visit(func(v *Visit) { v.Escort = "p-2" }), []string{"is the escort"}},
		"visit authorised by the visitor": {visit(func(v *Visit) { v.Authoriser = "v-1" }), []string{"is the visitor", "it must be staff"}},
		"visit hosted by a contractor":    {visit(func(v *Visit) { v.Host = "p-3" }), []string{"host: p-3 is contractor: it must be staff"}},
		"visit of staff":                  {visit(func(v *Visit) { v.Visitor = "p-1" }), []string{"it must be visitor"}},
		"visit that has begun":            {visit(func(v *Visit) { v.CheckedIn = at(2) }), []string{"its course", "identified: is missing", "notice: is missing"}},
		"number of a passport": {visit(func(v *Visit) { v.Identified = &Identified{Form: strings.Repeat("passport ", 9), By: ""} }),
			[]string{"not its number", "say who checked it"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.do()
			for _, want := range tt.want {
				wantError(t, err, want)
			}
		})
	}
	if after := s.verify(); after != before {
		t.Errorf("audit from %v to %v", before.Head, after.Head)
	}
}

func TestWhatOthersNameStays(t *testing.T) {
	s := staffed(t)
	for _, err := range []error{
		s.Areas.Remove(ctx, by, "lab", 0), s.Schedules.Remove(ctx, by, "office", 0),
		s.Doors.Remove(ctx, by, "front", 0), s.Groups.Remove(ctx, by, "ops", 0),
	} {
		wantIs(t, err, ErrInUse)
	}
	wantError(t, s.Groups.Remove(ctx, by, "ops", 0), "person p-1, person p-3: change those first")
	wantError(t, s.People.Remove(ctx, by, "p-1", 0), "say that the person has left")
	wantError(t, s.Credentials.Remove(ctx, by, "c-1", 0), "revoke it first")
	wantError(t, s.Visits.Remove(ctx, by, "visit-1", 0), "not over")
	for _, err := range []error{s.Doors.Remove(ctx, by, "store", 0), s.Holidays.Remove(ctx, by, "2026-12-25", 0)} {
		if err != nil {
			t.Error(err)
		}
	}
	s.verify()
}

func TestListsComePageByPage(t *testing.T) {
	s := staffed(t)
	var got []string
	for after := ""; ; {
		page := must(s.People.List(ctx, Page{After: after, Limit: 3}))(t)
		if len(page) == 0 {
			break
		}
		for _, row := range page {
			got = append(got, row.Value.ID)
		}
		after = page[len(page)-1].Value.ID
	}
	if want := []string{"p-1", "p-2", "p-3", "v-1"}; !gocmp.Equal(got, want) {
		t.Errorf("people %v, want %v", got, want)
	}
	got = nil
	for _, row := range must(s.People.List(ctx, Page{Names: &Reference{KindGroup, "ops"}}))(t) {
		got = append(got, row.Value.ID)
	}
	if want := []string{"p-1", "p-3"}; !gocmp.Equal(got, want) {
		t.Errorf("in the group: %v, want %v", got, want)
	}
}

func TestACardIsFoundByItsNumberAndShownByItsEnd(t *testing.T) {
	s := staffed(t)
	row := must(s.WithCard(ctx, card(4711)))(t)
	if row.Value.ID != "c-1" || row.Value.Ends != "11" || row.Value.Format != "H10301" {
		t.Errorf("found %s", text(t, row))
	}
	_, err := s.WithCard(ctx, card(4712))
	wantIs(t, err, ErrNotFound)
	if shown := fmt.Sprintf("%v %+v %#v %s", row, row.Value, row.Value, text(t, row)); strings.Contains(shown, "4711") {
		t.Errorf("a number is shown: %s", shown)
	}
	p := must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.SetPIN("271828", "314159"); return nil }))(t)
	shown := fmt.Sprintf("%v %+v %#v %s", p, p.Value, p.Value, text(t, p))
	if strings.Contains(shown, "271828") || strings.Contains(shown, "314159") || !p.Value.HasPIN || !p.Value.HasSign {
		t.Errorf("a PIN is shown, or not known: %s", shown)
	}
}

func TestTheFileHoldsNoNumberNoPINAndNoName(t *testing.T) {
	s := staffed(t)
	must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.SetPIN("271828", ""); return nil }))(t)
	must(s.CheckIn(ctx, by, "visit-1", 0, arrival("b-1")))(t)
	for _, name := range must(filepath.Glob(s.path + "*"))(t) {
		raw := must(os.ReadFile(name))(t)
		for _, secret := range []string{"Lovelace", "Vera", "Acme", ":4711", "271828", "passport", "replace a disk"} {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds %q in clear", filepath.Base(name), secret)
			}
		}
	}
}

func TestOthersMayNotReadTheFileAndAnotherKeyDoesNotOpenIt(t *testing.T) {
	s := staffed(t)
	if info := must(os.Stat(s.path))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %#o", info.Mode().Perm())
	}
	o := s.o
	o.Sealer, _ = newKeys(t)
	_, err := Open(ctx, s.path, o)
	wantIs(t, err, ErrKey)
	o = s.o
	_, o.Index = newKeys(t)
	_, err = Open(ctx, s.path, o)
	wantIs(t, err, ErrKey)
	s.sql(`DELETE FROM meta WHERE name = 'key'`)
	_, err = Open(ctx, s.path, s.o)
	wantError(t, err, "what tells the registry's key was removed")
	if err := os.Chmod(s.path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = Open(ctx, s.path, s.o)
	wantError(t, err, "can be read by others")
}

func TestWritersAtOnceLoseNothing(t *testing.T) {
	s := staffed(t)
	other := must(Open(ctx, s.path, s.o))(t)
	defer other.Close()
	var wg sync.WaitGroup
	const each = 20
	won := make([]int, 2)
	for n, r := range []*Registry{s.Registry, other} {
		wg.Go(func() {
			for i := range each {
				if _, err := r.Areas.Create(ctx, by, Area{Name: fmt.Sprintf("a-%d-%d", n, i)}); err != nil {
					t.Error(err)
				}
				row, err := r.Areas.Get(ctx, "lab")
				if err != nil {
					t.Error(err)
					continue
				}
				_, err = r.Areas.Update(ctx, by, "lab", row.Version, func(a *Area) error {
					a.Title = fmt.Sprint(n, i)
					return nil
				})
				if err == nil {
					won[n]++
				} else {
					wantIs(t, err, ErrChanged)
				}
			}
		})
	}
	wg.Wait()
	s.verify()
	if row := must(s.Areas.Get(ctx, "lab"))(t); row.Version != uint64(1+won[0]+won[1]) {
		t.Errorf("version %d after %v changes", row.Version, won)
	}
	if got := len(must(s.Areas.List(ctx, Page{}))(t)); got != 1+2*each {
		t.Errorf("%d areas", got)
	}
}

func TestWhoCannotWriteSinceAnotherDoesIsToldSo(t *testing.T) {
	s := staffed(t)
	other := must(Open(ctx, s.path, s.o))(t)
	defer other.Close()
	must(other.w.ExecContext(ctx, `PRAGMA busy_timeout = 1`))(t) // and not ten seconds
	err := s.write(ctx, by, func(*tx) error {
		_, err := other.Areas.Create(ctx, by, Area{Name: "roof"})
		return err
	})
	wantIs(t, err, ErrBusy)
	must(other.Areas.Create(ctx, by, Area{Name: "roof"}))(t)
}

func TestOthersReadWhileALongChangeGoesOn(t *testing.T) {
	s := staffed(t)
	err := s.write(ctx, by, func(tx *tx) error {
		if _, err := s.Areas.create(tx, actionCreate, Area{Name: "roof"}); err != nil {
			return err
		}
		other, err := Open(ctx, s.path, s.o)
		if err != nil {
			return err
		}
		defer other.Close()
		if got := len(must(other.Areas.List(ctx, Page{}))(t)); got != 1 {
			t.Errorf("%d areas, before the change is done", got)
		}
		_, err = other.Verify(ctx, Head{}, nil)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got := len(must(s.Areas.List(ctx, Page{}))(t)); got != 2 {
		t.Errorf("%d areas, after it", got)
	}
}

func TestALeaverLosesEverythingByOneCommand(t *testing.T) {
	s := staffed(t)
	finger := Credential{ID: "c-2", Person: "p-1", Biometric: true, State: access.Active}
	must(s.Credentials.Create(ctx, by, finger))(t)
	must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.SetPIN("4321", ""); p.Operator = true; return nil }))(t)
	inside := s.visit("visit-2")
	inside.From = s.now
	must(s.Visits.Create(ctx, by, inside))(t)
	must(s.CheckIn(ctx, by, "visit-2", 0, arrival("")))(t)
	authorised := s.visit("visit-3")
	authorised.Host, authorised.Authoriser = "p-2", "p-1"
	must(s.Visits.Create(ctx, by, authorised))(t)

	s.now = s.now.Add(time.Minute)
	_, err := s.Leave(ctx, by, "p-1", 1)
	wantIs(t, err, ErrChanged)
	left := must(s.Leave(ctx, by, "p-1", 0))(t)
	want := Left{Person: "p-1", At: s.now, Seq: s.verify().Lines, Revoked: []string{"c-1", "c-2"}, Groups: []string{"ops"}, Cancelled: []string{"visit-1"}, Open: []string{"visit-2"}}
	if diff := gocmp.Diff(want, left); diff != "" {
		t.Error(diff)
	}
	p := must(s.People.Get(ctx, "p-1"))(t).Value
	if p.Groups != nil || p.HasPIN || p.Operator || !p.Left.Equal(s.now) || p.Name == "" {
		t.Errorf("left is %s", text(t, p))
	}
	for _, id := range want.Revoked {
		if c := must(s.Credentials.Get(ctx, id))(t).Value; c.State != access.Revoked {
			t.Errorf("%s is %s", id, c.State)
		}
	}
	if v := must(s.Visits.Get(ctx, "visit-1"))(t).Value; v.How != CloseCancelled || v.ClosedBy != by.By {
		t.Errorf("visit %s", text(t, v))
	}
	_, err = s.Credentials.Update(ctx, by, "c-1", 0, func(c *Credential) error { c.State = access.Active; return nil })
	wantError(t, err, "p-1 has left")
	_, err = s.Visits.Create(ctx, by, s.visit("visit-4"))
	wantError(t, err, "host: p-1 has left")
	_, err = s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.Groups = []string{"ops"}; return nil })
	wantError(t, err, "who has left is in no group")
	_, err = s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.Left = time.Time{}; return nil })
	wantError(t, err, "left: ")
	_, err = s.Leave(ctx, by, "p-1", 0)
	wantError(t, err, "has left already")
	must(s.SignOut(ctx, by, "visit-2", 0, false))(t) // the host being gone
	s.verify()
}

func TestAVisitFromItsPlanToItsEnd(t *testing.T) {
	s := staffed(t)
	_, err := s.Credentials.Update(ctx, by, "b-1", 0, func(c *Credential) error { c.Person = "v-1"; return nil })
	wantError(t, err, "issued at check-in")
	_, err = s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { v.Badge = "b-1"; return nil })
	wantError(t, err, "its course")

	_, err = s.CheckIn(ctx, by, "visit-1", 0, Arrival{})
	for _, want := range []string{"identified.form: is missing", "identified.by", "notice.version", "notice.signed"} {
		wantError(t, err, want)
	}
	_, err = s.CheckIn(ctx, by, "visit-1", 0, arrival("c-1"))
	wantError(t, err, "no visitors' badge")
	if v := must(s.Visits.Get(ctx, "visit-1"))(t).Value; v.State() != VisitPlanned {
		t.Fatalf("half checked in: %s", text(t, v))
	}
	v := must(s.CheckIn(ctx, by, "visit-1", 0, arrival("b-1")))(t).Value
	if v.State() != VisitIn || v.Badge != "b-1" || !v.Issued.Equal(s.now) || !v.Notice.At.Equal(s.now) || !v.BadgeOut() {
		t.Errorf("after check-in: %s", text(t, v))
	}
	must(s.Visits.Create(ctx, by, s.visit("visit-2")))(t)
	_, err = s.CheckIn(ctx, by, "visit-2", 0, arrival(""))
	wantError(t, err, "in already, by visit visit-1")
	_, err = s.Issue(ctx, by, "visit-1", "b-1")
	wantError(t, err, "have it surrendered")
	wantError(t, s.Cancel(ctx, by, "visit-1", 0), "only a planned one")
	wantError(t, s.Credentials.Remove(ctx, by, "b-1", 0), "revoke it first")

	// The badge is lost, and another is issued.
	must(s.Credentials.Update(ctx, by, "b-1", 0, func(c *Credential) error { c.State = access.Lost; return nil }))(t)
	must(s.Credentials.Create(ctx, by, visitorsBadge("b-2", 9002)))(t)
	_, err = s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { v.Notice.Signed = "Somebody else"; return nil })
	wantError(t, err, "its course")
	must(s.People.Create(ctx, by, Person{ID: "v-2", Kind: access.Visitor}))(t)
	_, err = s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { v.Visitor = "v-2"; return nil })
	wantError(t, err, "who is in stays who was let in")
	_, err = s.Credentials.Update(ctx, by, "b-1", 0, func(c *Credential) error { c.State = access.Active; return nil })
	wantError(t, err, "is surrendered")
	if v = must(s.Issue(ctx, by, "visit-1", "b-2"))(t).Value; v.Badge != "b-2" {
		t.Errorf("badge %q", v.Badge)
	}
	if v.Overstayed(v.Until.Add(-time.Second)) || !v.Overstayed(v.Until) {
		t.Error("overstay begins at the end of the visit")
	}
	if v = must(s.SignOut(ctx, by, "visit-1", 0, false))(t).Value; v.How != CloseSignedOut || v.BadgeOut() || v.State() != VisitClosed {
		t.Errorf("after sign-out: %s", text(t, v))
	}
	if c := must(s.Credentials.Get(ctx, "b-2"))(t).Value; c.Person != "" || c.State != access.Active {
		t.Errorf("a surrendered badge: %s", text(t, c))
	}
	_, err = s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { v.Purpose = "other"; return nil })
	wantError(t, err, "it is over")
	s.verify()
}

func TestVisitsAreClosedAutomaticallyAndMarkedSo(t *testing.T) {
	s := staffed(t)
	must(s.CheckIn(ctx, by, "visit-1", 0, arrival("b-1")))(t)
	must(s.Visits.Create(ctx, by, s.visit("visit-2")))(t) // who never comes
	later := s.visit("visit-3")
	later.Until = later.Until.Add(24 * time.Hour)
	must(s.Visits.Create(ctx, by, later))(t)
	s.now = s.now.Add(6 * time.Hour)
	if closed := must(s.CloseOverdue(ctx, by, 2*time.Hour))(t); closed != nil {
		t.Errorf("closed in the time of grace: %v", closed)
	}
	s.now = s.now.Add(time.Hour)
	if closed := must(s.CloseOverdue(ctx, by, 2*time.Hour))(t); !gocmp.Equal(closed, []string{"visit-1", "visit-2"}) {
		t.Errorf("closed %v", closed)
	}
	for id, want := range map[string]Close{"visit-1": CloseAutomatic, "visit-2": CloseMissed, "visit-3": ""} {
		if v := must(s.Visits.Get(ctx, id))(t).Value; v.How != want {
			t.Errorf("%s: %q, want %q", id, v.How, want)
		}
	}
	if c := must(s.Credentials.Get(ctx, "b-1"))(t).Value; c.State != access.Lost {
		t.Errorf("a badge that nobody brought back is %s", c.State)
	}
	// It is found.
	if v := must(s.Surrender(ctx, by, "visit-1"))(t).Value; v.BadgeOut() {
		t.Errorf("after it was surrendered: %s", text(t, v))
	}
	if c := must(s.Credentials.Get(ctx, "b-1"))(t).Value; c.State != access.Active || c.Person != "" {
		t.Errorf("a badge that was found: %s", text(t, c))
	}
	s.verify()
}

func TestCheckInKeepsToTheVisitsTime(t *testing.T) {
	s := staffed(t)
	start := s.now
	s.now = start.Add(-24 * time.Hour)
	_, err := s.CheckIn(ctx, by, "visit-1", 0, arrival(""))
	wantError(t, err, "too early")
	s.now = start.Add(5 * time.Hour)
	_, err = s.CheckIn(ctx, by, "visit-1", 0, arrival(""))
	wantError(t, err, "plan another")
	s.now = start
	must(s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { v.Escort = ""; return nil }))(t)
	_, err = s.CheckIn(ctx, by, "visit-1", 0, arrival(""))
	wantError(t, err, "escort: is missing")
}

func TestACancelledContextChangesNothing(t *testing.T) {
	s := staffed(t)
	before := s.verify()
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Areas.Create(over, by, Area{Name: "roof"})
	wantIs(t, err, context.Canceled)
	if after := s.verify(); after != before {
		t.Errorf("audit from %v to %v", before.Head, after.Head)
	}
}
