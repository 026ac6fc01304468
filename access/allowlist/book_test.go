package allowlist

import (
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
)

// What is explained and decided again must be what a door would find.
func TestABookGivesTheCredentialsThatAFactorPresents(t *testing.T) {
	card := h10301(9, 1)
	book := NewBook(newSite(t).keys.Index)
	if err := book.Add(&Holder{
		Entry: access.Entry{Person: "v-1", Kind: access.Visitor}, Source: "visit-1", Rights: []Right{{"lab", access.AlwaysName}},
		Credentials: []Held{
			{Card: &card, State: access.Lost},
			{Biometric: true, State: access.Active},
			{Code: "48213377", CodeID: "c-1", CodeDoor: "lab", State: access.Active, Until: time.Unix(2_000_000_000, 0)},
			{Code: "48213378", CodeID: "c-2", CodeDoor: "lab", Removed: true},
		},
	}); err != nil {
		t.Fatal(err)
	}
	if err := book.Close(Rules{}); err != nil {
		t.Fatal(err)
	}
	for by, want := range map[access.Factor]int{
		access.Badge: 1, access.Fingerprint: 1, access.Iris: 1, access.OneTimeCode: 1, access.PIN | access.TOTP: 0,
		access.Badge | access.Fingerprint: 2, ^access.Factor(0): 3,
	} {
		got := book.Entries("v-1", by)
		if len(got) != want {
			t.Errorf("by %s: %d credentials, want %d", by, len(got), want)
		}
		for _, e := range got {
			if (e.State == access.Lost) != (by == access.Badge) && want == 1 || (e.Code != nil) != (by == access.OneTimeCode) && want == 1 || len(e.Rights) != 1 {
				t.Errorf("by %s: %+v", by, e)
			}
		}
	}
	if got := book.Entries("v-2", ^access.Factor(0)); len(got) != 0 || book.People() != 1 {
		t.Errorf("%d credentials of somebody else, %d people", len(got), book.People())
	}
}
