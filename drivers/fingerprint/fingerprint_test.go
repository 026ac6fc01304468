package fingerprint_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

func TestWhatTheZeroValuesMeanLetsNobodyIn(t *testing.T) {
	var m fingerprint.Match
	if m.Outcome != fingerprint.NoMatch {
		t.Errorf("the zero match is %v", m.Outcome)
	}
	if fingerprint.IsRefusal(fingerprint.ErrSilent) || fingerprint.IsRefusal(nil) {
		t.Error("silence counts as an answer of the module")
	}
	err := fingerprint.Refuse(fingerprint.ErrInUse, "ID %d", 7)
	if !fingerprint.IsRefusal(fmt.Errorf("enrol: %w", err)) || !errors.Is(err, fingerprint.ErrInUse) {
		t.Errorf("%v is no refusal", err)
	}
}
