package door

import (
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
)

// Status is a snapshot of a door.
type Status struct {
	Door         string         `json:"door"`
	Locked       bool           `json:"locked"` // what the strike was told; see Faults for whether it did
	Contact      Contact        `json:"contact"`
	Forced       bool           `json:"forced"`
	Held         bool           `json:"held"`
	HeldWarning  bool           `json:"held_warning"`
	Lockdown     bool           `json:"lockdown"`
	Tamper       bool           `json:"tamper"`
	Indicator    Pattern        `json:"indicator"`
	Readers      []ReaderStatus `json:"readers"`
	Faults       []PartFault    `json:"faults"` // of all parts, readers too
	LastDecision time.Time      `json:"last_decision,omitzero"`
	Counts       Counts         `json:"counts"`
}

// ReaderStatus is the state of one reader.
type ReaderStatus struct {
	Name      string           `json:"name"`
	Direction access.Direction `json:"direction"`
	Fault     string           `json:"fault,omitempty"`
	Likely    string           `json:"likely,omitempty"` // wrong with its wires, though it reads
	Keys      uint64           `json:"keys"`             // keypad bursts; nothing here asks for one
	Health    *badge.Health    `json:"health,omitempty"` // none: the reader does not know
}

// PartFault is a part of the door that is broken: "strike", "contact",
// "request to exit", "tamper", "lockdown", "indicator", "log", "allowlist" or
// "reader NAME".
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
	s.Readers, s.Faults = slices.Clone(s.Readers), slices.Clone(s.Faults)
	s.Counts.Pending, s.Counts.Lost = d.records.waiting()
	for i := range s.Readers {
		s.Readers[i].Health = d.cfg.Readers[i].health()
	}
	return s
}

// publish makes the loop's state the door's status.
func (l *loop) publish() {
	state := l.m.State()
	s := &Status{
		Door: l.cfg.Name, Locked: state.Locked, Contact: state.Contact,
		Forced: state.Forced, Held: state.Held, HeldWarning: state.Warning,
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
	for _, part := range slices.Sorted(maps.Keys(l.faults)) {
		s.Faults = append(s.Faults, PartFault{part, l.faults[part]})
	}
	l.status.Store(s)
}
