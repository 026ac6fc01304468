package pki

import (
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// renewals is a CRM with a controller that has joined it.
type renewals struct {
	t         testing.TB
	crm, door string
	site      *Site
	crmKeys   *keys.CRMKeys
	doorKeys  *keys.ControllerKeys
	now       time.Time
}

func newRenewals(t testing.TB, validity time.Duration) *renewals {
	t.Helper()
	dir := t.TempDir()
	r := &renewals{t: t, crm: filepath.Join(dir, "crm"), door: filepath.Join(dir, "door"), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	r.site, err = InitSite(r.crm, SiteOptions{Hosts: []string{"crm.example"}, Timezone: "Etc/UTC", Now: r.now})
	ok(err)
	r.crmKeys, err = keys.LoadCRM(keys.File(KeysDir(r.crm)), "crm.example")
	ok(err)
	_, err = keys.InitController(KeysDir(r.door), keys.ES256)
	ok(err)
	r.doorKeys, err = keys.LoadController(keys.File(KeysDir(r.door)))
	ok(err)
	_, err = WriteRequest(r.door, "north-1", r.doorKeys)
	ok(err)
	bundle, _, err := r.site.Approve(r.crm, r.crmKeys, r.request(r.doorKeys), ApproveOptions{Validity: validity, Now: r.now})
	ok(err)
	b, err := ParseBundle(bundle)
	ok(err)
	j, err := Prepare(r.door, b, r.now)
	ok(err)
	_, err = j.Join(Options{Fingerprint: b.Fingerprint()})
	ok(err)
	return r
}

func (r *renewals) request(k *keys.ControllerKeys) *Request {
	r.t.Helper()
	text, err := NewRequest("north-1", k)
	if err != nil {
		r.t.Fatal(err)
	}
	q, err := ParseRequest(text)
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}

func (r *renewals) install(cert *x509.Certificate, at time.Time) bool {
	r.t.Helper()
	installed, err := InstallClient(r.door, "north-1", r.doorKeys.TLS, EncodeCertificate(cert), at)
	if err != nil {
		r.t.Fatal(err)
	}
	return installed
}

func TestACertificateIsRenewedInItsLastThirdAndNoOftener(t *testing.T) {
	r := newRenewals(t, 90*24*time.Hour)
	log := r.doorKeys.Log.JWK()
	first, err := ReadIssued(r.crm, "north-1")
	if err != nil {
		t.Fatal(err)
	}
	early := r.now.Add(59 * 24 * time.Hour)
	same, err := r.site.RenewController(r.crm, r.crmKeys, r.request(r.doorKeys), log, early)
	if err != nil || Fingerprint(same) != Fingerprint(first) || RenewalDue(first, early) {
		t.Errorf("renewed in its second third: %v", err)
	}
	if r.install(same, early) {
		t.Error("the certificate that is there already was installed again")
	}
	due := r.now.Add(61 * 24 * time.Hour)
	next, err := r.site.RenewController(r.crm, r.crmKeys, r.request(r.doorKeys), log, due)
	if err != nil || !RenewalDue(first, due) {
		t.Fatalf("not renewed in its last third: %v", err)
	}
	if want := due.Add(90 * 24 * time.Hour); !next.NotAfter.Equal(want) {
		t.Errorf("it lasts until %v, want %v as before", next.NotAfter, want)
	}
	again, err := r.site.RenewController(r.crm, r.crmKeys, r.request(r.doorKeys), log, due.Add(time.Hour))
	if err != nil || Fingerprint(again) != Fingerprint(next) {
		t.Errorf("asked again, another one is made: %v", err)
	}
	if !r.install(next, time.Unix(0, 0)) { // a clock that was never set
		t.Error("the new certificate was not installed")
	}
	if r.install(first, due) {
		t.Error("an older certificate that came again was installed")
	}
	if present, err := ReadClient(r.door); err != nil || Fingerprint(present) != Fingerprint(next) {
		t.Errorf("another certificate is there: %v", err)
	}
}

func TestNobodyElseIsGivenAControllersCertificate(t *testing.T) {
	r := newRenewals(t, time.Minute)
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.InitController(dir, keys.ES256); err != nil {
		t.Fatal(err)
	}
	other, err := keys.LoadController(keys.File(dir))
	if err != nil {
		t.Fatal(err)
	}
	stolenLog := *other
	stolenLog.Log = r.doorKeys.Log
	for name, k := range map[string]*keys.ControllerKeys{"with keys of its own": other, "with the log key alone": &stolenLog} {
		if _, err := r.site.RenewController(r.crm, r.crmKeys, r.request(k), r.doorKeys.Log.JWK(), r.now); !errors.Is(err, ErrNotRenewed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	strangers, err := NewAuthority(other.TLS, "strangers", r.now)
	if err != nil {
		t.Fatal(err)
	}
	own, err := openAuthority(r.crm, r.crmKeys)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		ca   *Authority
		name string
		key  *keys.PrivateKey
	}{
		"of another CA":         {strangers, "north-1", r.doorKeys.TLS},
		"of another controller": {own, "south-1", r.doorKeys.TLS},
		"of another key":        {own, "north-1", other.TLS},
	} {
		cert, err := tt.ca.Client(tt.name, tt.key.Public(), r.now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if installed, err := InstallClient(r.door, "north-1", r.doorKeys.TLS, EncodeCertificate(cert), r.now); installed || err == nil {
			t.Errorf("a certificate %s is installed: %v", name, err)
		}
	}
}

func TestARevokedControllersPepperIsReplaced(t *testing.T) {
	r := newRenewals(t, time.Hour)
	before, err := ReadPepper(r.crm, "north-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := ReplacePepper(r.crm, "north-1"); err != nil {
		t.Fatal(err)
	}
	after, err := ReadPepper(r.crm, "north-1")
	if err != nil || after.Equal(before) {
		t.Errorf("the pepper is the same: %v", err)
	}
}

func FuzzInstallClient(f *testing.F) {
	r := newRenewals(f, time.Hour)
	cert, err := ReadClient(r.door)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(EncodeCertificate(cert))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if installed, _ := InstallClient(r.door, "north-1", r.doorKeys.TLS, text, r.now); installed {
			t.Errorf("%q was installed", text)
		}
	})
}
