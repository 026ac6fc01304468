package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

func TestAChangeIsForTheVersionThatWasRead(t *testing.T) {
	s := newSite(t)
	s.staff()
	tag := s.want(200, "GET", "/v1/people/p-2", nil).header.Get("ETag")
	patch := object{"name": "G. Hopper"}
	s.refused("if-match", "", "PATCH", "/v1/people/p-2", patch)
	s.refused("if-match", "", "DELETE", "/v1/groups/ops", nil)
	s.refused("if-match", "", "PUT", "/v1/people/p-2/pin", object{"pin": "271828"})
	s.refused("if-match", "", "POST", "/v1/people/p-2/totp", nil)
	for _, stale := range []string{`"7"`, `"0"`, `W/` + tag, tag + ", " + tag, "1", `"01"`, `""`, `"`} {
		s.refused("changed", "", "PATCH", "/v1/people/p-2", patch, "If-Match", stale)
		s.refused("changed", "", "DELETE", "/v1/groups/ops", nil, "If-Match", stale)
		s.refused("changed", "", "POST", "/v1/people/p-2/leave", nil, "If-Match", stale)
	}
	a := s.want(200, "PATCH", "/v1/people/p-2", patch, "If-Match", tag)
	if got := a.header.Get("ETag"); got != `"2"` {
		t.Errorf("ETag %s", got)
	}
	s.refused("changed", "version 2", "PATCH", "/v1/people/p-2", patch, "If-Match", tag)
	s.want(200, "GET", "/v1/people/p-2", nil, "If-None-Match", tag)
	s.want(304, "GET", "/v1/people/p-2", nil, "If-None-Match", "*")
	// What does not depend on a version takes none.
	s.refused("malformed", "If-Match", "POST", "/v1/visits/visit-1/surrender", nil, "If-Match", `"1"`)
}

func TestAChangeSaysWhy(t *testing.T) {
	s := newSite(t)
	for _, r := range s.api.routes() {
		path := strings.Replace(r.path, "{id}", "x", 1)
		a := s.send(request{method: r.method, path: path, noWhy: true})
		if refused := a.status == 400 && strings.Contains(string(a.body), "why-missing"); refused != r.changes {
			t.Errorf("%s %s: %s", r.method, r.path, a)
		}
	}
	s.refused("invalid", `"field":"why"`, "POST", "/v1/areas", object{"area": "lab"}, "Gatehouse-Why", strings.Repeat("x", 201))
}

func TestAPatchChangesWhatItNames(t *testing.T) {
	s := newSite(t)
	s.staff()
	s.want(200, "PUT", "/v1/people/p-1/pin", object{"pin": "271828"}, "If-Match", "*")
	read := func(path string) (row registry.Row[registry.Person]) {
		s.want(200, "GET", path, nil).into(t, &row)
		return row
	}
	before := read("/v1/people/p-1")
	s.want(200, "PATCH", "/v1/people/p-1", object{"instead": object{"fingerprint": "pin"}, "until": "2027-01-01T00:00:00Z"}, "If-Match", "*")
	s.want(200, "PATCH", "/v1/people/p-1", object{"instead": object{"iris": "pin"}, "until": nil, "name": "A. King"}, "If-Match", "*")
	got := read("/v1/people/p-1").Value
	if got.Instead["fingerprint"] != "pin" || got.Instead["iris"] != "pin" || !got.Until.IsZero() || got.Name != "A. King" || !got.HasPIN || len(got.Groups) != 1 || got.Kind != before.Value.Kind {
		t.Errorf("it became %+v", got)
	}
	// The card stays as well: it is still found.
	s.want(200, "PATCH", "/v1/credentials/c-1", object{"state": "lost"}, "If-Match", "*")
	var c registry.Row[registry.Credential]
	s.want(200, "POST", "/v1/find-card", object{"card": "H10301:12:4711"}).into(t, &c)
	if c.Value.State != "lost" || c.Value.Ends != "11" {
		t.Errorf("the card is of %+v", c.Value)
	}
	s.refused("invalid", "cannot be changed", "PATCH", "/v1/people/p-1", object{"person": "p-9"}, "If-Match", "*")
	s.refused("not-found", "", "PATCH", "/v1/people/p-99", object{"name": "x"}, "If-Match", "*")
}

func TestAFaultNamesItsField(t *testing.T) {
	s := newSite(t)
	s.staff()
	for _, tt := range []struct {
		method, path string
		body         any
		field, says  string
	}{
		{"POST", "/v1/people", object{"person": "p 9", "kind": "staff"}, "person", "letters, digits"},
		{"POST", "/v1/people", object{"kind": "guest"}, "kind", "use staff"},
		{"POST", "/v1/people", object{"kind": 7}, "kind", "is a JSON number, and not a string"},
		{"POST", "/v1/people", object{"kind": "staff", "operator": "yes"}, "operator", "true or false"},
		{"POST", "/v1/people", object{"kind": "staff", "groups": "ops"}, "groups", "an array"},
		{"POST", "/v1/people", object{"kind": "staff", "groups": []string{"nobody"}}, "groups", "not there"},
		{"POST", "/v1/people", object{"kind": "staff", "clearance": 1e9}, "clearance", "whole number"},
		{"POST", "/v1/people", object{"kind": "staff", "from": "tomorrow", "card": "x"}, "from", "times are written"},
		{"POST", "/v1/people", object{"kind": "staff", "has_pin": true}, "has_pin", "not written by hand"},
		{"POST", "/v1/people", object{"kind": "staff", "left": "2026-01-01T00:00:00Z"}, "left", "not written by hand"},
		{"POST", "/v1/credentials", object{"person": "p-2"}, "format", "the card is missing"},
		{"POST", "/v1/credentials", object{"person": "p-2", "card": 4711}, "card", "is a string"},
		{"POST", "/v1/credentials", object{"person": "p-2", "card": "54321"}, "card", "no format that is known"},
		{"POST", "/v1/credentials", object{"person": "p-2", "card": "H10301:12:99999"}, "card", "it is no card"},
		{"POST", "/v1/credentials", object{"person": "p-2", "card": "H10301:12:5", "ends": "05"}, "ends", "not written by hand"},
		{"PATCH", "/v1/credentials/c-1", object{"format": "H10302"}, "format", "not written by hand"},
		{"PATCH", "/v1/people/p-1", object{"until": "2020-01-01T00:00:00Z", "from": "2021-01-01T00:00:00Z"}, "until", "not after from"},
		{"PUT", "/v1/people/p-1/pin", object{"pin": "12"}, "pin", "4 to 16"},
		{"PUT", "/v1/people/p-1/pin", object{"duress_pin": "1234"}, "pin", "is missing"},
		{"POST", "/v1/find-card", object{}, "card", "is all"},
	} {
		p := s.refused("invalid", "", tt.method, tt.path, tt.body, "If-Match", "*")
		found := false
		for _, f := range p.Faults {
			found = found || f.Field == tt.field && strings.Contains(f.Text, tt.says)
		}
		if !found {
			t.Errorf("%s %s %v: %+v, want %s: %s", tt.method, tt.path, tt.body, p.Faults, tt.field, tt.says)
		}
	}
	s.want(201, "POST", "/v1/visits", s.visit("visit-1"))
	s.refused("invalid", "there is no such credential", "POST", "/v1/visits/visit-1/check-in", object{"identified": arrival["identified"], "notice": arrival["notice"], "badge": "b-99"})
	s.refused("not-found", "", "POST", "/v1/visits/visit-9/check-in", arrival)
	s.refused("refused", "nobody is to be signed out", "POST", "/v1/visits/visit-1/sign-out", object{})
	s.refused("exists", "p-1", "POST", "/v1/people", object{"person": "p-1", "kind": "staff"})
	s.refused("exists", "c-1", "POST", "/v1/credentials", object{"person": "p-2", "card": "H10301:12:4711"})
	s.refused("in-use", "p-1", "DELETE", "/v1/groups/ops", nil, "If-Match", "*")
	s.refused("refused", "is not revoked", "DELETE", "/v1/credentials/c-1", nil, "If-Match", "*")
}

func TestAListIsReadPartByPart(t *testing.T) {
	s := newSite(t)
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("area-%d", i)
		want = append(want, name)
		s.want(201, "POST", "/v1/areas", object{"area": name})
	}
	var got []string
	parts := 0
	for path := "/v1/areas?limit=3"; path != ""; parts++ {
		a := s.want(200, "GET", path, nil)
		var page listed[registry.Row[registry.Area]]
		a.into(t, &page)
		for _, row := range page.Items {
			got = append(got, row.Value.Name)
		}
		link := a.header.Get("Link")
		path, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if (page.Next == "") != (link == "") || link != "" && !strings.HasSuffix(link, `>; rel="next"`) {
			t.Fatalf("next %q, link %q", page.Next, link)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") || parts != 3 {
		t.Errorf("%v in %d parts", got, parts)
	}
	for _, query := range []string{"limit=0", "limit=501", "limit=x", "cursor=", "cursor=!!", "cursor=" + url.QueryEscape("YQ=="), "after=x", "limit=1&limit=2", "limit=1;cursor=YQ", "limit=%"} {
		s.refused("malformed", "", "GET", "/v1/areas?"+query, nil)
	}
	s.refused("malformed", "cursor", "GET", "/v1/audit?cursor=YXJlYQ", nil)
	s.refused("malformed", "one of these", "GET", "/v1/groups?door=a&area=b", nil)
	for _, path := range []string{"/v1/people?group=", "/v1/people?group=" + strings.Repeat("x", 300), "/v1/groups?door=a%2Fb", "/v1/audit?id=%00", "/v1/audit?kind=%22"} {
		s.refused("malformed", "1 to 64 letters", "GET", path, nil)
	}
	var page listed[registry.Line]
	a := s.want(200, "GET", "/v1/audit?limit=5&kind=area", nil)
	a.into(t, &page)
	if len(page.Items) != 5 || page.Next == "" || !strings.Contains(a.header.Get("Link"), "kind=area") {
		t.Errorf("audit %+v, %s", page, a.header.Get("Link"))
	}
	s.want(200, "GET", "/v1/audit?limit=5&kind=area&cursor="+page.Next, nil).into(t, &page)
	if len(page.Items) != 2 || page.Items[0].Seq != 6 {
		t.Errorf("audit %+v", page)
	}
}

func TestWhatStaysIsListedOnceWhileOtherThingsComeAndGo(t *testing.T) {
	s := newSite(t)
	for i := range 6 {
		s.want(201, "POST", "/v1/areas", object{"area": fmt.Sprintf("area-%d", i)})
	}
	var got []string
	cursor := ""
	for {
		var page listed[registry.Row[registry.Area]]
		s.want(200, "GET", "/v1/areas?limit=2"+cursor, nil).into(t, &page)
		for _, row := range page.Items {
			got = append(got, row.Value.Name)
		}
		if page.Next == "" {
			break
		}
		if cursor == "" { // the cursor's own goes, one before it comes, one after it comes and one goes
			s.want(204, "DELETE", "/v1/areas/area-1", nil, "If-Match", "*")
			s.want(201, "POST", "/v1/areas", object{"area": "area-0a"})
			s.want(201, "POST", "/v1/areas", object{"area": "area-3a"})
			s.want(204, "DELETE", "/v1/areas/area-4", nil, "If-Match", "*")
		}
		cursor = "&cursor=" + page.Next
	}
	if want := "area-0 area-1 area-2 area-3 area-3a area-5"; strings.Join(got, " ") != want {
		t.Errorf("listed %v, want %s", got, want)
	}
}

func TestAnImportIsDoneWholeOrNotAtAll(t *testing.T) {
	s := newSite(t)
	const csv = "text/csv; charset=utf-8"
	p := s.refused("invalid", "nothing was changed", "POST", "/v1/import", "person,kind,pin\np-1,staff,1234\np-2,guest,\np-3,staff,1\n", "Content-Type", csv)
	if len(p.Faults) != 2 || p.Faults[0].Line != 3 || p.Faults[1].Line != 4 {
		t.Errorf("faults %+v", p.Faults)
	}
	s.refused("not-found", "", "GET", "/v1/people/p-1", nil)
	s.refused("media-type", "text/csv", "POST", "/v1/import", object{})
	var done registry.Imported
	s.want(200, "POST", "/v1/import", "person,kind,from\np-1,staff,2026-03-01\n", "Content-Type", csv).into(t, &done)
	if done.People != 1 || done.Changes != 1 {
		t.Errorf("done %+v", done)
	}
	var row registry.Row[registry.Person]
	s.want(200, "GET", "/v1/people/p-1", nil).into(t, &row)
	if got := row.Value.From.String(); got != "2026-02-28 23:00:00 +0000 UTC" {
		t.Errorf("from %s: that is no midnight at the site", got)
	}
	s.api.importing <- struct{}{}
	if a := s.want(503, "POST", "/v1/import", "person,kind\n", "Content-Type", csv); a.header.Get("Retry-After") != "1" {
		t.Errorf("%s, %v", a, a.header)
	}
	<-s.api.importing
}

// Whoever may write and not read learns nothing by a change that changes nothing.
func TestWritingTellsNothingOfWhatIsThere(t *testing.T) {
	s := newSite(t)
	s.staff()
	s.want(201, "POST", "/v1/visits", s.visit("visit-1"))
	s.token = s.let("writer", clients.WritePeople, clients.WriteVisits, clients.WriteCredentials)
	for _, tt := range []struct {
		method, path string
		body         any
	}{
		{"PATCH", "/v1/people/p-1", object{}}, {"DELETE", "/v1/people/p-1/pin", nil}, {"DELETE", "/v1/people/p-1/totp", nil},
		{"PATCH", "/v1/credentials/c-1", object{}}, {"PATCH", "/v1/visits/visit-1", object{}}, {"POST", "/v1/visits/visit-1/check-in", arrival},
		{"POST", "/v1/people/p-1/totp", nil}, {"POST", "/v1/visits/visit-1/code", object{}},
	} {
		r := request{method: tt.method, path: tt.path, body: tt.body, header: map[string]string{"If-Match": "*"}}
		if strings.HasSuffix(tt.path, "/code") {
			r.header = nil
		}
		a := s.send(r)
		if a.status >= 300 {
			t.Errorf("%s %s: %s", tt.method, tt.path, a)
		}
		s.clean("an answer", a.String(), "Lovelace", "Acme", "ops", "p-2", "staff", "H10301")
	}
}

func TestWhatIsWrongInsideIsNotShown(t *testing.T) {
	s := newSite(t)
	s.staff()
	if err := s.registry.Close(); err != nil {
		t.Fatal(err)
	}
	p := s.refused("internal", "", "GET", "/v1/people/p-1", nil)
	if strings.Contains(p.Detail, "sql") || !strings.Contains(s.log.String(), "database is closed") {
		t.Errorf("%+v; the log says %s", p, s.log)
	}
}

func TestWhatIsWorthAnotherTrySaysWhen(t *testing.T) {
	for _, err := range []error{fmt.Errorf("begin: %w", registry.ErrBusy), fmt.Errorf("begin: %w", context.DeadlineExceeded)} {
		p, _ := problemOf(err)
		if a := p.answer(); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "1" {
			t.Errorf("%v is answered %d, %v", err, a.status, a.header)
		}
	}
}

func TestThereIsALimitToEverything(t *testing.T) {
	s := newSite(t)
	s.refused("too-large", "", "POST", "/v1/areas", `{"area":"`+strings.Repeat("x", maxBody)+`"}`)
	s.refused("malformed", "takes no body", "GET", "/v1/areas", "{}")
	s.refused("media-type", "application/json", "POST", "/v1/areas", "area=lab", "Content-Type", "application/x-www-form-urlencoded")
	s.refused("media-type", "merge-patch", "PATCH", "/v1/areas/lab", object{}, "Content-Type", "application/json", "If-Match", "*")
	a := s.want(405, "PUT", "/v1/areas", object{})
	if got := a.header.Get("Allow"); got != "GET, POST" {
		t.Errorf("Allow: %s", got)
	}
	for _, path := range []string{"/v1/nowhere", "//v1/areas", "/v1/../v1/areas", "/v1/areas/", "/v1/areas/.", "/"} {
		s.refused("not-found", "no such path", "GET", path, nil) // and does not lead elsewhere
	}
	for range maxAtOnce {
		s.api.slots <- struct{}{}
	}
	s.want(503, "GET", "/v1/areas", nil)
	<-s.api.slots
	a = s.want(200, "GET", "/v1/areas", nil)
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	req := must(http.NewRequest("GET", "https://"+s.address+"/v1/areas", nil))(t)
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxHeader))
	if resp, err := s.client().Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a long header is answered with %s", resp.Status)
		}
	}
}

func TestWithoutAPublisherPolicyIsExportedByHand(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/v1/policy/status", "/v1/policy/diff", "/v1/policy/gone?controller=north-1&line=1"} {
		s.refused("not-publishing", "registry export", "GET", path, nil)
	}
	s.refused("not-publishing", "", "POST", "/v1/policy/publish", object{})
}

// Numbers of cards and PINs are in no answer, no line of the log and nowhere in
// clear in a file.
func TestNoAnswerHoldsASecret(t *testing.T) {
	s := newSite(t)
	s.staff()
	const card, pin, duress = "54321", "271828", "314159"
	var all []answered
	send := func(method, path string, body any, header map[string]string) {
		all = append(all, s.send(request{method: method, path: path, body: body, header: header}))
	}
	any := map[string]string{"If-Match": "*"}
	for _, key := range []string{"", "once", "once"} {
		h := map[string]string{}
		if key != "" {
			h["Idempotency-Key"] = key
		}
		send("POST", "/v1/credentials", object{"person": "p-2", "card": "H10301:12:" + card}, h)
	}
	send("POST", "/v1/credentials", object{"person": "p-2", "card": "H10301:" + card + ":" + card}, nil)
	send("POST", "/v1/credentials", object{"person": "p-2", "card": card + ":" + card}, nil)
	for _, text := range []string{`{"format":"H10301","facility":12,"number":` + card + `.5}`, `{"format":"` + card + `","number":1}`, `{"` + card + `":1}`} {
		send("POST", "/v1/credentials", object{"person": "p-2", "card": text}, nil)
		send("POST", "/v1/find-card", object{"card": text}, nil)
	}
	send("POST", "/v1/credentials", `{"person": "p-2", "card": H10301:12:`+card+`}`, nil)
	send("POST", "/v1/credentials", `{"person": "p-2", "card": `+card+`}`, nil)
	send("POST", "/v1/find-card", object{"card": "H10301:12:" + card}, nil)
	send("PUT", "/v1/people/p-2/pin", object{"pin": pin, "duress_pin": duress}, any)
	send("PUT", "/v1/people/p-2/pin", object{"pin": pin, "duress_pin": pin}, any)
	send("PUT", "/v1/people/p-2/pin", `{"pin": `+pin+`}`, any)
	send("PUT", "/v1/people/p-2/pin", `{"pin": "`+pin+`", "pin": "`+duress+`"}`, any)
	send("POST", "/v1/import", "person,kind,pin,format,facility,number\np-7,staff,"+pin+",H10301,12,x"+card+"\np-8,guest,"+pin+",H10301,"+card+","+card+"\n", map[string]string{"Content-Type": "text/csv"})
	for _, path := range []string{"/v1/people/p-2", "/v1/people", "/v1/credentials", "/v1/audit"} {
		send("GET", path, nil, nil)
	}
	for _, a := range all {
		s.clean("an answer", a.String(), card, pin, duress)
	}
	s.clean("the log", s.log.String(), card, pin, duress)
	for _, l := range must(s.registry.Audit(context.Background(), registry.AuditQuery{Limit: 1000}))(t) {
		s.clean("the audit", fmt.Sprintf("%s %s %s", l.ID, l.Why, l.By), card, pin, duress)
	}
}

func (s *site) clean(where, text string, secrets ...string) {
	s.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			s.Errorf("%s holds a secret: %s", where, text)
		}
	}
}
