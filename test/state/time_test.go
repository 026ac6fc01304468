package state

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// certify gives the controller a certificate, as if it were another time and
// for as long as is said. The daemon takes it at its next connection.
func (c *controller) certify(now time.Time, validity time.Duration) {
	t := c.T
	t.Helper()
	site, err := pki.ReadSite(c.CRMDir())
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.LoadCRM(keys.File(pki.KeysDir(c.CRMDir())), site.Cosigner.Name())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(c.Data, "request.json"))
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	bundle, _, err := site.Approve(c.CRMDir(), k, request, pki.ApproveOptions{Now: now, Validity: validity})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, "renewed.bundle")
	rig.Write(t, path, string(bundle))
	c.Join(path)
}

// TestACertificateExpiresAndIsRenewedWhileTheDaemonRuns: the door works
// throughout, the daemon says why it reaches nobody, and nothing is lost.
func TestACertificateExpiresAndIsRenewedWhileTheDaemonRuns(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.StartCRM()
	c.Start()
	c.enters(staff)
	c.Settled()
	const validity = 8 * time.Second // in which it is taken to the controller
	issued := time.Now()
	c.certify(issued, validity)
	time.Sleep(time.Until(issued.Add(validity + time.Second)))
	s.stopCRM() // the connection ends, and the next one is refused
	s.StartCRM()
	rig.Eventually(t, "the daemon says that its certificate has expired", func() bool {
		st := c.Status()
		return st != nil && st.Link != nil && !st.Link.Connected && strings.Contains(st.Link.LastError+c.Process.Log()+s.CRM.Log(), "expired")
	})
	c.enters(staff)
	c.certify(time.Now(), time.Hour)
	c.enters(staff)
	c.Settled()
	s.quiet()
	c.verified()
}

// TestACertificateThatIsNotYetValid, as of a CRM whose clock is ahead: the
// broker refuses it, and the door works.
func TestACertificateThatIsNotYetValid(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.StartCRM()
	good := c.Data + ".good"
	copyTree(t, c.Data, good)
	c.certify(time.Now().Add(24*time.Hour), time.Hour)
	c.Start()
	rig.Eventually(t, "the CRM refuses the certificate", func() bool {
		return strings.Contains(s.CRM.Log(), "not yet valid") || strings.Contains(s.CRM.Log(), "expired or is not yet")
	})
	c.enters(staff)
	if link := c.Now().Link; link == nil || link.Connected {
		t.Errorf("%+v: it is connected", link)
	}
	// The bundle's word for the time holds too: the clock reads a day earlier.
	c.denied(weekday, "clock_unset")
	// A bundle that seems older is not joined, so what was there comes back.
	c.stop()
	if err := os.Remove(filepath.Join(c.Data, "clock.json")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trust.json", "tls/client.crt"} {
		copyFile(t, filepath.Join(good, name), filepath.Join(c.Data, name))
	}
	c.Start()
	c.enters(weekday)
	c.Settled()
	s.quiet()
	c.verified()
}

// TestAClockBehindTheCRMsWord: what the CRM once vouched for has passed, so a
// clock that reads earlier was set back, or never set since boot. Whoever is
// bound in time is denied, and nobody else; and it is over when the clock is.
func TestAClockBehindTheCRMsWord(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.StartCRM()
	c.Start()
	c.enters(weekday)
	c.Settled()
	c.stop()
	remembered := filepath.Join(c.Data, "clock.json")
	before, err := os.ReadFile(remembered)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(before, &m); err != nil {
		t.Fatal(err)
	}
	m["floor"] = time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339Nano)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	rig.Write(t, remembered, string(b))
	c.Start()
	c.denied(weekday, "clock_unset")
	c.enters(staff)
	c.enters(breakGlass)
	c.Settled() // its certificate is judged by the floor, and is good
	if state := c.Now().Clock.State; state != access.ClockUnset {
		t.Errorf("the clock is %s, not unset", state)
	}
	c.stop()
	own := c.Own()
	if i := slices.IndexFunc(own, func(r rig.Record) bool { return r.Data.Reason == "clock_unset" }); i < 0 || own[i].Data.Clock.State != string(access.ClockUnset) {
		t.Error("no record says that the clock was unset")
	}
	rig.Write(t, remembered, string(before))
	c.Start()
	c.enters(weekday)
	c.Settled()
	s.quiet()
	c.verified()
}

// importMade imports the policy as if it were another time.
func (c *controller) importMade(now time.Time) {
	t := c.T
	t.Helper()
	k, err := keys.LoadController(keys.File(pki.KeysDir(c.Data)))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := keys.NewVerifier(k.Policy.JWK(), keys.TypePolicy)
	if err != nil {
		t.Fatal(err)
	}
	imp, err := allowlist.Begin(c.Data, allowlist.Keys{Index: k.Pepper, Sealer: k.Allowlist, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	defer imp.Close()
	plan, err := imp.ReadTOML(strings.NewReader(policy), allowlist.ReadOptions{Index: k.Pepper, Formats: badge.Builtin(), Zone: time.UTC})
	if err == nil {
		_, err = imp.Apply(context.Background(), plan, allowlist.ApplyOptions{Signer: k.Policy, Now: now})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnAllowlistExpiresAsTimePasses: under a running daemon, and over a
// restart. A new one is fresh at once.
func TestAnAllowlistExpiresAsTimePasses(t *testing.T) {
	t.Parallel()
	_, c := newSite(t)
	const after, left = 2 * time.Minute, 20 * time.Second // for the start, on however busy a machine
	c.Broker, c.More = "", fmt.Sprintf("[allowlist]\nstale_after = \"1m\"\nexpired_after = %q\nexpired_kinds = [\"contractor\"]\n", after)
	c.importMade(time.Now().Add(left - after))
	expires := time.Now().Add(left)
	c.Start()
	if age := c.Now().Allowlist; age.Freshness != access.Stale {
		t.Errorf("at the start it is %+v", age)
	}
	c.enters(staff)
	time.Sleep(time.Until(expires))
	c.denied(staff, string(access.ReasonAllowlistExpired))
	c.stop()
	c.Start()
	c.denied(staff, string(access.ReasonAllowlistExpired))
	c.importMade(time.Now())
	rig.Eventually(t, "the new allowlist is served", func() bool { return c.Now().Allowlist.Freshness == access.Fresh })
	c.enters(staff)
	c.accounted()
}

// spoiler signs what it should not.
type spoiler struct {
	visitorlog.Signer
	n int
}

func (s *spoiler) Sign(payload []byte) (string, error) {
	s.n++
	switch s.n {
	case 5: // content that is no record
		payload = bytes.Replace(payload, []byte(`"specversion":"1.0"`), []byte(`"specversion":"9.9"`), 1)
	case 6: // no JSON at all
		payload = []byte("{")
	}
	jws, err := s.Signer.Sign(payload)
	if s.n == 7 && err == nil { // a signature that is none
		jws = jws[:len(jws)-8] + strings.Repeat("A", 8)
	}
	return jws, err
}

// TestAnInvalidRecordInTheMiddleOfABatch writes records that are none into the
// controller's log, as another version of the program might: the CRM stores
// and flags them, and they block nothing.
func TestAnInvalidRecordInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	k, err := keys.LoadController(keys.File(filepath.Join(c.Data, "keys")))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := k.Log.Verifier(keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	log, err := visitorlog.Open(c.Data, visitorlog.Options{
		Controller: c.Name, Signer: &spoiler{Signer: k.Log}, Verifier: verifier, Note: k.Log.NoteSigner,
		NoteVerifier: verifier.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised, Boot: "0f0e", UptimeMS: 1}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const written = 12
	for i := range written {
		if _, err := log.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
			return visitorlog.Draft{Type: visitorlog.DoorClosed, Data: visitorlog.Data{Door: door, Detail: fmt.Sprint(i)}}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	s.StartCRM()
	c.Start()
	c.enters(staff)
	rig.Eventually(t, "all records are countersigned", func() bool {
		st := c.Status() // its own verification finds the records, too
		return st != nil && st.Records.Size > written && st.Countersigned()
	})
	s.alarmed("invalid_record", "")
	s.quiet("invalid_record", "gap") // the latter is the controller's own word for it
	if _, stderr, err := rig.Run(t, "gatehouse-crm", "log", "verify", "--data", s.CRMDir()); err == nil || !strings.Contains(stderr, "record 4") {
		t.Errorf("verify: %v, %s; want the first bad record named", err, stderr)
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(s.CRMDir(), "central.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rig.Eventually(t, "the three are flagged, and they alone", func() bool {
		var all, bad, good int
		err := db.QueryRow(`SELECT count(*), coalesce(sum(checked = 'bad'), 0), coalesce(sum(checked = 'ok'), 0) FROM records`).Scan(&all, &bad, &good)
		if err != nil {
			t.Fatal(err)
		}
		return all > written && bad == 3 && good == all-3
	})
	c.accounted()
}
