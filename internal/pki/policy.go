package pki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/go-jose/go-jose/v4"
)

const (
	// authorityFile is in the folder of keys: the authority of the policy key, a
	// JWS a line.
	authorityFile = "policy-key.jws"
	// nextRootFile is a new policy root until it has taken its place.
	nextRootFile = keys.NamePolicyRoot + ".new"

	// PolicyKeyWarning is how long before the end of the policy key's
	// certificate people are told.
	PolicyKeyWarning = 30 * 24 * time.Hour

	// MaxPolicyFile is the largest request or answer that is read, in bytes.
	MaxPolicyFile = 64 << 10
)

// ErrNotCertified is that there is no policy key with a certificate that holds.
// Its text says what to do.
var ErrNotCertified = errors.New("the policy key is not certified")

// Policy is a CRM's policy key with what certifies it.
type Policy struct {
	*keys.PolicyKey
	Authority []string // goes out with each manifest
	Signer    *keys.Signer
}

// Ends says whether the certificate ends soon.
func (p *Policy) Ends(now time.Time) bool { return now.After(p.Until.Add(-PolicyKeyWarning)) }

// OpenPolicy reads the policy key of the CRM of dir, and its authority. The error
// is an ErrNotCertified where nothing can be signed with it at now.
func OpenPolicy(dir string, now time.Time) (*Policy, error) {
	s, err := ReadSite(dir)
	if err != nil {
		return nil, err
	}
	k := new(keys.CRMKeys)
	switch content, err := keys.File(KeysDir(dir)).Read(keys.NamePolicy); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if k.Policy, err = keys.ParseSigner(content, keys.TypeManifest); err != nil {
			return nil, fmt.Errorf("key %q: %w", keys.NamePolicy, err)
		}
	}
	p, err := readPolicy(dir, s, k)
	if err != nil {
		return nil, err
	}
	if err := p.Check(now, 0); err != nil {
		return nil, notCertified(err)
	}
	return p, nil
}

func notCertified(err error) error {
	return fmt.Errorf("%w: %w: run \"gatehouse-crm policy certify\" where %s is, or \"gatehouse-crm policy request\" here and take the file there", ErrNotCertified, err, keys.NamePolicyRoot)
}

// readPolicy is OpenPolicy whether the certificate has ended or not.
func readPolicy(dir string, s *Site, k *keys.CRMKeys) (*Policy, error) {
	if k.Policy == nil {
		return nil, notCertified(fmt.Errorf("there is no %s", keys.NamePolicy))
	}
	authority, err := readAuthority(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notCertified(fmt.Errorf("there is no %s", authorityFile))
	case err != nil:
		return nil, err
	}
	key, err := keys.OpenPolicyKey(s.PolicyRoot, authority)
	if err != nil {
		return nil, notCertified(err)
	}
	if key.JWK.KeyID != k.Policy.KeyID() {
		return nil, notCertified(fmt.Errorf("%s is not the key that %s certifies", keys.NamePolicy, authorityFile))
	}
	return &Policy{key, authority, k.Policy}, nil
}

func readAuthority(dir string) ([]string, error) {
	b, err := keys.File(KeysDir(dir)).Read(authorityFile)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b)), nil
}

func writeAuthority(dir string, authority []string) error {
	return keys.Replace(filepath.Join(KeysDir(dir), authorityFile), []byte(strings.Join(authority, "\n")+"\n"))
}

// CertifyPolicy certifies the policy key of the CRM of dir with the root key that
// is there, and makes the policy key if there is none.
func (s *Site) CertifyPolicy(dir string, k *keys.CRMKeys, now time.Time, validity time.Duration) (*Policy, error) {
	if k.PolicyRoot == nil {
		return nil, fmt.Errorf("the policy root's key %q is not here: run \"gatehouse-crm policy request\" and take the file to where it is", keys.NamePolicyRoot)
	}
	return s.certifyPolicy(dir, k, nil, now, validity)
}

// certifyPolicy asks, answers and accepts on one machine; next is as of Certify.
func (s *Site) certifyPolicy(dir string, k *keys.CRMKeys, next *keys.Signer, now time.Time, validity time.Duration) (*Policy, error) {
	request, err := NewPolicyRequest(dir, s, k)
	if err != nil {
		return nil, err
	}
	r, err := ParsePolicyRequest(request)
	if err != nil {
		return nil, err
	}
	answer, err := r.Certify(k.PolicyRoot, next, now, validity)
	if err != nil {
		return nil, err
	}
	return s.AcceptPolicy(dir, k, answer)
}

// PolicyRequest is what a CRM asks of the machine that has its policy root.
type PolicyRequest struct {
	Key       jose.JSONWebKey
	Authority []string // of the certificate before; empty: there was none
}

type policyRequestFile struct {
	Request string `json:"policy_request"`
}

type policyRequestForm struct {
	V         int             `json:"v"`
	Key       json.RawMessage `json:"key"`
	Authority []string        `json:"authority"`
}

type policyAnswerFile struct {
	Authority []string `json:"policy_answer"`
}

// NewPolicyRequest makes the request for a certificate, and the policy key if
// there is none: k has it then.
func NewPolicyRequest(dir string, s *Site, k *keys.CRMKeys) ([]byte, error) {
	if k.Policy == nil {
		if err := makePolicyKey(dir, k); err != nil {
			return nil, err
		}
	}
	authority, err := readAuthority(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if authority == nil {
		authority = []string{}
	}
	jwk, err := json.Marshal(k.Policy.JWK())
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(policyRequestForm{version, jwk, authority})
	if err != nil {
		return nil, err
	}
	signer, err := k.Policy.As(keys.TypePolicyRequest)
	if err != nil {
		return nil, err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(policyRequestFile{jws})
	return append(b, '\n'), err
}

func makePolicyKey(dir string, k *keys.CRMKeys) error {
	content, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		return err
	}
	if err := keys.Create(filepath.Join(KeysDir(dir), keys.NamePolicy), content); err != nil {
		return err
	}
	k.Policy, err = keys.ParseSigner(content, keys.TypeManifest)
	return err
}

// ParsePolicyRequest reads a request's file and verifies that whoever made it
// holds the key in it. Whether that is the CRM, only its fingerprint tells.
func ParsePolicyRequest(file []byte) (*PolicyRequest, error) {
	if len(file) > MaxPolicyFile {
		return nil, fmt.Errorf("request has %d bytes, more than %d", len(file), MaxPolicyFile)
	}
	var f policyRequestFile
	if err := decode(bytes.TrimSpace(file), &f); err != nil {
		return nil, fmt.Errorf("not a request of a policy key: %w", err)
	}
	var form policyRequestForm
	if err := peek(f.Request, &form); err != nil {
		return nil, fmt.Errorf("not a request of a policy key: %w", err)
	}
	if err := checkVersion(form.V); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	key, err := keys.ParseJWK(form.Key)
	if err != nil {
		return nil, fmt.Errorf("request: policy key: %w", err)
	}
	v, err := keys.NewVerifier(key, keys.TypePolicyRequest)
	if err != nil {
		return nil, fmt.Errorf("request: policy key: %w", err)
	}
	if _, err := v.Verify(f.Request); err != nil {
		return nil, fmt.Errorf("request is not signed by its own key: %w", err)
	}
	return &PolicyRequest{key, form.Authority}, nil
}

// Fingerprint is what people compare to know that a request is the CRM's.
func (r *PolicyRequest) Fingerprint() string { return keys.Fingerprint(r.Key) }

// Certify answers a request with the root key. With next, which may be nil, that
// becomes the root: this one certifies it, and it certifies the key.
func (r *PolicyRequest) Certify(root, next *keys.Signer, now time.Time, validity time.Duration) (answer []byte, err error) {
	serial := uint64(now.Unix()) // above those before, also where the last one was lost
	var rotations []string
	if len(r.Authority) > 0 {
		before, err := keys.OpenPolicyKey(root.JWK(), r.Authority)
		if err != nil {
			return nil, fmt.Errorf("this is not the policy root of that CRM: %w", err)
		}
		if before.Root.KeyID != root.KeyID() {
			return nil, fmt.Errorf("this policy root (%s) was succeeded by %s: use that one", keys.Fingerprint(root.JWK()), keys.Fingerprint(before.Root))
		}
		serial = max(serial, before.Serial+1)
		rotations = r.Authority[:len(r.Authority)-1]
	}
	if next != nil {
		pair, err := keys.RotatePolicyRoot(root, next, now)
		if err != nil {
			return nil, err
		}
		if len(rotations)+len(pair)+1 > keys.MaxAuthority {
			// Who pinned a root before these has had years to hear of them.
			rotations = rotations[2:]
		}
		rotations, root = append(rotations[:len(rotations):len(rotations)], pair...), next
	}
	certificate, err := keys.CertifyPolicyKey(root, r.Key, serial, now, now.Add(validity))
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(policyAnswerFile{append(rotations[:len(rotations):len(rotations)], certificate)})
	return append(b, '\n'), err
}

// AcceptPolicy takes the answer to a request: the authority of the policy key, and
// a new policy root if it has one, which controllers that join from now on pin.
func (s *Site) AcceptPolicy(dir string, k *keys.CRMKeys, answer []byte) (*Policy, error) {
	if len(answer) > MaxPolicyFile {
		return nil, fmt.Errorf("answer has %d bytes, more than %d", len(answer), MaxPolicyFile)
	}
	var f policyAnswerFile
	if err := decode(bytes.TrimSpace(answer), &f); err != nil {
		return nil, fmt.Errorf("not an answer for a policy key: %w", err)
	}
	key, err := keys.OpenPolicyKey(s.PolicyRoot, f.Authority)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if k.Policy == nil || key.JWK.KeyID != k.Policy.KeyID() {
		return nil, fmt.Errorf("answer certifies another key (%s) than the %s that is here", keys.Fingerprint(key.JWK), keys.NamePolicy)
	}
	if before, err := readPolicy(dir, s, k); err == nil && key.Serial <= before.Serial {
		return nil, fmt.Errorf("answer has the serial %d, and %d is here already: it is an old one", key.Serial, before.Serial)
	}
	if err := writeAuthority(dir, f.Authority); err != nil {
		return nil, err
	}
	return &Policy{key, f.Authority, k.Policy}, s.pinRoot(dir, key.Root)
}

// pinRoot makes a root the one that controllers pin which join from now on.
func (s *Site) pinRoot(dir string, root jose.JSONWebKey) error {
	if root.KeyID == s.PolicyRoot.KeyID {
		return nil
	}
	s.PolicyRoot = root
	b, err := s.marshal()
	if err != nil {
		return err
	}
	return keys.Replace(filepath.Join(dir, siteFile), b)
}

// RotatePolicyRoot makes a new policy root in the place of the one that is in dir,
// and certifies the policy key with it. The former root's key stays, under the
// name that is returned, for whoever wants to keep it; nothing needs it any more.
// Stopped halfway it is to be done again.
func (s *Site) RotatePolicyRoot(dir string, k *keys.CRMKeys, now time.Time, validity time.Duration) (_ *Policy, former string, err error) {
	if k.PolicyRoot == nil {
		return nil, "", fmt.Errorf("the policy root's key %q is not here: run \"gatehouse-crm policy request\" and take the file to where it is", keys.NamePolicyRoot)
	}
	folder := KeysDir(dir)
	next, err := nextRoot(folder)
	if err != nil {
		return nil, "", err
	}
	p, err := readPolicy(dir, s, k)
	if err == nil && p.Root.KeyID == next.KeyID() { // it was stopped after this
		err = s.pinRoot(dir, next.JWK())
	} else {
		p, err = s.certifyPolicy(dir, k, next, now, validity)
	}
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(folder, keys.NamePolicyRoot)
	former = fmt.Sprintf("%s.%s", path, keys.Fingerprint(k.PolicyRoot.JWK())[:9])
	if k.PolicyRoot.KeyID() != next.KeyID() {
		if err := os.Link(path, former); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, "", err
		}
	}
	k.PolicyRoot = next
	return p, former, os.Rename(filepath.Join(folder, nextRootFile), path)
}

// nextRoot is the key that is to be the policy root, which may have been made by
// a rotation that was stopped.
func nextRoot(folder string) (*keys.Signer, error) {
	content, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		return nil, err
	}
	switch err := keys.Create(filepath.Join(folder, nextRootFile), content); {
	case errors.Is(err, fs.ErrExist):
		if content, err = keys.File(folder).Read(nextRootFile); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	return keys.ParseSigner(content, keys.TypePolicy)
}

// ReadPepper reads the pepper of a controller that the CRM of dir approved. The
// error is an fs.ErrNotExist when it has none.
func ReadPepper(dir, controller string) (*keys.Pepper, error) {
	if err := CheckName(controller); err != nil {
		return nil, err
	}
	name := controller + ".key"
	folder := filepath.Join(KeysDir(dir), peppersDir)
	b, err := keys.File(folder).Read(name)
	if err != nil {
		return nil, err
	}
	p, err := keys.ParsePepper(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, name), err)
	}
	return p, nil
}
