package access

import "time"

// Area is what a site asks of everybody in one of its areas.
type Area struct {
	Name     string
	Passback Passback
	// Timed is how long somebody who came in may not come in again; 0: no such
	// rule. It holds also where nobody badges out.
	Timed time.Duration
	// Occupancy is how many people may be in at once; 0: any number.
	Occupancy int
}

// Passback says what becomes of somebody who comes in though they are in
// already, or leaves though they are not in.
type Passback string

// The kinds of anti-passback.
const (
	PassbackOff  Passback = ""
	PassbackSoft Passback = "soft" // granted, and the record says so
	PassbackHard Passback = "hard" // denied
)

// Door is what a site asks at a door beside the factors.
type Door struct {
	Name        string
	Into, OutOf *Area // nil: none, or outside
	// ServerRoom marks a door that is never left unlocked.
	ServerRoom bool
	// TwoPerson lets people in only two at a time, each with a right of their own.
	TwoPerson bool
	// Together is how long people who pass only with another one wait for each
	// other; 0: DefaultTogether.
	Together time.Duration
	// Interlock are the doors of the same controller that must be closed and
	// locked before this one opens.
	Interlock []string
	// Free is when the door stands unlocked for everybody; nil: never.
	Free *Schedule
	// FirstPerson keeps everybody out, and Free from beginning, until a supervisor
	// has come in that day.
	FirstPerson bool
	// Disabled says why nobody passes for the time being; "": the door is in use.
	Disabled string
	// Age is this door's own ladder; nil: the controller's.
	Age *Ages
	// ClockUnsetKinds may enter by rights that are bound in time while the
	// controller does not know the time.
	ClockUnsetKinds []Kind
}

// DefaultTogether is how long people wait for each other at a door.
const DefaultTogether = 30 * time.Second

// Ages is a ladder of age. A duration of 0 is never reached.
type Ages struct {
	StaleAfter   time.Duration
	ExpiredAfter time.Duration
	ExpiredKinds []Kind
}

// Threat is a level of threat: 0 is none, MaxThreat a lockdown.
type Threat uint8

// MaxThreat is the level at which only those cleared for it pass.
const MaxThreat Threat = 5

// Situation is how things stand at a door, beside the person who is there. It is
// kept with the records and changes in their transactions.
type Situation struct {
	Threat   Threat
	Disabled string // why, by a command; "": the door is in use
	// Where the person is, as far as the records tell.
	Where Whereabouts
	// Occupants of the area that the door leads into, without this person.
	Occupants int
	// Interlocked names a door that must be closed first; "": none stands in the way.
	Interlocked string
	// Begun says that a supervisor has come in today.
	Begun bool
	// CodeUsed says that the one-time code was used up before.
	CodeUsed bool
	// Company are those who wait to pass together with this person: each proved
	// who they are, and would be granted but for the company.
	Company []*Entry
}

// Whereabouts are where somebody was last known to go.
type Whereabouts struct {
	Area string // "": outside; only with Known
	// Known is false of somebody who was never seen, or whose passback was reset.
	Known bool
	// Ago is how long ago they came in there, at the least.
	Ago time.Duration
}

// Code is a one-time code that somebody types in the place of a badge.
type Code struct {
	ID   string // as records name it; it tells nothing of the digits
	Door string // the only one that it opens
}
