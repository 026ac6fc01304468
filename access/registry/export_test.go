package registry

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// controller imports what the registry exports, as `gatehouse allowlist import`
// does.
type controller struct {
	dir    string
	keys   allowlist.Keys
	signer allowlist.Signer
}

func newController(t tester, dir string) *controller {
	t.Helper()
	sealer, pepper := newKeys(t)
	signer := must(keys.NewSigner(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), keys.TypePolicy))(t)
	verifier := must(signer.Verifier(keys.TypePolicy))(t)
	return &controller{dir, allowlist.Keys{Index: pepper, Sealer: sealer, Verifier: verifier}, signer}
}

// imports makes an export the allowlist, and opens it.
func (c *controller) imports(t tester, e Export) *allowlist.List {
	t.Helper()
	imp := must(allowlist.Begin(c.dir, c.keys))(t)
	plan, err := imp.ReadTOML(bytes.NewReader(e.TOML), allowlist.ReadOptions{Index: c.keys.Index, Formats: badge.Builtin(), Zone: time.UTC})
	if err != nil {
		t.Fatalf("%v\n%s", err, e.TOML)
	}
	if plan.People() != e.People || plan.Credentials() != e.Credentials {
		t.Errorf("%d people with %d credentials, exported %d with %d", plan.People(), plan.Credentials(), e.People, e.Credentials)
	}
	must(imp.Apply(ctx, plan, allowlist.ApplyOptions{Signer: c.signer, Now: time.Now()}))(t)
	if err := imp.Close(); err != nil {
		t.Fatal(err)
	}
	return must(allowlist.Open(filepath.Join(c.dir, allowlist.FileName), c.keys))(t)
}

// described is an entry in a line.
func described(e *access.Entry, name string) string {
	rights := make([]string, len(e.Rights))
	for i, r := range e.Rights {
		rights[i] = r.Door + "@" + r.Schedule.Name
	}
	slices.Sort(rights)
	visit := access.Visit{}
	if e.Visit != nil {
		visit = *e.Visit
	}
	from, until := "", ""
	if !e.From.IsZero() {
		from = e.From.UTC().Format(time.RFC3339)
	}
	if !e.Until.IsZero() {
		until = e.Until.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s %q %s %s [%s,%s) %v extended=%t glass=%t operator=%t instead=%v %+v", e.Person, name, e.Kind, e.State, from, until,
		rights, e.Extended, e.BreakGlass, e.Operator, e.Instead, visit) + besides(e)
}

// besides are the marks that few have.
func besides(e *access.Entry) string {
	var out string
	for _, m := range []struct {
		on   bool
		mark string
	}{{e.Escorted, " escorted"}, {e.MayEscort, " may-escort"}, {e.Supervisor, " supervisor"}, {e.Exempt, " exempt"},
		{e.Clearance > 0, fmt.Sprint(" clearance ", e.Clearance)}, {e.TOTP != nil, fmt.Sprintf(" totp %x", e.TOTP)}, {e.Code != nil, fmt.Sprintf(" code %+v", e.Code)}} {
		if m.on {
			out += m.mark
		}
	}
	return out
}

func names(t tester, l *allowlist.List) map[string]string {
	out := make(map[string]string)
	if err := l.Each(ctx, func(c *allowlist.Listed) error {
		out[c.Person] = c.Name
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsExportedIsImportedWhole(t *testing.T) {
	s := staffed(t)
	must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error {
		p.SetPIN("271828", "314159")
		p.Operator, p.Extended = true, true
		p.Until = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		p.Instead = map[string]string{"fingerprint": "pin"}
		return nil
	}))(t)
	must(s.Credentials.Update(ctx, by, "c-1", 0, func(c *Credential) error { c.BreakGlass = true; return nil }))(t)
	must(s.Credentials.Create(ctx, by, Credential{ID: "c-2", Person: "p-3", Biometric: true, State: access.Active}))(t)
	must(s.Credentials.Create(ctx, by, cardOf("c-3", "p-2", 4713)))(t) // who has no right anywhere
	lost := cardOf("c-4", "p-2", 4714)
	lost.State = access.Lost
	must(s.Credentials.Create(ctx, by, lost))(t)
	must(s.CheckIn(ctx, by, "visit-1", 0, arrival("b-1")))(t)
	code, digits := s.issue(t, "lab-door")
	before := s.verify()
	e := must(s.Export(ctx, by, "north-1"))(t)
	if !gocmp.Equal(e.Doors, []string{"front", "lab-door"}) {
		t.Errorf("doors %v", e.Doors)
	}
	line := must(s.Audit(ctx, AuditQuery{After: before.Lines}))(t)
	if len(line) != 1 || line[0].Action != "export" || line[0].ID != "north-1" || line[0].By != by.By {
		t.Errorf("in the audit: %s", text(t, line))
	}
	s.verify()

	l := newController(t, t.TempDir()).imports(t, e)
	defer l.Close()
	name := names(t, l)
	look := func(number uint64) string {
		entry := must(l.Lookup(card(number)))(t)
		if entry == nil {
			return ""
		}
		return described(entry, name[entry.Person])
	}
	for number, want := range map[uint64]string{
		4711: `p-1 "Ada Lovelace" staff active [,2027-01-01T00:00:00Z) [front@always lab-door@office] extended=true glass=true operator=true instead=[{fingerprint pin}] {ID: Ticket: Host: Organisation: Purpose: Escort: Authoriser: IDForm:}`,
		4713: "",
		4714: `p-2 "" staff lost [,) [] extended=false glass=false operator=false instead=[] {ID: Ticket: Host: Organisation: Purpose: Escort: Authoriser: IDForm:}`,
		9001: `v-1 "Vera Visitor" visitor active [2026-03-02T09:00:00Z,2026-03-02T13:00:00Z) [front@always lab-door@always] extended=false glass=false operator=false instead=[] {ID:visit-1 Ticket:INC-7 Host:p-1 Organisation:Acme Purpose:replace a disk Escort:p-3 Authoriser:p-2 IDForm:passport} escorted`,
	} {
		if got := look(number); got != want {
			t.Errorf("card %d:\n got %s\nwant %s", number, got, want)
		}
	}
	if e := must(l.Code([]byte(digits)))(t); e == nil || e.Code == nil || e.Code.ID != code.ID || e.Code.Door != "lab-door" || e.Visit == nil || e.Visit.ID != "visit-1" {
		t.Errorf("a code: %+v", e)
	}
	if p := must(l.Person("p-3"))(t); p == nil || p.Kind != access.Contractor || len(p.Rights) != 2 {
		t.Errorf("who is identified by a finger: %+v", p)
	}
	if p := must(l.Person("p-1"))(t); p != nil {
		t.Errorf("who is not: %+v", p)
	}
	ada := must(l.Lookup(card(4711)))(t)
	for digits, want := range map[string][2]bool{"271828": {true, false}, "314159": {true, true}, "0000": {false, false}} {
		if ok, duress := l.CheckPIN(ada, []byte(digits)); ok != want[0] || duress != want[1] {
			t.Errorf("PIN %s: %t, %t", digits, ok, duress)
		}
	}
	rules := l.Rules("lab-door", access.In)
	if len(rules) != 2 || rules[0].Schedule.String() != "mon-fri 07:00-19:00, holiday 10:00-12:00" ||
		!slices.Equal(rules[1].AnyOf, []access.Factor{access.Badge | access.PIN, access.Badge | access.Fingerprint}) {
		t.Errorf("rules %v", rules)
	}
	christmas := time.Date(2026, 12, 25, 8, 0, 0, 0, time.UTC) // a Friday
	if rules[0].Schedule.Contains(christmas, time.UTC) || !rules[0].Schedule.Contains(christmas.AddDate(0, 0, -1), time.UTC) {
		t.Error("the holiday is not kept")
	}
	if l.Rules("front", access.In) != nil {
		t.Error("a door without rules has some")
	}

	// The other controller hears nothing of it, but of the lost card.
	e = must(s.Export(ctx, by, "south-1"))(t)
	if got := string(e.TOML); strings.Contains(got, "Ada") || strings.Contains(got, "4711") || strings.Contains(got, "office") || !strings.Contains(got, "4714") {
		t.Errorf("for the other controller:\n%s", got)
	}
	_, err := s.Export(ctx, by, "west-1")
	wantError(t, err, "there are doors of north-1, south-1")
	wantIs(t, err, ErrNotFound)
}

func TestALeaverIsExportedAsRevoked(t *testing.T) {
	s := staffed(t)
	must(s.Leave(ctx, by, "p-1", 0))(t)
	l := newController(t, t.TempDir()).imports(t, must(s.Export(ctx, by, "north-1"))(t))
	defer l.Close()
	if e := must(l.Lookup(card(4711)))(t); e == nil || e.State != access.Revoked || e.Rights != nil {
		t.Errorf("a leaver's card is %+v", e)
	}
}

// Whatever the registry takes, the allowlist takes, and says the same of it.
func TestWhateverIsRegisteredSurvivesTheWayToADoor(t *testing.T) {
	dir := memory(t)
	rapid.Check(t, func(t *rapid.T) {
		own := must(os.MkdirTemp(dir, ""))(t)
		s := openSite(t, filepath.Join(own, FileName))
		defer func() {
			if err := errors.Join(s.Close(), os.RemoveAll(own)); err != nil {
				t.Fatal(err)
			}
		}()
		drawDoors(t, s)
		cards := drawPeople(t, s)
		l := newController(t, own).imports(t, must(s.Export(ctx, by, "north-1"))(t))
		defer l.Close()
		name := names(t, l)
		for _, c := range cards {
			p := must(s.People.Get(ctx, c.Person))(t).Value
			want := should(t, s, p, c)
			var e *access.Entry
			if c.Biometric {
				e = must(l.Person(c.Person))(t)
			} else {
				e = must(l.Lookup(*c.card))(t)
			}
			got := ""
			if e != nil {
				got = described(e, name[e.Person])
			}
			if got != want {
				t.Fatalf("credential %s:\n got %s\nwant %s", text(t, c), got, want)
			}
			if e == nil || !p.HasPIN || len(e.Rights) == 0 {
				continue
			}
			if ok, duress := l.CheckPIN(e, []byte(p.own.PIN)); !ok || duress {
				t.Fatalf("PIN %t %t", ok, duress)
			}
		}
		for _, row := range must(s.Doors.List(ctx, Page{}))(t) {
			got := []Rule(nil)
			for _, side := range []access.Direction{access.In, access.Out} {
				for _, r := range l.Rules(row.Value.Name, side) {
					rule := Rule{Direction: side, Schedule: r.Schedule.Name}
					for _, set := range r.AnyOf {
						rule.AnyOf = append(rule.AnyOf, set.String())
					}
					got = append(got, rule)
				}
			}
			if row.Value.Controller == "north-1" {
				sameSite(t, s, row.Value, l.Site(row.Value.Name))
			}
			if want := row.Value.Rules; row.Value.Controller == "north-1" && !gocmp.Equal(got, want) {
				t.Fatalf("door %s: rules %v, want %v", row.Value.Name, got, want)
			}
		}
	})
}

// sameSite holds what a controller asks at a door to what the registry has.
func sameSite(t *rapid.T, s *site, d Door, got *access.Door) {
	want := &access.Door{Name: d.Name, ServerRoom: d.ServerRoom, TwoPerson: d.TwoPerson, Together: time.Duration(d.Together), FirstPerson: d.FirstPerson,
		Disabled: d.Disabled, ClockUnsetKinds: d.ClockUnsetKinds}
	for name, to := range map[string]**access.Area{d.Into: &want.Into, d.OutOf: &want.OutOf} {
		if name != "" {
			a := must(s.Areas.Get(ctx, name))(t).Value
			*to = &access.Area{Name: name, Passback: a.Passback, Timed: time.Duration(a.Timed), Occupancy: a.Most}
		}
	}
	if d.StaleAfter != 0 || d.ExpiredAfter != 0 {
		want.Age = &access.Ages{StaleAfter: time.Duration(d.StaleAfter), ExpiredAfter: time.Duration(d.ExpiredAfter), ExpiredKinds: d.ExpiredKinds}
	}
	if free := got.Free; free != nil {
		want.Free = free
		if free.Name != d.Free {
			t.Fatalf("door %s is free in schedule %s, want %q", d.Name, free.Name, d.Free)
		}
	} else if d.Free != "" {
		t.Fatalf("door %s is never free, want %q", d.Name, d.Free)
	}
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty(), gocmp.Comparer(func(a, b *access.Schedule) bool { return a == b })); diff != "" {
		t.Fatal(diff)
	}
}

var (
	anyText  = rapid.StringOfN(rapid.RuneFrom([]rune(`aZ é"'\#=[]{}·ü世`)), 0, 20, maxText)
	anySet   = rapid.SampledFrom([]string{"badge", "badge+pin", "fingerprint", "badge+iris", "badge+pin+fingerprint", "code", "pin+code", "badge+totp"})
	anyTimes = rapid.SampledFrom([]string{"always", "office", "nights.2"})
	anyDay   = rapid.Custom(func(t *rapid.T) time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 400*24*3600).Draw(t, "seconds")) * time.Second)
	})
)

func drawSpan(t *rapid.T, name string, least, most Span) Span {
	if !rapid.Bool().Draw(t, name) {
		return 0
	}
	return Span(rapid.Int64Range(int64(least), int64(most)).Draw(t, name))
}

// drawWords makes a door ask for what it may. What is refused it does without.
func drawWords(t *rapid.T, d *Door) {
	d.ServerRoom, d.TwoPerson, d.FirstPerson = rapid.Bool().Draw(t, "server room"), rapid.Bool().Draw(t, "two-person"), rapid.Bool().Draw(t, "first person")
	d.Together = drawSpan(t, "together", shortestTogether, longestTogether)
	d.Disabled = anyText.Draw(t, "disabled")
	if d.StaleAfter = drawSpan(t, "stale", shortestAge, longestAge-1); rapid.Bool().Draw(t, "expires") {
		d.ExpiredAfter = Span(rapid.Int64Range(int64(max(d.StaleAfter+1, shortestAge)), int64(longestAge)).Draw(t, "expired"))
		d.ExpiredKinds = rapid.SliceOfDistinct(anyKind, rapid.ID).Draw(t, "expired kinds")
	}
	d.ClockUnsetKinds = rapid.SliceOfDistinct(anyKind, rapid.ID).Draw(t, "unset kinds")
	if !d.ServerRoom && !d.TwoPerson && rapid.Bool().Draw(t, "free") {
		d.Free = anyTimes.Draw(t, "free")
	}
}

var anyKind = rapid.SampledFrom([]access.Kind{access.Staff, access.Contractor, access.Visitor})

func drawDoors(t *rapid.T, s *site) {
	must(s.Areas.Create(ctx, by, Area{Name: "lab", Timed: drawSpan(t, "timed", shortestTimed, longestTimed)}))(t)
	must(s.Areas.Create(ctx, by, Area{Name: "hall", Passback: rapid.SampledFrom([]access.Passback{"", "soft", "hard"}).Draw(t, "passback"),
		Most: rapid.IntRange(0, mostOccupants).Draw(t, "occupancy")}))(t)
	must(s.Schedules.Create(ctx, by, Schedule{Name: "office", Week: map[string][]string{"mon-fri": {"07:00-12:00", "13:00-19:00"}}}))(t)
	must(s.Schedules.Create(ctx, by, Schedule{Name: "nights.2", Week: map[string][]string{"sat-mon": {"22:00-06:00"}, "holiday": {"00:00-24:00"}}}))(t)
	must(s.Holidays.Create(ctx, by, Holiday{Date: "2026-12-25"}))(t)
	for _, d := range []Door{{Name: "front", Controller: "north-1", Into: "hall"}, {Name: "lab.1", Controller: "north-1", Into: "lab", OutOf: "hall"}, {Name: "lab.2", Controller: "south-1", Into: "lab"}} {
		if rapid.Bool().Draw(t, "ruled") {
			d.Rules = []Rule{{"in", rapid.SampledFrom([]string{"office", "nights.2"}).Draw(t, "schedule"), rapid.SliceOfNDistinct(anySet, 1, 3, rapid.ID).Draw(t, "sets")},
				{"in", access.AlwaysName, []string{anySet.Draw(t, "set")}}}
		}
		if rapid.Bool().Draw(t, "ruled on the way out") {
			d.Rules = append(d.Rules, Rule{"out", access.AlwaysName, []string{anySet.Draw(t, "set")}})
		}
		drawWords(t, &d)
		must(s.Doors.Create(ctx, by, d))(t)
	}
	for _, g := range []string{"g1", "g2"} {
		group := Group{Name: g, Title: anyText.Draw(t, "title")}
		for range rapid.IntRange(0, 3).Draw(t, "rights") {
			r := Right{Door: rapid.SampledFrom([]string{"front", "lab.1", "lab.2", "*", ""}).Draw(t, "door"), Schedule: anyTimes.Draw(t, "times")}
			if r.Door == "" {
				r.Area = "lab"
			}
			group.Rights = append(group.Rights, r)
		}
		must(s.Groups.Create(ctx, by, group))(t)
	}
}

func drawPeople(t *rapid.T, s *site) (cards []Credential) {
	for n := range rapid.IntRange(0, 4).Draw(t, "people") {
		p := Person{ID: fmt.Sprintf("p-%d", n), Name: anyText.Draw(t, "name"), Kind: rapid.SampledFrom([]access.Kind{access.Staff, access.Contractor}).Draw(t, "kind"),
			Groups: rapid.SliceOfN(rapid.SampledFrom([]string{"g1", "g2"}), 0, 2).Draw(t, "groups"), Extended: rapid.Bool().Draw(t, "extended")}
		if rapid.Bool().Draw(t, "bounds") {
			p.From, p.Until = anyDay.Draw(t, "from"), anyDay.Draw(t, "until")
		}
		if rapid.Bool().Draw(t, "PIN") {
			p.SetPIN(rapid.StringMatching(`[0-9]{4,16}`).Draw(t, "PIN"), "")
			p.Instead = map[string]string{"iris": "pin"}
		}
		if p.Escorted = rapid.Bool().Draw(t, "escorted"); !p.Escorted {
			p.MayEscort, p.Supervisor = rapid.Bool().Draw(t, "may escort"), rapid.Bool().Draw(t, "supervisor")
		}
		p.Exempt, p.Clearance = rapid.Bool().Draw(t, "exempt"), access.Threat(rapid.IntRange(0, int(access.MaxThreat)).Draw(t, "clearance"))
		if rapid.Bool().Draw(t, "TOTP") {
			p.setOwn(func(o *own) { o.TOTP = rapid.SliceOfN(rapid.Byte(), totpSecret, totpSecret).Draw(t, "TOTP") })
		}
		if _, err := s.People.Create(ctx, by, p); err != nil {
			continue // its bounds are the wrong way round
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "credentials") {
			c := Credential{ID: fmt.Sprintf("c-%d-%d", n, i), Person: p.ID, State: rapid.SampledFrom([]access.State{access.Active, access.Lost, access.Revoked}).Draw(t, "state")}
			drawCard(t, &c)
			if rapid.Bool().Draw(t, "bounds") {
				c.Until = anyDay.Draw(t, "until")
			}
			if row, err := s.Credentials.Create(ctx, by, c); err == nil {
				cards = append(cards, row.Value)
			}
		}
	}
	return cards
}

// drawCard makes a card of any built-in format, or a finger.
func drawCard(t *rapid.T, c *Credential) {
	if c.Biometric = rapid.Float64Range(0, 1).Draw(t, "finger") < 0.2; c.Biometric {
		return
	}
	format := rapid.SampledFrom(badge.Builtin().Formats()).Draw(t, "format")
	v := format.New()
	for _, field := range format.Fields() {
		to := map[string]*uint64{"facility": &v.Facility, "number": &v.Number, "issue": &v.Issue, "oem": &v.OEM}[field.Name]
		if !field.Fixed {
			*to = rapid.Uint64Range(0, field.Max).Draw(t, field.Name)
		}
	}
	c.SetCard(v)
	c.BreakGlass = rapid.Bool().Draw(t, "glass")
}

// should is what a door of north-1 is to know of a credential, worked out on
// another way than Export's.
func should(t *rapid.T, s *site, p Person, c Credential) string {
	e := access.Entry{Person: p.ID, Kind: p.Kind, State: c.State, BreakGlass: c.BreakGlass}
	seen := make(map[Right]bool)
	for _, name := range p.Groups {
		for _, r := range must(s.Groups.Get(ctx, name))(t).Value.Rights {
			door := cmp.Or(r.Door, "lab.1")
			if right := (Right{Door: door, Schedule: r.Schedule}); door != "lab.2" && !seen[right] {
				seen[right] = true
				e.Rights = append(e.Rights, access.Right{Door: door, Schedule: &access.Schedule{Name: r.Schedule}})
			}
		}
	}
	if len(e.Rights) == 0 && c.State == access.Active {
		return ""
	}
	e.From, e.Until = p.From, c.Until
	if e.Until.IsZero() || !p.Until.IsZero() && p.Until.Before(e.Until) {
		e.Until = p.Until
	}
	if len(e.Rights) == 0 {
		return described(&e, "")
	}
	e.Extended = p.Extended
	e.Escorted, e.MayEscort, e.Supervisor, e.Exempt, e.Clearance = p.Escorted, p.MayEscort, p.Supervisor, p.Exempt, p.Clearance
	if p.own != nil {
		e.TOTP = p.own.TOTP
	}
	if p.Instead != nil {
		e.Instead = []access.Substitution{{Of: access.Iris, By: access.PIN}}
	}
	return described(&e, p.Name)
}
