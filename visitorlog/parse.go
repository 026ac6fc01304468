package visitorlog

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/access"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	specVersion     = "1.0"
	dataContentType = "application/json"
	sourcePrefix    = "/controllers/"
	saltSize        = 16

	// MaxPayload is the largest payload of a record in bytes.
	MaxPayload = 32 << 10

	maxCount  = 1<<53 - 1 // the largest integer that every JSON reader keeps exact
	maxName   = 64        // characters
	maxText   = 1024
	maxDetail = 4096
	maxPart   = 128 // a reader's name has up to 63
	maxTrials = 256

	maxOutcomes = 64
	maxParts    = 12 // ten fingers and two eyes
	maxCompany  = 8
	maxUsed     = 8
)

var (
	controllerForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	personForm     = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	reasonForm     = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	usedForm       = regexp.MustCompile(`^[a-z]{1,16}:[A-Za-z0-9._:-]{1,110}$`)
)

// Types are all the types of record, in the order of their description.
var Types = []Type{
	DecisionGranted, DecisionDenied, PassageEntered, PassageNotEntered, PassageLeft,
	DoorForced, DoorHeld, DoorClosed, RequestToExit, DoorFault, ReaderFault, Tamper, BreakGlass, Lockdown,
	OperatorAction, PolicyApplied, ConfigurationChanged, ClockCorrected, ReviewSigned,
	Gap, EpochStarted, LogPruned, Commissioned, RecordCarried,
	Duress, EnrollmentMade, EnrollmentRevoked, EnrollmentOrphaned, ReaderProvisioned,
	FreeAccess, DoorDisabled, PolicyRefused,
}

var knownTypes = func() map[Type]bool {
	m := make(map[Type]bool, len(Types))
	for _, t := range Types {
		m[t] = true
	}
	return m
}()

var knownFactors = map[string]bool{"badge": true, "pin": true, "fingerprint": true, "iris": true, "face": true, "code": true, "totp": true}

// ParseRecord parses the payload of a record's JWS and checks it: everything
// that configs/record.schema.json demands, and that id and source agree with
// the data. Properties that it does not know are ignored, as CloudEvents asks
// of its readers; what they say is still signed and hashed.
func ParseRecord(payload []byte) (Record, error) {
	if len(payload) > MaxPayload {
		return Record{}, fmt.Errorf("record of %d bytes: more than %d", len(payload), MaxPayload)
	}
	if !utf8.Valid(payload) {
		return Record{}, errors.New("record: not UTF-8")
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(payload))
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Record{}, errors.New("record: something follows it")
	}
	if err := r.check(); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

// check says what is wrong with a record in itself: all of it but the
// signature and its place in a log.
func (r *Record) check() error {
	d := &r.Data
	switch {
	case r.SpecVersion != specVersion:
		return fmt.Errorf("specversion %q", r.SpecVersion)
	case !controllerForm.MatchString(d.Controller):
		return fmt.Errorf("controller %q", d.Controller)
	case !epochForm.MatchString(d.Epoch):
		return fmt.Errorf("epoch %q", d.Epoch)
	case d.Sequence > maxCount:
		return fmt.Errorf("sequence %d is out of range", d.Sequence)
	case r.ID != recordID(d.Epoch, d.Sequence):
		return fmt.Errorf("id %q is not that of sequence %d of epoch %s", r.ID, d.Sequence, d.Epoch)
	case r.Source != sourcePrefix+d.Controller:
		return fmt.Errorf("source %q is not controller %q", r.Source, d.Controller)
	case !knownTypes[r.Type]:
		return fmt.Errorf("type %q", r.Type)
	case r.Subject != "" && !personForm.MatchString(r.Subject):
		return fmt.Errorf("subject %q", r.Subject)
	case r.DataContentType != dataContentType:
		return fmt.Errorf("datacontenttype %q", r.DataContentType)
	case (d.Sequence == 0) != (d.Previous == ""):
		return fmt.Errorf("previous %q at sequence %d", d.Previous, d.Sequence)
	}
	if d.Previous != "" {
		if h, err := tlog.ParseHash(d.Previous); err != nil || h.String() != d.Previous {
			return fmt.Errorf("previous %q is not a hash", d.Previous)
		}
	}
	if salt, err := base64.StdEncoding.Strict().DecodeString(d.Salt); err != nil || len(salt) != saltSize {
		return fmt.Errorf("salt %q is not %d bytes in base64", d.Salt, saltSize)
	}
	if err := checkInstant(r.Time); err != nil {
		return fmt.Errorf("time: %w", err)
	}
	if err := d.check(); err != nil {
		return err
	}
	return r.checkType()
}

// checkInstant holds a time to UTC and microseconds.
func checkInstant(t time.Time) error {
	switch {
	case t.Year() < 0 || t.Year() > 9999:
		return fmt.Errorf("%v is out of range", t)
	case t.Location() != time.UTC:
		return fmt.Errorf("%v is not in UTC", t)
	case !t.Equal(t.Truncate(time.Microsecond)):
		return fmt.Errorf("%v is finer than a microsecond", t)
	}
	return nil
}

func (d *Data) check() error {
	switch d.Clock.State {
	case access.ClockSynchronised, access.ClockDrifting, access.ClockUnset:
	default:
		return fmt.Errorf("clock state %q", d.Clock.State)
	}
	if err := checkText("boot", d.Clock.Boot, maxName); err != nil {
		return err
	}
	if d.Clock.UptimeMS < 0 || d.Clock.UptimeMS > maxCount {
		return fmt.Errorf("uptime %d ms is out of range", d.Clock.UptimeMS)
	}
	for _, f := range []struct {
		name, value string
		most        int
	}{{"door", d.Door, maxName}, {"reader", d.Reader, maxName}, {"detail", d.Detail, maxDetail}, {"area", d.Area, maxName}} {
		if err := checkText(f.name, f.value, f.most); err != nil {
			return err
		}
	}
	switch d.Direction {
	case "", access.In, access.Out:
	default:
		return fmt.Errorf("direction %q", d.Direction)
	}
	switch d.Decision {
	case "", "granted", "denied":
	default:
		return fmt.Errorf("decision %q", d.Decision)
	}
	if d.Reason != "" && !reasonForm.MatchString(string(d.Reason)) {
		return fmt.Errorf("reason %q", d.Reason)
	}
	for i, f := range d.Factors {
		if !knownFactors[f] {
			return fmt.Errorf("factor %q", f)
		}
		for _, before := range d.Factors[:i] {
			if before == f {
				return fmt.Errorf("factor %q twice", f)
			}
		}
	}
	switch d.Kind {
	case "", access.Staff, access.Contractor, access.Visitor:
	default:
		return fmt.Errorf("person kind %q", d.Kind)
	}
	if err := checkVisit(d.Visit); err != nil {
		return err
	}
	if p := d.Policy; p != nil {
		if p.Version > maxCount || p.AgeSeconds < 0 || p.AgeSeconds > maxCount {
			return fmt.Errorf("policy version %d, age %d s: out of range", p.Version, p.AgeSeconds)
		}
		switch p.Freshness {
		case access.Fresh, access.Stale, access.Expired, access.Absent:
		default:
			return fmt.Errorf("policy freshness %q", p.Freshness)
		}
	}
	if d.Against != "" && !reasonForm.MatchString(string(d.Against)) {
		return fmt.Errorf("against %q", d.Against)
	}
	if d.Threat != nil && *d.Threat > access.MaxThreat {
		return fmt.Errorf("threat %d: more than %d", *d.Threat, access.MaxThreat)
	}
	if d.Cause != nil && *d.Cause > maxCount { // it may stand in the epoch before
		return fmt.Errorf("cause %d is out of range", *d.Cause)
	}
	if d.Late && d.Occurred == nil {
		return errors.New("late, but not when it occurred")
	}
	if d.Occurred != nil {
		if err := checkInstant(*d.Occurred); err != nil {
			return fmt.Errorf("occurred: %w", err)
		}
	}
	if err := errors.Join(checkTrials(d.Trials), checkOutcomes(d.Outcomes), checkEnrollment(d.Enrollment),
		checkCompany(d.Company), checkUsed(d.Used), checkCommand(d.Command)); err != nil {
		return err
	}
	return errors.Join(checkFormer(d.Former), checkCarried(d.Carried))
}

// checkCarried holds a carried record to its form. Whose it is, Unpack says.
func checkCarried(c *Carried) error {
	switch {
	case c == nil:
		return nil
	case !epochForm.MatchString(c.Epoch):
		return fmt.Errorf("carried epoch %q", c.Epoch)
	case c.Sequence > maxCount:
		return fmt.Errorf("carried sequence %d is out of range", c.Sequence)
	case len(c.JWS) > maxCarried:
		return fmt.Errorf("carried JWS of %d bytes: more than %d", len(c.JWS), maxCarried)
	case !jwsForm.MatchString(c.JWS):
		return errors.New("carried: not a compact JWS")
	}
	return nil
}

// factorOutcomes are all that a factor can come to.
var factorOutcomes = []string{OutcomeProved, OutcomeNoMatch, OutcomeFake, OutcomeMissing, OutcomeUnavailable}

func checkOutcomes(outcomes []FactorOutcome) error {
	if len(outcomes) > maxOutcomes {
		return fmt.Errorf("%d outcomes: more than %d", len(outcomes), maxOutcomes)
	}
	for _, o := range outcomes {
		if _, err := access.ParseFactors(o.Factor); err != nil || strings.Contains(o.Factor, "+") {
			return fmt.Errorf("outcome of factor %q", o.Factor)
		}
		if !slices.Contains(factorOutcomes, o.Outcome) {
			return fmt.Errorf("outcome %q", o.Outcome)
		}
		if !controllerForm.MatchString(o.Reader) {
			return fmt.Errorf("outcome at reader %q", o.Reader)
		}
	}
	return nil
}

func checkEnrollment(e *Enrollment) error {
	if e == nil {
		return nil
	}
	for _, name := range append(slices.Clone(e.Parts), e.Scanner, cmp.Or(e.From, e.Scanner)) {
		if !controllerForm.MatchString(name) {
			return fmt.Errorf("enrolment: %q is no name", name)
		}
	}
	for _, person := range []string{e.Operator, cmp.Or(e.Approver, e.Operator)} {
		if !personForm.MatchString(person) {
			return fmt.Errorf("enrolment: %q is no person", person)
		}
	}
	if e.Instead != "" {
		if _, err := access.ParseFactors(e.Instead); err != nil || strings.Contains(e.Instead, "+") {
			return fmt.Errorf("enrolment: factor %q", e.Instead)
		}
	}
	if len(e.Parts) > maxParts {
		return fmt.Errorf("enrolment of %d parts: more than %d", len(e.Parts), maxParts)
	}
	return checkText("enrolment: notice", e.Notice, maxText)
}

func checkCompany(company []Companion) error {
	if len(company) > maxCompany {
		return fmt.Errorf("company of %d: more than %d", len(company), maxCompany)
	}
	for _, c := range company {
		switch {
		case !personForm.MatchString(c.Person):
			return fmt.Errorf("company: %q is no person", c.Person)
		case c.Kind != access.Staff && c.Kind != access.Contractor && c.Kind != access.Visitor:
			return fmt.Errorf("company: person kind %q", c.Kind)
		case c.Role != RoleSecond && c.Role != RoleEscort:
			return fmt.Errorf("company: role %q", c.Role)
		}
	}
	return nil
}

func checkUsed(used []string) error {
	if len(used) > maxUsed {
		return fmt.Errorf("%d things used up: more than %d", len(used), maxUsed)
	}
	for _, u := range used {
		if !usedForm.MatchString(u) {
			return fmt.Errorf("used %q", u)
		}
	}
	return nil
}

func checkCommand(c *Command) error {
	switch {
	case c == nil:
		return nil
	case !personForm.MatchString(c.Operator):
		return fmt.Errorf("command: operator %q is no person", c.Operator)
	case c.ID == "" || c.Action == "" || c.Result == "":
		return errors.New("command without an id, an action or a result")
	}
	return errors.Join(checkText("command: id", c.ID, maxName), checkText("command: action", c.Action, maxName),
		checkText("command: why", c.Why, maxText), checkText("command: result", c.Result, maxText))
}

func checkTrials(trials []Trial) error {
	if len(trials) > maxTrials {
		return fmt.Errorf("%d trials: more than %d", len(trials), maxTrials)
	}
	for _, t := range trials {
		if t.Door == "" || t.Part == "" {
			return errors.New("trial without a door or a part")
		}
		if err := errors.Join(checkText("trial: door", t.Door, maxName), checkText("trial: part", t.Part, maxPart)); err != nil {
			return err
		}
		switch t.Result {
		case TrialPassed, TrialFailed, TrialSkipped:
		default:
			return fmt.Errorf("trial with result %q", t.Result)
		}
	}
	return nil
}

func checkVisit(v *access.Visit) error {
	if v == nil {
		return nil
	}
	for _, f := range []struct{ name, value string }{{"host", v.Host}, {"escort", v.Escort}, {"authoriser", v.Authoriser}} {
		if f.value != "" && !personForm.MatchString(f.value) {
			return fmt.Errorf("visit: %s is not a person id", f.name)
		}
	}
	for _, f := range []struct {
		name, value string
		most        int
	}{{"id", v.ID, maxName}, {"ticket", v.Ticket, maxText}, {"organisation", v.Organisation, maxText}, {"purpose", v.Purpose, maxText}, {"form of identification", v.IDForm, maxName}} {
		if err := checkText("visit: "+f.name, f.value, f.most); err != nil {
			return err
		}
	}
	return nil
}

func checkFormer(h *Head) error {
	if h == nil {
		return nil
	}
	if h.Epoch != "" && !epochForm.MatchString(h.Epoch) {
		return fmt.Errorf("former epoch %q", h.Epoch)
	}
	if h.Size > maxCount {
		return fmt.Errorf("former size %d is out of range", h.Size)
	}
	if h.Root != "" {
		if root, err := tlog.ParseHash(h.Root); err != nil || root.String() != h.Root {
			return fmt.Errorf("former root %q is not a hash", h.Root)
		}
	}
	return nil
}

// checkText bounds a text without repeating it: it may tell of a visitor.
func checkText(name, s string, most int) error {
	if n := utf8.RuneCountInString(s); n > most {
		return fmt.Errorf("%s of %d characters: more than %d", name, n, most)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", name)
	}
	return nil
}

// checkType holds a record to what its type must say.
func (r *Record) checkType() error {
	d := &r.Data
	need := func(has bool, what string) error {
		if !has {
			return fmt.Errorf("%s without %s", r.Type, what)
		}
		return nil
	}
	switch r.Type {
	case DecisionGranted, DecisionDenied:
		want := strings.TrimPrefix(string(r.Type), "gatehouse.decision.")
		if d.Decision != want {
			return fmt.Errorf("%s with decision %q", r.Type, d.Decision)
		}
		err := errors.Join(need(d.Door != "", "door"), need(d.Reader != "", "reader"), need(d.Direction != "", "direction"),
			need(d.Reason != "", "reason"), need(d.Policy != nil, "policy"))
		if r.Type == DecisionGranted {
			err = errors.Join(err, need(r.Subject != "", "subject"), need(d.Kind != "", "person kind"), need(len(d.Factors) > 0, "factors"))
		}
		return err
	case PassageEntered, PassageNotEntered, PassageLeft:
		return errors.Join(need(r.Subject != "", "subject"), need(d.Door != "", "door"),
			need(d.Direction != "", "direction"), need(d.Cause != nil, "cause"))
	case DoorForced, DoorHeld, DoorClosed, RequestToExit:
		return need(d.Door != "", "door")
	case DoorFault:
		return errors.Join(need(d.Door != "", "door"), need(d.Active != nil, "active"), need(d.Detail != "", "detail"))
	case ReaderFault:
		return errors.Join(need(d.Door != "", "door"), need(d.Reader != "", "reader"), need(d.Active != nil, "active"))
	case Tamper, Lockdown:
		return need(d.Active != nil, "active")
	case FreeAccess, DoorDisabled:
		return errors.Join(need(d.Door != "", "door"), need(d.Active != nil, "active"))
	case PolicyRefused:
		return need(d.Detail != "", "detail")
	case PolicyApplied:
		return need(d.Policy != nil, "policy")
	case Commissioned:
		return need(len(d.Trials) > 0, "trials")
	case RecordCarried:
		return need(d.Carried != nil, "carried")
	case Duress:
		return errors.Join(need(r.Subject != "", "subject"), need(d.Door != "", "door"), need(d.Reader != "", "reader"), need(d.Cause != nil, "cause"))
	case EnrollmentMade, EnrollmentRevoked:
		return errors.Join(need(r.Subject != "", "subject"), need(d.Enrollment != nil, "enrollment"))
	case EnrollmentOrphaned, ReaderProvisioned:
		return errors.Join(need(d.Reader != "", "reader"), need(d.Detail != "", "detail"))
	}
	return nil
}

func recordID(epoch string, seq uint64) string {
	return epoch + "-" + strconv.FormatUint(seq, 10)
}

// Payload returns the payload of a compact JWS without verifying it.
func Payload(jws string) ([]byte, error) {
	if len(jws) > maxJWS {
		return nil, fmt.Errorf("JWS of %d bytes: more than %d", len(jws), maxJWS)
	}
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("not a compact JWS: %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("not a compact JWS: payload is not base64url")
	}
	return payload, nil
}

// maxJWS leaves room for base64 and for the header and the signature.
const maxJWS = MaxPayload*4/3 + 4096
