package allowlist

import (
	"bytes"
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gatehouse-acs/gatehouse/access"
)

const siteTOML = `
[schedules.office]
mon-fri = ["07:00-19:00"]

[areas.lobby]
passback = "soft"
timed = "10m"

[areas.vault]
passback = "hard"
occupancy = 4

[doors.vault-1]
into = "vault"
out_of = "lobby"
server_room = true
two_person = true
together = "45s"
interlock = ["vault-2"]
first_person = true
disabled = "the lock is being replaced"
stale_after = "1h"
expired_after = "72h"
expired_kinds = ["staff"]
clock_unset_kinds = ["staff", "contractor"]
rules = [{ schedule = "always", any_of = ["badge+totp", "code"] }]

[doors.lobby]
into = "lobby"
free = "office"

[[people]]
person = "p-1"
kind = "staff"
may_escort = true
supervisor = true
exempt = true
clearance = 3
totp = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
instead = { iris = "totp" }
rights = [{ doors = ["vault-1"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 9, number = 1 }]

[[people]]
person = "v-1"
kind = "visitor"
escorted = true
host = "p-1"
visit = "visit-1"
ticket = "CHG-77"
rights = [{ doors = ["vault-1", "lobby"], schedule = "always" }]
credentials = [
  { format = "H10301", facility = 9, number = 2 },
  { code = "48213377", id = "c-1", door = "vault-1", from = 2026-03-01T08:00:00Z, until = 2026-03-01T18:00:00Z },
]
`

const siteCSV = `person,kind,format,facility,number,from,until,doors,schedule,escorted,may_escort,supervisor,exempt,clearance,totp,instead,host,visit,ticket,code,code_id,code_door
p-1,staff,H10301,9,1,,,vault-1,always,,yes,yes,yes,3,gezdgnbvgy3tqojqgezdgnbvgy3tqojq,iris=totp,,,,,,
v-1,visitor,H10301,9,2,,,vault-1;lobby,always,yes,,,,,,,p-1,visit-1,CHG-77,,,
v-1,visitor,,,,2026-03-01T08:00:00Z,2026-03-01T18:00:00Z,vault-1;lobby,always,yes,,,,,,,p-1,visit-1,CHG-77,48213377,c-1,vault-1
`

func TestWhatDoorsAndPeopleAreAskedBesideFactorsIsReadFromEitherFile(t *testing.T) {
	for _, second := range []string{"", siteCSV} { // CSV keeps the areas and doors that are there
		s := newSite(t)
		s.apply("policy.toml", siteTOML)
		if second != "" {
			s.apply("people.csv", second)
		}
		l := s.open()
		lobby := &access.Area{Name: "lobby", Passback: access.PassbackSoft, Timed: 10 * time.Minute}
		vault := &access.Area{Name: "vault", Passback: access.PassbackHard, Occupancy: 4}
		for name, want := range map[string]*access.Door{
			"vault-1": {Name: "vault-1", Into: vault, OutOf: lobby, ServerRoom: true, TwoPerson: true, Together: 45 * time.Second, Interlock: []string{"vault-2"},
				FirstPerson: true, Disabled: "the lock is being replaced", ClockUnsetKinds: []access.Kind{access.Staff, access.Contractor},
				Age: &access.Ages{StaleAfter: time.Hour, ExpiredAfter: 72 * time.Hour, ExpiredKinds: []access.Kind{access.Staff}}},
			"attic": nil,
		} {
			if diff := gocmp.Diff(want, l.Site(name)); diff != "" {
				t.Errorf("door %s:\n%s", name, diff)
			}
		}
		if d := l.Site("lobby"); d == nil || d.Free == nil || d.Free.Name != "office" || !gocmp.Equal(d.Into, lobby) || d.Age != nil {
			t.Errorf("door lobby: %+v", d)
		}
		if rules := l.Rules("vault-1", access.In); len(rules) != 1 || !slices.Equal(rules[0].AnyOf, []access.Factor{access.Badge | access.TOTP, access.OneTimeCode}) {
			t.Errorf("rules %v", rules)
		}
		if rules := l.Rules("lobby", access.In); rules != nil {
			t.Errorf("a door of which no rules are said has %v", rules)
		}

		staff := &access.Entry{Person: "p-1", Kind: access.Staff, State: access.Active, MayEscort: true, Supervisor: true, Exempt: true, Clearance: 3,
			TOTP: []byte("12345678901234567890"), Instead: []access.Substitution{{Of: access.Iris, By: access.TOTP}}}
		visitor := &access.Entry{Person: "v-1", Kind: access.Visitor, State: access.Active, Escorted: true,
			Visit: &access.Visit{ID: "visit-1", Ticket: "CHG-77", Host: "p-1"}}
		byCode := *visitor
		byCode.Code = &access.Code{ID: "c-1", Door: "vault-1"}
		byCode.From, byCode.Until = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 18, 0, 0, 0, time.UTC)
		for _, c := range []struct {
			what string
			find func() (*access.Entry, error)
			want *access.Entry
		}{
			{"the card of p-1", func() (*access.Entry, error) { return l.Lookup(h10301(9, 1)) }, staff},
			{"the card of v-1", func() (*access.Entry, error) { return l.Lookup(h10301(9, 2)) }, visitor},
			{"the code of v-1", func() (*access.Entry, error) { return l.Code([]byte("48213377")) }, &byCode},
			{"another code", func() (*access.Entry, error) { return l.Code([]byte("48213378")) }, nil},
			{"no code", func() (*access.Entry, error) { return l.Code(nil) }, nil},
		} {
			got, err := c.find()
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(c.want, got, cmpopts.IgnoreFields(access.Entry{}, "Rights")); diff != "" {
				t.Errorf("%s:\n%s", c.what, diff)
			}
		}
	}
}

// A code is no card and no PIN, whatever its digits are: each has a key of its own
// sort.
func TestACodeOpensInThePlaceOfACardAndOfNothingElse(t *testing.T) {
	index := newSite(t).keys.Index
	const digits = "48213377"
	sum := hashPIN(index, "", []byte(digits))
	keys := [][16]byte{codeKey(index, []byte(digits)), personKey(index, digits), sum, index.Index([]byte(digits)), index.Index(h10301(0, 48213377).Canonical())}
	for i := range keys {
		if slices.Contains(keys[:i], keys[i]) {
			t.Errorf("key %d is that of something else", i)
		}
	}
	s := newSite(t)
	s.apply("policy.toml", siteTOML)
	if e, err := s.open().Person(digits); e != nil || err != nil {
		t.Errorf("a person is found by a code: %v, %v", e, err)
	}
}

// Rule 7: no code and no secret at rest in clear.
func TestTheFileHoldsNoCodeAndNoSecret(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", siteTOML)
	raw := s.raw()
	for _, secret := range []string{"48213377", "12345678901234567890", "GEZDGNBVGY3TQOJQ", hex.EncodeToString([]byte("12345678901234567890"))} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%q is in the file", secret)
		}
	}
	var found int
	if err := s.open().Each(context.Background(), func(l *Listed) error {
		if l.Code != nil {
			found++
			if l.Format != CodeFormat {
				t.Errorf("a code is listed as of format %q", l.Format)
			}
		}
		return nil
	}); err != nil || found != 1 {
		t.Errorf("%d codes, %v", found, err)
	}
}

// Nobody under escort becomes somebody who is not for want of a column.
func TestNobodyLosesARuleForWantOfAColumn(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", siteTOML)
	_, err := s.try("people.csv", "person,kind,format,facility,number,doors,schedule\np-1,staff,H10301,9,1,lobby,always\n", 0)
	wantFaults(t, err, []string{`1: column "escorted" is missing`, `1: column "may_escort" is missing`, `1: column "supervisor" is missing`,
		`1: column "exempt" is missing`, `1: column "clearance" is missing`, `1: column "totp" is missing`, `1: column "instead" is missing`})
}

func TestFaultsOfWhatIsAskedBesideFactorsAreReportedWithTheirLine(t *testing.T) {
	const head = "person,kind,format,facility,number,until,doors,schedule,escorted,may_escort,clearance,totp,instead,code,code_id,code_door,break_glass\n"
	for name, tt := range map[string]struct {
		file, text string
		want       []string
	}{
		"areas and doors": {"x.toml", `[door_groups]
rooms = ["a"]
[areas.vault]
passback = "firm"
timed = "10"
occupancy = -1
colour = "red"
[areas."*"]
timed = "25h"
[doors.a]
into = "vault"
out_of = "vault"
server_room = true
free = "always"
interlock = ["a", "b", "b", "*"]
together = "6m"
stale_after = "2h"
expired_after = "1h"
expired_kinds = ["cat", "staff", "staff"]
clock_unset_kinds = ["dog"]
[doors.b]
into = "attic"
out_of = 5
free = "nights"
expired_kinds = ["staff"]
two_person = "yes"
disabled = "a\tb"
[doors.rooms]
first_person = true
[doors.c]
server_room = false
[doors.d]
two_person = true
free = "always"
[doors.e]
interlock = ["d"]
rules = []
[doors.f]
rules = [{ schedule = "always", any_of = ["totp", "totp+pin", "badge+totp", "badge+code"] }]
`, []string{
			"4: passback \"firm\": use soft or hard",
			"5: timed \"10\": write a time such as",
			"6: occupancy is not a whole number from 0",
			"7: \"colour\" is not known here",
			"8: area \"*\": use 1 to 64",
			"9: timed \"25h\" is not between 1s and 24h0m0s",
			"12: the door leads out of area \"vault\" and into it",
			"14: free: the door is one of a server room",
			"15: interlock has door \"b\" twice",
			"15: interlock names the door itself",
			"15: interlock: door \"*\": use 1 to 64",
			"16: together \"6m\" is not between",
			"18: expired_after is not later than stale_after",
			"19: expired_kinds has staff twice",
			"19: expired_kinds: kind \"cat\": use staff",
			"20: clock_unset_kinds: kind \"dog\"",
			"22: into: area \"attic\" is not there",
			"23: out_of is not a string in quotes",
			"24: free: schedule \"nights\" is not there: there are always",
			"25: expired_kinds without expired_after",
			"26: two_person is not true or false",
			"27: disabled has a control character",
			"28: \"rooms\" is a door group",
			"30: door \"c\" has no rules, and nothing else is said of it",
			"34: free: the door lets people in only two at a time",
			"35: door \"e\" has no rules",
			"36: interlock: door \"d\" stands unlocked in schedule always",
			"39: any_of: badge+code: a code stands in the place of a badge",
			"39: any_of: a pin+totp alone does not say whose it is",
			"39: any_of: a totp alone does not say whose it is: write badge+totp",
		}},
		"people": {"x.toml", `[[people]]
person = "p-1"
kind = "staff"
escorted = true
may_escort = true
clearance = 6
totp = "GEZDGNBV"
visit = "v 1"
instead = { code = "pin", iris = "code", fingerprint = "totp" }
rights = [{ doors = ["a"], schedule = "always" }]
credentials = [
  { code = "48213377", id = "c-48213377", door = "b" },
  { code = "4821337", id = "", door = "a b", until = 2026-03-01 },
  { code = "48213", id = "c-2", door = "a", until = 2026-03-01, break_glass = true, biometric = true, format = "H10301" },
  { id = "c-4", format = "H10301" },
]
[[people]]
person = "p-2"
kind = "staff"
totp = "482133771"
instead = { iris = "totp" }
credentials = [{ biometric = true }]
`, []string{
			"1: a one-time code is issued to be used once",
			"1: a one-time code is issued to be used once",
			"1: host, organisation",
			"1: the person is escorted, and so may neither",
			"1: totp is a secret of 5 bytes: use 16 to 64",
			"1: visit \"v 1\": it is the visit's id",
			"6: clearance is not a whole number from 0 to 5",
			"12: a code without until",
			"12: the code is for door \"b\", to which the person has no right",
			"12: the code's id has the code in it",
			"13: the code is for door \"a b\"",
			"13: the code's door \"a b\": use 1 to 64",
			"13: the code's id \"\": use 1 to 64",
			"14: code is not 6 to 12 digits",
			"14: code stands in the place of a card",
			"14: only a card breaks the glass",
			"1: instead of iris the person gives code, and instead of that pin",
			"15: a code without until",
			"15: code is not 6 to 12 digits",
			"15: code stands in the place of a card",
			"15: the code is for door \"\"",
			"15: the code's door \"\"",
			"17: totp is not base32",
		}},
		"twice": {"x.toml", `[[people]]
person = "v-1"
kind = "visitor"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [
  { code = "48213377", id = "c-1", door = "a", until = 2026-03-01 },
  { code = "48213377", id = "c-2", door = "a", until = 2026-03-01 },
  { code = "48213378", id = "c-1", door = "b", until = 2026-03-01 },
]
`, []string{
			"7: the same one-time code as in line 6",
			"8: the code's id \"c-1\" is in line 6 too",
		}},
		"csv": {"x.csv", head +
			"p-1,staff,H10301,1,1,,,,yes,yes,,,,,,,\n" +
			"p-2,staff,H10301,1,2,,,,perhaps,,7,4821337748213377,code=pin,,,,\n" +
			"p-3,staff,,,,,lab,always,,,x,,,48213377,c-1,attic,yes\n" +
			"p-4,staff,H10301,1,4,2026-03-01,lab,always,,,,,,482 133,c-2,lab,\n" +
			"p-8,staff,,,,2026-03-01,lab,always,,,,,,c-3,lab,48213377,\n" +
			"p-8,staff,,,,2026-03-01,lab,always,,,,,,48213377,code 48213377,lab,\n" +
			"p-8,staff,,,,2026-03-01,lab,always,,,,,,c-3,the 48213377,lab,\n" +
			"p-5,staff,H10301,1,5,,,,yes,,,,,,,,\n" +
			"p-5,staff,H10301,1,6,,,,,,,,,,,,\n" +
			"p-6,staff,H10301,1,7,,,,,,1,,,,,,\n" +
			"p-6,staff,H10301,1,8,,,,,,2,,,,,,\n" +
			"p-7,staff,H10301,1,9,,,,,,,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,,,,,\n" +
			"p-7,staff,H10301,1,10,,,,,,,,,,,,\n",
			[]string{
				"2: the person is escorted",
				"3: a one-time code is issued",
				"3: clearance is above 5",
				"3: escorted \"perhaps\": use yes or no",
				"3: totp is not base32",
				"4: a code without until",
				"4: clearance is not a whole number",
				"4: only a card breaks the glass",
				"4: the code is for door \"attic\"",
				"5: code is not 6 to 12 digits",
				"5: code stands in the place of a card",
				"6: code is not 6 to 12 digits",
				"6: the code is for door (a number of 8 digits), to which",
				"7: the code's id \"code …\": use 1 to 64",
				"7: the code's id has the code in it",
				"8: code is not 6 to 12 digits",
				"8: the code's id \"the …\": use 1 to 64",
				"10: person p-5 has another escorted in line 9",
				"12: person p-6 has another clearance in line 11",
				"14: person p-7 has another totp in line 13",
			}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newSite(t).try(tt.file, tt.text, 0)
			wantFaults(t, err, tt.want)
			for _, secret := range []string{"4821", "482 ", "GEZDGNBV"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a secret is told: %v", err)
				}
			}
		})
	}
}

// A policy from before doors had other words than rules reads as before.
func TestAPolicyFromBeforeAreasAsksForNothingMore(t *testing.T) {
	c, err := parsePolicy([]byte(`{"profiles":[],"doors":{"a":[{"direction":"in","schedule":"always","any_of":["badge+pin"]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.sites) != 0 || len(c.doors["a"][access.In]) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAPolicyWhoseSitesAreNotSoundIsNotRead(t *testing.T) {
	for _, words := range []string{
		`"sites":{"a":{"into":"vault"}}`,
		`"sites":{"a":{"server_room":true,"free":"always"}}`,
		`"sites":{"a":{"free":"nights"}}`,
		`"sites":{"a":{"together":"soon"}}`,
		`"sites":{"a":{"colour":"red"}}`,
		`"areas":{"vault":{"passback":"firm"}}`,
		`"areas":{"vault":{"occupancy":-1}}`,
		`"areas":{"a b":{}}`,
	} {
		if _, err := parsePolicy([]byte(`{"profiles":[],` + words + `}`)); err == nil {
			t.Errorf("%s was read", words)
		}
	}
}

// The bytes were written by the program as it was when entries had version 2.
func TestAnEntryOfVersion2StillReads(t *testing.T) {
	const kept = "\x02\x02\x01\xff\x03\x80\xc8\xce\xb4\r\x80\xcc\xfd\x93\x0e\xac\x02\x03v-1\x03Ada\x06H10301\x03p-1\x04Acme\x06repair\x03p-2\x03p-3\bpassport0123456789abcdef0123456789abcdef\x01\b\x02"
	pin := []byte("0123456789abcdef")
	want := stored{profile: 300, name: "Ada", format: "H10301", entry: access.Entry{Person: "v-1", Kind: access.Visitor, State: access.Lost,
		From: time.Unix(1_800_000_000, 0).UTC(), Until: time.Unix(1_900_000_000, 0).UTC(), Extended: true, BreakGlass: true, Operator: true, PIN: pin, DuressPIN: pin,
		Instead: []access.Substitution{{Of: access.Iris, By: access.PIN}},
		Visit:   &access.Visit{Host: "p-1", Organisation: "Acme", Purpose: "repair", Escort: "p-2", Authoriser: "p-3", IDForm: "passport"}}}
	got, err := decodeEntry([]byte(kept))
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(stored{})); diff != "" {
		t.Error(diff)
	}
	for _, cut := range [][]byte{[]byte(kept)[:len(kept)-1], append([]byte(kept), 0)} {
		if _, err := decodeEntry(cut); err == nil {
			t.Errorf("%q was read", cut)
		}
	}
	later := appendEntry(nil, &stored{entry: access.Entry{Person: "p-1", Kind: access.Staff, State: access.Active, Escorted: true}})
	later[0] = 2 // which knew nobody under escort
	if _, err := decodeEntry(later); err == nil {
		t.Error("version 2 has somebody under escort")
	}
}
