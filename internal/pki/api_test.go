package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

func csr(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "north-1"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der})
}

func TestAnAPIClientIsNoControllerToTheBroker(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crm")
	if _, err := InitSite(dir, SiteOptions{Hosts: []string{"crm.example"}, Timezone: "UTC", Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	k, err := keys.LoadCRM(keys.File(KeysDir(dir)), "crm.example")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseCSR(csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	// The name in the request, which is a controller's, counts for nothing.
	cert, text, err := CertifyAPIClient(dir, k, "desk", r, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "api:desk" || CheckName(cert.Subject.CommonName) == nil || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("certified as %s for %v", cert.Subject, cert.ExtKeyUsage)
	}
	if block, _ := pem.Decode(text); block == nil || !bytes.Equal(block.Bytes, cert.Raw) {
		t.Errorf("the file is %s", text)
	}
	broker, err := BrokerTLS(dir, k.Broker, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}); err == nil {
		t.Error("the broker lets it in")
	}
	if _, err := APITLS(dir, nil, time.Now); err == nil || !strings.Contains(err.Error(), keys.NameBroker) {
		t.Errorf("without a key: %v", err)
	}
}

func TestOnlyARequestWithItsOwnP256KeyIsCertified(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, key)
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	for _, tt := range []struct {
		file []byte
		want string
	}{
		{nil, "no certificate request in PEM"},
		{pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: block.Bytes}), "no certificate request in PEM"},
		{pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: []byte("x")}), "certificate request"},
		{csr(t, weak), "must be ECDSA P-256"},
		{pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: forged}), "certificate request"},
		{append(good, make([]byte, maxCertificate)...), "more than"},
	} {
		if _, err := ParseCSR(tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: %v, want %q", tt.file, err, tt.want)
		}
	}
}

func FuzzParseCSR(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr(f, key))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		if r, err := ParseCSR(file); err == nil && (checkP256(r.PublicKey) != nil || r.CheckSignature() != nil) {
			t.Errorf("%q is taken", file)
		}
	})
}
