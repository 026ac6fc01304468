package registry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// ErrForgotten is that the registry does not know any more what was changed
// since a line of the audit: it is too long ago, or the registry was put back to
// before it. Everything has to be published anew.
var ErrForgotten = errors.New("what was changed since then is not known any more")

// ErrNoDoors is that the registry has no door of a controller. It is an ErrNotFound;
// another one is no reason to tell a controller that it has no doors any more.
var ErrNoDoors = fmt.Errorf("%w", ErrNotFound)

// Changes is the number of the audit's last line by which anything was changed.
// Where it is above the head that Publish gave, there is something to publish. It
// is cheap, and sees the changes of other processes.
func (r *Registry) Changes(ctx context.Context) (head uint64, err error) {
	err = r.r.QueryRowContext(ctx, `SELECT COALESCE(MAX(seq), 0) FROM audit WHERE version > 0`).Scan(&head)
	if err != nil {
		return 0, fmt.Errorf("read the audit: %w", err)
	}
	return head, nil
}

// Publish tells visit what the doors of a controller need to know of people, and
// no more, and returns the rest of it: the words of its doors, areas and
// schedules. All is as it stood at one moment, when the audit's last line was
// head; others may write meanwhile. The Holder is visit's own.
//
// With since at 0 everybody is visited who has a right to one of the doors or a
// card that was lost or revoked; such a card is told with no more than whose it is
// where they have no right here. With a line of the audit as since, only those are
// visited of whom something was changed after it, and what the doors have to
// forget of them is Removed; a card or code that is nobody's any more comes with a
// Holder whose person is called nobody. ErrForgotten is that since is too old for
// that.
//
// People come in the order of their ids, a visitor once for each visit. What the
// sources of their rights stand for may change while they are not visited: Rights
// says it. Memory does not grow with the number of people.
func (r *Registry) Publish(ctx context.Context, controller string, since uint64, visit func(*allowlist.Holder) error) (words allowlist.Rules, head uint64, err error) {
	err = r.view(ctx, controller, func(p *publication) error {
		if head, err = p.lastLine(); err != nil {
			return err
		}
		words, err = p.publish(since, head, visit)
		return err
	})
	if err != nil {
		return allowlist.Rules{}, 0, fmt.Errorf("publish for controller %s: %w", fields.Quote(controller), err)
	}
	return words, head, nil
}

func (p *publication) publish(since, head uint64, visit func(*allowlist.Holder) error) (words allowlist.Rules, err error) {
	if words, err = p.words(); err != nil {
		return words, err
	}
	p.visit, p.removing = visit, since > 0
	if err := p.readVisits(); err != nil {
		return words, err
	}
	if since == 0 {
		return words, p.everybody()
	}
	return words, p.since(since, head)
}

// Rights are what sources of rights stand for now at a controller's doors, by the
// names that Publish gave them. A source that is gone has none.
func (r *Registry) Rights(ctx context.Context, controller string, sources []string) (rights map[string][]allowlist.Right, err error) {
	err = r.view(ctx, controller, func(p *publication) error {
		rights = make(map[string][]allowlist.Right, len(sources))
		for _, source := range sources {
			rights[source] = toHold(p.rightsOfSource(source))
		}
		return nil
	})
	return rights, err
}

// publication is what a controller's doors need, at one moment.
type publication struct {
	r          *Registry
	ctx        context.Context
	q          queryer
	controller string
	doors      []Door             // of the controller
	rights     map[string][]Right // of groups that give any, to these doors
	visits     map[string][]*stay // that are not over, by visitor, the one that is on first
	visit      func(*allowlist.Holder) error
	removing   bool // what is not told is to be forgotten
}

// stay is a visit with its open codes.
type stay struct {
	*Visit
	codes []*Code
}

// view runs f on the registry as it stands at one moment.
func (r *Registry) view(ctx context.Context, controller string, f func(*publication) error) (err error) {
	tx, err := r.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	p := &publication{r: r, ctx: ctx, q: tx, controller: controller}
	if err := p.readRights(); err != nil {
		return err
	}
	return f(p)
}

func (p *publication) lastLine() (seq uint64, err error) {
	err = p.q.QueryRowContext(p.ctx, `SELECT COALESCE(MAX(seq), 0) FROM audit`).Scan(&seq)
	return seq, err
}

func (p *publication) readRights() error {
	seq, err := p.laidOut()
	if err != nil {
		return err
	}
	l, err := p.r.now.get(seq, seq, p.readLayout)
	if err != nil {
		return err
	}
	here := l.at(p.controller)
	if len(here.doors) == 0 {
		return fmt.Errorf("controller %s is %w: there are doors of %s", fields.Quote(p.controller), ErrNoDoors,
			cmp.Or(strings.Join(l.controllers, ", "), "none"))
	}
	p.doors, p.rights = here.doors, here.rights
	return nil
}

// The names of sources of rights begin with what they are; then come the names of
// groups or doors.
const (
	sourceGroups = "groups:"
	sourceVisit  = "visit:"
	sourceJoin   = "+" // which no name has
)

// source names where somebody's rights come from; "": nowhere.
func (p *publication) source(person *Person, v *stay) string {
	var names []string
	if v != nil {
		for _, d := range p.doors {
			if slices.Contains(v.Doors, d.Name) {
				names = append(names, d.Name)
			}
		}
		return sourceName(sourceVisit, names)
	}
	for _, g := range person.Groups {
		if len(p.rights[g]) > 0 {
			names = append(names, g)
		}
	}
	return sourceName(sourceGroups, names)
}

func sourceName(of string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return of + strings.Join(names, sourceJoin)
}

// rightsOfSource are the rights for which a source stands.
func (p *publication) rightsOfSource(source string) []Right {
	var rights []Right
	if names, ok := strings.CutPrefix(source, sourceGroups); ok {
		for g := range strings.SplitSeq(names, sourceJoin) {
			rights = append(rights, p.rights[g]...)
		}
	}
	if names, ok := strings.CutPrefix(source, sourceVisit); ok {
		all := strings.Split(names, sourceJoin)
		for _, d := range p.doors {
			if slices.Contains(all, d.Name) {
				rights = append(rights, Right{Door: d.Name, Schedule: access.AlwaysName})
			}
		}
	}
	slices.SortFunc(rights, func(a, b Right) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(rights)
}

func toHold(rights []Right) []allowlist.Right {
	out := make([]allowlist.Right, len(rights))
	for i, r := range rights {
		out[i] = allowlist.Right{Door: r.Door, Schedule: r.Schedule}
	}
	return out
}

// words are what doors, areas and schedules say.
func (p *publication) words() (allowlist.Rules, error) {
	w := allowlist.Rules{Doors: make(map[string][]allowlist.DoorRule), Areas: make(map[string]allowlist.Area), Sites: make(map[string]allowlist.Site)}
	uses := make(map[string]bool)
	for _, rights := range p.rights {
		for _, right := range rights {
			uses[right.Schedule] = true
		}
	}
	for i := range p.doors {
		d := &p.doors[i]
		for _, rule := range d.Rules {
			w.Doors[d.Name] = append(w.Doors[d.Name], allowlist.DoorRule(rule))
			uses[rule.Schedule] = true
		}
		uses[cmp.Or(d.Free, access.AlwaysName)] = true
		if site := d.site(); !reflect.ValueOf(site).IsZero() {
			w.Sites[d.Name] = site
		}
		for _, name := range [...]string{d.Into, d.OutOf} {
			if err := p.area(w, name); err != nil {
				return w, err
			}
		}
	}
	return w, p.times(&w, uses)
}

func (p *publication) area(w allowlist.Rules, name string) error {
	if _, there := w.Areas[name]; there || name == "" {
		return nil
	}
	row, err := p.r.Areas.get(p.ctx, p.q, name)
	if err != nil {
		return err
	}
	a := row.Value
	w.Areas[name] = allowlist.Area{Passback: a.Passback, Timed: a.Timed.word(), Occupancy: a.Most}
	return nil
}

func (d *Door) site() allowlist.Site {
	return allowlist.Site{
		Into: d.Into, OutOf: d.OutOf, ServerRoom: d.ServerRoom, TwoPerson: d.TwoPerson, Together: d.Together.word(), Interlock: d.Interlock, Free: d.Free,
		FirstPerson: d.FirstPerson, Disabled: d.Disabled, StaleAfter: d.StaleAfter.word(), ExpiredAfter: d.ExpiredAfter.word(),
		ExpiredKinds: d.ExpiredKinds, ClockUnsetKinds: d.ClockUnsetKinds,
	}
}

// times adds the schedules that are used, and the holidays.
func (p *publication) times(w *allowlist.Rules, uses map[string]bool) error {
	if delete(uses, access.AlwaysName); len(uses) == 0 {
		return nil
	}
	w.Schedules = make(map[string]map[string][]string)
	for name := range uses {
		row, err := p.r.Schedules.get(p.ctx, p.q, name)
		if err != nil {
			return err
		}
		w.Schedules[name] = row.Value.Week
		if row.Value.Week == nil {
			w.Schedules[name] = map[string][]string{}
		}
	}
	return p.r.Holidays.each(p.ctx, p.q, func(h *Holiday) error {
		w.Holidays = append(w.Holidays, h.Date)
		return nil
	})
}

// readVisits reads the visits that are not over, and their codes for these doors;
// where something is to be forgotten, all of them: a door may have been one of these.
func (p *publication) readVisits() error {
	p.visits = make(map[string][]*stay)
	byID := make(map[string]*stay)
	if err := p.r.Visits.eachDue(p.ctx, p.q, time.Time{}, func(row Row[Visit]) error {
		v := &row.Value
		s := &stay{Visit: v}
		byID[v.ID] = s
		p.visits[v.Visitor] = append(p.visits[v.Visitor], s)
		return nil
	}); err != nil {
		return err
	}
	for _, all := range p.visits {
		slices.SortFunc(all, func(a, b *stay) int {
			if in := b.State() == VisitIn; in != (a.State() == VisitIn) {
				if in {
					return 1
				}
				return -1
			}
			return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID))
		})
	}
	return p.r.Codes.eachDue(p.ctx, p.q, time.Time{}, func(row Row[Code]) error {
		c := &row.Value
		if s := byID[c.Visit]; s != nil && (p.removing || p.has(c.Door)) {
			s.codes = append(s.codes, c)
		}
		return nil
	})
}

// has says whether a door is one of the controller's.
func (p *publication) has(door string) bool {
	return slices.ContainsFunc(p.doors, func(d Door) bool { return d.Name == door })
}

// everybody visits all people, page by page.
func (p *publication) everybody() error {
	const page = 500
	for after := ""; ; {
		people, err := p.r.People.list(p.ctx, p.q, Page{After: after, Limit: page})
		if err != nil || len(people) == 0 {
			return err
		}
		last := people[len(people)-1].Value.ID
		held, err := p.held(after, last)
		if err != nil {
			return err
		}
		for i := range people {
			person := &people[i].Value
			if err := p.person(person, held[person.ID]); err != nil {
				return err
			}
		}
		after = last
	}
}

// held are the credentials of the people whose ids are above after and up to
// last, by person.
func (p *publication) held(after, last string) (map[string][]*Credential, error) {
	return p.holding(`l.to_id > $3 AND l.to_id <= $4`, after, last)
}

func (p *publication) heldBy(person string) ([]*Credential, error) {
	held, err := p.holding(`l.to_id = $3`, person)
	return held[person], err
}

func (p *publication) holding(whose string, ids ...any) (map[string][]*Credential, error) {
	rows, err := p.q.QueryContext(p.ctx, `SELECT `+objectColumnsOf("o")+` FROM link l JOIN object o ON o.kind = l.kind AND o.id = l.id
		WHERE l.to_kind = $1 AND l.kind = $2 AND `+whose+` ORDER BY l.to_id, l.id`, append([]any{string(KindPerson), string(KindCredential)}, ids...)...)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	held := make(map[string][]*Credential)
	err = p.r.Credentials.read(rows, func(row Row[Credential]) error {
		held[row.Value.Person] = append(held[row.Value.Person], &row.Value)
		return nil
	})
	return held, err
}

// person visits somebody, once for each of their visits.
func (p *publication) person(person *Person, credentials []*Credential) error {
	stays := p.visits[person.ID]
	var on *stay // the visit that the person is in by, with a badge
	if len(stays) > 0 && stays[0].State() == VisitIn && stays[0].BadgeOut() {
		on = stays[0]
	}
	h := p.holder(person, on)
	for _, c := range credentials {
		held := heldCard(c)
		opens := len(h.Rights) > 0 && (on != nil) == c.Visitors && (on == nil || c.ID == on.Badge)
		if c.State == access.Active && !opens {
			if !p.removing {
				continue
			}
			held.Removed = true
		}
		if on != nil && c.ID == on.Badge {
			held.From, held.Until = on.From, on.Until
		}
		h.Credentials = append(h.Credentials, held)
	}
	if on != nil {
		p.addCodes(h, on)
	}
	if err := p.tell(h); err != nil {
		return err
	}
	for _, s := range stays {
		if s == on || len(s.codes) == 0 {
			continue
		}
		h := p.holder(person, s)
		p.addCodes(h, s)
		if err := p.tell(h); err != nil {
			return err
		}
	}
	return nil
}

// tell visits a holder, if there is anything to say of them.
func (p *publication) tell(h *holder) error {
	if len(h.Credentials) == 0 {
		return nil
	}
	return p.visit(&h.Holder)
}

type holder struct{ allowlist.Holder }

// holder is somebody without their credentials. What they are called and may is
// told where they have a right.
func (p *publication) holder(person *Person, v *stay) *holder {
	h := &holder{allowlist.Holder{Entry: access.Entry{Person: person.ID, Kind: person.Kind, From: person.From, Until: person.Until}}}
	h.Source = p.source(person, v)
	if h.Source == "" {
		return h
	}
	h.Rights = toHold(p.rightsOfSource(h.Source))
	h.Name = person.Name
	e := &h.Entry
	e.Extended, e.Operator = person.Extended, person.Operator
	e.Escorted, e.MayEscort, e.Supervisor, e.Exempt, e.Clearance = person.Escorted, person.MayEscort, person.Supervisor, person.Exempt, person.Clearance
	e.Instead = substitutions(person.Instead)
	if person.own != nil {
		h.PIN, h.DuressPIN, e.TOTP = person.own.PIN, person.own.Duress, person.own.TOTP
	}
	if v != nil {
		e.Escorted = v.EscortNeeded
		e.Visit = &access.Visit{ID: v.ID, Ticket: v.Ticket, Host: v.Host, Organisation: v.Organisation, Purpose: v.Purpose, Escort: v.Escort, Authoriser: v.Authoriser}
		if v.Identified != nil {
			e.Visit.IDForm = v.Identified.Form
		}
	}
	return h
}

// substitutions are in the order of the factors that are stood in for. What
// is stored was checked.
func substitutions(instead map[string]string) []access.Substitution {
	var all []access.Substitution
	for _, name := range slices.Sorted(maps.Keys(instead)) {
		of, errOf := access.ParseFactors(name)
		by, errBy := access.ParseFactors(instead[name])
		if errOf == nil && errBy == nil {
			all = append(all, access.Substitution{Of: of, By: by})
		}
	}
	return all
}

// heldCard is a credential as a controller is told of it.
func heldCard(c *Credential) allowlist.Held {
	return allowlist.Held{Card: c.card, Biometric: c.Biometric, State: c.State, From: c.From, Until: c.Until, BreakGlass: c.BreakGlass}
}

func (p *publication) addCodes(h *holder, s *stay) {
	for _, c := range s.codes {
		held := heldCode(c)
		held.Removed = !p.has(c.Door)
		h.Credentials = append(h.Credentials, held)
	}
}

func heldCode(c *Code) allowlist.Held {
	return allowlist.Held{Code: *c.digits, CodeID: c.ID, CodeDoor: c.Door, State: access.Active, From: c.From, Until: c.Until}
}
