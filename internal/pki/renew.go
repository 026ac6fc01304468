package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/go-jose/go-jose/v4"
)

// ErrNotRenewed is that a request for a new certificate is refused: whoever made it
// is not the controller that was approved under its name.
var ErrNotRenewed = errors.New("the certificate is not renewed")

// RenewalDue reports whether a certificate is to be renewed: less than a third of
// its life is left.
func RenewalDue(cert *x509.Certificate, now time.Time) bool {
	return now.After(cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3))
}

// RenewController answers the request of a controller that was approved with this
// log key, and may still send: with a new certificate for the key that it has
// already, as long as the one before. Where that is not due yet, the answer is the
// one that was issued last, however often somebody asks.
func (s *Site) RenewController(dir string, k *keys.CRMKeys, r *Request, log jose.JSONWebKey, now time.Time) (cert *x509.Certificate, err error) {
	if r.Log.KeyID != log.KeyID {
		return nil, fmt.Errorf("%w: the request of %q is signed by another log key than the approved one", ErrNotRenewed, r.Controller)
	}
	last, err := ReadIssued(dir, r.Controller)
	if err != nil {
		return nil, err
	}
	if !samePublic(last.PublicKey, r.CSR.PublicKey) {
		return nil, fmt.Errorf("%w: the request of %q is for another TLS key: have its request.json approved", ErrNotRenewed, r.Controller)
	}
	if !RenewalDue(last, now) {
		return last, nil
	}
	ca, err := openAuthority(dir, k)
	if err != nil {
		return nil, err
	}
	life := last.NotAfter.Sub(last.NotBefore) - clockTolerance
	if cert, err = ca.Client(r.Controller, r.CSR.PublicKey, now, life); err != nil {
		return nil, err
	}
	return cert, writeCertificate(dir, issuedFile(r.Controller), cert)
}

// NewRequest makes the request of the controller with these keys, as it stands in
// request.json.
func NewRequest(controller string, k *keys.ControllerKeys) ([]byte, error) {
	return newRequest(controller, k)
}

// ReadClient reads the certificate of the controller of dir.
func ReadClient(dir string) (*x509.Certificate, error) {
	return ReadCertificate(filepath.Join(dir, clientFile))
}

// EncodeCertificate writes a certificate as InstallClient reads it.
func EncodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw})
}

// InstallClient puts a new certificate in the place of that of the controller of
// dir, if the CA that it joined made it for this name and key, and it lasts longer.
// It reports whether it did: an older one that comes again changes nothing. The
// next connection uses it.
func InstallClient(dir, controller string, key *keys.PrivateKey, text []byte, now time.Time) (installed bool, err error) {
	if len(text) > maxCertificate {
		return false, fmt.Errorf("certificate has %d bytes, more than %d", len(text), maxCertificate)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemCertificate || len(bytes.TrimSpace(rest)) != 0 {
		return false, errors.New("not one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false, err
	}
	ca, err := ReadCertificate(filepath.Join(dir, caFile))
	if err != nil {
		return false, err
	}
	if now.Before(cert.NotBefore) { // the clock may never have been set
		now = cert.NotBefore
	}
	if err := checkClient(cert, ca, controller, now); err != nil {
		return false, err
	}
	if !samePublic(cert.PublicKey, key.Public()) {
		return false, errors.New("certificate is for another TLS key than this controller's")
	}
	present, err := ReadClient(dir)
	if err != nil {
		return false, err
	}
	if !cert.NotAfter.After(present.NotAfter) {
		return false, nil
	}
	return true, writeCertificate(dir, clientFile, cert)
}

// ReplacePepper gives a controller a new pepper, by which nothing can be found that
// was made with the one before. A controller that is approved again gets it.
func ReplacePepper(dir, controller string) error {
	if err := CheckName(controller); err != nil {
		return err
	}
	_, err := pepperOf(dir, controller, true)
	return err
}
