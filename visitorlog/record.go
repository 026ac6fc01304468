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
	// Duress is a person who gave what is given only under a threat. Nothing at
	// the door shows it.
	Duress             Type = "gatehouse.duress"
	EnrollmentMade     Type = "gatehouse.enrollment.made"
	EnrollmentRevoked  Type = "gatehouse.enrollment.revoked"
	EnrollmentOrphaned Type = "gatehouse.enrollment.orphaned" // a scanner keeps what nobody enrolled, or lost what somebody did
	ReaderProvisioned  Type = "gatehouse.reader.provisioned"  // a reader was given a key, an address or a rate
	// FreeAccess is a door that stands unlocked for everybody by its schedule, and
	// DoorDisabled one that nobody may use for the time being.
	FreeAccess    Type = "gatehouse.door.free_access"
	DoorDisabled  Type = "gatehouse.door.disabled"
	PolicyRefused Type = "gatehouse.policy.refused" // an allowlist that was sent and not taken
	RecordCarried Type = "gatehouse.log.carried"    // a record of an earlier epoch, whose own log cannot be gone on with
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
	Factors   []string         `json:"factors,omitempty"` // that were proved, such as badge
	// Outcomes are how the factors that were asked for came out, in their order,
	// where there were more than one.
	Outcomes []FactorOutcome `json:"outcomes,omitempty"`
	// Foreign marks a badge whose bits did not come in the time that is usual for
	// its reader: something else may be sending on its wires.
	Foreign bool          `json:"foreign,omitempty"`
	Kind    access.Kind   `json:"person_kind,omitempty"`
	Visit   *access.Visit `json:"visit,omitempty"`
	Policy  *Policy       `json:"policy,omitempty"`
	// Area is the area that the person came into, or left.
	Area string `json:"area,omitempty"`
	// Company are those together with whom the person passed.
	Company []Companion `json:"company,omitempty"`
	// Against is the rule that this grant went against without being denied for it,
	// such as passback.
	Against access.Reason `json:"against,omitempty"`
	// Used names what the decision used up for ever, such as code:8f3a….
	Used []string `json:"used,omitempty"`
	// Command is what somebody ordered from the CRM.
	Command *Command `json:"command,omitempty"`
	// Threat is the level of threat from now on, in lockdown.
	Threat *access.Threat `json:"threat,omitempty"`
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
	// Enrollment is what was enrolled or revoked, in enrollment.made and .revoked.
	Enrollment *Enrollment `json:"enrollment,omitempty"`
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

// FactorOutcome is how one factor came out. It holds no score, and nothing of
// whom else a finger may be.
type FactorOutcome struct {
	Factor  string `json:"factor"`  // such as fingerprint
	Outcome string `json:"outcome"` // proved, or how it failed
	Reader  string `json:"reader"`  // or scanner
}

// The outcomes of a factor.
const (
	OutcomeProved      = "proved"
	OutcomeNoMatch     = "no_match"    // somebody else's finger or eye, or a wrong PIN
	OutcomeFake        = "fake"        // the scanner found that it does not live
	OutcomeMissing     = "missing"     // it did not come in time
	OutcomeUnavailable = "unavailable" // its reader is faulty, or the person has none
)

// Enrollment is what was enrolled of the record's person. There is nothing of
// a finger or an eye in it but which one it is.
type Enrollment struct {
	Scanner  string   `json:"scanner"`
	Parts    []string `json:"parts"`             // such as right-index; empty: the person has other factors instead
	Notice   string   `json:"notice,omitempty"`  // version of the notice that the person agreed to
	Instead  string   `json:"instead,omitempty"` // the factor of a person who did not, or cannot
	Operator string   `json:"operator"`          // pseudonymous id
	Approver string   `json:"approver,omitempty"`
	From     string   `json:"from,omitempty"` // the scanner that it was copied from
}

// Companion is somebody who passed together with the record's person.
type Companion struct {
	Person string      `json:"person"` // pseudonymous id
	Kind   access.Kind `json:"kind"`
	Role   string      `json:"role"` // second or escort
}

// The roles of a companion.
const (
	RoleSecond = "second" // of two who pass only together
	RoleEscort = "escort"
)

// Command is a command of the CRM's, and what became of it.
type Command struct {
	ID       string `json:"id"`
	Action   string `json:"action"`
	Operator string `json:"operator"` // pseudonymous id
	Why      string `json:"why,omitempty"`
	Result   string `json:"result"` // done, or refused: why
}

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
