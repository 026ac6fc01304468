package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Visit is the planned and the real stay of a visitor.
type Visit struct {
	ID           string    `json:"visit"`
	Visitor      string    `json:"visitor"` // a person of kind visitor
	Organisation string    `json:"organisation"`
	Host         string    `json:"host"` // staff
	Purpose      string    `json:"purpose"`
	Ticket       string    `json:"ticket,omitempty"`
	Authoriser   string    `json:"authoriser"` // staff; neither host, escort nor visitor
	EscortNeeded bool      `json:"escort_needed"`
	Escort       string    `json:"escort,omitempty"` // staff or contractor
	From         time.Time `json:"from"`
	Until        time.Time `json:"until"` // exclusive
	Doors        []string  `json:"doors"`

	Identified *Identified `json:"identified,omitempty"`
	Notice     *Notice     `json:"notice,omitempty"`

	CheckedIn   time.Time `json:"checked_in,omitzero"`
	Badge       string    `json:"badge,omitempty"` // the visitors' badge that was issued
	Issued      time.Time `json:"issued,omitzero"`
	Surrendered time.Time `json:"surrendered,omitzero"` // the badge was
	Closed      time.Time `json:"closed,omitzero"`
	How         Close     `json:"how,omitempty"`
	ClosedBy    string    `json:"closed_by,omitempty"`
}

// Identified says by what form of identification a visitor was identified, and
// by whom.
type Identified struct {
	Form string `json:"form"` // the type of the document, never its number
	By   string `json:"by"`   // who checked it
}

// Notice is a visitor's acknowledgement of the site's rules.
type Notice struct {
	Version string    `json:"version"`
	Signed  string    `json:"signed"` // the name as the visitor typed it
	At      time.Time `json:"at"`
}

// Close says how a visit ended.
type Close string

// The ways in which a visit ends.
const (
	CloseSignedOut Close = "signed_out" // by the visitor's sign-out
	CloseAutomatic Close = "automatic"  // nobody signed out; the time is when that was noticed
	CloseMissed    Close = "missed"     // nobody came
	CloseCancelled Close = "cancelled"
)

// VisitState is how far a visit has come.
type VisitState string

// The states of a visit.
const (
	VisitPlanned VisitState = "planned"
	VisitIn      VisitState = "in"
	VisitClosed  VisitState = "closed"
)

// State is how far the visit has come.
func (v *Visit) State() VisitState {
	switch {
	case !v.Closed.IsZero():
		return VisitClosed
	case !v.CheckedIn.IsZero():
		return VisitIn
	}
	return VisitPlanned
}

// Overstayed says whether the visitor is still in after the end of the visit.
func (v *Visit) Overstayed(now time.Time) bool { return v.State() == VisitIn && !now.Before(v.Until) }

// BadgeOut says whether the visitor has a badge.
func (v *Visit) BadgeOut() bool { return v.Badge != "" && v.Surrendered.IsZero() }

func (*Visit) kind() Kind            { return KindVisit }
func (v *Visit) key() string         { return v.ID }
func (*Visit) secret() any           { return nil }
func (*Visit) lookup(Indexer) []byte { return nil }

func (v *Visit) due() time.Time {
	if v.State() == VisitClosed {
		return time.Time{}
	}
	return v.Until
}

func (v *Visit) settle() {
	for _, t := range []*time.Time{&v.From, &v.Until, &v.CheckedIn, &v.Issued, &v.Surrendered, &v.Closed} {
		instant(t)
	}
	if v.Notice != nil {
		instant(&v.Notice.At)
	}
	v.Doors = sorted(v.Doors)
}

func (v *Visit) links() []link {
	links := []link{to("visitor", KindPerson, v.Visitor), to("host", KindPerson, v.Host), to("authoriser", KindPerson, v.Authoriser)}
	if v.Escort != "" {
		links = append(links, to("escort", KindPerson, v.Escort))
	}
	if v.State() == VisitClosed {
		return links // its doors and badge may go; its people stay
	}
	for _, d := range v.Doors {
		links = append(links, to("doors", KindDoor, d))
	}
	if v.Badge != "" {
		links = append(links, to("badge", KindCredential, v.Badge))
	}
	return links
}

func (v *Visit) check(t *tx, before object, f *faults) error {
	f.name("visit", v.ID)
	for _, w := range [...]struct {
		field, text string
		most        int
	}{{"organisation", v.Organisation, maxText}, {"purpose", v.Purpose, maxPurpose}} {
		f.needed(w.field, w.text)
		f.text(w.field, w.text, w.most)
	}
	f.text("ticket", v.Ticket, maxTicket)
	if v.From.IsZero() || v.Until.IsZero() {
		f.add("until", "a visit has a from and an until")
	}
	f.bounds(v.From, v.Until)
	if len(v.Doors) == 0 {
		f.add("doors", "a visit is to at least one door")
	}
	switch v.Authoriser {
	case v.Host:
		f.add("authoriser", "%s is the host: another person authorises the visit", v.Authoriser)
	case v.Visitor:
		f.add("authoriser", "%s is the visitor: another person authorises the visit", v.Authoriser)
	case v.Escort:
		f.add("authoriser", "%s is the escort: another person authorises the visit", v.Authoriser)
	}
	if v.EscortNeeded && v.Escort == "" && v.State() == VisitIn {
		f.add("escort", "is missing, and this visit needs one")
	}
	was, _ := before.(*Visit)
	if was == nil {
		was = new(Visit)
	}
	if !t.guided && v.course() != was.course() {
		f.add("visit", "its course is changed by check-in, badge, surrender, sign-out and cancel, and who is in stays who was let in")
	}
	if !t.guided && was.State() == VisitClosed {
		f.add("visit", "it is over")
	}
	v.checkPapers(f)
	if err := v.checkPeople(t, was, f); err != nil || v.State() == VisitClosed || before == nil {
		return err
	}
	return t.eachCode(v.ID, func(c *Code) error {
		v.checkCode(c, f)
		return nil
	})
}

// course is what becomes of a visit.
type course struct {
	visitor                                string // who is in
	checkedIn, issued, surrendered, closed time.Time
	badge, closedBy                        string
	how                                    Close
	identified                             Identified
	notice                                 Notice
}

func (v *Visit) course() course {
	c := course{checkedIn: v.CheckedIn, issued: v.Issued, surrendered: v.Surrendered, closed: v.Closed, badge: v.Badge, closedBy: v.ClosedBy, how: v.How}
	if v.State() != VisitPlanned {
		c.visitor = v.Visitor
	}
	if v.Identified != nil {
		c.identified = *v.Identified
	}
	if v.Notice != nil {
		c.notice = *v.Notice
	}
	return c
}

// checkPapers checks what is shown at check-in.
func (v *Visit) checkPapers(f *faults) {
	in := v.State() == VisitIn
	if in && v.Identified == nil {
		f.add("identified", "is missing: say what form of identification was shown, and who checked it")
	}
	if i := v.Identified; i != nil {
		f.needed("identified.form", i.Form)
		f.text("identified.form", i.Form, maxText)
		if len([]rune(i.Form)) > maxIDForm {
			f.add("identified.form", "is longer than %d characters: name the sort of document, such as passport, and not its number", maxIDForm)
		}
		if !validBy(i.By) {
			f.add("identified.by", "%s: say who checked it", fields.Quote(i.By))
		}
	}
	if in && v.Notice == nil {
		f.add("notice", "is missing: the visitor acknowledges the site's rules first")
	}
	if n := v.Notice; n != nil {
		f.needed("notice.version", n.Version)
		f.text("notice.version", n.Version, maxTicket)
		f.needed("notice.signed", n.Signed)
		f.text("notice.signed", n.Signed, maxText)
	}
}

// checkPeople checks who takes part, where that is new: somebody may leave
// while a visit goes on, which then still can be ended.
func (v *Visit) checkPeople(t *tx, was *Visit, f *faults) error {
	checkIn := was.State() == VisitPlanned && v.State() == VisitIn
	for _, w := range [...]struct {
		field, now, was string
		kinds           []access.Kind
	}{
		{"visitor", v.Visitor, was.Visitor, []access.Kind{access.Visitor}},
		{"host", v.Host, was.Host, []access.Kind{access.Staff}},
		{"authoriser", v.Authoriser, was.Authoriser, []access.Kind{access.Staff}},
		{"escort", v.Escort, was.Escort, []access.Kind{access.Staff, access.Contractor}},
	} {
		if w.now == "" || w.now == w.was && !(checkIn && w.field != "authoriser") {
			continue
		}
		p, err := t.standing(f, w.field, w.now, w.kinds...)
		if err != nil {
			return err
		}
		if w.field == "escort" && p != nil && p.Left.IsZero() && !p.MayEscort {
			f.add("escort", "%s may not escort others: say that they may by `gatehouse-crm people change %s --may-escort`", p.ID, p.ID)
		}
	}
	return nil
}

func (v *Visit) mayGo() error {
	if v.State() != VisitClosed {
		return refused("it is not over: cancel it, or sign the visitor out")
	}
	return refused("visits are kept, as records tell of them")
}

// What the audit says of visits.
const (
	actionCheckIn   = "check_in"
	actionIssue     = "issue_badge"
	actionSurrender = "surrender_badge"
	actionSignOut   = "sign_out"
	actionClose     = "close"
	actionLose      = "lose"
)

// Arrival is what is said of a visitor at check-in.
type Arrival struct {
	Identified Identified
	Notice     Notice // its time is now where it is zero
	Escort     string // "": as it was planned
	Badge      string // the visitors' badge that is issued; "": none
}

// CheckIn lets a visitor's visit begin: not before the day of its beginning, nor
// after its end. Version is as of Update.
func (r *Registry) CheckIn(ctx context.Context, c Change, visit string, version uint64, a Arrival) (row Row[Visit], err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		row, err = r.Visits.update(t, actionCheckIn, visit, version, func(v *Visit) error {
			switch {
			case v.State() != VisitPlanned:
				return refused("visit %q is %s: only a planned one can be checked in", visit, v.State())
			case !t.now.Before(v.Until):
				return refused("visit %q was until %s: plan another", visit, v.Until.Format(time.RFC3339))
			case t.now.Add(earliest).Before(v.From):
				return refused("visit %q is from %s: it is too early", visit, v.From.Format(time.RFC3339))
			}
			v.CheckedIn, v.Identified, v.Notice = t.now, &a.Identified, &a.Notice
			if v.Notice.At.IsZero() {
				v.Notice.At = t.now
			}
			if a.Escort != "" {
				v.Escort = a.Escort
			}
			return t.onlyVisit(v)
		})
		if err != nil || a.Badge == "" {
			return err
		}
		row, err = t.issue(visit, a.Badge)
		return err
	})
	return row, err
}

// earliest is how long before its beginning a visit may be checked in. The
// badge opens nothing before.
const earliest = 24 * time.Hour

// onlyVisit makes sure that nobody is in twice.
func (t *tx) onlyVisit(v *Visit) error {
	return t.eachNaming(KindVisit, objectName{KindPerson, v.Visitor}, func(o object) error {
		if other := o.(*Visit); other.ID != v.ID && other.Visitor == v.Visitor && other.State() == VisitIn {
			return refused("%s is in already, by visit %s: sign that out first", v.Visitor, other.ID)
		}
		return nil
	})
}

// Issue gives a visitor who is in a badge, in the place of one that was
// surrendered or lost.
func (r *Registry) Issue(ctx context.Context, c Change, visit, badge string) (row Row[Visit], err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		row, err = t.issue(visit, badge)
		return err
	})
	return row, err
}

func (t *tx) issue(visit, badge string) (Row[Visit], error) {
	before, err := t.old(objectName{KindVisit, visit})
	if err != nil {
		return Row[Visit]{}, err
	}
	v := before.value.(*Visit)
	if v.State() != VisitIn {
		return Row[Visit]{}, refused("visit %q is %s: a badge is issued at check-in", visit, v.State())
	}
	if v.BadgeOut() {
		have, err := t.r.Credentials.get(t.ctx, t, v.Badge)
		if err != nil {
			return Row[Visit]{}, err
		}
		if have.Value.State == access.Active {
			return Row[Visit]{}, refused("visit %q has badge %s: have it surrendered, or say that it is lost", visit, v.Badge)
		}
	}
	if _, err := t.r.Credentials.update(t, actionIssue, badge, 0, func(c *Credential) error {
		switch {
		case !c.Visitors:
			return refused("credential %q is no visitors' badge", badge)
		case c.State != access.Active:
			return refused("badge %q is %s", badge, c.State)
		case c.Person != "":
			return refused("badge %q is issued already, to %s", badge, c.Person)
		}
		c.Person = v.Visitor
		return nil
	}); err != nil {
		return Row[Visit]{}, err
	}
	return t.r.Visits.update(t, actionIssue, visit, 0, func(v *Visit) error {
		v.Badge, v.Issued, v.Surrendered = badge, t.now, time.Time{}
		return nil
	})
}

// Surrender takes a visitor's badge back.
func (r *Registry) Surrender(ctx context.Context, c Change, visit string) (row Row[Visit], err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		row, err = t.surrender(visit)
		return err
	})
	return row, err
}

func (t *tx) surrender(visit string) (Row[Visit], error) {
	return t.r.Visits.update(t, actionSurrender, visit, 0, func(v *Visit) error {
		if !v.BadgeOut() {
			return refused("visit %q has no badge", visit)
		}
		v.Surrendered = t.now
		_, err := t.r.Credentials.update(t, actionSurrender, v.Badge, 0, func(c *Credential) error {
			c.Person = ""
			if c.State == access.Lost { // and found
				c.State = access.Active
			}
			return nil
		})
		return err
	})
}

// SignOut ends a visit. The badge is surrendered, or else lost: then it opens
// nothing any more. Version is as of Update.
func (r *Registry) SignOut(ctx context.Context, c Change, visit string, version uint64, lost bool) (row Row[Visit], err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		before, err := t.at(objectName{KindVisit, visit}, version)
		if err != nil {
			return err
		}
		v := before.value.(*Visit)
		if v.State() != VisitIn {
			return refused("visit %q is %s: nobody is to be signed out", visit, v.State())
		}
		if v.BadgeOut() && !lost {
			if _, err := t.surrender(visit); err != nil {
				return err
			}
		}
		if err := t.closeVisit(visit, CloseSignedOut); err != nil {
			return err
		}
		row, err = r.Visits.get(ctx, t, visit)
		return err
	})
	return row, err
}

// Cancel ends a visit that has not begun. Version is as of Update.
func (r *Registry) Cancel(ctx context.Context, c Change, visit string, version uint64) error {
	return r.guided(ctx, c, func(t *tx) error {
		before, err := t.at(objectName{KindVisit, visit}, version)
		if err != nil {
			return err
		}
		if v := before.value.(*Visit); v.State() != VisitPlanned {
			return refused("visit %q is %s: only a planned one can be cancelled", visit, v.State())
		}
		return t.closeVisit(visit, CloseCancelled)
	})
}

// closeVisit ends a visit. A badge that is out then is lost.
func (t *tx) closeVisit(visit string, how Close) error {
	action := actionClose
	if how == CloseSignedOut {
		action = actionSignOut
	}
	if err := t.endCodes(visit, actionWithdraw, CodeWithdrawn); err != nil {
		return err
	}
	_, err := t.r.Visits.update(t, action, visit, 0, func(v *Visit) error {
		v.Closed, v.How, v.ClosedBy = t.now, how, t.change.By
		if !v.BadgeOut() {
			return nil
		}
		_, err := t.r.Credentials.update(t, actionLose, v.Badge, 0, func(c *Credential) error {
			if c.State == access.Active {
				c.State = access.Lost
			}
			return nil
		})
		return err
	})
	return err
}

// CloseOverdue ends all visits whose end is longer ago than grace, and returns
// them: those whose visitor never came as missed, the others as closed
// automatically. A badge that is still out is lost.
func (r *Registry) CloseOverdue(ctx context.Context, c Change, grace time.Duration) (closed []string, err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		closed, err = t.closeOverdue(grace)
		return err
	})
	if err != nil {
		return nil, err
	}
	return closed, nil
}

func (t *tx) closeOverdue(grace time.Duration) (closed []string, err error) {
	err = t.r.Visits.eachDue(t.ctx, t, t.now.Add(-grace), func(row Row[Visit]) error {
		v := &row.Value
		how := CloseAutomatic
		if v.State() == VisitPlanned {
			how = CloseMissed
		}
		closed = append(closed, v.ID)
		return t.closeVisit(v.ID, how)
	})
	return closed, err
}

// Overstayed are the visitors who are in after the end of their visits, the
// longest first.
func (r *Registry) Overstayed(ctx context.Context) (visits []Row[Visit], err error) {
	now := r.o.Clock()
	err = r.Visits.eachDue(ctx, r.r, now, func(row Row[Visit]) error {
		if row.Value.Overstayed(now) {
			visits = append(visits, row)
		}
		return nil
	})
	return visits, err
}

// Tended is what Tend did.
type Tended struct {
	Closed  []string `json:"closed,omitempty"`  // visits, automatically or as missed
	Expired []string `json:"expired,omitempty"` // codes
}

// keepTrace is for how long Publish can tell what was changed.
const keepTrace = 30 * 24 * time.Hour

// Tend does what time brings: visits end whose end is longer ago than grace, as
// CloseOverdue ends them, codes expire, and what was taken away long ago is
// forgotten. Where nothing is due it writes nothing.
func (r *Registry) Tend(ctx context.Context, grace time.Duration) (done Tended, err error) {
	now := r.o.Clock().UTC().Truncate(time.Microsecond)
	var due bool
	if err := r.r.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM object WHERE kind = $1 AND due <= $2)
		OR EXISTS (SELECT 1 FROM object WHERE kind = $3 AND due <= $4)
		OR EXISTS (SELECT 1 FROM trace t JOIN audit a ON a.seq = t.seq WHERE t.seq = (SELECT MIN(seq) FROM trace) AND a.at < $5)`,
		string(KindVisit), now.Add(-grace).UnixMicro(), string(KindCode), now.UnixMicro(), now.Add(-keepTrace).UnixMicro()).Scan(&due); err != nil {
		return done, fmt.Errorf("see what is due: %w", err)
	}
	if !due {
		return done, nil
	}
	c := Change{By: "gatehouse-crm", Why: fmt.Sprintf("it was over, and the grace of %s too", Span(grace))}
	err = r.guided(ctx, c, func(t *tx) error {
		done = Tended{}
		if err := r.Codes.eachDue(ctx, t, t.now, func(row Row[Code]) error {
			done.Expired = append(done.Expired, row.Value.ID)
			_, err := t.endCode(row.Value.ID, actionExpire, CodeExpired, row.Value.Until)
			return err
		}); err != nil {
			return err
		}
		if done.Closed, err = t.closeOverdue(grace); err != nil {
			return err
		}
		return t.forget(t.now.Add(-keepTrace))
	})
	if err != nil {
		return Tended{}, err
	}
	return done, nil
}
