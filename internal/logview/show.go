package logview

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// Check is one thing that was or was not found right about a record.
type Check struct {
	OK   bool
	What string // such as "signature"
	Why  string // what is wrong
}

const timeForm = "2006-01-02 15:04:05 MST"

func check(err error, what string) Check {
	if err != nil {
		return Check{What: what, Why: err.Error()}
	}
	return Check{OK: true, What: what}
}

// Present prints one record, for people or for other programs, and says
// whether it is whole and all that was verified of it is right.
func Present(w io.Writer, r Row, checks []Check, zone *time.Location, asJSON bool) (good bool, err error) {
	if asJSON {
		err = ShowJSON(w, r, checks)
	} else {
		err = Show(w, r, checks, zone)
	}
	return !r.Damaged && !slices.ContainsFunc(checks, func(c Check) bool { return !c.OK }), err
}

// Show prints one record with all that it says and what was verified of it.
func Show(w io.Writer, r Row, checks []Check, zone *time.Location) error {
	p := &shower{w: w}
	if r.Damaged {
		p.field("record", fmt.Sprintf("%d of epoch %s, controller %s", r.Seq, r.Epoch, r.Controller))
		p.field("damaged", r.Note)
		return p.err
	}
	rec := &r.Record
	d := &rec.Data
	p.field("record", fmt.Sprintf("%d of epoch %s, controller %s", r.Seq, r.Epoch, r.Controller))
	p.field("note", r.Note)
	p.field("what", What(rec))
	p.field("type", string(rec.Type))
	p.field("time", fmt.Sprintf("%s (%s)", rec.Time.In(zone).Format("Monday 2006-01-02 15:04:05.000000 MST"), rec.Time.Format(time.RFC3339Nano)))
	p.field("clock", fmt.Sprintf("%s, %v after boot %s", d.Clock.State, time.Duration(d.Clock.UptimeMS)*time.Millisecond, dash(d.Clock.Boot)))
	if d.Occurred != nil {
		p.field("occurred", fmt.Sprintf("%s (%s)", d.Occurred.In(zone).Format("2006-01-02 15:04:05.000000 MST"), d.Occurred.Format(time.RFC3339Nano)))
	}
	if d.Late {
		p.field("late", "written after the event")
	}
	p.field("door", d.Door)
	p.field("reader", d.Reader)
	p.field("direction", string(d.Direction))
	p.field("person", rec.Subject)
	p.field("person kind", string(d.Kind))
	p.field("decision", d.Decision)
	p.field("reason", string(d.Reason))
	if t, ok := d.Reason.Text(); ok {
		p.field("", t.Meaning)
		p.field("", t.Action)
	}
	p.field("factors", strings.Join(d.Factors, ", "))
	for _, o := range d.Outcomes {
		p.field("", fmt.Sprintf("%s at %s: %s", o.Factor, o.Reader, strings.ReplaceAll(o.Outcome, "_", " ")))
	}
	if e := d.Enrollment; e != nil {
		p.field("scanner", e.Scanner)
		p.field("copied from", e.From)
		p.field("enrolled", strings.Join(e.Parts, ", "))
		p.field("instead", e.Instead)
		p.field("notice", e.Notice)
		p.field("operator", e.Operator)
		p.field("approved by", e.Approver)
	}
	if d.Foreign {
		p.field("timing", "not this reader's: something else may be sending on its wires")
	}
	for _, c := range d.Company {
		p.field("together with", fmt.Sprintf("%s, %s", c.Person, c.Role))
	}
	if v := d.Visit; v != nil {
		p.field("host", v.Host)
		p.field("organisation", v.Organisation)
		p.field("purpose", v.Purpose)
		p.field("escort", v.Escort)
		p.field("authoriser", v.Authoriser)
		p.field("identified by", v.IDForm)
	}
	if pol := d.Policy; pol != nil {
		p.field("allowlist", fmt.Sprintf("version %d, %s, known to be current %v before", pol.Version, pol.Freshness, time.Duration(pol.AgeSeconds)*time.Second))
	}
	if d.Cause != nil {
		p.field("follows from", fmt.Sprintf("record %d", *d.Cause))
	}
	if d.Active != nil {
		p.field("state", map[bool]string{true: "began", false: "ended"}[*d.Active])
	}
	p.field("detail", d.Detail)
	for _, t := range d.Trials {
		p.field("tried", fmt.Sprintf("%s, %s: %s", t.Door, t.Part, t.Result))
	}
	if h := d.Former; h != nil {
		p.field("before it", fmt.Sprintf("%d records of epoch %s, root %s", h.Size, dash(h.Epoch), dash(h.Root)))
	}
	if c := d.Carried; c != nil {
		p.field("carries", fmt.Sprintf("record %d of epoch %s: %s", c.Sequence, c.Epoch, c.JWS))
	}
	p.field("id", rec.ID)
	p.field("leaf hash", r.Leaf.String())
	p.field("previous", dash(d.Previous))
	p.field("salt", d.Salt)
	for _, c := range checks {
		if c.OK {
			p.field("verified", c.What)
		} else {
			p.field("NOT VERIFIED", c.What+": "+c.Why)
		}
	}
	return p.err
}

// ShowJSON prints one record for other programs, with its signed bytes.
func ShowJSON(w io.Writer, r Row, checks []Check) error {
	faults := []string{}
	for _, c := range checks {
		if !c.OK {
			faults = append(faults, c.What+": "+c.Why)
		}
	}
	return encode(w, struct {
		jsonRow
		JWS      string   `json:"jws,omitempty"`
		Verified bool     `json:"verified"`
		Faults   []string `json:"faults"`
	}{r.json(), r.JWS, len(checks) > 0 && len(faults) == 0 && !r.Damaged, faults})
}

type shower struct {
	w   io.Writer
	err error
}

// field prints a field that has a value.
func (p *shower) field(name, value string) {
	if value == "" || p.err != nil {
		return
	}
	_, p.err = fmt.Fprintf(p.w, "%-14s%s\n", name, spelling.Printable(value))
}
