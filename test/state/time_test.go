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
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// certify gives the controller a certificate, as if it were another time and
// for as long as is said. The daemon takes it at its next connection.
func (c *controller) certify(now time.Time, validity time.Duration) {
	t := c.t
	t.Helper()
	site, err := pki.ReadSite(c.crmDir())
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.LoadCRM(keys.File(pki.KeysDir(c.crmDir())), site.Cosigner.Name())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(c.data, "request.json"))
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	bundle, _, err := site.Approve(c.crmDir(), k, request, pki.ApproveOptions{Now: now, Validity: validity})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.dir, "renewed.bundle")
	write(t, path, string(bundle))
	tool(t, "gatehouse", "join", path, "--data", c.data, "--fingerprint", c.fingerprint())
}

// TestACertificateExpiresAndIsRenewedWhileTheDaemonRuns: the door works
// throughout, the daemon says why it reaches nobody, and nothing is lost.
func TestACertificateExpiresAndIsRenewedWhileTheDaemonRuns(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.startCRM()
	const validity = 4 * time.Second
	issued := time.Now()
	c.certify(issued, validity)
	c.start()
	c.enters(staff)
	c.settled()
	time.Sleep(time.Until(issued.Add(validity + time.Second)))
	s.stopCRM() // the connection ends, and the next one is refused
	s.startCRM()
	eventually(t, "the daemon says that its certificate has expired", func() bool {
		st, err := c.status()
		return err == nil && st.Link != nil && !st.Link.Connected && strings.Contains(st.Link.LastError+c.p.log()+s.crm.log(), "expired")
	})
	c.enters(staff)
	c.certify(time.Now(), time.Hour)
	c.enters(staff)
	c.settled()
	s.quiet()
	c.verified()
}

// TestACertificateThatIsNotYetValid, as of a CRM whose clock is ahead: the
// broker refuses it, and the door works.
func TestACertificateThatIsNotYetValid(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.startCRM()
	good := c.data + ".good"
	copyTree(t, c.data, good)
	c.certify(time.Now().Add(24*time.Hour), time.Hour)
	c.start()
	eventually(t, "the CRM refuses the certificate", func() bool {
		return strings.Contains(s.crm.log(), "not yet valid") || strings.Contains(s.crm.log(), "expired or is not yet")
	})
	c.enters(staff)
	if st, err := c.status(); err != nil || st.Link == nil || st.Link.Connected {
		t.Errorf("%+v, %v: it is connected", st.Link, err)
	}
	// The bundle's word for the time holds too: the clock reads a day earlier.
	c.denied(weekday, "clock_unset")
	// A bundle that seems older is not joined, so what was there comes back.
	c.stop()
	if err := os.Remove(filepath.Join(c.data, "clock.json")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trust.json", "tls/client.crt"} {
		copyFile(t, filepath.Join(good, name), filepath.Join(c.data, name))
	}
	c.start()
	c.enters(weekday)
	c.settled()
	s.quiet()
	c.verified()
}

// TestAClockBehindTheCRMsWord: what the CRM once vouched for has passed, so a
// clock that reads earlier was set back, or never set since boot. Whoever is
// bound in time is denied, and nobody else; and it is over when the clock is.
func TestAClockBehindTheCRMsWord(t *testing.T) {
	t.Parallel()
	s, c := newSite(t)
	s.startCRM()
	c.start()
	c.enters(weekday)
	c.settled()
	c.stop()
	remembered := filepath.Join(c.data, "clock.json")
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
	write(t, remembered, string(b))
	c.start()
	c.denied(weekday, "clock_unset")
	c.enters(staff)
	c.enters(breakGlass)
	c.settled() // its certificate is judged by the floor, and is good
	if st, err := c.status(); err != nil || st.Clock.State != string(access.ClockUnset) {
		t.Errorf("%+v, %v: the clock is not unset", st.Clock, err)
	}
	c.stop()
	own := c.own()
	if i := slices.IndexFunc(own, func(r record) bool { return r.Data.Reason == "clock_unset" }); i < 0 || own[i].Data.Clock.State != string(access.ClockUnset) {
		t.Error("no record says that the clock was unset")
	}
	write(t, remembered, string(before))
	c.start()
	c.enters(weekday)
	c.settled()
	s.quiet()
	c.verified()
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
	k, err := keys.LoadController(keys.File(filepath.Join(c.data, "keys")))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := k.Log.Verifier(keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	log, err := visitorlog.Open(c.data, visitorlog.Options{
		Controller: c.name, Signer: &spoiler{Signer: k.Log}, Verifier: verifier, Note: k.Log.NoteSigner,
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
	s.startCRM()
	c.start()
	c.enters(staff)
	eventually(t, "all records are countersigned", func() bool {
		st, err := c.status() // its own verification finds the records, too
		return err == nil && st.Records.Size > written && st.Records.Size == st.Records.Acknowledged && st.pending() == 0
	})
	s.alarmed("invalid_record", "")
	s.quiet("invalid_record", "gap") // the latter is the controller's own word for it
	if _, stderr, err := run("gatehouse-crm", "log", "verify", "--data", s.crmDir()); err == nil || !strings.Contains(stderr, "record 4") {
		t.Errorf("verify: %v, %s; want the first bad record named", err, stderr)
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(s.crmDir(), "central.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, "the three are flagged, and they alone", func() bool {
		var all, bad, good int
		err := db.QueryRow(`SELECT count(*), coalesce(sum(checked = 'bad'), 0), coalesce(sum(checked = 'ok'), 0) FROM records`).Scan(&all, &bad, &good)
		if err != nil {
			t.Fatal(err)
		}
		return all > written && bad == 3 && good == all-3
	})
}
