package registry

import (
	"errors"
	"testing"
)

func TestWhoIsLetInAndShutOutStandsInTheAudit(t *testing.T) {
	s := newSite(t)
	if err := s.LetIn(ctx, by, "crm", "people:read"); err != nil {
		t.Fatal(err)
	}
	if err := s.ShutOut(ctx, by, "crm"); err != nil {
		t.Fatal(err)
	}
	lines := must(s.Audit(ctx, AuditQuery{Kind: KindClient, ID: "crm"}))(t)
	if len(lines) != 2 || lines[0].Action != "let_in" || lines[0].After == nil || lines[1].Action != "shut_out" || lines[1].By != by.By {
		t.Errorf("audit %+v", lines)
	}
	wantError(t, s.LetIn(ctx, by, "c r m", "people:read"), "letters, digits")
	wantError(t, s.LetIn(ctx, Change{By: "me"}, "crm", "people:read"), "why: ")
	s.verify()
}

func TestWhatCannotBeDoneAsThingsStandIsToldFromAFailure(t *testing.T) {
	s := staffed(t)
	_, out := s.SignOut(ctx, by, "visit-1", 0, false)
	_, in := s.Surrender(ctx, by, "visit-1")
	for _, err := range []error{out, in, s.People.Remove(ctx, by, "p-1", 0), s.Credentials.Remove(ctx, by, "c-1", 0)} {
		if _, ok := errors.AsType[*Refused](err); !ok {
			t.Errorf("%v", err)
		}
	}
}
