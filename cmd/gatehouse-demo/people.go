package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// The doors and readers of the virtual site.
const (
	roomA = "server-room-a"
	roomB = "server-room-b"
	roomC = "server-room-c" // badge and fingerprint
	roomD = "server-room-d" // badge and iris

	eyeReader = "d-in" // the card reader beside it, on the same line

	format   = "H10301"
	facility = 123
)

// person is somebody made up, and a card.
type person struct {
	key  byte // that presents the card
	id   string
	name string
	kind string
	card uint64
	toml string // what else the allowlist says of the person
	// credential is what it says of the card; "-" leaves the card out.
	credential string
}

// people are all that come to the site. The allowlist stands for the policy
// that a real site would import.
var people = []person{
	{key: '1', id: "p-1001", name: "Ada Lovelace", kind: "staff", card: 4567, toml: `rights = [{ doors = ["server-rooms"], schedule = "always" }]`},
	{key: '2', id: "p-1002", name: "Grace Hopper", kind: "contractor", card: 4568, toml: "organisation = \"Cobol Cabling Ltd\"\n" + `rights = [{ doors = ["server-rooms"], schedule = "always" }]`},
	{key: '3', id: "p-2001", name: "Alan Turing", kind: "visitor", card: 4569, toml: "host = \"p-1001\"\norganisation = \"Bombe Cooling Ltd\"\npurpose = \"replace a fan\"\nescort = \"p-1001\"\nauthoriser = \"p-1003\"\nid_form = \"passport\"\nextended = true\n" + `rights = [{ doors = ["server-rooms"], schedule = "always" }]`},
	{key: '4', id: "p-1003", name: "Barbara Liskov", kind: "staff", card: 4570, toml: "operator = true\n" + `rights = [{ doors = ["server-rooms"], schedule = "always" }]`},
	{key: '5', id: "p-1004", name: "Edsger Dijkstra", kind: "staff", card: 4571, toml: "operator = true\n" + `rights = [{ doors = ["server-rooms"], schedule = "later" }]`},
	{key: '6', id: "p-1005", name: "Tony Hoare", kind: "staff", card: 4572, toml: `rights = [{ doors = ["server-rooms"], schedule = "always" }]`, credential: `, state = "lost"`},
	{key: '7', id: "p-1006", name: "Kristen Nygaard", kind: "staff", card: 4573, toml: `rights = [{ doors = ["server-rooms"], schedule = "always" }]`, credential: `, state = "revoked"`},
	{key: '8', id: "p-1007", name: "Niklaus Wirth", kind: "staff", card: 4574, toml: `rights = [{ doors = ["` + roomB + `"], schedule = "always" }]`},
	{key: '9', name: "somebody unknown", card: 9999, credential: "-"},
}

// byKey finds a person by the key that presents the card.
func byKey(key byte) (person, bool) {
	for _, p := range people {
		if p.key == key {
			return p, true
		}
	}
	return person{}, false
}

// byID finds a person by the pseudonymous id that stands in records.
func byID(id string) (person, bool) {
	for _, p := range people {
		if p.id == id && id != "" {
			return p, true
		}
	}
	return person{}, false
}

func (p person) String() string {
	if p.kind == "" {
		return p.name
	}
	return p.name + ", " + p.kind
}

// frame is what a reader sends for the person's card.
func (p person) frame() (badge.Frame, error) {
	f, ok := badge.Builtin().Format(format)
	if !ok {
		return badge.Frame{}, fmt.Errorf("there is no format %s", format)
	}
	return f.Encode(badge.Credential{Format: format, Facility: facility, Number: p.card})
}

// policy is the allowlist to import. The schedule "later" is one that now is
// not in: it begins in some hours, on every day.
func policy(now time.Time) string {
	begin := now.Add(8 * time.Hour).Truncate(time.Hour)
	var b strings.Builder
	fmt.Fprintf(&b, "[schedules.later]\nmon-sun = [\"%02d:00-%02d:00\"]\nholiday = [\"%02d:00-%02d:00\"]\n\n",
		begin.Hour(), begin.Hour()+1, begin.Hour(), begin.Hour()+1)
	fmt.Fprintf(&b, "[door_groups]\nserver-rooms = [%q, %q, %q, %q]\n", roomA, roomB, roomC, roomD)
	for _, p := range people {
		if p.credential == "-" {
			continue
		}
		fmt.Fprintf(&b, "\n[[people]]\nperson = %q\nname = %q\nkind = %q\n%s\ncredentials = [{ format = %q, facility = %d, number = %d%s }]\n",
			p.id, p.name, p.kind, p.toml, format, facility, p.card, p.credential)
	}
	return b.String()
}
