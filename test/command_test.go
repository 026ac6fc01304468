package test

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const commandPolicy = `
[doors.b]
rules = [{ schedule = "always", any_of = ["badge", "code"] }]

[[people]]
person = "p-1"
kind = "staff"
name = "Ada Lovelace"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 1 }, { format = "H10301", facility = 123, number = 2 }, { format = "H10301", facility = 123, number = 3 }]
`

// ordered is what "gatehouse-crm command --json" prints.
type ordered struct {
	Controller, Door, ID, Outcome, Detail, Code string
}

// command orders something, and returns the answers.
func command(t *testing.T, s *rig.Site, args ...string) (answers []ordered) {
	t.Helper()
	args = append([]string{"command"}, append(args, "--data", s.CRMDir(), "--by", "guard-7", "--why", "INC-12", "--json")...)
	stdout, stderr, err := rig.Run(t, "gatehouse-crm", args...)
	lines := json.NewDecoder(strings.NewReader(stdout))
	for lines.More() {
		var a ordered
		if err := lines.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) == 0 {
		t.Fatalf("%v: %v\n%s", args, err, stderr)
	}
	return answers
}

// TestACommandMovesTheStrikeOnceAndALockdownOutlivesARestart gives orders by the
// real programs.
func TestACommandMovesTheStrikeOnceAndALockdownOutlivesARestart(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	s.StartCRM()
	c := s.Enrol("north-1", "a", "b")
	c.Import(commandPolicy)
	if got := command(t, s, "identify", "--controller", "north-1", "--door", "a"); got[0].Outcome != "offline" {
		t.Errorf("to a controller that is not there: %+v", got)
	}
	c.Start()
	rig.Eventually(t, "the controller is connected", func() bool {
		st := c.Status()
		return st != nil && st.Link != nil && st.Link.Connected && st.Countersigned()
	})

	// Two doors by one command line.
	for _, a := range command(t, s, "unlock", "--controller", "north-1", "--door", "a", "--door", "b") {
		if a.Outcome != "done" {
			t.Errorf("unlock: %+v", a)
		}
	}
	rig.Eventually(t, "both strikes move", func() bool { return len(c.Unlocks()) == 2 })
	if got := command(t, s, "unlock", "--controller", "north-1", "--door", "nowhere"); got[0].Outcome != "refused" || !strings.Contains(got[0].Detail, "nowhere") {
		t.Errorf("a door that is not there: %+v", got)
	}
	// The CRM's policy key was seen here, though the site governs.
	if _, err := os.Stat(filepath.Join(c.Data, "policy-authority.json")); err != nil {
		t.Errorf("what certifies the policy key is not kept: %v", err)
	}

	// A guard's code opens once.
	given := command(t, s, "guard-code", "--controller", "north-1", "--door", "b", "--person", "p-2007", "--host", "p-1")
	if len(given) != 1 || given[0].Outcome != "done" || len(given[0].Code) != 6 {
		t.Fatalf("guard's code: %+v", given)
	}
	typed := func() {
		if err := c.Wires.Type("b-in", given[0].Code+"#"); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, "both doors are locked again", c.Locked)
	typed()
	rig.Eventually(t, "the guard's code opens the door", func() bool { return len(c.Unlocks()) == 3 })
	typed()
	rig.Eventually(t, "the code is used up", func() bool {
		for _, r := range c.Own() {
			if r.Type == "gatehouse.decision.denied" && r.Data.Reason == "code_used" {
				return true
			}
		}
		return false
	})
	if n := len(c.Unlocks()); n != 3 {
		t.Errorf("the door was unlocked %d times, want 3", n)
	}

	if got := command(t, s, "lockdown", "--all"); len(got) != 1 || got[0].Outcome != "done" {
		t.Fatalf("lockdown: %+v", got)
	}
	denied := func() int {
		n := 0
		for _, r := range c.Own() {
			if r.Type == "gatehouse.decision.denied" && r.Data.Reason == "lockdown" {
				n++
			}
		}
		return n
	}
	card := uint64(0) // each time another one: the same soon again is one presentation
	badge := func() {
		card++
		if err := c.Wires.Swipe("a-in", rig.Card(t, card)); err != nil {
			t.Fatal(err)
		}
	}
	badge()
	rig.Eventually(t, "the lockdown turns somebody away", func() bool { return denied() == 1 })
	c.Process.Kill(t)
	c.Launch()
	c.Await()
	rig.Eventually(t, "the wires and the CRM are there again", func() bool {
		st := c.Status()
		return st != nil && len(st.Faults) == 0 && st.Link != nil && st.Link.Connected && st.Countersigned()
	})
	badge()
	rig.Eventually(t, "the lockdown outlives the restart", func() bool { return denied() == 2 })
	if got := command(t, s, "unlock", "--controller", "north-1", "--door", "a"); got[0].Outcome != "refused" {
		t.Errorf("an unlock in a lockdown: %+v", got)
	}
	if got := command(t, s, "clear", "--controller", "north-1"); got[0].Outcome != "done" {
		t.Fatalf("clear: %+v", got)
	}
	before := len(c.Unlocks())
	badge()
	rig.Eventually(t, "the door opens again", func() bool { return len(c.Unlocks()) == before+1 })
	c.Settled()
	c.Verify()

	// A revoked controller is told nothing more, and hears so at once.
	rig.Tool(t, "gatehouse-crm", "controllers", "revoke", "north-1", "--data", s.CRMDir())
	if got := command(t, s, "unlock", "--controller", "north-1", "--door", "a"); got[0].Outcome != "failed" || !strings.Contains(got[0].Detail, "revoked") {
		t.Errorf("to a revoked controller: %+v", got)
	}
	rig.Eventually(t, "the revoked controller is disconnected", func() bool {
		st := c.Status()
		return st != nil && !st.Link.Connected
	})
}

// TestACertificateIsRenewedOverItsOwnConnection: nobody visits the controller.
func TestACertificateIsRenewedOverItsOwnConnection(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	s.StartCRM()
	c := s.Controller("north-1", filepath.Join(s.Dir, "north-1"), "a")
	c.Join(shortLived(t, s, c.Init()))
	c.Import(commandPolicy)
	before := clientCertificate(t, c.Data)
	c.Start()
	rig.Eventually(t, "another certificate is installed", func() bool {
		after, err := pki.ReadClient(c.Data)
		return err == nil && after.NotAfter.After(before.NotAfter)
	})
	after := clientCertificate(t, c.Data)
	if issued, err := pki.ReadIssued(s.CRMDir(), "north-1"); err != nil || pki.Fingerprint(issued) != pki.Fingerprint(after) {
		t.Errorf("the CRM says that it issued another one: %v", err)
	}
	var listed struct {
		Certificate time.Time `json:"certificate_until"`
	}
	if err := json.Unmarshal([]byte(rig.Tool(t, "gatehouse-crm", "controllers", "list", "--data", s.CRMDir(), "--json")), &listed); err != nil || !listed.Certificate.Equal(after.NotAfter) {
		t.Errorf("listed until %v, want %v: %v", listed.Certificate, after.NotAfter, err)
	}
	c.Process.Stop(t)
	c.Launch()
	c.Await()
	rig.Eventually(t, "the controller connects with it", func() bool {
		st := c.Status()
		return st != nil && st.Link != nil && st.Link.Connected && st.Countersigned()
	})
}

func clientCertificate(t *testing.T, data string) *x509.Certificate {
	t.Helper()
	cert, err := pki.ReadClient(data)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// shortLived approves a request with the certificate's last minutes begun.
func shortLived(t *testing.T, s *rig.Site, request string) (bundle string) {
	t.Helper()
	// The tool registers it, and then it is given another certificate.
	bundle = filepath.Join(s.Dir, "short.bundle")
	rig.Tool(t, "gatehouse-crm", "controllers", "approve", request, "--data", s.CRMDir(), "--out", bundle, "--yes")
	site, err := pki.ReadSite(s.CRMDir())
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.LoadCRM(keys.File(pki.KeysDir(s.CRMDir())), site.Cosigner.Name())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pki.ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	// Of a minute ago, so that the one that takes its place ends later, by more than the second of a certificate.
	signed, _, err := site.Approve(s.CRMDir(), k, r, pki.ApproveOptions{Validity: 15 * time.Minute, Now: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	rig.Write(t, bundle, string(signed))
	return bundle
}
