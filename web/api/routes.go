package api

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/badgeview"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

// maxImport is how long an import may be, in bytes. It is read before the
// registry is locked: whoever sends slowly holds up nobody.
const maxImport = 32 << 20

// routes are all that can be asked.
func (a *API) routes() []route {
	r := a.o.Registry
	return slices.Concat(
		resource[registry.Person]{
			plural: "people", registry: r, table: r.People, prefix: "p", stays: true, read: clients.ReadPeople, write: clients.WritePeople,
			id:     func(p *registry.Person) *string { return &p.ID },
			shown:  []string{"has_pin", "has_duress_pin", "has_totp", "left"},
			names:  map[string]registry.Kind{"group": registry.KindGroup},
			viewed: registry.KindPerson,
		}.routes(),
		resource[registry.Credential]{
			plural: "credentials", registry: r, table: r.Credentials, prefix: "c", read: clients.ReadCredentials, write: clients.WriteCredentials,
			id:     func(c *registry.Credential) *string { return &c.ID },
			shown:  []string{"format", "ends"},
			names:  map[string]registry.Kind{"person": registry.KindPerson},
			viewed: registry.KindCredential,
			decode: a.newCredential,
		}.routes(),
		resource[registry.Group]{
			plural: "groups", registry: r, table: r.Groups, read: clients.ReadGroups, write: clients.WriteGroups,
			id:    func(g *registry.Group) *string { return &g.Name },
			names: map[string]registry.Kind{"door": registry.KindDoor, "area": registry.KindArea, "schedule": registry.KindSchedule},
		}.routes(),
		resource[registry.Schedule]{
			plural: "schedules", registry: r, table: r.Schedules, read: clients.ReadSite, write: clients.WriteSite,
			id: func(s *registry.Schedule) *string { return &s.Name },
		}.routes(),
		resource[registry.Holiday]{
			plural: "holidays", registry: r, table: r.Holidays, read: clients.ReadSite, write: clients.WriteSite,
			id: func(h *registry.Holiday) *string { return &h.Date },
		}.routes(),
		resource[registry.Area]{
			plural: "areas", registry: r, table: r.Areas, read: clients.ReadSite, write: clients.WriteSite,
			id: func(a *registry.Area) *string { return &a.Name },
		}.routes(),
		resource[registry.Door]{
			plural: "doors", registry: r, table: r.Doors, read: clients.ReadSite, write: clients.WriteSite,
			id:    func(d *registry.Door) *string { return &d.Name },
			names: map[string]registry.Kind{"area": registry.KindArea, "schedule": registry.KindSchedule},
		}.routes(),
		resource[registry.Visit]{
			plural: "visits", registry: r, table: r.Visits, prefix: "visit", stays: true, read: clients.ReadVisits, write: clients.WriteVisits,
			id:     func(v *registry.Visit) *string { return &v.ID },
			names:  map[string]registry.Kind{"person": registry.KindPerson, "door": registry.KindDoor},
			viewed: registry.KindVisit,
		}.routes(),
		resource[registry.Code]{
			plural: "codes", registry: r, table: r.Codes, guided: true, read: clients.ReadVisits,
			id:     func(c *registry.Code) *string { return &c.ID },
			names:  map[string]registry.Kind{"visit": registry.KindVisit},
			viewed: registry.KindCode,
		}.routes(),
		a.actions(),
	)
}

// actions are the routes that are more than an object's.
func (a *API) actions() []route {
	do := func(path string, scope clients.Scope, f func(*call) (*answer, error)) route {
		return route{method: http.MethodPost, path: path, scopes: []clients.Scope{scope}, changes: true, do: f}
	}
	with := func(r route) route {
		r.media = []string{typeJSON}
		return r
	}
	take := func(path string, f func(*call) (*answer, error)) route {
		r := do(path, clients.WritePeople, f)
		r.method = http.MethodDelete
		return r
	}
	pin := with(do("/v1/people/{id}/pin", clients.WritePeople, a.setPIN))
	pin.method = http.MethodPut
	find := with(do("/v1/find-card", clients.ReadCredentials, a.findCard))
	find.changes = false
	bring := do("/v1/import", clients.WritePeople, a.bring)
	bring.scopes = []clients.Scope{clients.WritePeople, clients.WriteCredentials}
	bring.media, bring.limit, bring.timeout = []string{typeCSV}, maxImport, importTimeout
	get := func(path string, scope clients.Scope, f func(*call) (*answer, error)) route {
		return route{method: http.MethodGet, path: path, scopes: []clients.Scope{scope}, do: f}
	}
	audit := get("/v1/audit", clients.ReadAudit, a.audit)
	audit.query = []string{"cursor", "limit", "kind", "id"}
	gone := get("/v1/policy/gone", clients.ReadPolicy, a.policyGone)
	gone.query = []string{"controller", "line"}
	return []route{
		do("/v1/people/{id}/leave", clients.WritePeople, a.leave),
		pin, take("/v1/people/{id}/pin", a.removePIN),
		do("/v1/people/{id}/totp", clients.WritePeople, a.giveTOTP), take("/v1/people/{id}/totp", a.removeTOTP),
		find, bring,
		with(do("/v1/visits/{id}/check-in", clients.WriteVisits, a.checkIn)),
		with(do("/v1/visits/{id}/issue", clients.WriteVisits, a.issue)),
		do("/v1/visits/{id}/surrender", clients.WriteVisits, a.surrender),
		with(do("/v1/visits/{id}/sign-out", clients.WriteVisits, a.signOut)),
		do("/v1/visits/{id}/cancel", clients.WriteVisits, a.cancel),
		with(do("/v1/visits/{id}/code", clients.WriteVisits, a.issueCode)),
		do("/v1/codes/{id}/withdraw", clients.WriteVisits, a.withdrawCode),
		get("/v1/overstayed", clients.ReadVisits, a.overstayed),
		audit,
		get("/v1/policy/status", clients.ReadPolicy, a.policyStatus),
		get("/v1/policy/diff", clients.ReadPolicy, a.policyDiff),
		gone,
		with(do("/v1/policy/publish", clients.WritePolicy, a.policyPublish)),
	}
}

// newCredential makes a credential of a body. Its card is a text, as it is for
// `gatehouse-crm credentials add`.
func (a *API) newCredential(body map[string]any, c *registry.Credential) error {
	text, given := body["card"]
	delete(body, "card")
	c.State = access.Active
	if err := decodeTree(body, c); err != nil || !given {
		return err
	}
	card, err := a.card(text)
	if err != nil {
		return err
	}
	c.SetCard(card)
	return nil
}

// card reads a card. No error has its number.
func (a *API) card(v any) (badge.Credential, error) {
	text, ok := v.(string)
	if !ok {
		return badge.Credential{}, &fault{"card", "is a string such as H10301:123:4567"}
	}
	name, _, _ := strings.Cut(text, ":")
	if _, known := a.o.Formats.Format(name); !known {
		// It may be a number that stands where it should not.
		return badge.Credential{}, &fault{"card", "is of no format that is known: write it like H10301:facility:number, and see `gatehouse-crm credentials formats`"}
	}
	card, err := badgeview.ParseCard(a.o.Formats, text)
	if err != nil {
		return badge.Credential{}, &fault{"card", err.Error()}
	}
	return card, nil
}

func (a *API) setPIN(c *call) (*answer, error) {
	var body struct {
		PIN    string `json:"pin"`
		Duress string `json:"duress_pin"`
	}
	if err := decodeBody(c.body, &body); err != nil {
		return nil, errBody(err)
	}
	if body.PIN == "" {
		return nil, errBody(&fault{"pin", "is missing: DELETE takes it away"})
	}
	return a.changePerson(c, func(p *registry.Person) error {
		p.SetPIN(body.PIN, body.Duress)
		return nil
	})
}

func (a *API) removePIN(c *call) (*answer, error) {
	return a.changePerson(c, func(p *registry.Person) error {
		p.SetPIN("", "")
		return nil
	})
}

// WrittenWithURI is a person's new secret for one-time codes, this once.
type WrittenWithURI struct {
	Written
	URI string `json:"uri"` // otpauth, as devices read it
}

// giveTOTP makes a secret for a person's one-time codes, which is in no other
// answer.
func (a *API) giveTOTP(c *call) (*answer, error) {
	version, err := c.ifMatch(true)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	row, uri, err := a.o.Registry.GiveTOTP(c.Context(), c.change, id, version)
	out, err := wrote(id, row, err)
	if err != nil {
		return nil, err
	}
	out.body, out.secret = WrittenWithURI{out.body.(Written), uri}, true
	return out, nil
}

func (a *API) removeTOTP(c *call) (*answer, error) {
	return a.changePerson(c, func(p *registry.Person) error {
		p.ForgetTOTP()
		return nil
	})
}

func (a *API) changePerson(c *call, f func(*registry.Person) error) (*answer, error) {
	version, err := c.ifMatch(true)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	row, err := a.o.Registry.People.Update(c.Context(), c.change, id, version, f)
	return wrote(id, row, err)
}

// Left is what became of somebody who has left.
type Left struct {
	registry.Left
	// Controllers were told of them, and policy/gone says when each had forgotten;
	// nil: which they are is not known.
	Controllers []string `json:"controllers"`
}

func (a *API) leave(c *call) (*answer, error) {
	version, err := c.ifMatch(false)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	controllers := []string{}
	if a.o.Doors != nil {
		// Before, since afterwards they may have forgotten already. A leaver goes
		// whatever is wrong there.
		held, err := a.o.Doors.Holding(c.Context(), id)
		if err == nil {
			controllers = append(controllers, held...)
		} else {
			controllers = nil
			a.o.Logger.Error("which doors know a leaver is not known", "error", err)
		}
	}
	left, err := a.o.Registry.Leave(c.Context(), c.change, id, version)
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: Left{left, controllers}}, nil
}

// findCard says whose a card is. Its number comes in a body, as addresses are
// logged in many places.
func (a *API) findCard(c *call) (*answer, error) {
	object, err := tree(c.body)
	if err != nil {
		return nil, errBody(err)
	}
	if len(object) != 1 {
		return nil, errBody(&fault{"card", "is all that is asked for"})
	}
	card, err := a.card(object["card"])
	if err != nil {
		return nil, errBody(err)
	}
	row, err := a.o.Registry.WithCard(c.Context(), card)
	if err != nil {
		return nil, err
	}
	if err := c.viewed(a.o.Registry, registry.View{Kind: registry.KindCredential, ID: row.Value.ID}); err != nil {
		return nil, err
	}
	return ofRow(row), nil
}

func (a *API) bring(c *call) (*answer, error) {
	select {
	case a.importing <- struct{}{}:
		defer func() { <-a.importing }()
	default:
		return nil, busy("another import is under way")
	}
	done, err := a.o.Registry.Import(c.Context(), c.change, bytes.NewReader(c.body), registry.ImportOptions{Zone: a.o.Zone})
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: done}, nil
}

// audit lists lines, the oldest first.
func (a *API) audit(c *call) (*answer, error) {
	query := c.URL.Query()
	after, limit, err := page(query)
	if err != nil {
		return nil, err
	}
	q := registry.AuditQuery{Kind: registry.Kind(query.Get("kind")), ID: query.Get("id"), Limit: limit + 1}
	if after != "" {
		if q.After, err = strconv.ParseUint(after, 10, 63); err != nil {
			return nil, problem("malformed", "the cursor is none that was given out")
		}
	}
	asked, err := filter(query)
	if err != nil {
		return nil, err
	}
	if err := c.viewed(a.o.Registry, registry.View{Kind: registry.KindAudit, Filter: asked}); err != nil {
		return nil, err
	}
	lines, err := a.o.Registry.Audit(c.Context(), q)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(lines) > limit {
		lines = lines[:limit]
		next = strconv.FormatUint(lines[limit-1].Seq, 10)
	}
	return paged(c, lines, next), nil
}
