package allowlist

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

const factorsTOML = `
[schedules.office]
mon-fri = ["07:00-19:00"]

[doors.lab]
rules = [
  { schedule = "office", any_of = ["badge+fingerprint", "badge+iris"] },
  { schedule = "always", any_of = ["badge+fingerprint+pin"] },
]

[[doors.server-room.rules]]
schedule = "always"
any_of = ["fingerprint+iris"]

[[people]]
person = "p-1"
kind = "staff"
operator = true
pin = "4711"
duress_pin = "471199"
instead = { iris = "fingerprint" }
rights = [{ doors = ["lab", "server-room"], schedule = "always" }]
credentials = [
  { format = "H10301", facility = 9, number = 1 },
  { biometric = true, until = 2026-12-31 },
]

[[people]]
person = "p-2"
kind = "staff"
pin = "4711"
rights = [{ doors = ["lab"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 9, number = 2 }]

[[people]]
person = "p-3"
kind = "staff"
rights = [{ doors = ["lab"], schedule = "always" }]
credentials = [
  { format = "H10301", facility = 9, number = 3 },
  { biometric = true, state = "revoked" },
]
`

const factorsCSV = `person,kind,format,facility,number,state,until,doors,schedule,operator,pin,duress_pin,instead,biometric
p-1,staff,H10301,9,1,,,lab;server-room,always,yes,4711,471199,iris=fingerprint,
p-1,staff,,,,,2026-12-31,lab;server-room,always,yes,4711,471199,iris=fingerprint,yes
p-2,staff,H10301,9,2,,,lab,always,,4711,,,no
p-3,staff,H10301,9,3,,,lab,always,,,,,
p-3,staff,,,,revoked,,lab,always,,,,,yes
`

func TestFactorsAreReadFromEitherFile(t *testing.T) {
	for _, second := range []string{"", factorsCSV} { // CSV keeps the doors' rules that are there
		s := newSite(t)
		s.apply("policy.toml", factorsTOML)
		if second != "" {
			s.apply("people.csv", second)
		}
		l := s.open()
		asked := func(door string) (out []string) {
			for _, r := range l.Rules(door, access.In) {
				for _, set := range r.AnyOf {
					out = append(out, r.Schedule.Name+" "+set.String())
				}
			}
			return out
		}
		for door, want := range map[string][]string{
			"lab":         {"office badge+fingerprint", "office badge+iris", "always badge+pin+fingerprint"},
			"server-room": {"always fingerprint+iris"},
			"attic":       nil,
		} {
			if diff := gocmp.Diff(want, asked(door)); diff != "" {
				t.Errorf("%s asks for other factors:\n%s", door, diff)
			}
		}
		e, err := l.Lookup(h10301(9, 1))
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		if !e.Operator || len(e.PIN) != pinHashSize || len(e.DuressPIN) != pinHashSize || !e.Until.IsZero() ||
			!gocmp.Equal(e.Instead, []access.Substitution{{Of: access.Iris, By: access.Fingerprint}}) {
			t.Errorf("found %+v", e)
		}
		if e, err := l.Lookup(h10301(9, 3)); err != nil || e == nil || e.Operator || e.PIN != nil || e.DuressPIN != nil || e.Instead != nil {
			t.Errorf("found %+v, %v", e, err)
		}
	}
}

// Who gives the PIN of a threat would only be refused, and nobody would know.
func TestNobodyLosesAPINForWantOfAColumn(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", factorsTOML)
	_, err := s.try("people.csv", "person,kind,format,facility,number,doors,schedule,pin\np-1,staff,H10301,9,1,lab,always,4711\n", 0)
	wantFaults(t, err, []string{`1: column "operator" is missing`, `1: column "duress_pin" is missing`, `1: column "instead" is missing`})
	s.apply("people.csv", "person,kind,format,facility,number,doors,schedule,pin,operator,duress_pin,instead\np-1,staff,H10301,9,1,lab,always,4711,,,\n")
	// Now only a PIN can be lost.
	s.apply("people.csv", "person,kind,format,facility,number,doors,schedule,pin\np-1,staff,H10301,9,1,lab,always,4711\n")
	_, err = s.try("people.csv", "person,kind,format,facility,number,doors,schedule\np-1,staff,H10301,9,1,lab,always\n", 0)
	wantFaults(t, err, []string{`1: column "pin" is missing`})
}

func TestWhoMayBeIdentifiedWithoutABadgeIsFoundByThePerson(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", factorsTOML)
	l := s.open()
	want, err := l.Lookup(h10301(9, 1))
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Person("p-1")
	if err != nil || got == nil || got.Until.IsZero() {
		t.Fatal(got, err)
	}
	if diff := gocmp.Diff(want, got, cmpopts.IgnoreFields(access.Entry{}, "Until"), cmpopts.EquateComparable(), cmpopts.IgnoreUnexported(access.Schedule{})); diff != "" {
		t.Error(diff)
	}
	if got, err := l.Person("p-3"); err != nil || got == nil || got.State != access.Revoked {
		t.Errorf("revoked: %v, %v", got, err)
	}
	for _, id := range []string{"p-2", "p-4", "", "p-1\x00"} { // who has a badge only, and who is not there
		if got, err := l.Person(id); got != nil || err != nil {
			t.Errorf("%q: %v, %v", id, got, err)
		}
	}
}

func TestAPINIsThePersonsOwn(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", factorsTOML)
	src := s.source(0, nil)
	entry := func(number uint64) *access.Entry {
		e, err := src.Lookup(h10301(9, number))
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		return e
	}
	one, two, none := entry(1), entry(2), entry(3)
	if bytes.Equal(one.PIN, two.PIN) {
		t.Error("the same PIN of two people is kept alike")
	}
	stolen := *none
	stolen.PIN = one.PIN // a hash that is moved to another person says nothing there
	for _, c := range []struct {
		e          *access.Entry
		digits     string
		ok, duress bool
	}{
		{one, "4711", true, false}, {one, "471199", true, true}, {one, "4712", false, false}, {one, "", false, false}, {one, "47110", false, false},
		{two, "4711", true, false}, {two, "471199", false, false},
		{none, "4711", false, false}, {none, "", false, false}, {&stolen, "4711", false, false},
		{&access.Entry{Person: "p-1", PIN: one.PIN[:8]}, "4711", false, false}, {&access.Entry{Person: "p-1", PIN: append(one.PIN[:16:16], 0)}, "4711", false, false},
	} {
		if ok, duress := src.CheckPIN(c.e, []byte(c.digits)); ok != c.ok || duress != c.duress {
			t.Errorf("%s with %q: %v, %v", c.e.Person, c.digits, ok, duress)
		}
	}
}

// Rule 4: deny by default.
func TestASourceWithoutAnAllowlistKnowsNobody(t *testing.T) {
	src := newSite(t).source(0, nil)
	if e, err := src.Person("p-1"); e != nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	if rules := src.Rules("lab", access.In); rules != nil {
		t.Errorf("%v", rules)
	}
}

func TestASourceServesTheRulesOfItsAllowlist(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", factorsTOML)
	src := s.source(0, nil)
	if rules := src.Rules("lab", access.In); len(rules) != 2 {
		t.Errorf("%v", rules)
	}
	if e, err := src.Person("p-1"); e == nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
}

func TestFaultsOfFactorsAreReportedWithTheirLine(t *testing.T) {
	const head = "person,kind,format,facility,number,doors,schedule,operator,pin,duress_pin,instead,biometric,break_glass\n"
	for name, tt := range map[string]struct {
		file, text string
		want       []string
	}{
		"rules": {"x.toml", `[schedules.office]
mon-fri = ["07:00-19:00"]
[door_groups]
rooms = ["a"]
[doors.rooms]
rules = [{ schedule = "always", any_of = ["badge"] }]
[doors."*"]
rules = []
[doors.a]
rules = [
  { schedule = "ofice", any_of = ["badge+retina", "badge", "badge"] },
  { schedule = "always", any_of = [] },
  { schedule = "office", any_of = ["badge+badge", 5] },
]
colour = "red"
[doors.b]
[[doors.c.rules]]
any_of = ["badge"]
when = "always"
[[doors.d.rules]]
schedule = "always"
any_of = ["badge"]
[[doors.d.rules]]
schedule = "always"
any_of = ["badge+fingerprint", "fingerprint+badge"]
[[doors.e]]
rules = []
[doors.f]
rules = [{ schedule = "always", any_of = ["badge+pin", "pin"] }]
[doors.g]
rules = [
  { direction = "out", schedule = "always", any_of = ["badge"] },
  { schedule = "always", any_of = ["badge+pin"] },
  { direction = "out", schedule = "office", any_of = ["badge"] },
  { direction = "up", schedule = "always", any_of = ["badge"] },
  { direction = 1, schedule = "office", any_of = ["badge"] },
]
`, []string{
			"5: \"rooms\" is a door group: name each of its doors",
			"7: door \"*\": use 1 to 64",
			"7: door \"*\" has no rules",
			"11: any_of has badge twice",
			"11: any_of: \"retina\" is not a factor",
			"11: schedule \"ofice\" is not there",
			"12: any_of is empty",
			"12: no rule for the way in after this one would ever hold",
			"13: any_of is empty",
			"13: any_of is not a list",
			"13: the last rule of a door for the way in has the schedule \"always\"",
			"15: \"colour\" is not known here",
			"16: door \"b\" has no rules",
			"17: schedule \"\" is not there",
			"17: the last rule",
			"19: \"when\" is not known here",
			"20: no rule for the way in after this one",
			"23: any_of has badge+fingerprint twice",
			"26: e is not a table",
			"29: any_of: a pin alone does not say whose it is",
			"32: no rule for the way out after this one would ever hold",
			"33: no rule for the way in after this one would ever hold",
			"34: the last rule of a door for the way out has the schedule \"always\"",
			"35: direction \"up\": use in or out",
			"36: direction is not a string in quotes",
			"36: the last rule of a door for the way in",
		}},
		"people": {"x.toml", `[[people]]
person = "p-1"
kind = "staff"
pin = 4711
operator = "yes"
instead = { fingerprint = 1, iris = "iris", badge = "pin", retina = "pin", pin = "badge+iris" }
credentials = [{ biometric = true, break_glass = true, number = 4567 }, { biometric = true }, { biometric = true }]
[[people]]
person = "p-2"
kind = "staff"
pin = "471"
duress_pin = "4711471147114711x"
credentials = [{ biometric = "yes", format = "H10301", facility = 1, number = 1 }]
[[people]]
person = "p-3"
kind = "staff"
pin = "4711"
duress_pin = "4711"
instead = { fingerprint = "iris", iris = "pin" }
credentials = [{ format = "H10301", facility = 1, number = 2 }]
[[people]]
person = "p-4"
kind = "staff"
duress_pin = "4711"
instead = { fingerprint = "pin" }
credentials = [{ format = "H10301", facility = 1, number = 3, operator = true }]
[[people]]
person = "p-5"
kind = "staff"
instead = "pin"
credentials = [{ format = "H10301", facility = 1, number = 4 }]
`, []string{
			"1: instead of iris stands iris itself",
			"1: instead: \"badge+iris\" is not a factor",
			"1: instead: \"retina\" is not a factor",
			"1: nothing stands instead of a badge",
			"4: pin is not a string in quotes",
			"5: operator is not true or false",
			"6: fingerprint is not a string in quotes",
			"7: biometric stands for the person's finger or eye",
			"7: only a card breaks the glass",
			"7: the same biometric credential as in line 7 (person p-1)",
			"8: duress_pin is not 4 to 16 digits",
			"8: pin is not 4 to 16 digits",
			"13: biometric is not true or false",
			"14: duress_pin is the same as pin",
			"14: instead of fingerprint the person gives iris, and instead of that pin",
			"21: duress_pin without a pin",
			"21: instead of fingerprint the person gives a pin, but has none",
			"26: \"operator\" is not known here",
			"30: instead is not a table",
		}},
		"csv": {"x.csv", head +
			"p-1,staff,H10301,1,1,,,yes,47 11,,,,\n" +
			"p-2,staff,H10301,1,2,,,maybe,4711,4711,fingerprint,perhaps,\n" +
			"p-3,staff,H10301,1,3,,,,,,fingerprint=pin;fingerprint=iris,yes,\n" +
			"p-4,staff,,,,,,,,,iris=fingerprint,yes,yes\n" +
			"p-5,staff,H10301,1,5,,,,4711,4712,,,\n" +
			"p-5,staff,H10301,1,6,,,,4713,4712,,,\n" +
			"p-6,staff,H10301,1,7,,,,4713,4712,,,\n" +
			"p-6,staff,H10301,1,8,,,,4713,,,,\n" +
			"p-7,staff,H10301,1,9,,,yes,,,,,\n" +
			"p-7,staff,H10301,1,10,,,,,,,,\n" +
			"p-8,staff,H10301,1,11,,,,,,fingerprint=iris,,\n" +
			"p-8,staff,H10301,1,12,,,,,,iris=fingerprint,,\n" +
			"p-9,staff,H10301,1,13,,,,4711,,4711=pin; fingerprint = pin,,\n" +
			"p-10,staff,H10301,1,14,,,,,,iris=badge,,\n",
			[]string{
				"2: pin is not 4 to 16 digits",
				"3: biometric \"perhaps\": use yes or no",
				"3: duress_pin is the same as pin",
				"3: instead \"fingerprint\": write fingerprint=pin",
				"3: operator \"maybe\": use yes or no",
				"4: biometric stands for",
				"4: instead has fingerprint twice",
				"4: instead of fingerprint the person gives a pin, but has none",
				"5: only a card breaks the glass",
				"7: person p-5 has another pin in line 6",
				"9: person p-6 has another duress_pin in line 8",
				"11: person p-7 has another operator in line 10",
				"13: person p-8 has another instead in line 12",
				"15: instead of iris the person gives a badge",
				"14: instead: (a number of 4 digits) is not a factor",
			}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newSite(t).try(tt.file, tt.text, 0)
			wantFaults(t, err, tt.want)
			if strings.Contains(err.Error(), "471") {
				t.Errorf("digits of a PIN are told: %v", err)
			}
		})
	}
}

// Rule 7: no PIN at rest in clear.
func TestTheFileHoldsNoPIN(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", strings.ReplaceAll(factorsTOML, "4711", "60413579"))
	raw := s.raw()
	for _, secret := range []string{"60413579", "6041357999"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%q is in the file", secret)
		}
	}
	e, err := s.open().Lookup(h10301(9, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range [][]byte{e.PIN, e.DuressPIN} {
		if bytes.Contains(raw, kept) {
			t.Error("the hash of a PIN is in the file outside of the sealed rows")
		}
	}
}

// The file was made by the program as it was when rows had version 1, from
// policyTOML.
func TestAnAllowlistFromBeforeAnUpdateStillOpens(t *testing.T) {
	s := newSite(t)
	secret := bytes.Repeat([]byte{7}, 32)
	sealer, err := keys.NewSealer(secret, "allowlist")
	if err != nil {
		t.Fatal(err)
	}
	pepper, err := keys.NewPepper(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.NewSigner(crypto.Signer(key), keys.TypePolicy)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signer.Verifier(keys.TypePolicy)
	if err != nil {
		t.Fatal(err)
	}
	s.signer, s.keys = signer, Keys{Index: pepper, Sealer: sealer, Verifier: verifier}
	dump, err := os.ReadFile("testdata/version1/allowlist.sql")
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "old.db")
	db, err := sql.Open("sqlite3", old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(string(dump)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	s.restore(raw)
	if err := s.open().Check(context.Background(), nil); err != nil {
		t.Error(err)
	}
	if diff := gocmp.Diff(policyListed, s.listed()); diff != "" {
		t.Error(diff)
	}
	if m := s.apply("people.csv", factorsCSV[:strings.Index(factorsCSV, "p-1")]+"p-1,staff,H10301,9,1,,,lab,office,,4711,,,\n"); m.Version != 2 {
		t.Errorf("replaced by %+v", m)
	}
}

func TestAPolicyWhoseDoorsAskForNothingIsNotRead(t *testing.T) {
	for _, doors := range []string{`{"a":[]}`, `{"a":null}`, `{"a":[{"schedule":"office","any_of":["badge"]}]}`, `{"a":[{"schedule":"always","any_of":["nothing"]}]}`,
		`{"a":[{"schedule":"always","any_of":[""]}]}`,
		`{"a":[{"direction":"up","schedule":"always","any_of":["badge"]}]}`} {
		if _, err := parsePolicy([]byte(`{"profiles":[],"doors":` + doors + `}`)); err == nil {
			t.Errorf("%s was read", doors)
		}
	}
}

func TestARuleFromBeforeThereWereDirectionsIsForTheWayIn(t *testing.T) {
	c, err := parsePolicy([]byte(`{"profiles":[],"doors":{"a":[{"schedule":"always","any_of":["badge+pin"]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if in, out := c.doors["a"][access.In], c.doors["a"][access.Out]; len(in) != 1 || out != nil {
		t.Errorf("in %v, out %v", in, out)
	}
	if words := c.words.Doors["a"]; words[0].Direction != access.In {
		t.Errorf("in words %v", words)
	}
}

func TestADoorHasItsRulesForEachWay(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", strings.Replace(factorsTOML, `  { schedule = "office"`,
		"  { direction = \"out\", schedule = \"office\", any_of = [\"badge+pin\"] },\n  { direction = \"out\", schedule = \"always\", any_of = [\"badge\"] },\n"+
			`  { direction = "in", schedule = "office"`, 1))
	s.apply("people.csv", factorsCSV) // keeps them
	l := s.open()
	for _, want := range []struct {
		door  string
		side  access.Direction
		rules int
	}{{"lab", access.In, 2}, {"lab", access.Out, 2}, {"server-room", access.In, 1}, {"server-room", access.Out, 0}} {
		if got := l.Rules(want.door, want.side); len(got) != want.rules {
			t.Errorf("%s, %s: %v", want.door, want.side, got)
		}
	}
	if got := l.Rules("lab", access.Out); got[0].AnyOf[0] != access.Badge|access.PIN || got[1].AnyOf[0] != access.Badge {
		t.Errorf("on the way out %v", got)
	}
	if got := l.Rules("server-room", access.Out); got != nil {
		t.Errorf("without rules for the way out: %v", got)
	}
}

func TestAnEntryOfALaterVersionIsNotGuessedAt(t *testing.T) {
	b := appendEntry(nil, &stored{entry: access.Entry{Person: "p-1", Kind: access.Staff, State: access.Active, Operator: true}})
	if _, err := decodeEntry(b); err != nil {
		t.Fatal(err)
	}
	b[0] = 1 // which knew no operators
	if _, err := decodeEntry(b); err == nil {
		t.Error("version 1 has an operator")
	}
	b[0] = entryVersion + 1
	if _, err := decodeEntry(b); err == nil {
		t.Error("a later version was read")
	}
}

// BenchmarkCheckPIN compares a person with PINs and one without.
func BenchmarkCheckPIN(b *testing.B) {
	s := newSite(b)
	sum := hashPIN(s.keys.Index, "p-1", []byte("4711"))
	for name, e := range map[string]*access.Entry{"with": {Person: "p-1", PIN: sum[:], DuressPIN: sum[:]}, "without": {Person: "p-1"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				checkPIN(s.keys.Index, e, []byte("4712"))
			}
		})
	}
}
