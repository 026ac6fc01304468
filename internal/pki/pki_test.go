package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// crm is a CRM in a folder of its own.
type crm struct {
	dir  string
	site *Site
	keys *keys.CRMKeys
}

func newCRM(t testing.TB) *crm {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "crm")
	s, err := InitSite(dir, SiteOptions{Hosts: []string{"localhost", "127.0.0.1"}, Timezone: "Europe/Amsterdam", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return &crm{dir, s, must[*keys.CRMKeys](t)(keys.LoadCRM(keys.File(KeysDir(dir)), s.Cosigner.Name()))}
}

func (c *crm) approve(t testing.TB, r *Request, o ApproveOptions) *Bundle {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = now
	}
	file, _, err := c.site.Approve(c.dir, c.keys, r, o)
	if err != nil {
		t.Fatal(err)
	}
	return must[*Bundle](t)(ParseBundle(file))
}

// controller is a controller in a folder of its own.
type controller struct {
	dir  string
	keys *keys.ControllerKeys
}

func newController(t testing.TB, name string) *controller {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "door")
	if _, err := keys.InitController(KeysDir(dir), keys.ES256); err != nil {
		t.Fatal(err)
	}
	c := &controller{dir, must[*keys.ControllerKeys](t)(keys.LoadController(keys.File(KeysDir(dir))))}
	must[string](t)(WriteRequest(dir, name, c.keys))
	return c
}

func (c *controller) request(t testing.TB) *Request {
	t.Helper()
	return must[*Request](t)(ReadRequest(c.dir))
}

func (c *controller) join(t testing.TB, b *Bundle, o Options) (*Trust, error) {
	t.Helper()
	j, err := Prepare(c.dir, b, now)
	if err != nil {
		return nil, err
	}
	return j.Join(o)
}

func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
}

func TestControllerJoinsTheCRMThatApprovedIt(t *testing.T) {
	crm, door := newCRM(t), newController(t, "north-1")
	alone := door.keys.Pepper
	b := crm.approve(t, door.request(t), ApproveOptions{})
	if _, err := ReadTrust(door.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before joining: %v", err)
	}
	joined, err := door.join(t, b, Options{Fingerprint: crm.site.Cosigner.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	trust := must[*Trust](t)(ReadTrust(door.dir))
	for _, got := range []*Trust{joined, trust} {
		if got.Controller != "north-1" || got.Cosigner.VKey() != crm.site.Cosigner.VKey() || got.PolicyAuthority != PolicyFromSite ||
			got.PolicyRoot.KeyID != crm.keys.PolicyRoot.KeyID() || got.Timezone != "Europe/Amsterdam" ||
			got.Broker != "tls://localhost:8883" || !got.Issued.Equal(now) {
			t.Errorf("trust is %+v", got)
		}
	}
	k := must[*keys.ControllerKeys](t)(keys.LoadController(keys.File(KeysDir(door.dir))))
	if k.Pepper.Equal(alone) {
		t.Error("the pepper was not replaced by the CRM's")
	}
	// Joining again with the same bundle changes nothing and is no fault.
	if _, err := door.join(t, b, Options{Fingerprint: b.Fingerprint()}); err != nil {
		t.Error(err)
	}
}

func TestBundleIsTakenOnlyUnderItsFingerprint(t *testing.T) {
	crm, other, door := newCRM(t), newCRM(t), newController(t, "north-1")
	b := crm.approve(t, door.request(t), ApproveOptions{})
	for _, f := range []string{"", other.site.Cosigner.Fingerprint(), b.Fingerprint()[:19]} {
		_, err := door.join(t, b, Options{Fingerprint: f})
		wantError(t, err, "do not use it")
	}
	if _, err := ReadTrust(door.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was pinned: %v", err)
	}
	k := must[*keys.ControllerKeys](t)(keys.LoadController(keys.File(KeysDir(door.dir))))
	if !k.Pepper.Equal(door.keys.Pepper) {
		t.Error("the pepper was replaced")
	}
}

func TestBundleOfAnotherControllerIsRefused(t *testing.T) {
	crm := newCRM(t)
	door, twin, south := newController(t, "north-1"), newController(t, "north-1"), newController(t, "south-1")
	_, err := Prepare(south.dir, crm.approve(t, door.request(t), ApproveOptions{}), now)
	wantError(t, err, `for the controller "north-1", this is "south-1"`)
	_, err = Prepare(twin.dir, crm.approve(t, door.request(t), ApproveOptions{}), now)
	wantError(t, err, "another log key")

	r := door.request(t)
	r.CSR = twin.request(t).CSR
	_, err = Prepare(door.dir, crm.approve(t, r, ApproveOptions{}), now)
	wantError(t, err, "another TLS key")

	r = door.request(t)
	r.Recipient = twin.request(t).Recipient
	_, err = Prepare(door.dir, crm.approve(t, r, ApproveOptions{}), now)
	wantError(t, err, "pepper")

	_, err = Prepare(t.TempDir(), crm.approve(t, door.request(t), ApproveOptions{}), now)
	wantError(t, err, "gatehouse init")
}

func TestEndedOrOlderBundleIsRefused(t *testing.T) {
	crm, door := newCRM(t), newController(t, "north-1")
	b := crm.approve(t, door.request(t), ApproveOptions{Validity: 24 * time.Hour})
	if _, err := Prepare(door.dir, b, now.Add(23*time.Hour)); err != nil {
		t.Error(err)
	}
	_, err := Prepare(door.dir, b, now.Add(25*time.Hour))
	wantError(t, err, "ended on 2026-03-02")
	// A clock that was never set must not keep a controller out.
	if _, err := Prepare(door.dir, b, time.Unix(0, 0)); err != nil {
		t.Error(err)
	}
	newer := crm.approve(t, door.request(t), ApproveOptions{Now: now.Add(time.Minute)})
	if _, err := door.join(t, newer, Options{Fingerprint: newer.Fingerprint()}); err != nil {
		t.Fatal(err)
	}
	_, err = Prepare(door.dir, b, now)
	wantError(t, err, "before the one that was joined last")
}

func TestAnotherCRMIsJoinedOnlyOnPurpose(t *testing.T) {
	first, second, door := newCRM(t), newCRM(t), newController(t, "north-1")
	a := first.approve(t, door.request(t), ApproveOptions{})
	b := second.approve(t, door.request(t), ApproveOptions{Now: now.Add(time.Minute)})
	if _, err := door.join(t, a, Options{Fingerprint: a.Fingerprint()}); err != nil {
		t.Fatal(err)
	}
	_, err := door.join(t, b, Options{Fingerprint: b.Fingerprint()})
	wantError(t, err, "--replace-crm")
	if _, err := door.join(t, b, Options{Fingerprint: b.Fingerprint(), ReplaceCRM: true}); err != nil {
		t.Error(err)
	}
}

func TestPepperUnderAnAllowlistIsReplacedOnlyOnPurpose(t *testing.T) {
	crm, door := newCRM(t), newController(t, "north-1")
	if err := os.WriteFile(filepath.Join(door.dir, "allowlist.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := crm.approve(t, door.request(t), ApproveOptions{})
	_, err := door.join(t, b, Options{Fingerprint: b.Fingerprint()})
	wantError(t, err, "--replace-pepper")
	if _, err := ReadTrust(door.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was pinned: %v", err)
	}
	if _, err := door.join(t, b, Options{Fingerprint: b.Fingerprint(), ReplacePepper: true}); err != nil {
		t.Fatal(err)
	}
	// The renewal of the certificate leaves the pepper, and so the allowlist.
	renewed := crm.approve(t, door.request(t), ApproveOptions{Now: now.Add(time.Hour)})
	if _, err := door.join(t, renewed, Options{Fingerprint: b.Fingerprint()}); err != nil {
		t.Error(err)
	}
	fresh := crm.approve(t, door.request(t), ApproveOptions{Now: now.Add(2 * time.Hour), NewPepper: true})
	_, err = door.join(t, fresh, Options{Fingerprint: b.Fingerprint()})
	wantError(t, err, "--replace-pepper")
}

// TestJoiningThatIsStoppedHalfwayIsDoneAgain stops it before each file that it
// writes.
func TestJoiningThatIsStoppedHalfwayIsDoneAgain(t *testing.T) {
	for _, file := range []string{caFile, clientFile, filepath.Join(keysDir, keys.NamePepper), trustFile} {
		t.Run(file, func(t *testing.T) {
			crm, door := newCRM(t), newController(t, "north-1")
			b := crm.approve(t, door.request(t), ApproveOptions{})
			o := Options{Fingerprint: crm.site.Cosigner.Fingerprint(), ReplacePepper: true}
			if err := os.WriteFile(filepath.Join(door.dir, allowlistFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			j := must[*Joining](t)(Prepare(door.dir, b, now))
			path := filepath.Join(door.dir, file)
			kept, err := os.ReadFile(path)
			if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Join(path, "in the way"), 0o700)); err != nil {
				t.Fatal(err)
			}
			had := err == nil
			if _, err := j.Join(o); err == nil {
				t.Fatal("joined all the same")
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if had {
				if err := os.WriteFile(path, kept, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := ReadTrust(door.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("something is pinned: %v", err)
			}
			if _, err := keys.LoadController(keys.File(KeysDir(door.dir))); err != nil {
				t.Fatalf("the controller's keys are not whole: %v", err)
			}
			joined, err := door.join(t, b, o)
			if err != nil || joined.Controller != "north-1" {
				t.Fatal(joined, err)
			}
			k := must[*keys.ControllerKeys](t)(keys.LoadController(keys.File(KeysDir(door.dir))))
			if want := must[*keys.Pepper](t)(keys.ParsePepper(j.pepper)); !k.Pepper.Equal(want) {
				t.Error("the pepper is not the bundle's")
			}
		})
	}
}

func TestEveryControllerHasAPepperOfItsOwn(t *testing.T) {
	crm := newCRM(t)
	var peppers []*keys.Pepper
	for _, name := range []string{"north-1", "south-1"} {
		door := newController(t, name)
		b := crm.approve(t, door.request(t), ApproveOptions{})
		if _, err := door.join(t, b, Options{Fingerprint: b.Fingerprint()}); err != nil {
			t.Fatal(err)
		}
		peppers = append(peppers, must[*keys.ControllerKeys](t)(keys.LoadController(keys.File(KeysDir(door.dir)))).Pepper)
	}
	if peppers[0].Equal(peppers[1]) {
		t.Error("two controllers share a pepper")
	}
}

func TestNothingThatJoiningReadsOrWritesIsOpenToOthers(t *testing.T) {
	crm, door := newCRM(t), newController(t, "north-1")
	b := crm.approve(t, door.request(t), ApproveOptions{})
	if _, err := door.join(t, b, Options{Fingerprint: b.Fingerprint()}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{crm.dir, door.dir} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has the mode %v", path, info.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(door.dir, "trust.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := ReadTrust(door.dir)
	wantError(t, err, "chmod 600")
	if err := os.Chmod(crm.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = ReadSite(crm.dir)
	wantError(t, err, "chmod 700")
}

func TestSiteIsMadeOnceAndCompletedWhenStopped(t *testing.T) {
	c := newCRM(t)
	_, err := InitSite(c.dir, SiteOptions{Hosts: []string{"localhost"}, Timezone: "UTC", Now: now})
	wantError(t, err, "nothing was changed")
	if err := os.Remove(filepath.Join(c.dir, "site.json")); err != nil {
		t.Fatal(err)
	}
	s, err := InitSite(c.dir, SiteOptions{Hosts: []string{"localhost"}, Timezone: "UTC", Now: now})
	if err != nil || s.Cosigner.Fingerprint() != c.site.Cosigner.Fingerprint() {
		t.Errorf("completed as another site: %v", err)
	}
	again := must[*Site](t)(ReadSite(c.dir))
	if again.Cosigner.VKey() != s.Cosigner.VKey() || again.Timezone != "UTC" || again.Broker != "tls://localhost:8883" || again.PolicyAuthority != PolicyFromSite {
		t.Errorf("read back as %+v", again)
	}
	for name, o := range map[string]SiteOptions{
		"no host":            {Timezone: "UTC"},
		"wildcard":           {Hosts: []string{"*.example"}, Timezone: "UTC"},
		"URL as a host":      {Hosts: []string{"tls://x:1"}, Timezone: "UTC"},
		"no time zone":       {Hosts: []string{"x"}},
		"unknown time zone":  {Hosts: []string{"x"}, Timezone: "Mars/Olympus"},
		"plaintext broker":   {Hosts: []string{"x"}, Timezone: "UTC", Broker: "tcp://x:1883"},
		"password in broker": {Hosts: []string{"x"}, Timezone: "UTC", Broker: "tls://a:b@x:8883"},
	} {
		o.Now = now
		dir := filepath.Join(t.TempDir(), "crm")
		if _, err := InitSite(dir, o); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := ReadSite(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a site stands: %v", name, err)
		}
	}
}

func TestApprovalNeedsTheCAAndTheSitesCosigner(t *testing.T) {
	c, door := newCRM(t), newController(t, "north-1")
	k := *c.keys
	k.CA = nil
	_, _, err := c.site.Approve(c.dir, &k, door.request(t), ApproveOptions{Now: now})
	wantError(t, err, "ca.key")
	k = *c.keys
	k.Cosigner = newCRM(t).keys.Cosigner
	_, _, err = c.site.Approve(c.dir, &k, door.request(t), ApproveOptions{Now: now})
	wantError(t, err, "cosigner.key")
	k = *c.keys
	k.CA = newCRM(t).keys.CA
	_, _, err = c.site.Approve(c.dir, &k, door.request(t), ApproveOptions{Now: now})
	wantError(t, err, "does not belong")
	_, _, err = c.site.Approve(c.dir, c.keys, door.request(t), ApproveOptions{Now: now.Add(CAValidity + time.Hour)})
	wantError(t, err, "ended")
}

func TestControllerNames(t *testing.T) {
	for _, name := range []string{"a", "0", "north-1", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "-a", "A", "a_b", "a/b", "a+b", "a#", "a.b", "a b", "a\n", "\na", "é", strings.Repeat("a", 64), "gatehouse-crm", "../a"} {
		if CheckName(name) == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

func TestCertificatesSayWhatTheyAreFor(t *testing.T) {
	c, door := newCRM(t), newController(t, "north-1")
	b := c.approve(t, door.request(t), ApproveOptions{})
	certs := must[Certificates](t)(ReadCertificates(c.dir))

	if !certs.CA.IsCA || !certs.CA.MaxPathLenZero || certs.CA.KeyUsage&x509.KeyUsageCertSign == 0 || !certs.CA.NotAfter.Equal(now.Add(CAValidity)) {
		t.Errorf("CA: %+v", certs.CA)
	}
	for name, cert := range map[string]*x509.Certificate{"north-1": b.Certificate, CRMName: certs.CRM, "localhost": certs.Broker} {
		if cert.Subject.CommonName != name || cert.IsCA || !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(DefaultValidity)) {
			t.Errorf("certificate of %s: %s, CA %v, from %v to %v", name, cert.Subject, cert.IsCA, cert.NotBefore, cert.NotAfter)
		}
		want := x509.ExtKeyUsageClientAuth
		if name == "localhost" {
			want = x509.ExtKeyUsageServerAuth
		}
		if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != want {
			t.Errorf("certificate of %s is for %v", name, cert.ExtKeyUsage)
		}
	}
	if certs.Broker.VerifyHostname("localhost") != nil || certs.Broker.VerifyHostname("127.0.0.1") != nil || certs.Broker.VerifyHostname("elsewhere") == nil {
		t.Error("broker's names are wrong")
	}
	issued := must[*x509.Certificate](t)(ReadIssued(c.dir, "north-1"))
	if !issued.Equal(b.Certificate) {
		t.Error("another certificate was kept than the bundle has")
	}
	if b.Certificate.SerialNumber.Cmp(certs.CRM.SerialNumber) == 0 {
		t.Error("two certificates have the same serial number")
	}
	late := c.approve(t, door.request(t), ApproveOptions{Now: now.Add(CAValidity - time.Hour)})
	if !late.Certificate.NotAfter.Equal(certs.CA.NotAfter) {
		t.Error("a certificate outlives its CA")
	}
}

func TestRenewalKeepsTheKeys(t *testing.T) {
	c := newCRM(t)
	before := must[Certificates](t)(ReadCertificates(c.dir))
	later := now.Add(300 * 24 * time.Hour)
	if err := c.site.Renew(c.dir, c.keys, later, DefaultValidity); err != nil {
		t.Fatal(err)
	}
	after := must[Certificates](t)(ReadCertificates(c.dir))
	if !after.CA.Equal(before.CA) {
		t.Error("the CA changed")
	}
	for _, p := range [][2]*x509.Certificate{{before.Broker, after.Broker}, {before.CRM, after.CRM}} {
		if !samePublic(p[0].PublicKey, p[1].PublicKey) || !p[1].NotAfter.Equal(later.Add(DefaultValidity)) {
			t.Errorf("%s was not renewed", p[0].Subject)
		}
	}
}

// handshake connects over a socket and returns both sides' errors, and whom
// the server saw.
func handshake(t *testing.T, server, client *tls.Config) (name string, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		s := tls.Server(conn, server)
		if err := s.Handshake(); err != nil {
			done <- err
			return
		}
		name = s.ConnectionState().PeerCertificates[0].Subject.CommonName
		_, err = s.Write([]byte("x"))
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		// In TLS 1.3 a client learns only now whether it was let in.
		_, clientErr = c.Read(make([]byte, 1))
	}
	conn.Close()
	return name, <-done, clientErr
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func TestOnlyCertifiedPeersTalk(t *testing.T) {
	c, foreign := newCRM(t), newCRM(t)
	door := newController(t, "north-1")
	b := c.approve(t, door.request(t), ApproveOptions{})
	if _, err := door.join(t, b, Options{Fingerprint: b.Fingerprint()}); err != nil {
		t.Fatal(err)
	}
	const url = "tls://localhost:8883"
	server := must[*tls.Config](t)(BrokerTLS(c.dir, c.keys.Broker, at(now)))
	client := must[*tls.Config](t)(ControllerTLS(door.dir, door.keys.TLS, url, at(now)))

	name, serverErr, clientErr := handshake(t, server, client)
	if name != "north-1" || serverErr != nil || clientErr != nil {
		t.Fatalf("controller: %q, %v, %v", name, serverErr, clientErr)
	}
	name, serverErr, clientErr = handshake(t, server, must[*tls.Config](t)(CRMTLS(c.dir, c.keys.CRM, url, at(now))))
	if name != CRMName || serverErr != nil || clientErr != nil {
		t.Fatalf("CRM: %q, %v, %v", name, serverErr, clientErr)
	}

	with := func(change func(*tls.Config)) *tls.Config {
		c := client.Clone()
		change(c)
		return c
	}
	foreignClient := must[*tls.Config](t)(CRMTLS(foreign.dir, foreign.keys.CRM, url, at(now)))
	for name, peers := range map[string][2]*tls.Config{
		"TLS 1.2":                  {server, with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })},
		"no certificate":           {server, with(func(c *tls.Config) { c.Certificates = nil })},
		"client of another CA":     {server, with(func(c *tls.Config) { c.Certificates = foreignClient.Certificates })},
		"server as a client":       {server, with(func(c *tls.Config) { c.Certificates = server.Certificates })},
		"server of another CA":     {must[*tls.Config](t)(BrokerTLS(foreign.dir, foreign.keys.Broker, at(now))), client},
		"client as a server":       {ServerTLS(client.Certificates[0], b.CA, at(now)), client},
		"another host":             {server, must[*tls.Config](t)(ControllerTLS(door.dir, door.keys.TLS, "tls://elsewhere:8883", at(now)))},
		"ended, says the server":   {must[*tls.Config](t)(BrokerTLS(c.dir, c.keys.Broker, at(now.Add(DefaultValidity+time.Minute)))), client},
		"ended, says the client":   {server, with(func(c *tls.Config) { c.Time = at(now.Add(DefaultValidity + time.Minute)) })},
		"not yet, says the client": {server, with(func(c *tls.Config) { c.Time = at(now.Add(-2 * time.Hour)) })},
	} {
		if _, serverErr, clientErr := handshake(t, peers[0], peers[1]); serverErr == nil && clientErr == nil {
			t.Errorf("%s: they talk", name)
		}
	}
	// A controller whose clock is a little behind is not kept out.
	if _, serverErr, clientErr := handshake(t, server, with(func(c *tls.Config) { c.Time = at(now.Add(-59 * time.Minute)) })); serverErr != nil || clientErr != nil {
		t.Errorf("an hour behind: %v, %v", serverErr, clientErr)
	}
}

func TestReplacedMachineIsNotLetInAgain(t *testing.T) {
	const url = "tls://localhost:8883"
	c := newCRM(t)
	server := must[*tls.Config](t)(BrokerTLS(c.dir, c.keys.Broker, at(now)))
	connect := func(d *controller) error {
		_, serverErr, clientErr := handshake(t, server, must[*tls.Config](t)(ControllerTLS(d.dir, d.keys.TLS, url, at(now))))
		return errors.Join(serverErr, clientErr)
	}
	join := func(d *controller, b *Bundle) {
		if _, err := d.join(t, b, Options{Fingerprint: b.Fingerprint()}); err != nil {
			t.Fatal(err)
		}
	}
	stolen, spare := newController(t, "north-1"), newController(t, "north-1")
	join(stolen, c.approve(t, stolen.request(t), ApproveOptions{}))
	if err := connect(stolen); err != nil {
		t.Fatal(err)
	}
	// A renewal does not shut out the controller that has yet to learn of it.
	renewed := c.approve(t, stolen.request(t), ApproveOptions{Now: now.Add(time.Second)})
	if err := connect(stolen); err != nil {
		t.Errorf("between renewal and joining: %v", err)
	}
	join(stolen, renewed)
	if err := connect(stolen); err != nil {
		t.Errorf("after the renewal: %v", err)
	}

	join(spare, c.approve(t, spare.request(t), ApproveOptions{Now: now.Add(2 * time.Second)}))
	if err := connect(spare); err != nil {
		t.Errorf("the machine in its place: %v", err)
	}
	wantError(t, connect(stolen), "a key that was replaced")
	// Nor does a certificate count that the CRM does not know.
	if err := os.Remove(filepath.Join(c.dir, issuedFile("north-1"))); err != nil {
		t.Fatal(err)
	}
	wantError(t, connect(spare), "no such file")
}

func TestCertificateNeedsItsOwnKeyAndCA(t *testing.T) {
	c, other := newCRM(t), newCRM(t)
	_, err := BrokerTLS(c.dir, other.keys.Broker, at(now))
	wantError(t, err, "another key")
	_, err = BrokerTLS(c.dir, nil, at(now))
	wantError(t, err, "no key")
	if err := writeCertificate(c.dir, caFile, must[Certificates](t)(ReadCertificates(other.dir)).CA); err != nil {
		t.Fatal(err)
	}
	_, err = BrokerTLS(c.dir, c.keys.Broker, at(now))
	wantError(t, err, "not from the CA")
	path := filepath.Join(c.dir, brokerFile)
	for _, content := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", strings.Repeat("x", maxCertificate+1)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCertificate(path); err == nil {
			t.Errorf("%.20q was taken for a certificate", content)
		}
	}
}

func TestBrokerURLs(t *testing.T) {
	for _, s := range []string{"tls://crm.example:8883", "tls://10.0.0.5:8883", "tls://[::1]:8883", "tcp://localhost:1883", "tcp://127.0.0.1:1883", "tcp://[::1]:1883"} {
		if _, err := parseBroker(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "crm.example:8883", "tls://crm.example", "tls://:8883", "tcp://crm.example:1883", "tcp://10.0.0.5:1883", "tcp://localhost.evil:1883",
		"ssl://crm.example:8883", "tls://u:p@crm.example:8883", "tls://crm.example:8883/x", "tls://crm.example:8883?x", "tls://crm.example:8883#x", "tls://a b:1", "tls://crm.example:99999999"} {
		if _, err := parseBroker(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// forge signs a payload as the controller's log would sign a request, and wraps
// it.
func forge(t testing.TB, c *controller, change func(*requestPayload)) []byte {
	t.Helper()
	var f requestFileForm
	b := must[[]byte](t)(os.ReadFile(filepath.Join(c.dir, requestFile)))
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	var p requestPayload
	if err := json.Unmarshal(must[[]byte](t)(base64.RawURLEncoding.DecodeString(strings.Split(f.Request, ".")[1])), &p); err != nil {
		t.Fatal(err)
	}
	change(&p)
	s := must[*keys.Signer](t)(c.keys.Log.As(keys.TypeRequest))
	jws := must[string](t)(s.Sign(must[[]byte](t)(json.Marshal(p))))
	return must[[]byte](t)(json.Marshal(requestFileForm{jws}))
}

func TestRequestProvesThatItsMakerHoldsTheKeys(t *testing.T) {
	door, other := newController(t, "north-1"), newController(t, "south-1")
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr := func(r *x509.CertificateRequest, k any) []byte {
		return must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, r, k))
	}
	north := pkix.Name{CommonName: "north-1"}
	file := func(c *controller) []byte { return must[[]byte](t)(os.ReadFile(filepath.Join(c.dir, requestFile))) }
	good := file(door)
	asRecord := must[string](t)(door.keys.Log.Sign(must[[]byte](t)(base64.RawURLEncoding.DecodeString(strings.Split(string(good), ".")[1]))))
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":           {nil, "not a request"},
		"too long":        {append(good, make([]byte, MaxRequest)...), "more than"},
		"unknown field":   {[]byte(`{"request":"","x":1}`), "not a request"},
		"other case":      {[]byte(strings.Replace(string(good), `"request"`, `"Request"`, 1)), "canonical"},
		"field twice":     {[]byte(`{"request":"",` + string(good[1:])), "canonical"},
		"trailing bytes":  {append(append([]byte{}, good...), '{'), "follows"},
		"not a JWS":       {[]byte(`{"request":"a.b"}`), "not a compact JWS"},
		"a record":        {must[[]byte](t)(json.Marshal(requestFileForm{asRecord})), "gatehouse-record"},
		"other version":   {forge(t, door, func(p *requestPayload) { p.V = 2 }), "version is 2"},
		"other name":      {forge(t, door, func(p *requestPayload) { p.Controller = "south-1" }), `for "CN=north-1"`},
		"bad name":        {forge(t, door, func(p *requestPayload) { p.Controller = "gatehouse-crm" }), "cannot name a controller"},
		"other log key":   {forge(t, door, func(p *requestPayload) { p.Log = must[json.RawMessage](t)(json.Marshal(other.keys.Log.JWK())) }), "not signed by its own log key"},
		"private log key": {forge(t, door, func(p *requestPayload) { p.Log = json.RawMessage(`{"kty":"oct","k":"AAAA"}`) }), "log key"},
		"no CSR":          {forge(t, door, func(p *requestPayload) { p.CSR = nil }), "certificate request"},
		"CSR not proved":  {forge(t, door, func(p *requestPayload) { p.CSR[len(p.CSR)-1] ^= 1 }), "not signed by its own key"},
		"CSR of another curve": {forge(t, door, func(p *requestPayload) {
			p.CSR = csr(&x509.CertificateRequest{Subject: north}, key)
		}), "P-256"},
		"CSR with names": {forge(t, door, func(p *requestPayload) {
			p.CSR = csr(&x509.CertificateRequest{Subject: north, DNSNames: []string{"crm.example"}}, door.keys.TLS.Signer())
		}), "extensions"},
		"CSR with an organisation": {forge(t, door, func(p *requestPayload) {
			p.CSR = csr(&x509.CertificateRequest{Subject: pkix.Name{CommonName: "north-1", Organization: []string{"x"}}}, door.keys.TLS.Signer())
		}), "asks for a certificate"},
		"no recipient": {forge(t, door, func(p *requestPayload) { p.Recipient = "" }), "recipient"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRequest(c.file)
			wantError(t, err, c.want)
		})
	}
	if r, err := ParseRequest(good); err != nil || r.Controller != "north-1" || r.Fingerprint() != keys.Fingerprint(door.keys.Log.JWK()) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBundleIsWholeOrRefused(t *testing.T) {
	c, other, door := newCRM(t), newCRM(t), newController(t, "north-1")
	r := door.request(t)
	b := c.approve(t, r, ApproveOptions{})
	foreign := other.approve(t, r, ApproveOptions{})
	for name, x := range map[string]struct {
		change func(*Bundle)
		want   string
	}{
		"bad name":            {func(b *Bundle) { b.Controller = "North" }, "cannot name"},
		"other name":          {func(b *Bundle) { b.Controller = "south-1" }, `certificate is for "north-1"`},
		"other CA":            {func(b *Bundle) { b.CA = foreign.CA }, "certificate"},
		"other certificate":   {func(b *Bundle) { b.Certificate = foreign.Certificate }, "certificate"},
		"CA as certificate":   {func(b *Bundle) { b.Certificate = b.CA }, "certificate is for"},
		"certificate ended":   {func(b *Bundle) { b.Issued = now.Add(2 * DefaultValidity) }, "certificate"},
		"no time zone":        {func(b *Bundle) { b.Timezone = "" }, "time zone"},
		"time zone as a path": {func(b *Bundle) { b.Timezone = "../../etc/passwd" }, "time zone"},
		"plaintext broker":    {func(b *Bundle) { b.Broker = "tcp://crm.example:1883" }, "in clear"},
		"policy authority":    {func(b *Bundle) { b.PolicyAuthority = "anybody" }, "policy authority"},
	} {
		changed := *b
		x.change(&changed)
		file := must[[]byte](t)(changed.Sign(c.keys.Cosigner))
		_, err := ParseBundle(file)
		t.Run(name, func(t *testing.T) { wantError(t, err, x.want) })
	}

	file := must[[]byte](t)(b.Sign(c.keys.Cosigner))
	part := strings.Split(strings.TrimSpace(string(file)), ".")
	payload := string(must[[]byte](t)(base64.RawURLEncoding.DecodeString(part[1])))
	resign := func(payload string) []byte {
		return []byte(must[string](t)(c.keys.Cosigner.Bundles().Sign([]byte(payload))))
	}
	for name, x := range map[string]struct {
		file []byte
		want string
	}{
		"empty":              {nil, "not a bundle"},
		"too long":           {make([]byte, maxBundle+1), "more than"},
		"a receipt":          {[]byte(must[string](t)(c.keys.Cosigner.Receipts().Sign([]byte(payload)))), "gatehouse-receipt"},
		"signed by another":  {[]byte(must[string](t)(other.keys.Cosigner.Bundles().Sign([]byte(payload)))), "not signed by its own cosigner"},
		"changed":            {[]byte(part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(payload, "north-1", "north-2", 1))) + "." + part[2]), "not signed"},
		"unknown field":      {resign(strings.Replace(payload, `{"v":1`, `{"v":1,"x":1`, 1)), "not a bundle"},
		"field twice":        {resign(strings.Replace(payload, `{"v":1`, `{"v":2,"v":1`, 1)), "canonical"},
		"other version":      {resign(strings.Replace(payload, `{"v":1`, `{"v":2`, 1)), "version is 2"},
		"time in other form": {resign(strings.Replace(payload, `"2026-03-01T12:00:00Z"`, `"2026-03-01T12:00:00+00:00"`, 1)), "canonical"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBundle(x.file)
			wantError(t, err, x.want)
		})
	}
}

func FuzzParseRequest(f *testing.F) {
	door := newController(f, "north-1")
	f.Add(must[[]byte](f)(os.ReadFile(filepath.Join(door.dir, requestFile))))
	f.Add([]byte(`{"request":".."}`))
	f.Add([]byte(`{"request":".eyJ2IjoxfQ."}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err == nil && (CheckName(r.Controller) != nil || r.CSR.CheckSignature() != nil || !r.Log.IsPublic()) {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	c, door := newCRM(f), newController(f, "north-1")
	b := c.approve(f, door.request(f), ApproveOptions{})
	f.Add(must[[]byte](f)(b.Sign(c.keys.Cosigner)))
	f.Add([]byte(".eyJ2IjoxfQ."))
	f.Fuzz(func(t *testing.T, file []byte) {
		b, err := ParseBundle(file)
		if err == nil && checkClient(b.Certificate, b.CA, b.Controller, b.Issued) != nil {
			t.Fatalf("accepted %+v", b)
		}
	})
}

func FuzzParseTrust(f *testing.F) {
	c := newCRM(f)
	t := &Trust{"north-1", c.site.Cosigner, PolicyFromSite, c.site.PolicyRoot, "UTC", "tls://localhost:8883", now}
	f.Add(must[[]byte](f)(t.marshal()))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		trust, err := parseTrust(b)
		if err != nil {
			return
		}
		if _, err := parseTrust(must[[]byte](t)(trust.marshal())); err != nil {
			t.Fatalf("does not read back: %v", err)
		}
	})
}

func FuzzParseSite(f *testing.F) {
	f.Add(must[[]byte](f)(newCRM(f).site.marshal()))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSite(b)
		if err != nil {
			return
		}
		if _, err := parseSite(must[[]byte](t)(s.marshal())); err != nil {
			t.Fatalf("does not read back: %v", err)
		}
	})
}
