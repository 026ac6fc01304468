package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

const (
	// CAValidity is how long a CA certificate is valid.
	CAValidity = 10 * 365 * 24 * time.Hour
	// DefaultValidity is how long other certificates are valid unless told.
	DefaultValidity = 365 * 24 * time.Hour
	// clockTolerance is how far a peer's clock may be behind the CRM's when
	// a certificate is new.
	clockTolerance = time.Hour

	maxCertificate = 16 << 10 // bytes of a certificate's file
	pemCertificate = "CERTIFICATE"
)

// Authority is a certificate authority.
type Authority struct {
	cert *x509.Certificate
	key  *keys.PrivateKey
}

// NewAuthority makes an authority with a certificate of its own.
func NewAuthority(key *keys.PrivateKey, name string, now time.Time) (*Authority, error) {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Gatehouse CA " + name},
		NotBefore:             now.Add(-clockTolerance),
		NotAfter:              now.Add(CAValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key.Signer())
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	return &Authority{cert, key}, nil
}

// OpenAuthority returns the authority with a CA certificate and its key.
func OpenAuthority(cert *x509.Certificate, key *keys.PrivateKey) (*Authority, error) {
	if !samePublic(cert.PublicKey, key.Public()) {
		return nil, errors.New("the CA's key does not belong to the CA's certificate")
	}
	return &Authority{cert, key}, nil
}

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Client certifies a client of the broker under its name.
func (a *Authority) Client(name string, pub crypto.PublicKey, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub, now, validity)
}

// Server certifies the broker under its host names and IP addresses.
func (a *Authority) Server(hosts []string, pub crypto.PublicKey, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	if len(hosts) == 0 {
		return nil, errors.New("a server needs a host name or an IP address")
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if err := checkHost(h); err != nil {
			return nil, err
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.issue(t, pub, now, validity)
}

func (a *Authority) issue(t *x509.Certificate, pub crypto.PublicKey, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	if validity <= 0 {
		return nil, fmt.Errorf("validity %v of a certificate is not positive", validity)
	}
	if err := checkP256(pub); err != nil {
		return nil, err
	}
	t.NotBefore = now.Add(-clockTolerance)
	t.NotAfter = now.Add(validity)
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	if !t.NotAfter.After(now) {
		return nil, fmt.Errorf("the CA's certificate ended on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key.Signer())
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", t.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// Fingerprint of a certificate is the SHA-256 of its DER form, hexadecimal.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// ServerTLS is the broker's side of a connection: TLS 1.3, and only clients
// that ca certified. The dates of certificates are compared with now.
func ServerTLS(cert tls.Certificate, ca *x509.Certificate, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool(ca),
		Time:         now,
		// Every connection shows its certificate again, which may have been
		// revoked since the last.
		SessionTicketsDisabled: true,
	}
}

// ClientTLS is the other side of a connection to the server of that host name
// or IP address: TLS 1.3, and only a server that ca certified. The dates of
// certificates are compared with now.
func ClientTLS(cert tls.Certificate, ca *x509.Certificate, server string, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool(ca),
		ServerName:   server,
		Time:         now,
	}
}

func pool(ca *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca)
	return p
}

// The files of certificates, in a controller's or a CRM's folder.
const (
	clientFile = "tls/client.crt"
	caFile     = "tls/ca.crt"
	brokerFile = "tls/broker.crt"
	crmFile    = "tls/crm.crt"
)

// ControllerTLS is the TLS configuration with which the controller of dir
// reaches its broker.
func ControllerTLS(dir string, key *keys.PrivateKey, broker string, now func() time.Time) (*tls.Config, error) {
	return clientTLS(dir, clientFile, key, broker, now)
}

// CRMTLS is the TLS configuration with which the CRM of dir reaches a broker.
func CRMTLS(dir string, key *keys.PrivateKey, broker string, now func() time.Time) (*tls.Config, error) {
	return clientTLS(dir, crmFile, key, broker, now)
}

func clientTLS(dir, file string, key *keys.PrivateKey, broker string, now func() time.Time) (*tls.Config, error) {
	u, err := parseBroker(broker)
	if err != nil {
		return nil, err
	}
	cert, ca, err := readPair(dir, file, key)
	if err != nil {
		return nil, err
	}
	return ClientTLS(cert, ca, u.Hostname(), now), nil
}

// BrokerTLS is the TLS configuration of the broker inside the CRM of dir. It
// lets a client in only with the key that was certified last under its name:
// the certificate of a machine that was replaced is good for nothing more.
func BrokerTLS(dir string, key *keys.PrivateKey, now func() time.Time) (*tls.Config, error) {
	cert, ca, err := readPair(dir, brokerFile, key)
	if err != nil {
		return nil, err
	}
	c := ServerTLS(cert, ca, now)
	c.VerifyConnection = func(s tls.ConnectionState) error { return checkIssued(dir, s.PeerCertificates[0]) }
	return c, nil
}

// checkIssued compares keys, not certificates, so that a renewed controller is
// let in with its old certificate until it has the new one.
func checkIssued(dir string, cert *x509.Certificate) error {
	file, name := crmFile, cert.Subject.CommonName
	if name != CRMName {
		if err := CheckName(name); err != nil {
			return err
		}
		file = issuedFile(name)
	}
	last, err := ReadCertificate(filepath.Join(dir, file))
	if err != nil {
		return fmt.Errorf("certificate of %q: %w", name, err)
	}
	if !samePublic(last.PublicKey, cert.PublicKey) {
		return fmt.Errorf("certificate of %q is for a key that was replaced", name)
	}
	return nil
}

func readPair(dir, file string, key *keys.PrivateKey) (tls.Certificate, *x509.Certificate, error) {
	cert, err := ReadCertificate(filepath.Join(dir, file))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	ca, err := ReadCertificate(filepath.Join(dir, caFile))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	if key == nil {
		return tls.Certificate{}, nil, fmt.Errorf("%s has no key beside it", filepath.Join(dir, file))
	}
	if !samePublic(cert.PublicKey, key.Public()) {
		return tls.Certificate{}, nil, fmt.Errorf("%s is the certificate of another key", filepath.Join(dir, file))
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("%s is not from the CA of %s: %w", file, caFile, err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key.Signer(), Leaf: cert}, ca, nil
}

// ReadCertificate reads the file of one certificate, PEM.
func ReadCertificate(path string) (*x509.Certificate, error) {
	b, err := readFile(path, maxCertificate)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemCertificate || len(strings.TrimSpace(string(rest))) != 0 {
		return nil, fmt.Errorf("%s does not hold one PEM certificate", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

func writeCertificate(dir, file string, cert *x509.Certificate) error {
	path := filepath.Join(dir, file)
	if err := keys.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return keys.Replace(path, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw}))
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}

func checkP256(pub crypto.PublicKey) error {
	if k, ok := pub.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return fmt.Errorf("a TLS key must be ECDSA P-256, this is a %T", pub)
	}
	return nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// checkHost refuses what cannot be a host name in a certificate. Wildcards are
// refused too: a broker has a name.
func checkHost(h string) error {
	if len(h) == 0 || len(h) > 253 {
		return fmt.Errorf("%q is not a host name", h)
	}
	for label := range strings.SplitSeq(h, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("%q is not a host name", h)
		}
	}
	return nil
}

// parseBroker reads the URL of a broker: tls://HOST:PORT, or tcp://HOST:PORT
// where HOST is this machine, since nothing is sent in clear over a network.
func parseBroker(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not the URL of a broker: want tls://HOST:PORT", s)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return nil, fmt.Errorf("%q is not the URL of a broker: want tls://HOST:PORT", s)
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return nil, fmt.Errorf("%q is not the URL of a broker: want tls://HOST:PORT", s)
	}
	if net.ParseIP(u.Hostname()) == nil {
		if err := checkHost(u.Hostname()); err != nil {
			return nil, fmt.Errorf("broker URL: %w", err)
		}
	}
	switch u.Scheme {
	case "tls":
		return u, nil
	case "tcp":
		if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
			return u, nil
		}
		return nil, fmt.Errorf("broker %q would be reached in clear over a network: want tls://HOST:PORT", s)
	}
	return nil, fmt.Errorf("broker URL %q has the scheme %q: want tls://HOST:PORT", s, u.Scheme)
}
