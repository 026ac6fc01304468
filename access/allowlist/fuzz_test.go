package allowlist

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// plainIndex stands for the keyed hash where only the parser matters.
type plainIndex struct{}

func (plainIndex) Index(b []byte) (key [16]byte) {
	copy(key[:], b[max(len(b)-16, 0):])
	return key
}

var fuzzOptions = ReadOptions{Index: plainIndex{}, Formats: badge.Builtin(), Zone: time.UTC}

// checkParsed holds what came of a file to what the rest relies on.
func checkParsed(t *testing.T, plan *Plan, err error) {
	t.Helper()
	if err != nil {
		faults, ok := errors.AsType[*Faults](err)
		if !ok || faults.Total() == 0 || plan != nil {
			t.Fatalf("plan %v, error %v", plan, err)
		}
		for _, f := range faults.List {
			if f.Line < 1 || f.Text == "" || strings.Contains(f.Text, "\n") {
				t.Fatalf("fault %+v", f)
			}
		}
		return
	}
	content, err := policy{Rules: plan.rules, Profiles: plan.profiles.all}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := parsePolicy(content)
	if err != nil {
		t.Fatalf("the policy does not read back: %v", err)
	}
	for door, sides := range compiled.doors {
		for side, rules := range sides {
			last := rules[len(rules)-1]
			if last.Schedule != access.Always() || slices.ContainsFunc(last.AnyOf, func(set access.Factor) bool { return set == 0 }) || len(last.AnyOf) == 0 {
				t.Fatalf("door %q, the way %s: %+v", door, side, rules)
			}
		}
	}
	for name, door := range compiled.sites {
		if door.Name != name || door.ServerRoom && door.Free != nil || door.Into != nil && door.Into == door.OutOf {
			t.Fatalf("door %q: %+v", name, door)
		}
	}
	if len(plan.order) != plan.Credentials() {
		t.Fatalf("%d rows in order, %d credentials", len(plan.order), plan.Credentials())
	}
	for _, i := range plan.order {
		s := plan.stored(plan.row(i))
		checkPersonal(t, &s.entry)
		if !fields.IsName(s.entry.Person) || s.profile >= uint64(len(compiled.profiles)) {
			t.Fatalf("row %+v", s)
		}
		checkEntry(t, s)
	}
}

// checkPersonal holds what is kept of a person beside the card to what is said
// of it.
func checkPersonal(t *testing.T, e *access.Entry) {
	t.Helper()
	if e.DuressPIN != nil && (e.PIN == nil || bytes.Equal(e.PIN, e.DuressPIN)) {
		t.Fatalf("PINs of %+v", e)
	}
	if c := e.Code; c != nil && (!fields.IsName(c.ID) || !fields.IsName(c.Door) || e.Until.IsZero() || e.BreakGlass) {
		t.Fatalf("code of %+v", e)
	}
	if e.TOTP != nil && (len(e.TOTP) < access.MinTOTPSecret || len(e.TOTP) > access.MaxTOTPSecret) || e.Clearance > access.MaxThreat || e.Escorted && (e.MayEscort || e.Supervisor) {
		t.Fatalf("person %+v", e)
	}
	for _, s := range e.Instead {
		if (s.Of|s.By)&access.OneTimeCode != 0 || s.By == access.TOTP && e.TOTP == nil {
			t.Fatalf("substitutions of %+v", e)
		}
		if s.Of.Count() != 1 || s.By.Count() != 1 || s.Of == s.By || s.Of == access.Badge || s.By == access.Badge || s.By == access.PIN && e.PIN == nil {
			t.Fatalf("substitutions of %+v", e)
		}
	}
}

func checkEntry(t *testing.T, s stored) {
	t.Helper()
	b := appendEntry(nil, &s)
	back, err := decodeEntry(b)
	if err != nil {
		t.Fatalf("%+v does not read back: %v", s, err)
	}
	if again := appendEntry(nil, &back); !bytes.Equal(again, b) {
		t.Fatalf("%+v reads back as %+v", s, back)
	}
}

func FuzzCSV(f *testing.F) {
	const head = "person,name,kind,format,facility,number,issue,oem,state,from,until,doors,schedule,extended,break_glass," +
		"host,organisation,purpose,escort,authoriser,id_form\n"
	const factors = "person,kind,format,number,doors,schedule,biometric,operator,pin,duress_pin,instead\n"
	f.Add(head + "p-1,A,staff,H10301,1,1,,,,,2027-01-01,lab;all@nights,always,yes,no,,,,,,\n")
	f.Add(head + "v-1,\"A\nB\",visitor,H10301,1,2,,,lost,2026-01-01T08:00,2027-01-01T08:00:00Z,*,office,,,p-1,Acme,x,y,z,passport\n")
	f.Add("\ufeffperson,kind,format,number,doors,schedule\r\np,staff,H10302,5,,\r\n")
	f.Add(factors + "p-1,staff,H10302,5,lab,always,,yes,4711,471199,fingerprint=pin; iris=pin\np-1,staff,,,lab,always,yes,yes,4711,471199,fingerprint=pin; iris=pin\n")
	f.Add(factors + "p-1,staff,biometric,5,lab,always,yes,,471,4711,fingerprint=;=\n")
	f.Add(siteCSV)
	f.Add("person;kind\n")
	f.Add("person,kind,format,number,doors,schedule\n\"\n")
	s := newSite(f)
	s.apply("policy.toml", "schedules = { office = { mon-fri = ['07:00-19:00'] }, nights = { mon-sun = ['22:00-06:00'] } }\ndoor_groups = { all = ['a', 'b'] }\n")
	present := s.open()
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := readCSV(strings.NewReader(text), present, fuzzOptions)
		checkParsed(t, plan, err)
	})
}

func FuzzTOML(f *testing.F) {
	f.Add(policyTOML)
	f.Add(factorsTOML)
	f.Add(siteTOML)
	f.Add("[[doors.a.rules]]\nschedule = 'always'\nany_of = ['badge+', 'iris']\n[doors.b]\nrules = [{}]\n")
	f.Add("[doors.a]\nrules = [{ direction = 'out', schedule = 'always', any_of = ['badge'] }, { direction = 'up', schedule = 'always', any_of = ['badge'] }]\n")
	f.Add("people = [{person = 'a', kind = 'staff', rights = [{doors = ['x'], schedule = 'always'}], credentials = [{format = 'H10301', facility = 1, number = 2}]}]")
	f.Add("[schedules]\na = {mon = ['00:00-24:00']}\n[door_groups]\n\"g\" = ['*']")
	f.Add("[[people]]\n[[people.credentials]]\n[[people.credentials]]\nfrom = 2026-01-01 08:00:00\n")
	f.Add("[[people]\nx=")
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := readTOML(strings.NewReader(text), fuzzOptions)
		checkParsed(t, plan, err)
	})
}

func FuzzLines(f *testing.F) {
	f.Add(policyTOML)
	f.Add("a = '''\n\n'''\nb = \"\"\"\\\"\n\"\"\"\"\"\nc = { d = [1, # x\n 2], \"e.f\".g = 3 }\n[x.'y']\nz = 1\n")
	f.Add("]=[{,=")
	f.Add("a = " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "\nb.c = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		found := findLines(text) // ends, whatever the text is
		var root map[string]any
		if _, err := toml.Decode(text, &root); err != nil {
			return
		}
		most := strings.Count(text, "\n") + 1
		for path, line := range found {
			if line < 1 || line > most {
				t.Fatalf("%q is in line %d of %d", path, line, most)
			}
		}
		for key := range root {
			if line := found.of(key); line > 1 && strings.TrimSpace(strings.Split(text, "\n")[line-1]) == "" {
				t.Fatalf("%q is in line %d, which is empty", key, line)
			}
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, &stored{entry: access.Entry{Person: "p-1", Kind: access.Staff, State: access.Active}, name: "A", format: "H10301"}))
	f.Add(appendEntry(nil, &stored{entry: access.Entry{Person: "v-1", Kind: access.Visitor, State: access.Lost, From: time.Unix(1, 0), Until: time.Unix(1<<40, 0),
		Extended: true, BreakGlass: true, Visit: &access.Visit{Host: "p-1", IDForm: "passport"}}, profile: 300}))
	full := access.Entry{Person: "p-1", Kind: access.Staff, State: access.Active, Operator: true, PIN: make([]byte, pinHashSize), DuressPIN: make([]byte, pinHashSize),
		Instead: []access.Substitution{{Of: access.Iris, By: access.PIN}}}
	f.Add(appendEntry(nil, &stored{entry: full, format: BiometricFormat}))
	full.Escorted, full.MayEscort, full.Supervisor, full.Exempt, full.Clearance = true, true, true, true, access.MaxThreat
	full.TOTP, full.Code, full.Visit = make([]byte, access.MinTOTPSecret), &access.Code{ID: "c-1", Door: "a"}, &access.Visit{ID: "visit-1", Ticket: "CHG-1"}
	f.Add(appendEntry(nil, &stored{entry: full, format: CodeFormat}))
	f.Add([]byte("\x01\x00\x00\x01\x00\x03p-1\x01A\x06H10301"))                               // of version 1
	f.Add([]byte("\x02\x00\x00\x04\x00\x03p-1\x01A\x06H10301\x01h\x01o\x01p\x01e\x01a\x01i")) // of version 2
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeEntry(b)
		if err != nil {
			return
		}
		if !slices.Contains(kinds[:], s.entry.Kind) || !slices.Contains(states[:], s.entry.State) {
			t.Fatalf("entry %+v", s)
		}
		checkEntry(t, s)
	})
}

// What a policy's document says is the same when it is written again.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"profiles":[[{"door":"a","schedule":"office"}]],"schedules":{"office":{"mon-fri":["07:00-19:00"]}},"holidays":["2026-12-25"],"door_groups":{"g":["a"]}}`))
	f.Add([]byte(`{"profiles":[],"doors":{"a":[{"direction":"out","schedule":"always","any_of":["badge+totp","code"]}]},"areas":{"v":{"passback":"hard","timed":"10m","occupancy":4}},
"sites":{"a":{"into":"v","two_person":true,"together":"30s","interlock":["b"],"stale_after":"1h","expired_after":"2h","expired_kinds":["staff"],"clock_unset_kinds":["staff"]},"b":{"server_room":true,"disabled":"x"}}}`))
	f.Add([]byte(`{"profiles":[],"sites":{"a":{"free":"always"},"b":{"interlock":["a"]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parsePolicy(b)
		if err != nil {
			return
		}
		p := policy{Rules: c.words}
		for _, rights := range c.profiles {
			words := make([]right, len(rights))
			for i, r := range rights {
				words[i] = right{r.Door, r.Schedule.Name}
			}
			p.Profiles = append(p.Profiles, words)
		}
		written, err := p.marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parsePolicy(written)
		if err != nil {
			t.Fatalf("%s does not read back: %v", written, err)
		}
		for name, door := range c.sites {
			if door.ServerRoom && door.Free != nil || again.sites[name] == nil {
				t.Fatalf("door %q is %+v, and then %+v", name, door, again.sites[name])
			}
		}
	})
}
