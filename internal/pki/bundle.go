package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/go-jose/go-jose/v4"
)

const maxBundle = 32 << 10 // bytes of a bundle's file

// PolicyAuthority says whose key signs the allowlists that a controller takes.
type PolicyAuthority string

// The authorities over a controller's policy.
const (
	PolicyFromSite PolicyAuthority = "site" // the controller's own key: allowlists are imported there
	PolicyFromCRM  PolicyAuthority = "crm"  // keys that the CRM's policy root certified
)

// Check reports whether a is one of the authorities.
func (a PolicyAuthority) Check() error {
	if a != PolicyFromSite && a != PolicyFromCRM {
		return fmt.Errorf("policy authority is %q, want %q or %q", a, PolicyFromSite, PolicyFromCRM)
	}
	return nil
}

// Bundle is a CRM's answer to a Request, signed with the cosigner's key, which
// is inside: whether it is the right CRM's, only its fingerprint tells.
type Bundle struct {
	Controller      string
	LogKeyID        string // of the log key in the request
	Certificate     *x509.Certificate
	CA              *x509.Certificate
	Cosigner        *keys.CosignerKey
	PolicyAuthority PolicyAuthority
	PolicyRoot      jose.JSONWebKey
	SealedPepper    []byte // a pepper's file, sealed to the controller with age
	Timezone        string // IANA name of the site's
	Broker          string // URL
	Issued          time.Time
}

type bundlePayload struct {
	V               int             `json:"v"`
	Controller      string          `json:"controller"`
	LogKeyID        string          `json:"log_kid"`
	Certificate     []byte          `json:"certificate"` // DER
	CA              []byte          `json:"ca"`          // DER
	Cosigner        string          `json:"cosigner"`    // vkey
	PolicyAuthority PolicyAuthority `json:"policy_authority"`
	PolicyRoot      json.RawMessage `json:"policy_root"` // JWK
	Pepper          []byte          `json:"pepper"`
	Timezone        string          `json:"timezone"`
	Broker          string          `json:"broker"`
	Issued          time.Time       `json:"issued"`
}

// Sign returns the bundle's file.
func (b *Bundle) Sign(c *keys.Cosigner) ([]byte, error) {
	root, err := json.Marshal(b.PolicyRoot)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(bundlePayload{
		version, b.Controller, b.LogKeyID, b.Certificate.Raw, b.CA.Raw, c.Public().VKey(),
		b.PolicyAuthority, root, b.SealedPepper, b.Timezone, b.Broker, b.Issued.UTC().Truncate(time.Second),
	})
	if err != nil {
		return nil, err
	}
	jws, err := c.Bundles().Sign(payload)
	if err != nil {
		return nil, err
	}
	return []byte(jws + "\n"), nil
}

// ReadBundle reads a bundle from a file, as ParseBundle does.
func ReadBundle(path string) (*Bundle, error) {
	file, err := readFile(path, maxBundle)
	if err != nil {
		return nil, err
	}
	b, err := ParseBundle(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// ParseBundle reads a bundle's file and verifies that it is whole: that the
// cosigner in it signed it, and that its parts belong together.
func ParseBundle(file []byte) (*Bundle, error) {
	if len(file) > maxBundle {
		return nil, fmt.Errorf("bundle has %d bytes, more than %d", len(file), maxBundle)
	}
	jws := string(bytes.TrimSpace(file))
	var p bundlePayload
	if err := peek(jws, &p); err != nil {
		return nil, fmt.Errorf("not a bundle: %w", err)
	}
	if err := checkVersion(p.V); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	b := &Bundle{
		Controller:      p.Controller,
		LogKeyID:        p.LogKeyID,
		PolicyAuthority: p.PolicyAuthority,
		SealedPepper:    p.Pepper,
		Timezone:        p.Timezone,
		Broker:          p.Broker,
		Issued:          p.Issued,
	}
	var err error
	if b.Cosigner, b.PolicyRoot, err = parseAnchors(p.Cosigner, p.PolicyRoot, p.PolicyAuthority, p.Timezone, p.Broker); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	v, err := b.Cosigner.Bundles()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if _, err := v.Verify(jws); err != nil {
		return nil, fmt.Errorf("bundle is not signed by its own cosigner: %w", err)
	}
	if err := CheckName(p.Controller); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if b.CA, err = x509.ParseCertificate(p.CA); err != nil {
		return nil, fmt.Errorf("bundle: CA: %w", err)
	}
	if b.Certificate, err = x509.ParseCertificate(p.Certificate); err != nil {
		return nil, fmt.Errorf("bundle: certificate: %w", err)
	}
	if err := checkClient(b.Certificate, b.CA, b.Controller, b.Issued); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

// Fingerprint is what people compare to know that a bundle is from their CRM.
func (b *Bundle) Fingerprint() string { return b.Cosigner.Fingerprint() }

// checkClient reports whether ca certified the client of that name at the time
// at.
func checkClient(cert, ca *x509.Certificate, name string, at time.Time) error {
	if cert.Subject.CommonName != name {
		return fmt.Errorf("certificate is for %q, want %q", cert.Subject.CommonName, name)
	}
	if err := checkP256(cert.PublicKey); err != nil {
		return err
	}
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots:       pool(ca),
		CurrentTime: at,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

func checkTimezone(name string) error {
	if name == "" || name == "Local" {
		return fmt.Errorf("%q is not a time zone: want a name such as Europe/Amsterdam", name)
	}
	if _, err := time.LoadLocation(name); err != nil {
		return fmt.Errorf("time zone %q: %w", name, err)
	}
	return nil
}
