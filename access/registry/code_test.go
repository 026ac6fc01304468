package registry

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
)

// issue issues a code for a door of visit-1.
func (s *site) issue(t tester, door string) (Code, string) {
	t.Helper()
	row, digits, err := s.IssueCode(ctx, by, CodeOrder{Visit: "visit-1", Door: door})
	if err != nil {
		t.Fatal(err)
	}
	return row.Value, digits
}

// codes are the codes that a controller is told of.
func (s *site) codes(t tester, controller string) (digits []string) {
	t.Helper()
	if _, _, err := s.Publish(ctx, controller, 0, func(h *allowlist.Holder) error {
		for _, c := range h.Credentials {
			if c.Code != "" {
				digits = append(digits, c.Code)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return digits
}

func TestACodeIsOfEightDigitsAndKnownToItsDoorsControllerAlone(t *testing.T) {
	s := staffed(t)
	code, digits := s.issue(t, "front")
	if !regexp.MustCompile(`^\d{8}$`).MatchString(digits) || !strings.HasPrefix(code.ID, "code-") || code.State != CodeOpen {
		t.Errorf("issued %s: %s", digits, text(t, code))
	}
	if v := s.visit(""); !code.From.Equal(v.From) || !code.Until.Equal(v.Until) {
		t.Errorf("valid %s", text(t, code))
	}
	if got := s.codes(t, "north-1"); !slices.Equal(got, []string{digits}) {
		t.Errorf("its controller knows %v", got)
	}
	if got := s.codes(t, "south-1"); got != nil {
		t.Errorf("another one knows %v", got)
	}
	row := must(s.Codes.Get(ctx, code.ID))(t)
	if shown := fmt.Sprintf("%v %+v %#v %s", row, row.Value, row.Value, text(t, row)); strings.Contains(shown, digits) {
		t.Errorf("the digits are shown: %s", shown)
	}
	for _, name := range must(filepath.Glob(s.path + "*"))(t) {
		if raw := must(os.ReadFile(name))(t); bytes.Contains(raw, []byte(digits)) {
			t.Errorf("%s holds the digits in clear", filepath.Base(name))
		}
	}
	s.verify()
}

func TestAHolderOfACodeIsToldOfAsTheVisitSays(t *testing.T) {
	s := staffed(t)
	code, digits := s.issue(t, "lab-door")
	var got []allowlist.Holder
	if _, _, err := s.Publish(ctx, "north-1", 0, func(h *allowlist.Holder) error {
		if h.Entry.Kind == access.Visitor {
			got = append(got, *h)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []allowlist.Holder{{
		Entry: access.Entry{Person: "v-1", Kind: access.Visitor, Escorted: true, Visit: &access.Visit{ID: "visit-1", Ticket: "INC-7", Host: "p-1",
			Organisation: "Acme", Purpose: "replace a disk", Escort: "p-3", Authoriser: "p-2"}},
		Name: "Vera Visitor", Source: "visit:front+lab-door", Rights: []allowlist.Right{{Door: "front", Schedule: "always"}, {Door: "lab-door", Schedule: "always"}},
		Credentials: []allowlist.Held{{Code: digits, CodeID: code.ID, CodeDoor: "lab-door", State: access.Active, From: code.From, Until: code.Until}},
	}}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestACodeEndsOnceAndItsDigitsAreForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s *site, id string) error
		want CodeState
	}{
		"used":      {func(s *site, id string) error { return s.CodeUsed(ctx, id, s.now) }, CodeUsed},
		"withdrawn": {func(s *site, id string) error { _, err := s.WithdrawCode(ctx, by, id, 1); return err }, CodeWithdrawn},
		"expired": {func(s *site, _ string) error {
			s.now = s.now.Add(5 * time.Hour)
			_, err := s.Tend(ctx, 24*time.Hour)
			return err
		}, CodeExpired},
		"the visit cancelled": {func(s *site, _ string) error { return s.Cancel(ctx, by, "visit-1", 0) }, CodeWithdrawn},
		"the visitor gone": {func(s *site, _ string) error {
			if _, err := s.CheckIn(ctx, by, "visit-1", 0, arrival("")); err != nil {
				return err
			}
			_, err := s.Leave(ctx, by, "v-1", 0)
			return err
		}, CodeWithdrawn},
	} {
		t.Run(name, func(t *testing.T) {
			s := staffed(t)
			code, digits := s.issue(t, "front")
			before := must(s.Changes(ctx))(t)
			if err := c.end(s, code.ID); err != nil {
				t.Fatal(err)
			}
			row := must(s.Codes.Get(ctx, code.ID))(t)
			if row.Value.State != c.want || row.Value.digits != nil || row.Value.Ended.IsZero() {
				t.Errorf("ended: %s", text(t, row))
			}
			if got := s.codes(t, "north-1"); got != nil {
				t.Errorf("the controller knows %v", got)
			}
			removed := false
			if _, _, err := s.Publish(ctx, "north-1", before, func(h *allowlist.Holder) error {
				for _, v := range h.Credentials {
					removed = removed || v.Removed && v.Code == digits
				}
				return nil
			}); err != nil || !removed {
				t.Errorf("the controller is told to forget it: %t (%v)", removed, err)
			}
			_, err := s.WithdrawCode(ctx, by, code.ID, 0)
			wantError(t, err, "only an open one is withdrawn")
			s.verify()
		})
	}
}

func TestThatACodeWasUsedIsNotedOnceHoweverOftenItIsTold(t *testing.T) {
	s := staffed(t)
	code, _ := s.issue(t, "front")
	at := s.now.Add(time.Minute)
	for range 3 {
		if err := s.CodeUsed(ctx, code.ID, at); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(time.Hour)
	}
	row := must(s.Codes.Get(ctx, code.ID))(t)
	if row.Version != 2 || !row.Value.Ended.Equal(at) {
		t.Errorf("used: %s", text(t, row))
	}
	if err := s.CodeUsed(ctx, "code-of-another-life", at); err != nil {
		t.Errorf("a code that is not there: %v", err)
	}
	// A door used it before it heard that it was withdrawn.
	other, _ := s.issue(t, "front")
	must(s.WithdrawCode(ctx, by, other.ID, 0))(t)
	if err := s.CodeUsed(ctx, other.ID, at); err != nil {
		t.Fatal(err)
	}
	if row := must(s.Codes.Get(ctx, other.ID))(t); row.Value.State != CodeUsed {
		t.Errorf("used in spite of it: %s", text(t, row))
	}
	s.verify()
}

func TestACodeKeepsToItsVisit(t *testing.T) {
	s := staffed(t)
	v := s.visit("visit-1")
	for _, c := range []struct {
		o    CodeOrder
		want string
	}{
		{CodeOrder{Visit: "visit-1"}, "door: is missing"},
		{CodeOrder{Visit: "visit-1", Door: "store"}, `visit visit-1 is not to door "store"`},
		{CodeOrder{Visit: "visit-1", Door: "front", From: v.From.Add(-time.Second)}, "outside of visit visit-1"},
		{CodeOrder{Visit: "visit-1", Door: "front", Until: v.Until.Add(time.Second)}, "outside of visit visit-1"},
		{CodeOrder{Visit: "visit-1", Door: "front", From: v.Until, Until: v.From}, "until: is not after from"},
		{CodeOrder{Visit: "visit-1", Door: "front", Until: s.now}, "is over already"},
		{CodeOrder{Visit: "visit-9", Door: "front"}, "not there"},
	} {
		_, digits, err := s.IssueCode(ctx, by, c.o)
		wantError(t, err, c.want)
		if digits != "" {
			t.Errorf("%+v: digits in spite of it", c.o)
		}
	}
	code, _ := s.issue(t, "front")
	for want, change := range map[string]func(*Visit){
		"is not to door \"front\", for which code " + code.ID: func(v *Visit) { v.Doors = []string{"lab-door"} },
		"until: code " + code.ID:                              func(v *Visit) { v.Until = v.Until.Add(-time.Hour) },
	} {
		_, err := s.Visits.Update(ctx, by, "visit-1", 0, func(v *Visit) error { change(v); return nil })
		wantError(t, err, want)
	}
	_, err := s.Codes.Create(ctx, by, Code{ID: "code-1", Visit: "visit-1", Door: "front", From: v.From, Until: v.Until, State: CodeOpen})
	wantError(t, err, "issued and withdrawn by")
	_, err = s.Codes.Update(ctx, by, code.ID, 0, func(c *Code) error { c.State = CodeUsed; return nil })
	wantError(t, err, "issued and withdrawn by")
	wantError(t, s.Codes.Remove(ctx, by, code.ID, 0), "stays")
	if err := s.Cancel(ctx, by, "visit-1", 0); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.IssueCode(ctx, by, CodeOrder{Visit: "visit-1", Door: "front"})
	wantError(t, err, "visit visit-1 is over")
}

func TestTendDoesWhatIsDueAndElseWritesNothing(t *testing.T) {
	s := staffed(t)
	must(s.CheckIn(ctx, by, "visit-1", 0, arrival("b-1")))(t)
	code, _ := s.issue(t, "front")
	until := s.visit("").Until
	tend := func(at time.Time) Tended {
		s.now = at
		return must(s.Tend(ctx, 2*time.Hour))(t)
	}
	before := s.verify()
	if done := tend(until.Add(-time.Second)); !gocmp.Equal(done, Tended{}) || s.verify() != before {
		t.Errorf("before anything is due: %+v", done)
	}
	if done := tend(until); !gocmp.Equal(done, Tended{Expired: []string{code.ID}}) {
		t.Errorf("at the end: %+v", done)
	}
	if got := must(s.Overstayed(ctx))(t); len(got) != 1 || got[0].Value.ID != "visit-1" {
		t.Errorf("overstayed: %s", text(t, got))
	}
	if done := tend(until.Add(2 * time.Hour)); !gocmp.Equal(done, Tended{Closed: []string{"visit-1"}}) {
		t.Errorf("after the grace: %+v", done)
	}
	v := must(s.Visits.Get(ctx, "visit-1"))(t).Value
	if v.How != CloseAutomatic || v.ClosedBy != "gatehouse-crm" || !v.Closed.Equal(s.now) {
		t.Errorf("closed: %s", text(t, v))
	}
	if c := must(s.Credentials.Get(ctx, "b-1"))(t).Value; c.State != access.Lost {
		t.Errorf("the badge is %s", c.State)
	}
	if got := must(s.Overstayed(ctx))(t); got != nil {
		t.Errorf("overstayed afterwards: %s", text(t, got))
	}
	s.verify()
}

// A file from before there were due times is made whole when it is opened.
func TestVisitsOfAnOlderFileAreClosedToo(t *testing.T) {
	s := staffed(t)
	s.sql(`UPDATE object SET due = NULL WHERE kind = 'visit'`, `DELETE FROM meta WHERE name = 'due'`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.verify()
	s.now = s.now.Add(24 * time.Hour)
	if done := must(s.Tend(ctx, time.Hour))(t); !gocmp.Equal(done.Closed, []string{"visit-1"}) {
		t.Errorf("closed %v", done.Closed)
	}
}

func TestAnotherDueTimeIsNoticed(t *testing.T) {
	s := staffed(t)
	s.sql(`UPDATE object SET due = 9000000000000000 WHERE kind = 'visit'`)
	_, err := s.Verify(ctx, Head{}, nil)
	wantError(t, err, `visit "visit-1": when something is to be done with it was changed`)
}

func TestTheSecretOfOneTimeCodesIsMadeSealedAndToldOnce(t *testing.T) {
	s := staffed(t)
	row, uri, err := s.GiveTOTP(ctx, by, "p-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	secret := regexp.MustCompile(`^otpauth://totp/Gatehouse:p-1\?secret=([A-Z2-7]{32})&issuer=Gatehouse&algorithm=SHA1&digits=6&period=30$`).FindStringSubmatch(uri)
	if secret == nil || !row.Value.HasTOTP {
		t.Fatalf("%s, %s", uri, text(t, row))
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", row, row.Value, row.Value, text(t, row)); strings.Contains(shown, secret[1]) {
		t.Errorf("it is shown: %s", shown)
	}
	must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.SetPIN("271828", ""); return nil }))(t)
	told := func() (encoded string) {
		if _, _, err := s.Publish(ctx, "north-1", 0, func(h *allowlist.Holder) error {
			if h.Entry.TOTP != nil {
				encoded = encodeTOTP(h.Entry.TOTP)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	if got := told(); got != secret[1] {
		t.Errorf("the doors are told %s", got)
	}
	_, again, err := s.GiveTOTP(ctx, by, "p-1", 0)
	if err != nil || again == uri {
		t.Errorf("another one is the same (%v)", err)
	}
	row = must(s.People.Update(ctx, by, "p-1", 0, func(p *Person) error { p.ForgetTOTP(); return nil }))(t)
	if row.Value.HasTOTP || !row.Value.HasPIN || told() != "" {
		t.Errorf("taken away: %s", text(t, row))
	}
	s.verify()
}
