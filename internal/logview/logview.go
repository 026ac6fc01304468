// Package logview shows visitor entry records to people and hands them to
// other programs: the controller's and the CRM's commands are built on it.
package logview

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Row is one record as it is shown.
type Row struct {
	visitorlog.Entry
	// Controller and Epoch name the log; a damaged record cannot say.
	Controller, Epoch string
	// Note is what a reader must know of the record, such as "early" or what
	// is wrong with it; empty: nothing.
	Note string
	// Carrier is the id of the record of a later epoch that brought it to the
	// CRM; empty: it came in its own log.
	Carrier string
	// Damaged says that only Seq, Controller, Epoch and Note can be relied upon.
	Damaged bool
}

// jsonRow is a row for other programs.
type jsonRow struct {
	Controller string             `json:"controller"`
	Epoch      string             `json:"epoch"`
	Seq        uint64             `json:"seq"`
	Leaf       string             `json:"leaf,omitempty"`
	Note       string             `json:"note,omitempty"`
	Carrier    string             `json:"carried_by,omitempty"`
	Damaged    bool               `json:"damaged,omitempty"`
	Record     *visitorlog.Record `json:"record,omitempty"`
}

func (r Row) json() jsonRow {
	j := jsonRow{Controller: r.Controller, Epoch: r.Epoch, Seq: r.Seq, Note: r.Note, Carrier: r.Carrier, Damaged: r.Damaged}
	if !r.Damaged {
		rec := r.Record
		j.Leaf, j.Record = r.Leaf.String(), &rec
	}
	return j
}

// Options say how a Printer prints.
type Options struct {
	JSON        bool           // one object a line
	Zone        *time.Location // of the times in text; nil: the machine's
	Controllers bool           // a column with the controller's name
}

// Printer prints rows, one a line, as they come.
type Printer struct {
	w      io.Writer
	o      Options
	widths []int // of the columns so far: they only grow
	begun  bool
}

// NewPrinter prints on w.
func NewPrinter(w io.Writer, o Options) *Printer {
	if o.Zone == nil {
		o.Zone = time.Local
	}
	return &Printer{w: w, o: o, widths: []int{6, 23, 14, 3, 18, 22, 0}}
}

// Print prints one row.
func (p *Printer) Print(r Row) error {
	if p.o.JSON {
		return encode(p.w, r.json())
	}
	if !p.begun {
		p.begun = true
		if err := p.line("CONTROLLER", []string{"SEQ", "TIME", "DOOR", "DIR", "WHO", "WHAT", "WHY"}); err != nil {
			return err
		}
	}
	if r.Damaged {
		return p.line(r.Controller, []string{fmt.Sprint(r.Seq), "", "", "", "", "DAMAGED", r.Note})
	}
	rec := &r.Record
	why := Why(rec)
	if r.Note != "" {
		why = join(" · ", why, "["+r.Note+"]")
	}
	return p.line(r.Controller, []string{
		fmt.Sprint(r.Seq), Time(rec, p.o.Zone), dash(rec.Data.Door), dash(string(rec.Data.Direction)), dash(Who(rec)), What(rec), why,
	})
}

func (p *Printer) line(controller string, cells []string) error {
	var b strings.Builder
	if p.o.Controllers {
		fmt.Fprintf(&b, "%-12s  ", spelling.Printable(controller))
	}
	for i, c := range cells {
		c = spelling.Printable(c)
		n := utf8.RuneCountInString(c)
		p.widths[i] = max(p.widths[i], n)
		pad := strings.Repeat(" ", p.widths[i]-n)
		switch {
		case i == 0:
			b.WriteString(pad + c + "  ")
		case i == len(cells)-1:
			b.WriteString(c)
		default:
			b.WriteString(c + pad + "  ")
		}
	}
	_, err := fmt.Fprintln(p.w, strings.TrimRight(b.String(), " "))
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func join(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), sep)
}

// Time is when a record was written, in the site's time; a question mark
// follows where the controller's clock had never been set.
func Time(r *visitorlog.Record, zone *time.Location) string {
	s := r.Time.In(zone).Format(timeForm)
	if r.Data.Clock.State == access.ClockUnset {
		s += "?"
	}
	return s
}

// Who is the person of a record: a pseudonym, and what the person is to the
// site.
func Who(r *visitorlog.Record) string {
	switch {
	case r.Subject == "":
		return ""
	case r.Data.Kind == "":
		return r.Subject
	}
	return fmt.Sprintf("%s (%s)", r.Subject, r.Data.Kind)
}

// What says in words what happened.
func What(r *visitorlog.Record) string {
	d := &r.Data
	out := d.Direction == access.Out
	either := func(began, ended string) string {
		if d.Active != nil && !*d.Active {
			return ended
		}
		return began
	}
	switch r.Type {
	case visitorlog.DecisionGranted:
		if out {
			return "let out"
		}
		return "let in"
	case visitorlog.DecisionDenied:
		return "DENIED"
	case visitorlog.PassageEntered:
		return "went in"
	case visitorlog.PassageNotEntered:
		return "did not open the door"
	case visitorlog.PassageLeft:
		return "went out"
	case visitorlog.DoorForced:
		return "DOOR FORCED"
	case visitorlog.DoorHeld:
		return "DOOR HELD OPEN"
	case visitorlog.DoorClosed:
		return "door closed"
	case visitorlog.RequestToExit:
		return "exit button"
	case visitorlog.DoorFault:
		return either("DOOR FAULT", "door works again")
	case visitorlog.ReaderFault:
		return either("READER FAULT", "reader works again")
	case visitorlog.Tamper:
		return either("TAMPERING", "tampering over")
	case visitorlog.BreakGlass:
		return "BREAK-GLASS"
	case visitorlog.Lockdown:
		return either("LOCKDOWN", "lockdown lifted")
	case visitorlog.OperatorAction:
		return "operator action"
	case visitorlog.PolicyApplied:
		if d.Policy != nil {
			return fmt.Sprintf("allowlist %d applied", d.Policy.Version)
		}
		return "allowlist applied"
	case visitorlog.ConfigurationChanged:
		return "configuration changed"
	case visitorlog.ClockCorrected:
		return "clock corrected"
	case visitorlog.ReviewSigned:
		return "review signed"
	case visitorlog.Gap:
		return "GAP IN THE LOG"
	case visitorlog.EpochStarted:
		return "log begun"
	case visitorlog.LogPruned:
		return "log pruned"
	case visitorlog.RecordCarried:
		return "record of an earlier log"
	case visitorlog.Commissioned:
		return "controller commissioned"
	case visitorlog.Duress:
		return "DURESS"
	case visitorlog.EnrollmentMade:
		return "enrolled"
	case visitorlog.EnrollmentRevoked:
		return "enrolment revoked"
	case visitorlog.EnrollmentOrphaned:
		return "ENROLMENT ORPHANED"
	case visitorlog.ReaderProvisioned:
		return "reader provisioned"
	case visitorlog.FreeAccess:
		return either("free access began", "free access ended")
	case visitorlog.DoorDisabled:
		return either("DOOR OUT OF USE", "door in use again")
	case visitorlog.PolicyRefused:
		return "ALLOWLIST REFUSED"
	}
	return string(r.Type)
}

// Why says why, and what else a reader should see at a glance.
func Why(r *visitorlog.Record) string {
	d := &r.Data
	var parts []string
	if r.Type == visitorlog.ReaderFault {
		parts = append(parts, d.Reader)
	}
	if d.Reason != "" && d.Reason != access.ReasonGranted {
		parts = append(parts, strings.ReplaceAll(string(d.Reason), "_", " "))
	}
	if len(d.Factors) > 1 && r.Type == visitorlog.DecisionGranted {
		parts = append(parts, "by "+strings.Join(d.Factors, " and "))
	}
	for _, o := range d.Outcomes {
		if o.Outcome != visitorlog.OutcomeProved {
			parts = append(parts, fmt.Sprintf("%s %s at %s", o.Factor, strings.ReplaceAll(o.Outcome, "_", " "), o.Reader))
		}
	}
	if e := d.Enrollment; e != nil {
		parts = append(parts, join(", ", strings.Join(e.Parts, ", "), "at "+e.Scanner, prefixed("copied from ", e.From), prefixed("notice ", e.Notice),
			prefixed("instead: ", e.Instead), "by "+e.Operator, prefixed("approved by ", e.Approver)))
	}
	if d.Against != "" {
		parts = append(parts, "AGAINST "+strings.ReplaceAll(string(d.Against), "_", " "))
	}
	for _, c := range d.Company {
		parts = append(parts, fmt.Sprintf("together with %s (%s)", c.Person, c.Role))
	}
	if d.Threat != nil {
		parts = append(parts, fmt.Sprintf("threat level %d", *d.Threat))
	}
	if c := d.Command; c != nil {
		parts = append(parts, join(", ", c.Action+": "+c.Result, "ordered by "+c.Operator, c.Why))
	}
	if d.Foreign {
		parts = append(parts, "NOT THE READER'S TIMING")
	}
	if v := d.Visit; v != nil {
		parts = append(parts, join(", ", v.Organisation, prefixed("to see ", v.Host), prefixed("escorted by ", v.Escort)))
	}
	if p := d.Policy; p != nil && p.Freshness != access.Fresh && r.Type != visitorlog.PolicyApplied {
		parts = append(parts, "allowlist "+string(p.Freshness))
	}
	if d.Cause != nil {
		parts = append(parts, fmt.Sprintf("after record %d", *d.Cause))
	}
	if d.Former != nil {
		parts = append(parts, fmt.Sprintf("before it: %d records of epoch %s", d.Former.Size, dash(d.Former.Epoch)))
	}
	if c := d.Carried; c != nil {
		parts = append(parts, fmt.Sprintf("carries record %d of epoch %s", c.Sequence, c.Epoch))
	}
	if d.Late && d.Occurred != nil {
		parts = append(parts, "written late: it happened at "+d.Occurred.Format(time.RFC3339))
	}
	return join(" · ", append(parts, d.Detail)...)
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
