package allowlist

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// site is a controller's folder with its keys.
type site struct {
	t      testing.TB
	dir    string
	path   string
	keys   Keys
	signer Signer
	zone   *time.Location
}

func newSite(t testing.TB) *site {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	sealer, err := keys.NewSealer(secret, "allowlist")
	if err != nil {
		t.Fatal(err)
	}
	rand.Read(secret)
	pepper, err := keys.NewPepper(secret)
	if err != nil {
		t.Fatal(err)
	}
	signer, verifier := newPolicyKey(t)
	s := &site{t: t, dir: t.TempDir(), signer: signer, zone: zone, keys: Keys{Index: pepper, Sealer: sealer, Verifier: verifier}}
	s.path = filepath.Join(s.dir, FileName)
	return s
}

func newPolicyKey(t testing.TB) (Signer, Verifier) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
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
	return signer, verifier
}

func (s *site) readOptions() ReadOptions {
	return ReadOptions{Index: s.keys.Index, Formats: badge.Builtin(), Zone: s.zone}
}

// try imports a file of which the name says the sort.
func (s *site) try(name, text string, above uint64) (m Manifest, err error) {
	imp, err := Begin(s.dir, s.keys)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { err = errors.Join(err, imp.Close()) }()
	read := imp.ReadCSV
	if strings.HasSuffix(name, ".toml") {
		read = imp.ReadTOML
	}
	plan, err := read(strings.NewReader(text), s.readOptions())
	if err != nil {
		return Manifest{}, err
	}
	return imp.Apply(context.Background(), plan, ApplyOptions{Signer: s.signer, Now: time.Now(), Above: above})
}

func (s *site) apply(name, text string) Manifest {
	s.t.Helper()
	m, err := s.try(name, text, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *site) open() *List {
	s.t.Helper()
	l, err := Open(s.path, s.keys)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return l
}

func (s *site) listed() []string {
	s.t.Helper()
	var out []string
	if err := s.open().Each(context.Background(), func(c *Listed) error {
		out = append(out, describe(c))
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// describe writes all that is held of a credential in one line.
func describe(c *Listed) string {
	var rights []string
	for _, r := range c.Rights {
		rights = append(rights, r.Door+"@"+r.Schedule.Name)
	}
	var visit []string
	if c.Visit != nil {
		for _, f := range visitFields(c.Visit) {
			visit = append(visit, *f)
		}
	}
	bound := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s|%s|%s|%s|%s|%s|%s|%s|%v|%v|%v", c.Person, c.Name, c.Kind, c.State, c.Format, bound(c.From), bound(c.Until),
		strings.Join(rights, ","), c.Extended, c.BreakGlass, visit)
}

func h10301(facility, number uint64) badge.Credential {
	return badge.Credential{Format: "H10301", Facility: facility, Number: number}
}

const policyTOML = `
holidays = [2026-12-25, "2026-12-26"]

[schedules.office]
mon-fri = ["07:00-19:00"]
holiday = ["10:00-12:00"]

[schedules.nights]
mon-sun = ["22:00-06:00"]

[door_groups]
server-rooms = ["server-room-a", "server-room-b"]

[[people]]
person = "p-1001"
name = "Ada Lovelace"
kind = "staff"
extended = true
rights = [{ doors = ["server-rooms", "lab"], schedule = "office" }, { doors = ["lab"], schedule = "nights" }]
credentials = [
  { format = "H10301", facility = 123, number = 4567 },
  { format = "H10301", facility = 123, number = 4568, state = "lost" },
]

[[people]]
person = "v-2001"
name = "Grace Hopper"
kind = "visitor"
host = "p-1001"
organisation = "Acme Cooling"
purpose = "maintenance"
escort = "p-1002"
authoriser = "p-1003"
id_form = "passport"
from = 2026-03-01
until = 2026-03-31
rights = [{ doors = ["server-room-a"], schedule = "always" }]

[[people.credentials]]
format = "H10301"
facility = 1
number = 7
break_glass = true
until = 2026-03-01T12:30:00+00:00
`

var policyListed = []string{
	"p-1001|Ada Lovelace|staff|active|H10301|-|-|lab@nights,lab@office,server-room-a@office,server-room-b@office|true|false|[]",
	"p-1001|Ada Lovelace|staff|lost|H10301|-|-|lab@nights,lab@office,server-room-a@office,server-room-b@office|true|false|[]",
	"v-2001|Grace Hopper|visitor|active|H10301|2026-02-28T23:00:00Z|2026-03-01T12:30:00Z|server-room-a@always|false|true|[p-1001 Acme Cooling maintenance p-1002 p-1003 passport  ]",
}

func TestWhatIsImportedIsFound(t *testing.T) {
	s := newSite(t)
	m := s.apply("policy.toml", policyTOML)
	if m.Version != 1 || m.Count != 3 {
		t.Errorf("manifest %+v", m)
	}
	if diff := gocmp.Diff(policyListed, s.listed()); diff != "" {
		t.Error(diff)
	}
	l := s.open()
	if got := l.Manifest(); got != m || l.Size() != 3 || l.Version() != 1 || !l.Applied().Equal(m.Created) {
		t.Errorf("opened %+v, applied %+v", got, m)
	}
	if err := l.Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
	e, err := l.Lookup(h10301(123, 4567))
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	if e.Person != "p-1001" || e.Visit != nil || !e.Extended || e.BreakGlass || len(e.Rights) != 4 {
		t.Errorf("found %+v", e)
	}
	office := e.Rights[slices.IndexFunc(e.Rights, func(r access.Right) bool { return r.Door == "server-room-a" })].Schedule
	for at, want := range map[string]bool{"2026-12-24T12:00:00+01:00": true, "2026-12-25T12:30:00+01:00": false, "2026-12-25T11:30:00+01:00": true} {
		moment, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if office.Contains(moment, s.zone) != want {
			t.Errorf("office at %s: want %v", at, want)
		}
	}
	for _, c := range []badge.Credential{h10301(123, 4569), h10301(124, 4567), {Format: "H10302", Facility: 123, Number: 4567}, {}} {
		if e, err := l.Lookup(c); e != nil || err != nil {
			t.Errorf("%v is not on the list: %v, %v", c, e, err)
		}
	}
}

func TestCSVKeepsTheSchedulesAndDoorGroupsThatAreThere(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", policyTOML)
	m := s.apply("people.csv", "\ufeffperson,name,kind,format,facility,number,state,from,until,doors,schedule,extended,break_glass,host,organisation,purpose,escort,authoriser,id_form\r\n"+
		"p-1,\"Curie, Marie\",staff,H10301,9,1,,,2026-12-31,server-rooms; lab@nights,office,yes,no,,,,,,\r\n"+
		"v-1,N,visitor,H10301,9,2,revoked,2026-03-01T08:00,2026-03-01T09:00:00Z,*,always,,yes,p-1,Acme,audit,p-2,p-3,passport\r\n"+
		"c-1,,contractor,H10301,9,3,lost,,,,,,,,,,,,\r\n")
	if m.Version != 2 || m.Count != 3 {
		t.Errorf("manifest %+v", m)
	}
	if diff := gocmp.Diff([]string{
		"c-1||contractor|lost|H10301|-|-||false|false|[]",
		"p-1|Curie, Marie|staff|active|H10301|-|2026-12-31T23:00:00Z|lab@nights,server-room-a@office,server-room-b@office|true|false|[]",
		"v-1|N|visitor|revoked|H10301|2026-03-01T07:00:00Z|2026-03-01T09:00:00Z|*@always|false|true|[p-1 Acme audit p-2 p-3 passport  ]",
	}, s.listed()); diff != "" {
		t.Error(diff)
	}
	if e, err := s.open().Lookup(h10301(123, 4567)); e != nil || err != nil {
		t.Errorf("who is not in the file is still on the list: %v, %v", e, err)
	}
}

func TestCSVWithoutAnAllowlistHasTheBuiltInSchedule(t *testing.T) {
	s := newSite(t)
	s.apply("people.csv", "person,kind,format,facility,number,doors,schedule\np-1,staff,H10301,9,1,lab,always\n")
	if got := s.listed(); len(got) != 1 || !strings.Contains(got[0], "lab@always") {
		t.Errorf("got %q", got)
	}
	// One that cannot be read has rules that nobody knows.
	if err := os.WriteFile(s.path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.try("people.csv", "person,kind,format,facility,number,doors,schedule\n", 0)
	if !errors.Is(err, errNoRules) {
		t.Errorf("got %v", err)
	}
	s.apply("policy.toml", policyTOML) // repairs it
}

func TestEveryFaultIsReportedWithItsLine(t *testing.T) {
	const head = "person,name,kind,format,facility,number,state,until,doors,schedule,host\n"
	for _, tt := range []struct {
		name, file, text string
		want             []string
	}{
		{"toml", "x.toml", `holidays = ["2026-02-30", 12]
colour = "red"
[schedules.office]
mon-fri = ["07:00-19:00", "18:00-20:00"]
tuesday = []
[schedules.always]
mon = ["07:00-08:00"]
[schedules]
"of fice" = {}
late = 5
[door_groups]
none = []
all = ["*", "none"]
[[people]]
person = "Ada Lovelace"
kind = "boss"
extended = "yes"
rights = [{ doors = ["lab"], schedule = "ofice" },
  { doors = [], schedule = "office" }]
credentials = [
  { format = "H10301", facility = 123, number = 4567 },
  { format = "H10301", facility = 123, number = 456700 },
  { format = "H1030", facility = 123, number = "x" },
  { format = "H10301", number = 4567 },
  { format = "H10301", facility = 123, number = -4567, pin = 1234 },
]
[[people]]
person = "b"
kind = "staff"
host = "c"
until = 2020-01-01
from = 2021-01-01
[[people.credentials]]
format = "H10301"
number = 4567
facility = 123
state = "gone"
[[people]]
person = "b"
kind = "staff"
from = 08:00:00
credentials = [{ format = "H10301", facility = 1, number = 1, from = 1999-01-01 }]
[[people]]
person = "c"
kind = "staff"
`, []string{
			"1: holidays is not a list of dates",
			"2: \"colour\" is not known here",
			"3: schedule \"office\": mon-fri: 07:00-19:00 and 18:00-20:00 overlap",
			"3: schedule \"office\": \"tuesday\" is not a day",
			"6: schedule \"always\": the name \"always\" is taken",
			"9: schedule \"of fice\": use 1 to 64 letters",
			"10: late is not a table",
			"12: door group \"none\" has no doors",
			"13: door group \"all\" names \"none\", which is a group itself",
			"14: person \"Ada Lovelace\": use",
			"14: kind \"boss\": use staff",
			"17: extended is not true or false",
			"18: schedule \"ofice\" is not there: there are always, of fice, office",
			"19: rights to no doors",
			"22: H10301: number is over 65535",
			"23: number is not a whole number",
			"23: format \"H1030\" is not known",
			"24: facility is empty",
			"25: \"pin\" is not known here",
			"25: number is not a whole number",
			"27: host, organisation, purpose, escort, authoriser, id_form, visit, ticket are for visitors",
			"33: the same card as in line 21",
			"33: state \"gone\": use active",
			"33: until is not after from",
			"38: person \"b\" is there already in line 27",
			"41: from is not a date",
			"42: from \"1999-01-01\": the year is not between",
			"43: person \"c\" has no credentials",
		}},
		{"toml that does not parse", "x.toml", "holidays = []\n[schedules\n", []string{"3: expected"}},
		{"toml of another shape", "x.toml", "people = 3\nschedules = []\ndoor_groups = { a = \"b\" }\n", []string{
			"1: people is not a list of tables", "2: schedules is not a table", "3: a is not a list of strings", "3: door group \"a\" has no doors"}},
		{"csv", "x.csv", head +
			"p-1,A,staff,H10301,1,1,,2027-01-01,lab,,\n" +
			"p-1,B,visitor,H10301,1,1,gone,2027-13-01,lab,office,\n" +
			"p-3,\"x\"y,staff,H10301,1,3,,,,,\n" +
			"p-4,x,staff,H10301,1,3\n" +
			",x,staff,H10301,1,70000,,,a b;;,always,bob\n" +
			"p-5,\"two\nlines\",staff,Wiegand,1,3,,,,,\n" +
			"p-6,x,staff,H10301,,three,,,*@nights,,\n" +
			"p-7,\xff,staff,H10301,1,,,,,,\n",
			[]string{
				"2: door \"lab\" has no schedule",
				"3: person p-1 has another name in line 2",
				"3: schedule \"office\" is not there: there are always",
				"3: state \"gone\"",
				"3: the same card as in line 2 (person p-1)",
				"3: until: \"2027-13-01\" is not a time",
				"4: extraneous or missing",
				"5: 6 fields, the heading has 11",
				"6: H10301: number is over 65535",
				"6: door \"a b\"",
				"6: doors \"a b;;\": nothing stands between",
				"6: doors \"a b;;\": nothing stands between",
				"6: host, organisation",
				"6: person \"\"",
				"7: format \"Wiegand\" is not known",
				"7: name has a control character",
				"9: facility is empty",
				"9: number is not a whole number",
				"9: schedule \"nights\" is not there",
				"10: name is not UTF-8",
				"10: number is empty",
			}},
		{"one card for two people", "x.csv", head + "p-1,A,staff,H10301,1,1,,,,,\np-2,B,staff,H10301,1,2,,,,,\np-3,C,staff,H10301,1,1,,,,,\n",
			[]string{"4: the same card as in line 2 (person p-1)"}},
		{"numbers that are none, or 0", "x.csv", head + "p-1,A,staff,H10301,1,x,,,,,\np-2,B,staff,H10301,1,y,,,,,\np-3,C,staff,H10301,1,0,,,,,\n", []string{
			"2: number is not a whole number", "3: number is not a whole number"}},
		{"numbers that are none, or 0, in toml", "x.toml", `[[people]]
person = "a"
kind = "staff"
credentials = [
{ format = "H10301", facility = 1, number = "x" },
{ format = "H10301", facility = 1, number = -1 },
{ format = "H10301", facility = 1, number = 0 },
]
`, []string{"5: number is not a whole number", "6: number is not a whole number"}},
		{"one person of two kinds", "x.csv", head + "p-1,A,staff,H10301,1,1,,,,,\np-1,A,visitor,H10301,1,2,,,,,\n", []string{"3: person p-1 is visitor here and staff in line 2"}},
		{"heading", "x.csv", "person,name,name,card\n", []string{"1: column \"card\" is not known", "1: column \"doors\" is missing", "1: column \"format\" is missing",
			"1: column \"kind\" is missing", "1: column \"name\" is there twice", "1: column \"number\" is missing", "1: column \"schedule\" is missing"}},
		{"semicolons", "x.csv", "person;kind\np;staff\n", []string{"1: the columns are separated by semicolons"}},
		{"empty", "x.csv", "", []string{"1: the file is empty"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			_, err := s.try(tt.file, tt.text, 0)
			wantFaults(t, err, tt.want)
			if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 1 {
				t.Errorf("a refused file left something: %v, %v", entries, err)
			}
		})
	}
}

// wantFaults compares the faults of an import with how each is to begin.
func wantFaults(t *testing.T, err error, want []string) {
	t.Helper()
	faults, ok := errors.AsType[*Faults](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	var left []string
	for _, f := range faults.List {
		left = append(left, fmt.Sprintf("%d: %s", f.Line, f.Text))
	}
	if !slices.IsSortedFunc(faults.List, func(a, b fields.Fault) int { return cmp.Compare(a.Line, b.Line) }) {
		t.Error("not in the order of the lines")
	}
	for _, w := range want {
		i := slices.IndexFunc(left, func(s string) bool { return strings.HasPrefix(s, w) })
		if i < 0 {
			t.Errorf("no fault %q", w)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		t.Errorf("not expected: %q", left)
	}
}

func TestManyFaultsAreCounted(t *testing.T) {
	var b strings.Builder
	b.WriteString("person,kind,format,facility,number,doors,schedule\n")
	for i := range 200 {
		fmt.Fprintf(&b, "p-%d,cat,H10301,1,%d,,\n", i, i)
	}
	_, err := newSite(t).try("x.csv", b.String(), 0)
	faults, ok := errors.AsType[*Faults](err)
	if !ok || len(faults.List) != 50 || faults.Total() != 200 || !strings.HasSuffix(faults.Error(), "and 150 more") {
		t.Errorf("got %v", err)
	}
}

// Rule 7, for what the people who import see.
func TestFaultsNeverHoldACardsNumber(t *testing.T) {
	const number = "48151623"
	for file, text := range map[string]string{
		"a.csv":  "person,kind,format,facility,number,doors,schedule\np,staff,H10301,1," + number + ",,\n",
		"b.csv":  "person,kind,format,facility,number,doors,schedule\np,staff,H10301," + number + ",1,,\n",
		"c.csv":  "kind,person,facility,format,number,schedule,doors\np,staff,H10301," + number + ",1,,\n",
		"d.csv":  "person,kind,format,facility,number,doors,schedule\n" + number + "," + number + "," + number + ",1," + number + "x," + number + "," + number + "\n",
		"e.csv":  "person,kind,format,facility," + number + ",doors,schedule\n",
		"a.toml": "[[people]]\nperson='p'\nkind='staff'\ncredentials=[{format='H10301',facility=1,number=" + number + "}]\n",
		"b.toml": "[[people]]\nperson='p'\nkind='staff'\ncredentials=[{format='H10301',facility=1,number='" + number + "'}]\n",
		"c.toml": "[[people]]\nperson='p'\nkind='staff'\ncredentials=[{format='H10301',facility=1,number=" + number + "x}]\n",
		"d.toml": "[[people]]\nperson='p'\nkind='staff'\ncredentials=[{format='H10301',facility=1,number=1}]\nfrom=" + number + "\n",
		"e.toml": "number = " + number + number + number + "\n",
	} {
		_, err := newSite(t).try(file, text, 0)
		if _, ok := errors.AsType[*Faults](err); !ok {
			t.Errorf("%s: got %v", file, err)
			continue
		}
		if strings.Contains(err.Error(), number) {
			t.Errorf("%s: the number is in %q", file, err)
		}
	}
}

// Rule 7: no raw badge number in clear at rest, and what identifies people is
// sealed.
func TestFileHoldsNoCardNumberAndNoNameInClear(t *testing.T) {
	const text = `
[[people]]
person = "v-1"
name = "Wilhelmina Quartermain"
kind = "visitor"
host = "host-zeppelin"
organisation = "Xylophone Cryogenics"
purpose = "quench valve"
escort = "escort-zebra"
authoriser = "authoriser-yak"
id_form = "seafarers-book"
rights = [{ doors = ["lab"], schedule = "always" }]
credentials = [
  { format = "H10302", number = 23456789012 },
  { format = "H10302", number = 11259375 },
  { format = "H10306", facility = 54321, number = 47806 },
]
`
	traces := map[string][]byte{}
	for _, name := range []string{"Wilhelmina", "Quartermain", "zeppelin", "Xylophone", "Cryogenics", "quench", "zebra", "authoriser-yak", "seafarers"} {
		traces["the word "+name] = []byte(name)
	}
	for _, n := range []uint64{23456789012, 11259375, 54321<<16 | 47806} {
		for how, code := range encodings(n) {
			traces[fmt.Sprintf("%d as %s", n, how)] = code
		}
	}
	// A few bytes may stand in sealed rows by chance, but not in every file.
	found := make(map[string]int)
	const files = 4
	for range files {
		s := newSite(t)
		s.apply("x.toml", text)
		entries, err := os.ReadDir(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		var all []byte // the file, and whatever SQLite may have left beside it
		for _, e := range entries {
			raw, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, raw...)
		}
		for what, trace := range traces {
			if bytes.Contains(all, trace) {
				found[what]++
			}
		}
		for _, c := range []badge.Credential{{Format: "H10302", Number: 23456789012}, {Format: "H10302", Number: 11259375}, {Format: "H10306", Facility: 54321, Number: 47806}} {
			if e, err := s.open().Lookup(c); e == nil || err != nil {
				t.Errorf("%v, which was looked for, was not imported: %v", c, err)
			}
		}
	}
	for what, n := range found {
		if n == files || len(traces[what]) > 6 {
			t.Errorf("%d of %d files hold %s", n, files, what)
		}
	}
}

// encodings are the obvious ways of writing a number.
func encodings(n uint64) map[string][]byte {
	big, little := binary.BigEndian.AppendUint64(nil, n), binary.LittleEndian.AppendUint64(nil, n)
	out := map[string][]byte{
		"decimal": fmt.Append(nil, n), "hexadecimal": fmt.Appendf(nil, "%x", n), "HEXADECIMAL": fmt.Appendf(nil, "%X", n),
		"binary": fmt.Appendf(nil, "%b", n), "varint": binary.AppendUvarint(nil, n), "signed varint": binary.AppendVarint(nil, int64(n)),
	}
	for size := 3; size <= 8; size++ {
		if size == 8 || n>>(8*size) == 0 {
			out[fmt.Sprintf("%d bytes, big end first", size)] = big[8-size:]
			out[fmt.Sprintf("%d bytes, little end first", size)] = little[:size]
		}
	}
	return out
}

func TestImportIsAllOrNothing(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", policyTOML)
	before, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	imp, err := Begin(s.dir, s.keys)
	if err != nil {
		t.Fatal(err)
	}
	defer imp.Close()
	plan, err := imp.ReadCSV(strings.NewReader("person,kind,format,facility,number,doors,schedule\np-1,staff,H10301,9,1,lab,always\n"), s.readOptions())
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, otherVerifier := newPolicyKey(t)
	for name, tt := range map[string]struct {
		ctx    context.Context
		signer Signer
		keys   Keys
	}{
		"cancelled":                       {cancelled, s.signer, s.keys},
		"signer fails":                    {t.Context(), failingSigner{}, s.keys},
		"signed by another key":           {t.Context(), s.signer, Keys{s.keys.Index, s.keys.Sealer, otherVerifier}},
		"content is not as it was signed": {t.Context(), wrongDigest{s.signer}, s.keys},
	} {
		attempt := *imp
		attempt.keys = tt.keys
		if _, err := attempt.Apply(tt.ctx, plan, ApplyOptions{Signer: tt.signer, Now: time.Now()}); err == nil {
			t.Errorf("%s: it was applied", name)
		}
		after, err := os.ReadFile(s.path)
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the allowlist was changed (%v)", name, err)
		}
		if _, err := os.Stat(s.path + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file aside was left (%v)", name, err)
		}
	}
	// What an import that was killed left is in nobody's way.
	if err := os.WriteFile(s.path+".new", []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := imp.Apply(t.Context(), plan, ApplyOptions{Signer: s.signer, Now: time.Now()}); err != nil {
		t.Error(err)
	}
}

type failingSigner struct{}

func (failingSigner) Sign([]byte) (string, error) { return "", errors.New("no key") }

// wrongDigest signs a digest that is not the content's.
type wrongDigest struct{ Signer }

func (s wrongDigest) Sign(payload []byte) (string, error) {
	var m Manifest
	if err := json.Unmarshal(payload, &m); err != nil {
		return "", err
	}
	m.Digest = strings.Repeat("0", len(m.Digest))
	payload, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	return s.Signer.Sign(payload)
}

func TestOneImportAtATime(t *testing.T) {
	s := newSite(t)
	imp, err := Begin(s.dir, s.keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(s.dir, s.keys); err == nil || !strings.Contains(err.Error(), "another import") {
		t.Errorf("a second import began: %v", err)
	}
	if err := imp.Close(); err != nil {
		t.Fatal(err)
	}
	s.apply("policy.toml", policyTOML)
}

func TestVersionsOnlyRise(t *testing.T) {
	s := newSite(t)
	for i, tt := range []struct{ above, want uint64 }{{0, 1}, {0, 2}, {41, 42}, {7, 43}, {0, 44}} {
		m, err := s.try("policy.toml", policyTOML, tt.above)
		if err != nil || m.Version != tt.want {
			t.Errorf("import %d: version %d, want %d (%v)", i, m.Version, tt.want, err)
		}
	}
}

func TestAnyChangedByteIsNoticedOrChangesNothing(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", policyTOML)
	good, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	step := max(len(good)/300, 1)
	for at := 0; at < len(good); at += step {
		bad := bytes.Clone(good)
		bad[at] ^= 0x41
		if err := os.WriteFile(s.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.readAll(); err != nil {
			noticed++
		}
	}
	// Most of a small file is empty pages; of the bytes that say something, none
	// may change unnoticed, which readAll checks.
	if noticed == 0 {
		t.Error("no change was noticed")
	}
}

// readAll reads everything there is; without an error it must be what was
// imported.
func (s *site) readAll() error {
	l, err := Open(s.path, s.keys)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Check(context.Background(), nil); err != nil {
		return err
	}
	var got []string
	if err := l.Each(context.Background(), func(c *Listed) error { got = append(got, describe(c)); return nil }); err != nil {
		return err
	}
	slices.Sort(got)
	if diff := gocmp.Diff(policyListed, got); diff != "" {
		s.t.Error(diff)
	}
	return nil
}

// change runs SQL on the file, as somebody with a stolen card or root may.
func (s *site) change(query string, args ...any) {
	s.t.Helper()
	db, err := sql.Open("sqlite3", s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(query, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		s.t.Fatalf("%s changed nothing (%v)", query, err)
	}
}

func TestChangedContentIsNotTrusted(t *testing.T) {
	for name, tt := range map[string]struct {
		change string
		opens  bool // only Check or a lookup can notice
	}{
		"row removed":           {`DELETE FROM credential WHERE key = (SELECT min(key) FROM credential)`, true},
		"row added":             {`INSERT INTO credential SELECT zeroblob(16), entry FROM credential LIMIT 1`, true},
		"row changed":           {`UPDATE credential SET entry = zeroblob(80) WHERE key = (SELECT min(key) FROM credential)`, true},
		"rows exchanged":        {`UPDATE credential SET entry = (SELECT entry FROM credential ORDER BY key DESC LIMIT 1)`, true},
		"schedules changed":     {`UPDATE meta SET value = CAST(replace(CAST(value AS TEXT), '19:00', '23:00') AS BLOB) WHERE name = 'policy'`, false},
		"manifest changed":      {`UPDATE meta SET value = CAST(replace(CAST(value AS TEXT), 'e', 'f') AS BLOB) WHERE name = 'manifest'`, false},
		"manifest removed":      {`DELETE FROM meta WHERE name = 'manifest'`, false},
		"policy removed":        {`DELETE FROM meta WHERE name = 'policy'`, false},
		"more beside the table": {`UPDATE meta SET value = CAST(CAST(value AS TEXT) || '{}' AS BLOB) WHERE name = 'policy'`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply("policy.toml", policyTOML)
			s.change(tt.change)
			l, err := Open(s.path, s.keys)
			if (err == nil) != tt.opens || err != nil && !errors.Is(err, ErrNotTrusted) {
				t.Fatalf("opened with %v", err)
			}
			if err == nil {
				defer l.Close()
				if err := l.Check(t.Context(), nil); !errors.Is(err, ErrNotTrusted) {
					t.Errorf("checked with %v", err)
				}
			}
		})
	}
}

func TestARowOfAnOlderFileDoesNotRevive(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", policyTOML)
	key := s.keys.Index.Index(h10301(123, 4567).Canonical())
	old, err := s.open().row(key[:])
	if err != nil || old == nil {
		t.Fatal(old, err)
	}
	s.apply("policy.toml", strings.Replace(policyTOML, "number = 4567 }", "number = 4567, state = \"revoked\" }", 1))
	s.change(`UPDATE credential SET entry = ? WHERE key = ?`, old, key[:])
	// Even before the content has been checked.
	if e, err := s.open().Lookup(h10301(123, 4567)); e != nil || !errors.Is(err, ErrNotTrusted) {
		t.Errorf("found %+v, %v", e, err)
	}
}

func TestAnOpenListStaysTheFileThatWasOpened(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", policyTOML)
	l := s.open()
	s.apply("people.csv", "person,kind,format,facility,number,doors,schedule\np-1,staff,H10301,9,1,lab,always\n")
	var wg sync.WaitGroup
	for range 8 { // more at once than one connection serves
		wg.Go(func() {
			for range 50 {
				if e, err := l.Lookup(h10301(123, 4567)); e == nil || err != nil {
					t.Errorf("found %v, %v", e, err)
				}
			}
			if err := l.Check(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestFileThatOthersCanReadIsNotTrusted(t *testing.T) {
	s := newSite(t)
	s.apply("policy.toml", policyTOML)
	if info, err := os.Stat(s.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("made with mode %v (%v)", info.Mode(), err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o610} {
		if err := os.Chmod(s.path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s.path, s.keys); !errors.Is(err, ErrNotTrusted) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestFolderWithOddNameWorks(t *testing.T) {
	s := newSite(t)
	s.dir = filepath.Join(s.dir, "a ?mode=memory#%20ü")
	s.path = filepath.Join(s.dir, FileName)
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.apply("policy.toml", policyTOML)
	if got := s.listed(); len(got) != 3 {
		t.Errorf("got %q", got)
	}
}
