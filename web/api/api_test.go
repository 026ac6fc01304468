package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	return must(os.ReadFile(name))(t)
}

type object = map[string]any

// staff makes what a site has.
func (s *site) staff() {
	s.Helper()
	s.want(201, "POST", "/v1/areas", object{"area": "lab", "title": "Laboratory"})
	s.want(201, "POST", "/v1/schedules", object{"schedule": "office", "week": object{"mon-fri": []string{"07:00-19:00"}}})
	s.want(201, "POST", "/v1/holidays", object{"date": "2026-12-25", "title": "Christmas"})
	s.want(201, "POST", "/v1/doors", object{"door": "lab-door", "controller": "north-1", "into": "lab",
		"rules": []object{{"schedule": "office", "any_of": []string{"badge"}}, {"schedule": "always", "any_of": []string{"badge+pin"}}}})
	s.want(201, "POST", "/v1/groups", object{"group": "ops", "rights": []object{{"area": "lab", "schedule": "office"}}})
	for _, p := range []object{
		{"person": "p-1", "name": "Ada Lovelace", "kind": "staff", "groups": []string{"ops"}},
		{"person": "p-2", "name": "Grace Hopper", "kind": "staff"},
		{"person": "p-3", "kind": "contractor", "may_escort": true},
		{"person": "v-1", "name": "Vera Visitor", "kind": "visitor"},
	} {
		s.want(201, "POST", "/v1/people", p)
	}
	s.want(201, "POST", "/v1/credentials", object{"credential": "c-1", "person": "p-1", "card": "H10301:12:4711"})
	s.want(201, "POST", "/v1/credentials", object{"credential": "b-1", "visitors": true, "card": "H10301:12:9001"})
}

func (s *site) visit(id string) object {
	return object{"visit": id, "visitor": "v-1", "organisation": "Acme", "host": "p-1", "authoriser": "p-2", "escort": "p-3", "escort_needed": true,
		"purpose": "replace a disk", "from": s.now().Add(time.Hour), "until": s.now().Add(5 * time.Hour), "doors": []string{"lab-door"}}
}

var arrival = object{"identified": object{"form": "passport", "by": "guard.1"}, "notice": object{"version": "2026-01", "signed": "Vera Visitor"}, "badge": "b-1"}

// publisher is what publishes in these tests.
type publisher struct{ t *testing.T }

func (p publisher) PolicyStatus(context.Context) ([]PolicyStatus, error) {
	return []PolicyStatus{{Controller: "north-1", Published: 7, At: time.Now(), Expires: time.Now(), Applied: 6, Heard: time.Now(), Waiting: true}}, nil
}

func (p publisher) PolicyDiff(context.Context) ([]PolicyDiff, error) {
	return []PolicyDiff{{Controller: "north-1", Rules: true, People: []string{"p-1"}}}, nil
}

func (p publisher) PublishPolicy(_ context.Context, c registry.Change, controllers []string) ([]PolicyStatus, error) {
	if c.By != "crm" || c.Why != "CHG-2" {
		p.t.Errorf("published by %+v", c)
	}
	if len(controllers) == 0 {
		return nil, fmt.Errorf("%w: the policy key's certificate ended", ErrNotPublishing)
	}
	if !slices.Equal(controllers, []string{"north-1"}) {
		return nil, registry.ErrNotFound
	}
	return p.PolicyStatus(context.Background())
}

func (p publisher) Holding(_ context.Context, person string) ([]string, error) {
	if person != "p-3" {
		p.t.Errorf("asked for %s", person)
	}
	return []string{"north-1"}, nil
}

func (p publisher) Gone(_ context.Context, controller string, line uint64) (Gone, error) {
	return Gone{Controller: controller, Version: line, Published: time.Now(), Applied: time.Now()}, nil
}

// forgetful is a publisher that cannot say who was told of whom.
type forgetful struct{ publisher }

func (forgetful) Holding(context.Context, string) ([]string, error) {
	return nil, errors.New("policy.db is damaged")
}

func TestALeaverGoesThoughItIsNotKnownWhichDoorsKnowThem(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Doors = forgetful{publisher{t}} })
	s.staff()
	var left Left
	s.want(200, "POST", "/v1/people/p-2/leave", nil).into(t, &left)
	if left.Controllers != nil || left.Seq == 0 {
		t.Errorf("%+v", left)
	}
}

func TestEveryRouteAnswersAsTheContractSays(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Policy, o.Doors = publisher{t}, publisher{t} })
	s.staff()
	for _, tt := range []struct{ plural, id string }{
		{"people", "p-1"}, {"credentials", "c-1"}, {"groups", "ops"}, {"schedules", "office"}, {"holidays", "2026-12-25"}, {"areas", "lab"}, {"doors", "lab-door"},
	} {
		s.want(200, "GET", "/v1/"+tt.plural, nil)
		a := s.want(200, "GET", "/v1/"+tt.plural+"/"+tt.id, nil)
		s.want(304, "GET", "/v1/"+tt.plural+"/"+tt.id, nil, "If-None-Match", `"99", W/`+a.header.Get("ETag"))
		field := "title"
		if tt.plural == "people" {
			field = "name"
		}
		if tt.plural == "credentials" {
			s.want(200, "PATCH", "/v1/credentials/c-1", object{"state": "lost"}, "If-Match", a.header.Get("ETag"))
			continue
		}
		s.want(200, "PATCH", "/v1/"+tt.plural+"/"+tt.id, object{field: "Another"}, "If-Match", a.header.Get("ETag"))
	}
	s.want(200, "PUT", "/v1/people/p-1/pin", object{"pin": "271828", "duress_pin": "314159"}, "If-Match", "*")
	s.want(200, "DELETE", "/v1/people/p-1/pin", nil, "If-Match", "*")
	s.want(200, "POST", "/v1/people/p-1/totp", nil, "If-Match", "*")
	s.want(200, "DELETE", "/v1/people/p-1/totp", nil, "If-Match", "*")
	s.want(200, "POST", "/v1/find-card", object{"card": "H10301:12:4711"})
	s.want(200, "POST", "/v1/import", "person,kind,format,facility,number\np-9,staff,H10301,12,4712\n", "Content-Type", "text/csv")

	s.want(201, "POST", "/v1/visits", s.visit("visit-1"))
	s.want(200, "GET", "/v1/visits?person=v-1", nil)
	s.want(200, "PATCH", "/v1/visits/visit-1", object{"ticket": "INC-7"}, "If-Match", `"1"`)
	s.want(200, "POST", "/v1/visits/visit-1/check-in", arrival, "If-Match", `"2"`)
	s.want(200, "GET", "/v1/visits/visit-1", nil)
	s.want(200, "POST", "/v1/visits/visit-1/surrender", nil)
	s.want(200, "POST", "/v1/visits/visit-1/issue", object{"badge": "b-1"})
	var code WrittenWithDigits
	s.want(201, "POST", "/v1/visits/visit-1/code", object{}).into(t, &code)
	s.want(200, "GET", "/v1/codes?visit=visit-1", nil)
	s.want(200, "GET", "/v1/codes/"+code.ID, nil)
	s.want(200, "POST", "/v1/codes/"+code.ID+"/withdraw", nil)
	s.pass(6 * time.Hour)
	s.want(200, "GET", "/v1/overstayed", nil)
	s.want(200, "POST", "/v1/visits/visit-1/sign-out", object{"lost": true})
	s.want(201, "POST", "/v1/visits", s.visit("visit-2"))
	s.want(200, "POST", "/v1/visits/visit-2/cancel", nil)

	var left Left
	s.want(200, "POST", "/v1/people/p-3/leave", nil).into(t, &left)
	var gone Gone
	s.want(200, "GET", fmt.Sprintf("/v1/policy/gone?controller=%s&line=%d", left.Controllers[0], left.Seq), nil).into(t, &gone)
	if gone.Controller != "north-1" || gone.Version != left.Seq || left.Seq == 0 {
		t.Errorf("left %+v, gone %+v", left, gone)
	}
	s.refused("malformed", "controller and line", "GET", "/v1/policy/gone?line=1", nil)
	s.refused("malformed", "controller and line", "GET", "/v1/policy/gone?controller=north-1&line=0", nil)
	s.want(200, "GET", "/v1/audit?limit=5&kind=visit&id=visit-1", nil)
	s.want(200, "GET", "/v1/policy/status", nil)
	s.want(200, "GET", "/v1/policy/diff", nil)
	s.want(202, "POST", "/v1/policy/publish", object{"controllers": []string{"north-1"}})
	s.refused("not-publishing", "certificate ended", "POST", "/v1/policy/publish", object{})
	s.refused("not-found", "", "POST", "/v1/policy/publish", object{"controllers": []string{"south-1"}})
	s.refused("invalid", "controllers", "POST", "/v1/policy/publish", object{"controllers": []string{}}) // all would be a surprise

	s.want(200, "PATCH", "/v1/credentials/c-1", object{"state": "revoked"}, "If-Match", "*")
	s.want(204, "DELETE", "/v1/credentials/c-1", nil, "If-Match", "*")
	s.want(200, "PATCH", "/v1/people/p-1", object{"groups": nil}, "If-Match", "*")
	for _, path := range []string{"/v1/groups/ops", "/v1/doors/lab-door", "/v1/schedules/office", "/v1/holidays/2026-12-25", "/v1/areas/lab"} {
		s.want(204, "DELETE", path, nil, "If-Match", "*")
	}
	for _, r := range s.api.routes() {
		if pattern := r.method + " " + r.path; !s.contract.done[pattern] {
			t.Errorf("%s was not tried", pattern)
		}
	}
	if _, err := s.registry.Verify(context.Background(), registry.Head{}, nil); err != nil {
		t.Error(err)
	}
}

func TestTheContractNamesEveryRouteAndNoOther(t *testing.T) {
	s := newSite(t)
	routes := make(map[string]bool)
	for _, r := range s.api.routes() {
		pattern := r.method + " " + r.path
		routes[pattern] = true
		o, ok := s.contract.operation(t, r.method, r.path)
		if !ok {
			t.Errorf("%s is not in the contract", pattern)
			continue
		}
		var scopes []string
		for _, scope := range r.scopes {
			scopes = append(scopes, string(scope))
		}
		if want := []map[string][]string{{"bearer": scopes}, {"certificate": scopes}}; !reflect.DeepEqual(o.Security, want) {
			t.Errorf("%s needs %v by the contract, %v by the code", pattern, o.Security, want)
		}
		var media, query []string
		if o.Body != nil {
			for kind := range o.Body.Content {
				media = append(media, kind)
			}
		}
		if !slices.Equal(media, r.media) {
			t.Errorf("%s takes %v by the contract, %v by the code", pattern, media, r.media)
		}
		why, key := false, false
		for _, p := range o.Parameters {
			switch name := strings.TrimPrefix(p.Ref, "#/components/parameters/"); name {
			case "why":
				why = true
			case "key":
				key = true
			case "limit", "cursor":
				query = append(query, name)
			case "":
				query = append(query, p.Name)
			}
		}
		if why != r.changes || key != (r.method == http.MethodPost && r.changes) {
			t.Errorf("%s: the contract has a reason %t, a key of idempotency %t", pattern, why, key)
		}
		slices.Sort(query)
		known := slices.Sorted(slices.Values(r.query))
		if !slices.Equal(query, known) {
			t.Errorf("%s is asked by %v by the contract, %v by the code", pattern, query, known)
		}
	}
	for path, operations := range s.contract.doc.Paths {
		for method := range operations {
			if pattern := strings.ToUpper(method) + " " + path; method != "parameters" && !routes[pattern] {
				t.Errorf("%s is in the contract alone", pattern)
			}
		}
	}
}

type panicking struct{ Policy }

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Policy = panicking{} })
	s.refused("internal", "log", "GET", "/v1/policy/status", nil)
	if log := s.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "policyStatus") || !strings.Contains(log, "client=crm") {
		t.Errorf("the log says %s", log)
	}
	if n := s.api.Answers()["5xx"]; n != 1 {
		t.Errorf("%d failures are counted", n)
	}
	s.want(200, "GET", "/v1/areas", nil)
}

// The schemas and the structs have the same fields.
func TestTheContractNamesEveryFieldAndNoOther(t *testing.T) {
	c := readContract(t)
	for name, v := range map[string]any{
		"Person": registry.Person{}, "Credential": registry.Credential{}, "Group": registry.Group{}, "Right": registry.Right{}, "Schedule": registry.Schedule{},
		"Holiday": registry.Holiday{}, "Area": registry.Area{}, "Door": registry.Door{}, "Rule": registry.Rule{}, "Visit": registry.Visit{},
		"Identified": registry.Identified{}, "Notice": registry.Notice{}, "Code": registry.Code{}, "Left": Left{}, "Gone": Gone{},
		"Written": Written{}, "WrittenWithURI": WrittenWithURI{}, "WrittenWithDigits": WrittenWithDigits{}, "Imported": registry.Imported{},
		"Line": registry.Line{}, "PolicyStatus": PolicyStatus{}, "PolicyDiff": PolicyDiff{}, "Problem": Problem{}, "Fault": Fault{},
	} {
		var fields, properties []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() && !f.Anonymous {
				fields = append(fields, tag)
			}
		}
		for property := range c.doc.Components.Schemas[name].Properties {
			if name != "Credential" || property != "card" { // which is only written
				properties = append(properties, property)
			}
		}
		slices.Sort(fields)
		slices.Sort(properties)
		if !slices.Equal(fields, properties) {
			t.Errorf("%s has by the contract %v\nand by the code %v", name, properties, fields)
		}
	}
}

func TestTheContractAndTheManualNameEveryProblem(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas struct {
				Problem struct {
					Properties struct {
						Type struct {
							Enum []string `json:"enum"`
						} `json:"type"`
					} `json:"properties"`
				} `json:"Problem"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(readFile(t, contractFile), &doc); err != nil {
		t.Fatal(err)
	}
	var want []string
	manual := string(readFile(t, "../../docs/api.md"))
	for word := range problems {
		want = append(want, problemType+word)
		if !strings.Contains(manual, "`"+word+"`") {
			t.Errorf("docs/api.md does not name the problem %s", word)
		}
	}
	for _, scope := range clients.Scopes {
		if thing, _, _ := strings.Cut(string(scope), ":"); !strings.Contains(manual, "`"+thing+"`") && !strings.Contains(manual, "`"+string(scope)+"`") {
			t.Errorf("docs/api.md does not name the scope %s", scope)
		}
	}
	slices.Sort(want)
	got := slices.Sorted(slices.Values(doc.Components.Schemas.Problem.Properties.Type.Enum))
	if !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", got, want)
	}
}

// Generators of clients need it: each reference leads somewhere, each operation
// has a name of its own, and each schema compiles.
func TestTheContractIsWhole(t *testing.T) {
	var doc any
	if err := json.Unmarshal(readFile(t, contractFile), &doc); err != nil {
		t.Fatal(err)
	}
	names, refs := make(map[string]int), 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, v := range v {
				walk(v)
			}
		case object:
			if name, ok := v["operationId"].(string); ok {
				names[name]++
			}
			if ref, ok := v["$ref"].(string); ok {
				refs++
				at := doc
				for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
					at = at.(object)[step]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, v := range v {
				walk(v)
			}
		}
	}
	walk(doc)
	for name, n := range names {
		if n != 1 {
			t.Errorf("%d operations are called %s", n, name)
		}
	}
	if len(names) < 50 || refs < 200 {
		t.Errorf("%d operations and %d references were found", len(names), refs)
	}
	c := readContract(t)
	for name := range c.doc.Components.Schemas {
		c.schema(t, "/components/schemas/"+name)
	}
}
