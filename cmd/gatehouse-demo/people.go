package main

import (
	"fmt"

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
	key      byte // that presents the card
	id       string
	name     string
	kind     string
	card     uint64
	group    string // of the registry; "": none
	state    string // of the card; "": active
	operator bool   // may enrol others
}

// The groups of the registry.
const (
	inServerRooms = "server-rooms"
	inThemLater   = "server-rooms-later"
	inRoomB       = "room-b"
)

// people are all that come to the site.
var people = []person{
	{key: '1', id: "p-1001", name: "Ada Lovelace", kind: "staff", card: 4567, group: inServerRooms},
	{key: '2', id: "p-1002", name: "Grace Hopper", kind: "contractor", card: 4568, group: inServerRooms},
	{key: '3', id: "p-2001", name: "Alan Turing", kind: "visitor", card: 4569},
	{key: '4', id: "p-1003", name: "Barbara Liskov", kind: "staff", card: 4570, group: inServerRooms, operator: true},
	{key: '5', id: "p-1004", name: "Edsger Dijkstra", kind: "staff", card: 4571, group: inThemLater, operator: true},
	{key: '6', id: "p-1005", name: "Tony Hoare", kind: "staff", card: 4572, group: inServerRooms, state: "lost"},
	{key: '7', id: "p-1006", name: "Kristen Nygaard", kind: "staff", card: 4573, group: inServerRooms, state: "revoked"},
	{key: '8', id: "p-1007", name: "Niklaus Wirth", kind: "staff", card: 4574, group: inRoomB},
	{key: '9', name: "somebody unknown", card: 9999},
}

// newcomer is somebody who is hired, and who leaves again.
var newcomer = person{key: '+', name: "Frances Allen", kind: "staff", group: inServerRooms}

// guest is somebody who comes by a one-time code.
var guest = person{name: "Katherine Johnson", kind: "visitor"}

// byKey finds a person by the key that presents the card.
func byKey(key byte) (person, bool) {
	for _, p := range people {
		if p.key == key {
			return p, true
		}
	}
	return newcomer, key == newcomer.key
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
