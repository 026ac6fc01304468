package allowlist

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
)

// What the CRM makes of somebody is what the door finds.
func TestWhatIsBuiltIsFoundAtTheDoor(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	card, lost := h10301(9, 1), h10301(9, 2)
	from, until := time.Unix(1_900_000_000, 0).UTC(), time.Unix(2_000_000_000, 0).UTC()
	h := &Holder{
		Entry: access.Entry{
			Person: "v-1", Kind: access.Visitor, From: from, Until: until, Extended: true, Escorted: true, Clearance: 2, TOTP: bytes.Repeat([]byte{7}, 20),
			Instead: []access.Substitution{{Of: access.Fingerprint, By: access.PIN}},
			Visit:   &access.Visit{ID: "visit-1", Host: "p-2", Purpose: "audit", Ticket: "CHG-1"},
		},
		Name: "Grace Hopper", Source: "audit", Rights: []Right{{"vault", access.AlwaysName}, {"lab", access.AlwaysName}, {"lab", access.AlwaysName}},
		PIN: "4711", DuressPIN: "4712",
		Credentials: []Held{
			{Card: &card, State: access.Active, Until: until.Add(-time.Hour), BreakGlass: true},
			{Card: &lost, State: access.Lost, From: from.Add(-time.Hour), Until: until.Add(time.Hour)},
			{Biometric: true, State: access.Active},
			{Code: "48213377", CodeID: "c-1", CodeDoor: "lab", State: access.Active},
		},
	}
	c.delta(h)
	applied(t, src, c.snapshot())
	want := h.Entry
	want.State, want.Rights = access.Active, []access.Right{{Door: "lab", Schedule: access.Always()}, {Door: "vault", Schedule: access.Always()}}
	found := func(e *access.Entry, err error, change func(e *access.Entry)) {
		t.Helper()
		if err != nil || e == nil {
			t.Fatalf("%+v, %v", e, err)
		}
		if ok, duress := src.CheckPIN(e, []byte("4711")); !ok || duress {
			t.Error("not the PIN")
		}
		if ok, duress := src.CheckPIN(e, []byte("4712")); !ok || !duress {
			t.Error("not the PIN under duress")
		}
		want, got := want, *e
		change(&want)
		got.PIN, got.DuressPIN = nil, nil
		if d := gocmp.Diff(want, got, gocmp.Comparer(func(a, b *access.Schedule) bool { return a == b })); d != "" {
			t.Errorf("- wanted + found:\n%s", d)
		}
	}
	e, err := src.Lookup(card)
	found(e, err, func(e *access.Entry) { e.BreakGlass, e.Until = true, until.Add(-time.Hour) })
	e, err = src.Lookup(lost)
	found(e, err, func(e *access.Entry) { e.State = access.Lost })
	e, err = src.Person("v-1")
	found(e, err, func(*access.Entry) {})
	e, err = src.Code([]byte("48213377"))
	found(e, err, func(e *access.Entry) { e.Code = &access.Code{ID: "c-1", Door: "lab"} })
	if e, err := src.Code([]byte("48213378")); e != nil || err != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestAPersonWhoChangesNothingHasTheSameRows(t *testing.T) {
	s := governed(t)
	first := NewBuilder(s.keys.Index, nil)
	var before []Row
	for _, n := range []uint64{1, 2, 3} {
		h := worker(n, access.Active)
		h.Source = []string{"lab", "vault", "lab"}[n-1]
		rows, err := first.Rows(h)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, rows...)
	}
	again := NewBuilder(s.keys.Index, first.Profiles())
	for i, n := range []uint64{3, 2, 1} { // whoever comes first
		h := worker(n, access.Active)
		h.Source = []string{"lab", "vault", "lab"}[n-1]
		h.Rights = []Right{{"lab", access.AlwaysName}, {"yard", access.AlwaysName}} // which a group was given since
		rows, err := again.Rows(h)
		if err != nil {
			t.Fatal(err)
		}
		if want := before[2-i]; rows[0].Key != want.Key || !bytes.Equal(rows[0].Entry, want.Entry) {
			t.Errorf("person %d has another row", n)
		}
	}
	if want := []string{"lab", "vault"}; !slices.Equal(again.Profiles(), want) {
		t.Errorf("profiles %q, want %q", again.Profiles(), want)
	}
}

func TestOfSomebodyWhoIsTakenAwayOnlyTheKeysAreSaid(t *testing.T) {
	s := governed(t)
	b := NewBuilder(s.keys.Index, nil)
	rows, err := b.Rows(removed(1))
	if err != nil || len(rows) != 1 || rows[0].Entry != nil {
		t.Errorf("%+v, %v", rows, err)
	}
	if p := b.Profiles(); len(p) != 0 {
		t.Errorf("profiles %q", p)
	}
}

func TestWhatNoDoorCouldReadIsNotBuilt(t *testing.T) {
	card := h10301(9, 12345)
	for name, tt := range map[string]struct {
		spoil func(h *Holder)
		want  string
	}{
		"no person":                    {func(h *Holder) { h.Entry.Person = "" }, "letters, digits"},
		"a kind that is not known":     {func(h *Holder) { h.Entry.Kind = "guest" }, `kind "guest"`},
		"a state that is not known":    {func(h *Holder) { h.Credentials[0].State = "" }, `state ""`},
		"a clearance beyond lockdown":  {func(h *Holder) { h.Entry.Clearance = 6 }, "clearance 6"},
		"a PIN that is none":           {func(h *Holder) { h.PIN = "47a1" }, "a PIN is not"},
		"a duress PIN alone":           {func(h *Holder) { h.DuressPIN = "4711" }, "duress PIN"},
		"a duress PIN that is the PIN": {func(h *Holder) { h.PIN, h.DuressPIN = "4711", "4711" }, "duress PIN"},
		"nothing to carry":             {func(h *Holder) { h.Credentials[0] = Held{State: access.Active} }, "exactly one"},
		"a card and a code":            {func(h *Holder) { h.Credentials[0].Code = "12345678" }, "exactly one"},
		"a code with a letter":         {func(h *Holder) { h.Credentials[0] = Held{Code: "1234x678", State: access.Active} }, "digits"},
		"a code that breaks the glass": {func(h *Holder) {
			h.Credentials[0] = Held{Code: "12345678", CodeID: "c-1", CodeDoor: "lab", State: access.Active, BreakGlass: true}
		}, "only a card"},
	} {
		t.Run(name, func(t *testing.T) {
			h := worker(12345, access.Active)
			h.Credentials[0].Card = &card
			tt.spoil(h)
			rows, err := NewBuilder(newSite(t).keys.Index, nil).Rows(h)
			if err == nil || rows != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, %v; want %q", rows, err, tt.want)
			}
			for _, secret := range []string{h.PIN, h.DuressPIN, h.Credentials[0].Code, "12345 "} {
				if secret != "" && strings.Contains(strings.TrimPrefix(err.Error(), `person "p-12345"`), secret) {
					t.Errorf("%q tells %q", err, secret)
				}
			}
		})
	}
}

func TestTwoPeopleOfOneSourceHaveTheSameRights(t *testing.T) {
	b := NewBuilder(newSite(t).keys.Index, nil)
	if _, err := b.Rows(worker(1, access.Active)); err != nil {
		t.Fatal(err)
	}
	h := worker(2, access.Active)
	h.Rights = nil
	if _, err := b.Rows(h); err == nil {
		t.Error("the second has other rights")
	}
	if err := b.Define("lab", []Right{{"yard", access.AlwaysName}}); err == nil {
		t.Error("the source was defined to be another")
	}
}

func TestAPolicyThatNoDoorCouldReadIsNotWritten(t *testing.T) {
	b := NewBuilder(newSite(t).keys.Index, nil)
	if err := b.Define("night", []Right{{"lab", "nights"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Policy(Rules{}); err == nil || !strings.Contains(err.Error(), `"nights"`) {
		t.Errorf("error %v", err)
	}
}

func TestContentOfAListFromACRMIsCheckedSoonAfterTheStart(t *testing.T) {
	s := governed(t)
	c := newCRM(t, s.keys.Index)
	src := s.source(0, nil)
	c.delta(worker(1, access.Active), worker(2, access.Active))
	applied(t, src, c.snapshot())
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	s.edit(`DELETE FROM credential WHERE key = (SELECT max(key) FROM credential)`)
	again := s.source(0, nil)
	if version, _ := again.Newest(); version != 1 {
		t.Fatalf("version %d", version)
	}
	again.checkServed(t.Context())
	if version, _ := again.Newest(); version != 0 || again.Status(time.Now()).Fault == "" {
		t.Errorf("version %d, %+v", version, again.Status(time.Now()))
	}
	again.look(t.Context(), true)
	applied(t, again, c.snapshot()) // the same version, whole
	wantReason(t, again, access.ReasonGranted)
}
