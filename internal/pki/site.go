package pki

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/go-jose/go-jose/v4"
)

const (
	siteFile   = "site.json"
	peppersDir = "peppers" // in the folder of keys
)

// Site is what a CRM says of itself in every bundle. Nothing in it is secret.
type Site struct {
	Hosts           []string // names and addresses of the broker
	Broker          string   // URL by which controllers reach it
	Timezone        string   // IANA name, for controllers that are told no other
	PolicyAuthority PolicyAuthority
	Cosigner        *keys.CosignerKey
	PolicyRoot      jose.JSONWebKey
}

type siteForm struct {
	V               int             `json:"v"`
	Hosts           []string        `json:"hosts"`
	Broker          string          `json:"broker"`
	Timezone        string          `json:"timezone"`
	PolicyAuthority PolicyAuthority `json:"policy_authority"`
	Cosigner        string          `json:"cosigner"`
	PolicyRoot      json.RawMessage `json:"policy_root"`
}

// SiteOptions are what InitSite needs to know.
type SiteOptions struct {
	Hosts    []string      // at least one; the first names the site
	Broker   string        // URL; empty: tls://HOST:8883 with the first host
	Timezone string        // IANA name
	Validity time.Duration // of the broker's and the CRM's certificate; 0: DefaultValidity
	// PolicyAuthority says who governs the allowlists of controllers that are told
	// nothing else; "": the site.
	PolicyAuthority PolicyAuthority
	Now             time.Time
}

// InitSite makes the keys and certificates of a CRM in dir. It overwrites no
// key, and is refused where a site stands already; what was stopped halfway is
// completed.
func InitSite(dir string, o SiteOptions) (*Site, error) {
	if len(o.Hosts) == 0 {
		return nil, errors.New("a CRM needs a host name or an IP address by which controllers reach its broker")
	}
	if o.Broker == "" {
		o.Broker = "tls://" + net.JoinHostPort(o.Hosts[0], "8883")
	}
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.PolicyAuthority == "" {
		o.PolicyAuthority = PolicyFromSite
	}
	_, brokerErr := parseBroker(o.Broker)
	if err := errors.Join(checkTimezone(o.Timezone), brokerErr, o.PolicyAuthority.Check()); err != nil {
		return nil, err
	}
	if err := keys.MakeDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, siteFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s holds a CRM already: nothing was changed", dir)
	}
	if _, err := keys.InitCRM(KeysDir(dir)); err != nil {
		return nil, err
	}
	k, err := keys.LoadCRM(keys.File(KeysDir(dir)), o.Hosts[0])
	if err != nil {
		return nil, err
	}
	if k.CA == nil || k.Broker == nil || k.PolicyRoot == nil {
		return nil, fmt.Errorf("a key was taken out of %s while it was being made", KeysDir(dir))
	}
	s := &Site{
		Hosts:           o.Hosts,
		Broker:          o.Broker,
		Timezone:        o.Timezone,
		PolicyAuthority: o.PolicyAuthority,
		Cosigner:        k.Cosigner.Public(),
		PolicyRoot:      k.PolicyRoot.JWK(),
	}
	ca, err := NewAuthority(k.CA, o.Hosts[0], o.Now)
	if err != nil {
		return nil, err
	}
	if err := writeCertificate(dir, caFile, ca.Certificate()); err != nil {
		return nil, err
	}
	if err := s.certify(dir, ca, k, o.Now, o.Validity); err != nil {
		return nil, err
	}
	if _, err := s.CertifyPolicy(dir, k, o.Now, o.Validity); err != nil {
		return nil, err
	}
	b, err := s.marshal()
	if err != nil {
		return nil, err
	}
	return s, keys.Create(path, b)
}

// certify writes new certificates of the broker and the CRM itself.
func (s *Site) certify(dir string, ca *Authority, k *keys.CRMKeys, now time.Time, validity time.Duration) error {
	broker, err := ca.Server(s.Hosts, k.Broker.Public(), now, validity)
	if err != nil {
		return err
	}
	crm, err := ca.Client(CRMName, k.CRM.Public(), now, validity)
	if err != nil {
		return err
	}
	return errors.Join(writeCertificate(dir, brokerFile, broker), writeCertificate(dir, crmFile, crm))
}

// Renew writes new certificates of the broker and the CRM itself, with the same
// keys.
func (s *Site) Renew(dir string, k *keys.CRMKeys, now time.Time, validity time.Duration) error {
	ca, err := openAuthority(dir, k)
	if err != nil {
		return err
	}
	if k.Broker == nil {
		return fmt.Errorf("the broker's key %q is not here", keys.NameBroker)
	}
	return s.certify(dir, ca, k, now, validity)
}

// ReadSite reads what the CRM of dir says of itself. The error is an
// fs.ErrNotExist when there is none. It refuses a file that others could have
// written.
func ReadSite(dir string) (*Site, error) { return readOwn(dir, siteFile, parseSite) }

func parseSite(b []byte) (*Site, error) {
	var f siteForm
	if err := decode(b, &f); err != nil {
		return nil, err
	}
	if err := checkVersion(f.V); err != nil {
		return nil, err
	}
	if len(f.Hosts) == 0 {
		return nil, errors.New("no hosts")
	}
	s := &Site{Hosts: f.Hosts, Broker: f.Broker, Timezone: f.Timezone, PolicyAuthority: f.PolicyAuthority}
	var err error
	if s.Cosigner, s.PolicyRoot, err = parseAnchors(f.Cosigner, f.PolicyRoot, f.PolicyAuthority, f.Timezone, f.Broker); err != nil {
		return nil, err
	}
	return s, nil
}

// readOwn reads a file of a program's own folder. It refuses one that others
// could have written or read.
func readOwn[T any](dir, name string, parse func([]byte) (*T, error)) (*T, error) {
	b, err := keys.File(dir).Read(name)
	if err != nil {
		return nil, err
	}
	v, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return v, nil
}

// parseAnchors reads what the CRM's file about itself, a bundle and a
// controller's trust have in common: the keys that others rely on, and what
// goes with them.
func parseAnchors(cosigner string, root json.RawMessage, authority PolicyAuthority, zone, broker string) (*keys.CosignerKey, jose.JSONWebKey, error) {
	c, err := keys.ParseCosigner(cosigner)
	if err != nil {
		return nil, jose.JSONWebKey{}, err
	}
	k, err := keys.ParseJWK(root)
	if err != nil {
		return nil, k, fmt.Errorf("policy root: %w", err)
	}
	_, brokerErr := parseBroker(broker)
	return c, k, errors.Join(authority.Check(), checkTimezone(zone), brokerErr)
}

func (s *Site) marshal() ([]byte, error) {
	root, err := json.Marshal(s.PolicyRoot)
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(siteForm{
		version, s.Hosts, s.Broker, s.Timezone, s.PolicyAuthority, s.Cosigner.VKey(), root,
	}, "", "  ")
	return append(b, '\n'), err
}

// Controller is what a CRM registers of a controller when it approves it.
type Controller struct {
	Name        string
	Log         jose.JSONWebKey // verifies records and checkpoints
	Certificate string          // Fingerprint of the one that is in use
	NotAfter    time.Time       // the certificate's end
	Approved    time.Time
}

// Certificates are the dates of a CRM's own certificates.
type Certificates struct {
	CA, Broker, CRM *x509.Certificate
}

// ReadCertificates reads the certificates of the CRM of dir.
func ReadCertificates(dir string) (c Certificates, err error) {
	var errs [3]error
	c.CA, errs[0] = ReadCertificate(filepath.Join(dir, caFile))
	c.Broker, errs[1] = ReadCertificate(filepath.Join(dir, brokerFile))
	c.CRM, errs[2] = ReadCertificate(filepath.Join(dir, crmFile))
	return c, errors.Join(errs[:]...)
}

// ApproveOptions are what Approve needs to know.
type ApproveOptions struct {
	Timezone  string        // IANA name; empty: the site's
	Broker    string        // URL; empty: the site's
	Validity  time.Duration // of the certificate; 0: DefaultValidity
	NewPepper bool          // instead of the one that the controller had before
	// PolicyAuthority says who governs the controller's allowlist; "": the site's.
	PolicyAuthority PolicyAuthority
	Now             time.Time
}

// Approve answers a request: it returns the bundle's file and what is to be
// registered. A controller that is approved again keeps its pepper, so that
// its allowlist stays good. The caller has made sure that the request is
// genuine.
func (s *Site) Approve(dir string, k *keys.CRMKeys, r *Request, o ApproveOptions) (bundle []byte, c Controller, err error) {
	if o.Timezone == "" {
		o.Timezone = s.Timezone
	}
	if o.Broker == "" {
		o.Broker = s.Broker
	}
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.PolicyAuthority == "" {
		o.PolicyAuthority = s.PolicyAuthority
	}
	_, brokerErr := parseBroker(o.Broker)
	if err := errors.Join(checkTimezone(o.Timezone), brokerErr, o.PolicyAuthority.Check()); err != nil {
		return nil, Controller{}, err
	}
	if k.Cosigner.Public().VKey() != s.Cosigner.VKey() {
		return nil, Controller{}, fmt.Errorf("key %q is not the one of %s", keys.NameCosigner, siteFile)
	}
	ca, err := openAuthority(dir, k)
	if err != nil {
		return nil, Controller{}, err
	}
	cert, err := ca.Client(r.Controller, r.CSR.PublicKey, o.Now, o.Validity)
	if err != nil {
		return nil, Controller{}, err
	}
	pepper, err := pepperOf(dir, r.Controller, o.NewPepper)
	if err != nil {
		return nil, Controller{}, err
	}
	sealed, err := keys.SealTo(r.Recipient, pepper)
	if err != nil {
		return nil, Controller{}, err
	}
	b := &Bundle{
		Controller:      r.Controller,
		LogKeyID:        r.Log.KeyID,
		Certificate:     cert,
		CA:              ca.Certificate(),
		Cosigner:        s.Cosigner,
		PolicyAuthority: o.PolicyAuthority,
		PolicyRoot:      s.PolicyRoot,
		SealedPepper:    sealed,
		Timezone:        o.Timezone,
		Broker:          o.Broker,
		Issued:          o.Now,
	}
	file, err := b.Sign(k.Cosigner)
	if err != nil {
		return nil, Controller{}, err
	}
	if err := writeCertificate(dir, issuedFile(r.Controller), cert); err != nil {
		return nil, Controller{}, err
	}
	if err := writeGoverned(dir, r.Controller, o.PolicyAuthority); err != nil {
		return nil, Controller{}, err
	}
	return file, Controller{
		Name:        r.Controller,
		Log:         r.Log,
		Certificate: Fingerprint(cert),
		NotAfter:    cert.NotAfter,
		Approved:    o.Now.UTC().Truncate(time.Second),
	}, nil
}

// governedFile says who governs a controller's allowlist, in one word.
func governedFile(controller string) string { return "tls/controllers/" + controller + ".policy" }

func writeGoverned(dir, controller string, a PolicyAuthority) error {
	return keys.Replace(filepath.Join(dir, governedFile(controller)), []byte(string(a)+"\n"))
}

// Governed says whether the CRM of dir governs the allowlist of a controller, as
// it was approved last.
func Governed(dir, controller string) (bool, error) {
	if err := CheckName(controller); err != nil {
		return false, err
	}
	b, err := readFile(filepath.Join(dir, governedFile(controller)), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was approved before there was a choice
	}
	if err != nil {
		return false, err
	}
	a := PolicyAuthority(strings.TrimSpace(string(b)))
	return a == PolicyFromCRM, a.Check()
}

// ReadIssued reads the certificate that the CRM of dir issued last to a
// controller. The error is an fs.ErrNotExist when there is none.
func ReadIssued(dir, controller string) (*x509.Certificate, error) {
	if err := CheckName(controller); err != nil {
		return nil, err
	}
	return ReadCertificate(filepath.Join(dir, issuedFile(controller)))
}

func issuedFile(controller string) string { return "tls/controllers/" + controller + ".crt" }

// pepperOf returns the file of a controller's pepper, and makes it the first
// time.
func pepperOf(dir, controller string, renew bool) ([]byte, error) {
	folder := filepath.Join(KeysDir(dir), peppersDir)
	if err := keys.MakeDir(folder); err != nil {
		return nil, err
	}
	name := controller + ".key"
	path := filepath.Join(folder, name)
	made := keys.GeneratePepper()
	if renew {
		return made, keys.Replace(path, made)
	}
	switch err := keys.Create(path, made); {
	case err == nil:
		return made, nil
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	b, err := keys.File(folder).Read(name)
	if err != nil {
		return nil, err
	}
	if _, err := keys.ParsePepper(b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func openAuthority(dir string, k *keys.CRMKeys) (*Authority, error) {
	if k.CA == nil {
		return nil, fmt.Errorf("the CA's key %q is not here: nothing can be certified without it", keys.NameCA)
	}
	cert, err := ReadCertificate(filepath.Join(dir, caFile))
	if err != nil {
		return nil, err
	}
	return OpenAuthority(cert, k.CA)
}
