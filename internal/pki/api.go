package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

const pemRequest = "CERTIFICATE REQUEST"

// APITLS is the TLS configuration of the API of the CRM of dir: its server
// certificate, which is the broker's too, and client certificates of its own
// authority, for those who have one. A controller's is of that authority as well:
// whose a certificate is, the API looks up.
func APITLS(dir string, key *keys.PrivateKey, now func() time.Time) (*tls.Config, error) {
	if key == nil {
		return nil, fmt.Errorf("there is no %s, the key of this machine's server certificate: restore it, or answer in plaintext to a proxy on this machine", keys.NameBroker)
	}
	cert, ca, err := readPair(dir, brokerFile, key)
	if err != nil {
		return nil, err
	}
	c := ServerTLS(cert, ca, now)
	c.ClientAuth = tls.VerifyClientCertIfGiven
	return c, nil
}

// ParseCSR reads a certificate request in PEM and checks that who made it has
// its key, which must be ECDSA P-256. Nothing but the key is taken from it.
func ParseCSR(file []byte) (*x509.CertificateRequest, error) {
	if len(file) > maxCertificate {
		return nil, fmt.Errorf("certificate request has %d bytes, more than %d", len(file), maxCertificate)
	}
	block, _ := pem.Decode(file)
	if block == nil || block.Type != pemRequest {
		return nil, errors.New("it is no certificate request in PEM: make one with openssl req -new")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := errors.Join(checkP256(r.PublicKey), r.CheckSignature()); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return r, nil
}

// apiPrefix begins the common names of the API's clients, so that none of them
// is a controller's, which brokers let in by that name.
const apiPrefix = "api:"

// CertifyAPIClient certifies a client of the API of the CRM of dir, and returns
// the certificate in PEM too.
func CertifyAPIClient(dir string, k *keys.CRMKeys, name string, r *x509.CertificateRequest, now time.Time, validity time.Duration) (*x509.Certificate, []byte, error) {
	ca, err := openAuthority(dir, k)
	if err != nil {
		return nil, nil, err
	}
	cert, err := ca.Client(apiPrefix+name, r.PublicKey, now, validity)
	if err != nil {
		return nil, nil, err
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw}), nil
}
