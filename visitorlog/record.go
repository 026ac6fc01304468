// Package visitorlog keeps the visitor entry records of a controller: each is
// signed once, hashed into a Merkle tree and committed in one durable
// transaction, and proves afterwards that nothing was changed or left out.
package visitorlog

import (
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

// Type is what a record records. It is the CloudEvents type attribute.
type Type string

// The types of record.
const (
	DecisionGranted      Type = "gatehouse.decision.granted"
	DecisionDenied       Type = "gatehouse.decision.denied"
	PassageEntered       Type = "gatehouse.passage.entered"
	PassageNotEntered    Type = "gatehouse.passage.not_entered"
	PassageLeft          Type = "gatehouse.passage.left"
	DoorForced           Type = "gatehouse.door.forced"
	DoorHeld             Type = "gatehouse.door.held"
	DoorClosed           Type = "gatehouse.door.closed"
	RequestToExit        Type = "gatehouse.door.request_to_exit"
	DoorFault            Type = "gatehouse.door.fault" // a strike, contact or another part that is no reader
	ReaderFault          Type = "gatehouse.reader.fault"
	Tamper               Type = "gatehouse.tamper"
	BreakGlass           Type = "gatehouse.break_glass"
	Lockdown             Type = "gatehouse.lockdown"
	OperatorAction       Type = "gatehouse.operator.action"
	PolicyApplied        Type = "gatehouse.policy.applied"
	ConfigurationChanged Type = "gatehouse.configuration.changed"
	ClockCorrected       Type = "gatehouse.clock.corrected"
	ReviewSigned         Type = "gatehouse.review.signed"
	Gap                  Type = "gatehouse.log.gap"
	EpochStarted         Type = "gatehouse.log.epoch_started"
	LogPruned            Type = "gatehouse.log.pruned"
	Commissioned         Type = "gatehouse.controller.commissioned" // a person tried the parts of the doors
	RecordCarried        Type = "gatehouse.log.carried"             // a record of an earlier epoch, whose own log cannot be gone on with
)

// Record is the payload of a record's JWS: a CloudEvents 1.0 object.
type Record struct {
	SpecVersion     string    `json:"specversion"` // 1.0
	ID              string    `json:"id"`          // epoch "-" sequence, unique for ever
	Source          string    `json:"source"`      // "/controllers/" controller
	Type            Type      `json:"type"`
	Subject         string    `json:"subject,omitempty"` // pseudonymous person id
	Time            time.Time `json:"time"`              // UTC, microseconds
	DataContentType string    `json:"datacontenttype"`   // application/json
	Data            Data      `json:"data"`
}

// Data is the record's own part. Of the fields, the log itself fills in
// Controller, Epoch, Sequence, Previous, Clock and Salt.
type Data struct {
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`    // 32 hex digits
	Sequence   uint64 `json:"sequence"` // from 0: the leaf's index in the tree
	Previous   string `json:"previous"` // the previous record's leaf hash, base64; empty at sequence 0
	Clock      Clock  `json:"clock"`
	Salt       string `json:"salt"` // 128 random bits, base64: a kept leaf hash confirms no guess

	Door      string           `json:"door,omitempty"`
	Reader    string           `json:"reader,omitempty"`
	Direction access.Direction `json:"direction,omitempty"`
	Decision  string           `json:"decision,omitempty"` // granted or denied
	Reason    access.Reason    `json:"reason,omitempty"`
	Factors   []string         `json:"factors,omitempty"` // such as badge
	// Foreign marks a badge whose bits did not come in the time that is usual for
	// its reader: something else may be sending on its wires.
	Foreign bool          `json:"foreign,omitempty"`
	Kind    access.Kind   `json:"person_kind,omitempty"`
	Visit   *access.Visit `json:"visit,omitempty"`
	Policy  *Policy       `json:"policy,omitempty"`
	// Cause is the sequence of the decision that this record follows from.
	Cause *uint64 `json:"cause,omitempty"`
	// Active says of a state (lockdown, tamper, reader fault) whether it began or ended.
	Active *bool `json:"active,omitempty"`
	// Detail says in words what the other fields cannot.
	Detail string `json:"detail,omitempty"`
	// Late marks a record written after its event; Occurred is then the
	// event's own time.
	Late     bool       `json:"late,omitempty"`
	Occurred *time.Time `json:"occurred,omitempty"`
	// Trials are what a person tried of the controller's parts, in commissioned.
	Trials []Trial `json:"trials,omitempty"`
	// Former is the head of the epoch before this one, in epoch_started.
	Former *Head `json:"former,omitempty"`
	// Carried is the record of an earlier epoch, in carried.
	Carried *Carried `json:"carried,omitempty"`
}

// Clock is the state of the controller's clock when the record was written.
type Clock struct {
	State    access.ClockState `json:"state"`
	Boot     string            `json:"boot"`      // the kernel's boot id
	UptimeMS int64             `json:"uptime_ms"` // milliseconds since boot, suspended time included
}

// Policy is the allowlist under which a decision was made.
type Policy struct {
	Version    uint64           `json:"version"`
	AgeSeconds int64            `json:"age_seconds"`
	Freshness  access.Freshness `json:"freshness"`
}

// Trial is one part of a door that a person tried.
type Trial struct {
	Door   string `json:"door"`
	Part   string `json:"part"`   // such as strike, contact or reader a-in
	Result string `json:"result"` // passed, failed or skipped
}

// The results of a trial.
const (
	TrialPassed  = "passed"
	TrialFailed  = "failed"
	TrialSkipped = "skipped"
)

// Head names the size and root of a log.
type Head struct {
	Epoch string `json:"epoch"`
	Size  uint64 `json:"size"`
	Root  string `json:"root"` // base64
}

// Carried is a record of an earlier epoch as it was signed.
type Carried struct {
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	JWS      string `json:"jws"` // compact
}

// Draft is a record before the log has numbered and signed it.
type Draft struct {
	Type    Type
	Subject string
	Data    Data
}
