package api

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

func (s *site) people() int {
	s.Helper()
	return len(must(s.registry.People.List(context.Background(), registry.Page{Limit: 1000}))(s))
}

func TestARequestThatComesAgainIsDoneOnce(t *testing.T) {
	s := newSite(t)
	body := object{"kind": "staff", "name": "Ada Lovelace"}
	first := s.want(201, "POST", "/v1/people", body, "Idempotency-Key", "k-1")
	again := s.want(201, "POST", "/v1/people", body, "Idempotency-Key", "k-1")
	if first.String() != again.String() || first.header.Get("Location") != again.header.Get("Location") || again.header.Get("ETag") != `"1"` || s.people() != 1 {
		t.Errorf("%s\n%s\n%v; %d people", first, again, again.header, s.people())
	}
	s.refused("key-used", "", "POST", "/v1/people", object{"kind": "contractor"}, "Idempotency-Key", "k-1")
	s.refused("key-used", "", "POST", "/v1/people", body, "Idempotency-Key", "k-1", "Gatehouse-Why", "CHG-9")
	s.refused("key-used", "", "POST", "/v1/areas", object{"area": "lab"}, "Idempotency-Key", "k-1")
	s.refused("malformed", "Idempotency-Key", "POST", "/v1/people", body, "Idempotency-Key", "k 1")
	s.want(201, "POST", "/v1/people", body, "Idempotency-Key", "k-2")
	// Another client's keys are others.
	s.token = s.let("another", clients.Scopes...)
	s.want(201, "POST", "/v1/people", body, "Idempotency-Key", "k-1")
	if s.people() != 3 {
		t.Errorf("%d people", s.people())
	}
	// What was refused is refused again, though it would be done now.
	s.refused("invalid", "ops", "POST", "/v1/people", object{"person": "p-1", "kind": "staff", "groups": []string{"ops"}}, "Idempotency-Key", "k-3")
	s.want(201, "POST", "/v1/groups", object{"group": "ops"})
	s.refused("invalid", "ops", "POST", "/v1/people", object{"person": "p-1", "kind": "staff", "groups": []string{"ops"}}, "Idempotency-Key", "k-3")
	s.pass(clients.KeepAnswers)
	s.token = s.let("third", clients.Scopes...)
	s.want(201, "POST", "/v1/people", object{"person": "p-1", "kind": "staff", "groups": []string{"ops"}}, "Idempotency-Key", "k-3")
}

// The change stands and its answer was not kept: the CRM stopped in between.
func TestAnObjectIsMadeOnceThoughItsAnswerWasLost(t *testing.T) {
	s := newSite(t)
	body := object{"kind": "staff"}
	first := s.want(201, "POST", "/v1/people", body, "Idempotency-Key", "k-1")
	db := must(sql.Open("sqlite3", "file:"+filepath.Join(s.dir, clients.FileName)))(t)
	defer db.Close()
	if _, err := db.Exec(`DELETE FROM answer`); err != nil {
		t.Fatal(err)
	}
	if again := s.want(201, "POST", "/v1/people", body, "Idempotency-Key", "k-1"); again.String() != first.String() || s.people() != 1 {
		t.Errorf("%s\n%s; %d people", first, again, s.people())
	}
}

func TestARequestUnderWayIsNotBegunAgain(t *testing.T) {
	s := newSite(t)
	if !s.api.pending.begin("crm", "k-1") {
		t.Fatal("it is under way")
	}
	a := s.want(409, "POST", "/v1/people", object{"kind": "staff"}, "Idempotency-Key", "k-1")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("%v", a.header)
	}
	s.api.pending.end("crm", "k-1")
	s.want(201, "POST", "/v1/people", object{"kind": "staff"}, "Idempotency-Key", "k-1")
}

func TestOfManyAtOnceOneIsDone(t *testing.T) {
	s := newSite(t)
	s.want(201, "POST", "/v1/areas", object{"area": "lab"})
	const many = 8
	var group sync.WaitGroup
	made, changed := make([]answered, many), make([]answered, many)
	for i := range many {
		group.Go(func() {
			made[i] = s.send(request{method: "POST", path: "/v1/people", body: object{"kind": "staff"}, header: map[string]string{"Idempotency-Key": "k-1"}})
		})
		group.Go(func() {
			changed[i] = s.send(request{method: "PATCH", path: "/v1/areas/lab", body: object{"title": fmt.Sprint(i)}, header: map[string]string{"If-Match": `"1"`}})
		})
	}
	group.Wait()
	won := 0
	for i := range many {
		if status := made[i].status; status != 201 && status != 409 {
			t.Errorf("%s", made[i])
		}
		switch changed[i].status {
		case 200:
			won++
		case 412:
		default:
			t.Errorf("%s", changed[i])
		}
	}
	if won != 1 || s.people() != 1 {
		t.Errorf("%d changes of one version, %d people of one request", won, s.people())
	}
}

// What is shown once is nowhere kept: a request that comes again makes another.
func TestACodeIsNotKeptWithItsAnswer(t *testing.T) {
	s := newSite(t)
	s.staff()
	s.want(201, "POST", "/v1/visits", s.visit("visit-1"))
	var first, again struct {
		Digits string `json:"digits"`
	}
	s.want(201, "POST", "/v1/visits/visit-1/code", object{}, "Idempotency-Key", "k-1").into(t, &first)
	s.want(201, "POST", "/v1/visits/visit-1/code", object{}, "Idempotency-Key", "k-1").into(t, &again)
	if len(first.Digits) != 8 || first.Digits == again.Digits {
		t.Errorf("digits %q and %q", first.Digits, again.Digits)
	}
	db := must(sql.Open("sqlite3", "file:"+filepath.Join(s.dir, clients.FileName)))(t)
	defer db.Close()
	var n int
	if err := db.QueryRow(`SELECT COUNT(*) FROM answer WHERE key = 'k-1'`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d answers are kept: %v", n, err)
	}
	for _, a := range []answered{s.want(200, "GET", "/v1/codes", nil), s.want(200, "GET", "/v1/audit", nil)} {
		s.clean("an answer", a.String(), first.Digits, again.Digits)
	}
	s.pass(time.Minute)
}
