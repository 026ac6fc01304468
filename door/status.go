package door

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Status is a snapshot of a door.
type Status struct {
	Door         string             `json:"door"`
	Locked       bool               `json:"locked"` // what the strike was told; see Faults for whether it did
	Contact      Contact            `json:"contact"`
	Forced       bool               `json:"forced"`
	Held         bool               `json:"held"`
	HeldWarning  bool               `json:"held_warning"`
	Lockdown     bool               `json:"lockdown"`
	Threat       access.Threat      `json:"threat"`
	Disabled     string             `json:"disabled,omitempty"` // why nobody passes
	Free         bool               `json:"free"`               // unlocked for everybody, by its schedule
	Tamper       bool               `json:"tamper"`
	Indicator    Pattern            `json:"indicator"`
	Readers      []ReaderStatus     `json:"readers"`
	Scanners     []ScannerStatus    `json:"scanners,omitempty"`
	Attempts     []AttemptStatus    `json:"attempts,omitempty"` // that go on
	Waiting      []AttemptStatus    `json:"waiting,omitempty"`  // for another person, to pass together with
	Lent         []access.Direction `json:"lent,omitempty"`     // sides, for an enrolment
	Faults       []PartFault        `json:"faults"`             // of all parts, readers and scanners too
	LastDecision time.Time          `json:"last_decision,omitzero"`
	Counts       Counts             `json:"counts"`
	Outcomes     []OutcomeCount     `json:"outcomes,omitempty"` // of the factors that were tried
}

// ReaderStatus is the state of one reader.
type ReaderStatus struct {
	Name      string           `json:"name"`
	Direction access.Direction `json:"direction"`
	Fault     string           `json:"fault,omitempty"`
	Likely    string           `json:"likely,omitempty"` // wrong with its wires, though it reads
	Keys      uint64           `json:"keys"`             // keypad bursts that nobody asked for
	Health    *badge.Health    `json:"health,omitempty"` // none: the reader does not know
}

// ScannerStatus is the state of one scanner.
type ScannerStatus struct {
	Name      string           `json:"name"`
	Direction access.Direction `json:"direction"`
	Factor    string           `json:"factor"`
	Fault     string           `json:"fault,omitempty"`
}

// AttemptStatus is somebody who has given a factor and is asked for the next.
type AttemptStatus struct {
	Direction access.Direction `json:"direction"`
	Person    string           `json:"person"` // pseudonymous id
	Given     []string         `json:"given"`
	Asked     []string         `json:"asked"` // any of them
	Until     time.Time        `json:"until"`
}

// OutcomeCount is how often a factor came out so at a reader or scanner, since
// the door was started.
type OutcomeCount struct {
	visitorlog.FactorOutcome
	Count uint64 `json:"count"`
}

// PartFault is a part of the door that is broken: "strike", "contact",
// "request to exit", "tamper", "lockdown", "indicator", "log", "allowlist",
// "enrolled" (the knowledge of who was enrolled), "reader NAME" or "scanner
// NAME".
type PartFault struct {
	Part  string `json:"part"`
	Fault string `json:"fault"`
}

// Counts count since the door was started.
type Counts struct {
	Granted   uint64 `json:"granted"`
	Denied    uint64 `json:"denied"`    // coalesced ones too
	Coalesced uint64 `json:"coalesced"` // denied, and recorded only as a number
	Alarms    uint64 `json:"alarms"`
	Faults    uint64 `json:"faults"` // that began
	Pending   int    `json:"records_pending"`
	Lost      int    `json:"records_lost"`
}

// Status is the door as it is now. It may be called at any time, from any
// goroutine.
func (d *Door) Status() Status {
	s := *d.status.Load()
	s.Readers, s.Scanners = slices.Clone(s.Readers), slices.Clone(s.Scanners)
	s.Attempts, s.Lent, s.Faults = slices.Clone(s.Attempts), slices.Clone(s.Lent), slices.Clone(s.Faults)
	s.Waiting = slices.Clone(s.Waiting)
	s.Outcomes = slices.Clone(s.Outcomes)
	s.Counts.Pending, s.Counts.Lost = d.records.waiting()
	for i := range s.Readers {
		s.Readers[i].Health = d.cfg.Readers[i].health()
	}
	return s
}

// publish makes the loop's state the door's status.
func (l *loop) publish() {
	state := l.m.State()
	l.cfg.Neighbours.tell(l.cfg.Name, state.Locked && l.strikeOK && (state.Contact == DoorClosed || state.Contact == NoContact))
	l.awaits()
	s := &Status{
		Door: l.cfg.Name, Locked: state.Locked, Contact: state.Contact,
		Forced: state.Forced, Held: state.Held, HeldWarning: state.Warning,
		Threat: state.Threat, Disabled: l.whyDisabled(), Free: state.Free,
		Lockdown: state.Lockdown, Tamper: state.Tamper, Indicator: state.Pattern,
		Readers: []ReaderStatus{}, Faults: []PartFault{},
		LastDecision: l.last, Counts: l.counts,
	}
	for _, r := range l.cfg.Readers {
		s.Readers = append(s.Readers, ReaderStatus{
			Name: r.Name, Direction: r.Direction, Fault: l.faults[readerPart(r.Name)],
			Likely: l.likely[r.Name], Keys: l.keys[r.Name],
		})
	}
	for _, c := range l.cfg.Scanners {
		s.Scanners = append(s.Scanners, ScannerStatus{
			Name: c.Name, Direction: c.Direction, Factor: c.Factor.String(), Fault: l.faults[scannerPart(c.Name)],
		})
	}
	for _, side := range []access.Direction{access.In, access.Out} {
		if a, ok := l.m.Attempt(side); ok {
			s.Attempts = append(s.Attempts, a.status())
		}
		for _, a := range l.m.Waiting(side) {
			s.Waiting = append(s.Waiting, a.status())
		}
		if l.m.Lent(side) {
			s.Lent = append(s.Lent, side)
		}
	}
	for o, n := range l.outcomes {
		s.Outcomes = append(s.Outcomes, OutcomeCount{o, n})
	}
	slices.SortFunc(s.Outcomes, func(a, b OutcomeCount) int {
		return cmp.Or(cmp.Compare(a.Reader, b.Reader), cmp.Compare(a.Factor, b.Factor), cmp.Compare(a.Outcome, b.Outcome))
	})
	for _, part := range slices.Sorted(maps.Keys(l.faults)) {
		s.Faults = append(s.Faults, PartFault{part, l.faults[part]})
	}
	l.status.Store(s)
}

func (a *Attempt) status() AttemptStatus {
	return AttemptStatus{Direction: a.Side, Person: a.Person, Given: a.Given.Names(), Asked: a.More.Names(), Until: a.Until.UTC()}
}
