package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/google/go-cmp/cmp"
)

const smallest = `controller = "north-1"
timezone = "Europe/Amsterdam"

[[door]]
name = "a"
strike = { driver = "sim", line = "a.strike" }

[[door.reader]]
name = "a-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "a-in" }
`

var demo = Options{Demo: true}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	c, err := ParseController("/etc/gatehouse/gatehouse.toml", smallest, demo)
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone.String() != "Europe/Amsterdam" || c.Table == nil {
		t.Errorf("zone %v, table %v", c.Zone, c.Table)
	}
	c.Zone, c.Table = nil, nil
	want := &Controller{
		Name: "north-1", Data: "/var/lib/gatehouse", Timezone: "Europe/Amsterdam",
		Keys: Keys{"file"}, HTTP: HTTP{"127.0.0.1:9180"},
		Allowlist: Allowlist{StaleAfter: 24 * time.Hour, ExpiredKinds: []access.Kind{access.Staff}},
		Lockout:   Lockout{PersonAfter: 5, ReaderAfter: 10, For: 5 * time.Minute},
		Drivers:   Drivers{"sim": &sim.Settings{Socket: "/var/lib/gatehouse/" + sim.DefaultSettings().Socket}},
		Doors: []Door{{
			Name: "a", Unlock: 5 * time.Second, UnlockExtended: 15 * time.Second,
			HeldAfter: 30 * time.Second, HeldWarning: 10 * time.Second, REXShunt: 10 * time.Second,
			FactorWindow: 10 * time.Second, Duress: DuressOpens,
			Strike: Device{"sim", &sim.Device{Line: "a.strike"}},
			Readers: []Reader{{
				Name: "a-in", Direction: access.In, Formats: []string{"H10301"},
				Device: Device{"sim", &sim.Device{Line: "a-in"}},
			}},
		}},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("- wanted + got:\n%s", d)
	}
}

func TestTheCRMsDefaults(t *testing.T) {
	c, err := ParseCRM("crm.toml", "timezone = \"UTC\"\nmqtt.listen = \":8883\"\n")
	if err != nil {
		t.Fatal(err)
	}
	want := &CRM{
		Data: "/var/lib/gatehouse-crm", Timezone: "UTC", MQTT: MQTT{Listen: ":8883"},
		HTTP: HTTP{"127.0.0.1:9181"}, Alarms: Alarms{15 * time.Minute}, Visits: Visits{12 * time.Hour}, Policy: Policy{PublishAtOnce}, Zone: time.UTC,
	}
	if d := cmp.Diff(want, c, cmp.Comparer(func(a, b *time.Location) bool { return a == b })); d != "" {
		t.Errorf("- wanted + got:\n%s", d)
	}
}

func TestRelativePathsBeginAtTheFile(t *testing.T) {
	doc := "data = \"../lib\"\n" + smallest + "[drivers.sim]\nsocket = \"s/site.sock\"\n"
	c, err := ParseController("/srv/site/etc/gatehouse.toml", doc, demo)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/srv/site/lib"; c.Data != want {
		t.Errorf("data %q, want %q", c.Data, want)
	}
	if got, want := c.Drivers["sim"].(*sim.Settings).Socket, "/srv/site/lib/s/site.sock"; got != want {
		t.Errorf("socket %q, want %q", got, want)
	}
}

func TestWithACRMTheZoneMayBeLeftOut(t *testing.T) {
	doc := strings.Replace(smallest, `timezone = "Europe/Amsterdam"`, "", 1) + "[crm]\n"
	c, err := ParseController("gatehouse.toml", doc, demo)
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone != nil || c.CRM == nil || c.CRM.Broker != "" {
		t.Errorf("zone %v, crm %+v", c.Zone, c.CRM)
	}
}

func TestALongUnlockLengthensTheExtendedOneThatWasLeftOut(t *testing.T) {
	doc := strings.Replace(smallest, "name = \"a\"\n", "name = \"a\"\nunlock = \"1m\"\nheld_after = \"5s\"\n", 1)
	c, err := ParseController("gatehouse.toml", doc, demo)
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Doors[0]; d.UnlockExtended != time.Minute || d.HeldWarning >= d.HeldAfter {
		t.Errorf("unlock_extended %v, held_warning %v of %v", d.UnlockExtended, d.HeldWarning, d.HeldAfter)
	}
}

func TestADriverWithoutScannersIsNotTakenForOne(t *testing.T) {
	doc := smallest + `
[[door.scanner]]
name = "a-finger"
direction = "in"
factor = "fingerprint"
device = { driver = "sim", line = "a-finger" }
`
	_, err := ParseController("gatehouse.toml", doc, demo)
	if err == nil || !strings.Contains(err.Error(), `driver "sim" has no scanners`) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}

func TestTheFilesOwnFormatsAreInTheTable(t *testing.T) {
	doc := strings.Replace(smallest, `"H10301"`, `"OURS26"`, 1) + `
[[format]]
name = "OURS26"
bits = 26
number = "0-25"
`
	c, err := ParseController("gatehouse.toml", doc, demo)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := c.Table.Format("OURS26"); !ok || f.Bits() != 26 {
		t.Errorf("format %v, %v", f, ok)
	}
	if _, ok := c.Table.Format("H10301"); !ok {
		t.Error("the built-in formats are gone")
	}
}

func TestBrokersAreEncryptedOrOnThisMachine(t *testing.T) {
	for broker, ok := range map[string]bool{
		"tls://crm.example:8883": true, "tls://192.0.2.7:8883": true, "tls://[2001:db8::1]:8883": true,
		"tcp://127.0.0.1:1883": true, "tcp://localhost:1883": true, "tcp://[::1]:1883": true,
		"tcp://192.0.2.7:1883": false, "tcp://localhost.example:1883": false, "tcp://:1883": false,
		"mqtt://crm.example:8883": false, "crm.example:8883": false, "tls://crm.example": false, "tls://crm.example:0": false,
		"tls://crm.example:99999": false, "tls://crm.example:8883/x": false, "tls://crm.example:8883?a=b": false, "tls://crm.example:8883#a": false,
		"tls://user@crm.example:8883": false, "tls://\x7f": false, "": false,
	} {
		r := &report{file: "f"}
		if r.broker("crm.broker", broker); (r.err() == nil) != ok {
			t.Errorf("%q: %v", broker, r.err())
		}
	}
}

func TestAPasswordInABrokersAddressIsNotRepeated(t *testing.T) {
	for _, broker := range []string{"tls://u:hunter2@h:1", "tls://u:hunter2@h:%zz", "://u:hunter2@"} {
		r := &report{file: "f"}
		r.broker("crm.broker", broker)
		if err := r.err(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", broker, err)
		}
	}
}

func TestAFileThatIsNotThereIsNoFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone.toml")
	_, err := LoadController(path, demo)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("controller: %v", err)
	}
	if _, err := LoadCRM(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("crm: %v", err)
	}
}

func TestAFileThatIsNoConfigurationIsNotReadWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.toml")
	if err := os.WriteFile(path, []byte(strings.Repeat("#\n", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadController(path, demo); err == nil || !strings.Contains(err.Error(), "is it the right file?") {
		t.Errorf("error %v", err)
	}
}

func TestFaultsComeInTheOrderOfTheFileOneALine(t *testing.T) {
	_, err := ParseController("f.toml", "data = 1\ncontroller = \"A\"\n", demo)
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 4 {
		t.Fatalf("error %v, want four faults", err)
	}
	if !slices.IsSortedFunc(faults, func(a, b Fault) int { return a.Line - b.Line }) {
		t.Errorf("out of order:\n%v", err)
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != len(faults) {
		t.Errorf("%d lines for %d faults", n, len(faults))
	}
	var one Fault
	if !errors.As(err, &one) || one.File != "f.toml" {
		t.Errorf("first fault %+v", one)
	}
}

func TestEveryDriverHasASampleAndOnlyTagsOfItsOwn(t *testing.T) {
	var all strings.Builder
	for _, path := range files(t, "*.toml") {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	for _, d := range drivers.Table {
		if !strings.Contains(all.String(), fmt.Sprintf("driver = %q", d.Name)) {
			t.Errorf("driver %s is in no sample", d.Name)
		}
		for what, v := range map[string]any{"Settings": d.Settings(), "Device": d.Device()} {
			p := reflect.TypeOf(v)
			if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Struct {
				t.Errorf("driver %s: %s makes a %s, not a pointer to a struct", d.Name, what, p)
				continue
			}
			if _, ok := fieldsOf(p.Elem())["driver"]; ok && what == "Device" {
				t.Errorf("driver %s: the key driver of a device is taken", d.Name)
			}
		}
	}
}

func TestEveryKindOfValueIsDecodedOrRefused(t *testing.T) {
	type inner struct {
		N int8 `toml:"n"`
	}
	type all struct {
		Text  string           `toml:"text"`
		Flag  bool             `toml:"flag"`
		Small int8             `toml:"small"`
		Count uint16           `toml:"count"`
		Ratio float64          `toml:"ratio"`
		Wait  time.Duration    `toml:"wait"`
		List  [][]int          `toml:"list"`
		Map   map[string]inner `toml:"map"`
		Ptr   *inner           `toml:"ptr"`
		Date  marked           `toml:"date"`
		Raw   any              `toml:"-"`
	}
	for _, tt := range []struct{ doc, want string }{
		{`text = "x"`, ""},
		{`text = 1`, `text: 1 is not a text in quotes`},
		{`flag = "yes"`, `flag: "yes" is neither true nor false`},
		{`small = 128`, `small: 128 is out of range`},
		{`small = 1.5`, `small: 1.5 is not a whole number`},
		{`count = -1`, `count: -1 is out of range`},
		{`count = 65536`, `count: 65536 is out of range`},
		{`count = true`, `count: true is not a whole number`},
		{`ratio = 2`, ""},
		{`ratio = nan`, `ratio: NaN is out of range`},
		{`ratio = "2"`, `ratio: "2" is not a number`},
		{`wait = "1m"`, ""},
		{`wait = 1979-05-27`, `wait: a date is not a time: write it in quotes with its unit, such as "5s", "2m" or "24h"`},
		{`list = [[1, 2], [3]]`, ""},
		{`list = [[1, 2], 3, ["x"]]`, "list[1]: 3 is not a list in brackets\nlist[2][0]: \"x\" is not a whole number"},
		{`map = { a = { n = 1 }, "b c" = { m = 1 } }`, `map."b c".m: there is no key "m" here: did you mean "n"?`},
		{`map = 1`, `map: 1 is not a table`},
		{"[ptr]\nn = 1", ""},
		{"ptr = []", "ptr: a list is not a table"},
		{`date = "good"`, ""},
		{`date = 5`, `date: 5 is not a text in quotes`},
		{`date = "bad"`, `date: it is bad`},
		{`Raw = 1`, `Raw: there is no key "Raw" here: the keys are count, date, flag, list, map, ptr, ratio, small, text, wait`},
	} {
		var got []string
		for _, f := range parse("f", tt.doc, demo, &all{}).faults {
			got = append(got, f.Path+": "+f.What)
		}
		if s := strings.Join(got, "\n"); s != tt.want {
			t.Errorf("%s: %q, want %q", tt.doc, s, tt.want)
		}
	}
}

// marked is a type that decodes itself from a text.
type marked string

func (m *marked) UnmarshalText(b []byte) error {
	if string(b) == "bad" {
		return errors.New("it is bad")
	}
	*m = marked(b)
	return nil
}

func TestEveryValueHasItsLine(t *testing.T) {
	doc := "\ufeff# a comment with [brackets] and \"quotes\n" + // 1
		`a = 1 # b = 2` + "\n" +
		`"quoted \u0062" . c = '''` + "\n" +
		`[x]` + "\n" +
		`''''` + "\n" + // 5
		`[t]` + "\r\n" +
		`list = [1, # one, ]` + "\r\n" +
		` "]", { k = [` + "\r\n" +
		`"""` + "\r\n" +
		`y = "\""" """ ] } ,]` + "\r\n" + // 10
		`[[t.u]]` + "\n" +
		`n = 1979-05-27 07:32:00` + "\n" +
		`[[t.u]]` + "\n" +
		`n.m = { }` + "\n" +
		`[t.u.v]` + "\n" + // 15
		`[[t.u.w]]` + "\n" +
		`z = ''`
	want := positions{
		"a": 2, `"quoted b"`: 3, `"quoted b".c`: 3,
		"t": 6, "t.list": 7, "t.list[0]": 7, "t.list[1]": 8, "t.list[2]": 8, "t.list[2].k": 8, "t.list[2].k[0]": 9,
		"t.u": 11, "t.u[0]": 11, "t.u[0].n": 12, "t.u[1]": 13, "t.u[1].n": 14, "t.u[1].n.m": 14,
		"t.u[1].v": 15, "t.u[1].w": 16, "t.u[1].w[0]": 16, "t.u[1].w[0].z": 17,
	}
	var tree map[string]any
	if _, err := toml.Decode(doc, &tree); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, find(doc)); d != "" {
		t.Errorf("- wanted + found:\n%s", d)
	}
}

func TestWhatIsMissingHasTheLineOfItsTable(t *testing.T) {
	p := positions{"door": 3, "door[1]": 9, `a."x.y[0]"`: 4}
	for path, want := range map[string]int{
		"door[1].reader[0].name": 9, "door[1].name": 9, "door[0].name": 3, "keys.provider": 1, "": 1,
		`a."x.y[0]".b`: 4, `a."x.y[0]"[7]`: 4, `a.b`: 1,
	} {
		if got := p.near(path); got != want {
			t.Errorf("near(%s) = %d, want %d", path, got, want)
		}
	}
}

// paths is every path in a decoded document.
func paths(path string, v any, into map[string]bool) {
	if path != "" {
		into[path] = true
	}
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			paths(join(path, k), v[k], into)
		}
	default:
		if list := reflect.ValueOf(v); list.Kind() == reflect.Slice {
			for i := range list.Len() {
				paths(index(path, i), list.Index(i).Interface(), into)
			}
		}
	}
}

func FuzzPositions(f *testing.F) {
	for _, path := range slices.Concat(files(f, "*.toml"), files(f, "invalid/*.toml")) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("a.b.c = 1\na.b.d = [[1], {}]\n[a.e]\n[[f]]\n[[f.g]]\n[f.g.h]\n[[f]]\nx = '''y'''''")
	f.Add("a = \"\"\"\\\"\"\"\"\"\"\nb = {c.d = 1,\n e = 2 # ,}\n}")
	f.Fuzz(func(t *testing.T, doc string) {
		var tree map[string]any
		if _, err := toml.Decode(doc, &tree); err != nil {
			return // the finder is asked only about what is TOML
		}
		want := map[string]bool{}
		paths("", tree, want)
		found := find(doc)
		lines := strings.Count(doc, "\n") + 1
		for path, line := range found {
			if line < 1 || line > lines {
				t.Errorf("%s on line %d of %d", path, line, lines)
			}
		}
		// The library loses elements of an array under an empty key. No
		// configuration has such a key, so there more may be found.
		maps.DeleteFunc(found, func(path string, _ int) bool { return !want[path] && strings.Contains(path, `""`) })
		if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(found))); d != "" {
			t.Errorf("- in the document + found:\n%s", d)
		}
	})
}

// FuzzConfiguration holds that no document makes the programs panic, that
// faults lie in the document, and that a document without a fault is also one
// to the TOML library's own decoder, with nothing left undecoded.
func FuzzConfiguration(f *testing.F) {
	for _, path := range slices.Concat(files(f, "*.toml"), files(f, "invalid/*.toml")) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, doc string) {
		c, err := ParseController("f.toml", doc, demo)
		checkFaults(t, doc, err)
		if err == nil {
			// Devices and drivers decode themselves and are not tables to the
			// library: their keys are taken out of what it leaves.
			checkUndecoded(t, doc, &struct {
				Controller
				Drivers map[string]any `toml:"drivers"`
			}{Controller: *c})
		}
		crm, err := ParseCRM("f.toml", doc)
		checkFaults(t, doc, err)
		if err == nil {
			checkUndecoded(t, doc, crm)
		}
	})
}

func checkFaults(t *testing.T, doc string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var faults Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("error %v is not faults", err)
	}
	lines := strings.Count(doc, "\n") + 1
	for _, f := range faults {
		if f.Line < 1 || f.Line > lines || f.What == "" {
			t.Errorf("fault %+v in a document of %d lines", f, lines)
		}
	}
}

func checkUndecoded(t *testing.T, doc string, v any) {
	t.Helper()
	md, err := toml.Decode(doc, v)
	if err != nil {
		t.Fatalf("accepted, but not by the TOML library: %v", err)
	}
	for _, key := range md.Undecoded() {
		if slices.ContainsFunc(key, func(k string) bool {
			return slices.Contains([]string{"strike", "contact", "rex", "tamper", "indicator", "device", "drivers"}, k)
		}) {
			continue
		}
		t.Errorf("accepted, but %s was decoded by nothing", key)
	}
}
