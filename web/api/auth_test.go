package api

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

func TestWhoIsNotKnownLearnsNothing(t *testing.T) {
	s := newSite(t)
	s.staff()
	good := s.token
	name, _, _ := strings.Cut(strings.TrimPrefix(good, "gatehouse."), ".")
	var first answered
	for i, tt := range []struct{ token, path string }{
		{"", "/v1/people/p-1"}, {"", "/v1/people/p-99"}, {"", "/nowhere"}, {"nonsense", "/v1/people/p-1"},
		{good[:len(good)-1], "/v1/people/p-1"}, {good + "A", "/v1/people/p-1"}, {"gatehouse." + name + "." + strings.Repeat("A", 43), "/v1/people"},
		{"gatehouse.nobody." + good[len(good)-43:], "/v1/people"},
	} {
		s.token = tt.token
		a := s.want(401, "GET", tt.path, nil)
		if a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", tt.path)
		}
		if i == 0 {
			first = a
		} else if a.String() != first.String() {
			t.Errorf("%+v is answered %s, and another %s", tt, a, first)
		}
	}
	s.token = ""
	s.want(401, "GET", "/v1/people", nil, "Authorization", "Basic Y3JtOmNybQ==")
	if log := s.log.String(); strings.Contains(log, good[len(good)-43:]) || strings.Contains(log, "nobody") || !strings.Contains(log, "turned away") {
		t.Errorf("the log says %s", log)
	}
	if n, turned := s.api.Answers()["4xx"], s.api.TurnedAway(); n != 9 || turned != 9 {
		t.Errorf("counted %d answers and %d callers", n, turned)
	}
	s.token = good
	s.want(200, "GET", "/v1/people/p-1", nil)
}

func TestAClientIsLetInUntilItIsRevokedOrItsTimeIsOver(t *testing.T) {
	s := newSite(t)
	s.want(200, "GET", "/v1/areas", nil)
	if _, err := s.clients.Revoke(context.Background(), "crm", "m.jansen", "INC-1"); err != nil {
		t.Fatal(err)
	}
	s.want(401, "GET", "/v1/areas", nil)
	s.token = s.let("crm-2", clients.ReadSite)
	s.want(200, "GET", "/v1/areas", nil)
	s.pass(25 * time.Hour)
	s.want(401, "GET", "/v1/areas", nil)
}

func TestAClientCertificateIsAName(t *testing.T) {
	s := newSite(t)
	pair, cert := s.certify("api:desk")
	n := clients.New{Name: "desk", Scopes: []clients.Scope{clients.WriteSite}, Until: s.now().Add(24 * time.Hour), By: "m.jansen", Why: "CHG-1"}
	c := must(s.clients.AddCertificate(context.Background(), n, cert))(t)
	if !c.Until.Equal(cert.NotAfter) {
		t.Errorf("let in until %s, the certificate is valid until %s", c.Until, cert.NotAfter)
	}
	s.token, s.http = "", s.client(pair)
	s.want(201, "POST", "/v1/areas", object{"area": "lab"})
	s.refused("forbidden", "site:read", "GET", "/v1/areas", nil)
	lines := must(s.registry.Audit(context.Background(), registry.AuditQuery{}))(t)
	if len(lines) != 1 || lines[0].By != "desk" || lines[0].Why != "CHG-2" {
		t.Errorf("audit %+v", lines)
	}
	must(s.clients.Revoke(context.Background(), "desk", "m.jansen", "INC-1"))(t)
	s.want(401, "POST", "/v1/areas", object{"area": "roof"})
}

// Controllers' certificates are of the same authority, and so is the CRM's own.
func TestAControllersCertificateOpensNothingHere(t *testing.T) {
	s := newSite(t)
	s.token = ""
	for _, name := range []string{"north-1", "crm", pki.CRMName} {
		pair, _ := s.certify(name)
		s.http = s.client(pair)
		s.want(401, "GET", "/v1/areas", nil)
	}
}

func TestACertificateOfAnotherAuthorityEndsAtTLS(t *testing.T) {
	s := newSite(t)
	key := must(keys.ParsePrivateKey(must(keys.GenerateKey(keys.ES256))(t)))(t)
	other := must(pki.NewAuthority(key, "another", time.Now()))(t)
	cert := must(other.Client("api:crm", key.Public(), time.Now(), time.Hour))(t)
	must(s.clients.AddCertificate(context.Background(), clients.New{Name: "other", Scopes: clients.Scopes, Until: s.now().Add(time.Hour), By: "m.jansen", Why: "CHG-1"}, cert))(t)
	// A client would not show a certificate of an authority that it is not asked for.
	c := s.client()
	c.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer()}, nil
	}
	resp, err := c.Get("https://" + s.address + "/v1/areas")
	if err == nil {
		resp.Body.Close()
		t.Errorf("answered %s", resp.Status)
	}
}

func TestWithoutTLSOfThisAgeNothingIsAnswered(t *testing.T) {
	s := newSite(t)
	resp, err := http.Get("http://" + s.address + "/v1/areas")
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("answered %s", resp.Status)
		}
	}
	old := s.client()
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if resp, err := old.Get("https://" + s.address + "/v1/areas"); err == nil {
		resp.Body.Close()
		t.Errorf("over TLS 1.2: answered %s", resp.Status)
	}
	if _, err := Listen("0.0.0.0:0", s.api, nil); err == nil {
		t.Error("it listens on all addresses without TLS")
	}
	plain := s.serve(nil)
	get := func(token string) int {
		t.Helper()
		req := must(http.NewRequest("GET", "http://"+plain+"/v1/areas", nil))(t)
		req.Header.Set("Authorization", "Bearer "+token)
		resp := must(http.DefaultClient.Do(req))(t)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if status := get("nonsense"); status != http.StatusUnauthorized {
		t.Errorf("nonsense on loopback: %d", status)
	}
	if status := get(s.token); status != http.StatusOK {
		t.Errorf("on loopback: %d", status)
	}
}

func TestWhatIsForbiddenDoesNotDependOnWhatIsThere(t *testing.T) {
	s := newSite(t)
	s.staff()
	tokens := make(map[clients.Scope]string)
	for _, r := range s.api.routes() {
		missing := r.scopes[len(r.scopes)-1]
		others := make([]clients.Scope, 0, len(clients.Scopes))
		for _, scope := range clients.Scopes {
			if scope != missing {
				others = append(others, scope)
			}
		}
		if tokens[missing] == "" {
			tokens[missing] = s.let("all-but-"+strings.ReplaceAll(string(missing), ":", "-"), others...)
		}
		s.token = tokens[missing]
		there := s.refused("forbidden", string(r.scopes[0]), r.method, strings.Replace(r.path, "{id}", "p-1", 1), nil)
		if strings.Contains(r.path, "{id}") {
			if not := s.refused("forbidden", "", r.method, strings.Replace(r.path, "{id}", "p-99", 1), nil); not.Detail != there.Detail {
				t.Errorf("%s %s: %q and %q", r.method, r.path, there.Detail, not.Detail)
			}
		}
	}
}

// Else a program that was shut out, and asks on, would shut out all others on its
// machine.
func TestWhoFailsOftenWaitsAndShutsOutNobodyElse(t *testing.T) {
	s := newSite(t)
	good := s.token
	s.token = "nonsense"
	for range maxFailures {
		s.want(401, "GET", "/v1/areas", nil)
	}
	before := s.log.String()
	a := s.want(429, "GET", "/v1/areas", nil)
	if got := a.header.Get("Retry-After"); got != "60" {
		t.Errorf("Retry-After: %s", got)
	}
	if s.log.String() != before {
		t.Error("it goes on filling the log")
	}
	s.token = good
	s.want(200, "GET", "/v1/areas", nil)
	s.token = "nonsense"
	s.want(429, "GET", "/v1/areas", nil)
	s.pass(failureEvery)
	s.want(401, "GET", "/v1/areas", nil)
}

func TestAnAddressWaitsForItsOwnFailures(t *testing.T) {
	var f failures
	now := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	a, b := address("192.0.2.1:1234"), address("192.0.2.2:1234")
	for range maxFailures {
		if f.wait(a, now) != 0 {
			t.Fatal("it waits too soon")
		}
		f.add(a, now)
	}
	if f.wait(a, now) != failureEvery || f.wait(b, now) != 0 {
		t.Errorf("%s waits %s, %s waits %s", a, f.wait(a, now), b, f.wait(b, now))
	}
	if f.wait(a, now.Add(failureEvery)) != 0 {
		t.Error("it waits too long")
	}
	if address("[2001:db8:1:2:3::4]:1") != address("[2001:db8:1:2:ffff::5]:2") || address("[::ffff:192.0.2.1]:1") != a {
		t.Error("an address is not that of its network")
	}
	// However many there are, little is kept of them.
	for i := range maxAddresses + 100 {
		f.add(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now)
	}
	if len(f.until) > maxAddresses {
		t.Errorf("%d addresses are kept", len(f.until))
	}
}

func TestWhoReadsOfPeopleStandsInTheAudit(t *testing.T) {
	s := newSite(t)
	s.staff()
	s.want(201, "POST", "/v1/visits", s.visit("visit-1"))
	before := len(must(s.registry.Audit(context.Background(), registry.AuditQuery{Limit: 1000}))(t))
	for _, path := range []string{"/v1/people/p-1", "/v1/people?group=ops", "/v1/visits/visit-1", "/v1/credentials?limit=1", "/v1/audit", "/v1/people/p-99", "/v1/areas/lab"} {
		s.send(request{method: "GET", path: path, noWhy: true})
	}
	// Whether somebody is there is asked by HEAD, too.
	req := must(http.NewRequest("HEAD", "https://"+s.address+"/v1/people/p-2", nil))(t)
	req.Header.Set("Authorization", "Bearer "+s.token)
	if res := must(s.http.Do(req))(t); res.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %s", res.Status)
	}
	var got []string
	for _, l := range must(s.registry.Audit(context.Background(), registry.AuditQuery{After: uint64(before)}))(t) {
		if l.Action != "view" || l.By != "crm" {
			t.Errorf("line %+v", l)
		}
		got = append(got, string(l.Kind)+" "+l.ID+" "+l.Why)
	}
	want := []string{"person p-1 shown", "person  group=ops", "visit visit-1 shown", "credential  all", "audit  all", "person p-2 shown"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit says\n%s", strings.Join(got, "\n"))
	}
}

// An answer that was kept would be read again without a line in the audit.
func TestWhoseACardIsIsReadAnewEachTime(t *testing.T) {
	s := newSite(t)
	s.staff()
	views := func() (n int) {
		for _, l := range must(s.registry.Audit(context.Background(), registry.AuditQuery{Kind: registry.KindCredential, ID: "c-1"}))(t) {
			if l.Action == "view" {
				n++
			}
		}
		return n
	}
	for i := 1; i <= 2; i++ {
		s.want(200, "POST", "/v1/find-card", object{"card": "H10301:12:4711"}, "Idempotency-Key", "k-1")
		if n := views(); n != i {
			t.Errorf("read %d times, %d lines in the audit", i, n)
		}
		s.pass(time.Hour)
	}
}

func TestTheTokenIsNotKept(t *testing.T) {
	s := newSite(t)
	secret := s.token[len(s.token)-43:]
	for _, name := range must(filepath.Glob(filepath.Join(s.dir, "*.db*")))(t) {
		if strings.Contains(string(readFile(t, name)), secret) {
			t.Errorf("%s holds the token", name)
		}
	}
}
