// Package access says who may enter. Decide is a pure function of a Query:
// it does no I/O, reads no clock, and answers every query with one stable
// reason code.
package access

import "time"

// Kind is what a person is to the site.
type Kind string

// The kinds of person.
const (
	Staff      Kind = "staff"
	Contractor Kind = "contractor"
	Visitor    Kind = "visitor"
)

// State is the state of a credential.
type State string

// The states of a credential.
const (
	Active  State = "active"
	Lost    State = "lost"
	Revoked State = "revoked"
)

// Direction is the side of the door on which a reader stands.
type Direction string

// The directions of a passage.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// ClockState says how far the controller's clock can be trusted.
type ClockState string

// The states of a clock.
const (
	ClockSynchronised ClockState = "synchronised" // disciplined now
	ClockDrifting     ClockState = "drifting"     // was disciplined since boot, or kept by a real-time clock
	ClockUnset        ClockState = "unset"        // never set since boot
)

// Freshness is the rung of the allowlist on its ladder of age.
type Freshness string

// The rungs of the ladder of age.
const (
	Fresh   Freshness = "fresh"
	Stale   Freshness = "stale"   // grants, and the record says so
	Expired Freshness = "expired" // grants only to the classes named for it
	Absent  Freshness = "absent"  // there is no allowlist that can be trusted
)

// Policy names the allowlist that a decision was made under.
type Policy struct {
	Version   uint64
	Age       time.Duration // since it was last known to be current
	Freshness Freshness
	// ExpiredKinds are the kinds of person who may still enter under an
	// expired allowlist.
	ExpiredKinds []Kind
}

// Visit is what a visitor's records say of the visit. Persons are
// pseudonymous ids; the identification is its type, never its number.
type Visit struct {
	ID           string `json:"visit,omitempty"`
	Ticket       string `json:"ticket,omitempty"`
	Host         string `json:"host,omitempty"`
	Organisation string `json:"organisation,omitempty"`
	Purpose      string `json:"purpose,omitempty"`
	Escort       string `json:"escort,omitempty"`
	Authoriser   string `json:"authoriser,omitempty"`
	IDForm       string `json:"id_form,omitempty"`
}

// Entry is what the allowlist holds of one credential and its person.
type Entry struct {
	Person     string // pseudonymous id, as it stands in records
	Kind       Kind
	State      State
	From       time.Time // zero: no lower bound
	Until      time.Time // zero: no upper bound; exclusive
	Rights     []Right
	Extended   bool // this person needs the door unlocked for longer
	BreakGlass bool // opens in an emergency, always alarmed
	Operator   bool // may enrol others
	Escorted   bool // passes only together with somebody who may escort
	MayEscort  bool
	Supervisor bool // is a first person in
	Exempt     bool // from anti-passback
	// Clearance is the highest threat at which this person may still pass.
	Clearance Threat
	// PIN and DuressPIN are keyed hashes; nil: the person has none.
	PIN, DuressPIN []byte
	// TOTP is the secret of RFC 6238; nil: the person has none.
	TOTP []byte
	// Code is the one-time code by which the entry was found; nil: by something else.
	Code *Code
	// Instead are other factors of a person who cannot give some.
	Instead []Substitution
	Visit   *Visit
}

// Right allows one door within one schedule.
type Right struct {
	Door     string // or EveryDoor
	Schedule *Schedule
}

// Query is all that a decision depends on.
type Query struct {
	Door       string
	Direction  Direction
	At         time.Time      // the controller's wall clock
	Zone       *time.Location // the site's
	Clock      ClockState
	Policy     Policy
	Lockdown   bool   // by a key switch: as MaxThreat
	Unreadable bool   // the frame fits none of the reader's formats
	Entry      *Entry // nil: not on the allowlist

	// Site is what is asked at the door beside factors; nil: nothing.
	Site *Door
	Situation

	// Rules say which factors the door asks for in that direction: of those whose
	// schedule contains the moment, the first. Without rules it asks for the badge.
	Rules []Rule
	Given Factor // that the person has proved
	// Possible are the factors that the readers on this side can take and that
	// the person has.
	Possible Factor
	// Weak are the factors that may not open alone here, as what took them is not
	// authenticated.
	Weak Factor
	// Refused is the factor that was given last and is not the person's; 0: none.
	Refused      Factor
	Over         bool // nothing more is waited for
	Duress       bool // one of the factors is given only under a threat
	DuressOpens  bool // and opens all the same
	PersonLocked bool // out, after too many failures
	ReaderLocked bool // the same of the reader
}

// Decision is the answer to a Query.
type Decision struct {
	Granted    bool
	Reason     Reason
	BreakGlass bool // granted only because the credential breaks the glass
	// Together means that only company is missing, and may still come.
	Together bool
	// Against is the rule that the grant goes against without being denied.
	Against Reason
	// More are the factors of which any may come next, when only factors are
	// missing and they may still come.
	More Factor
}
