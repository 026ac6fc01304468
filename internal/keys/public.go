package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// MaxPublic is the longest text with public keys that is read, in bytes.
const MaxPublic = 1 << 20

// Public are the public keys that somebody trusts who verifies without the
// programs' own folders: of logs, and of the CRMs that countersign.
type Public struct {
	logs      []namedKey
	cosigners []*CosignerKey
}

type namedKey struct {
	name string
	jwk  jose.JSONWebKey
}

// publicForm is as much as is read of what "gatehouse keys show --json",
// "gatehouse-crm pki show --json" and "gatehouse-crm controllers list --json"
// print.
type publicForm struct {
	JWKS     *jwksForm         `json:"jwks"`
	Keys     []json.RawMessage `json:"keys"` // a JWKS by itself
	VKeys    []string          `json:"vkeys"`
	VKey     string            `json:"vkey"`
	Cosigner string            `json:"cosigner"`
}

type jwksForm struct {
	Keys []json.RawMessage `json:"keys"`
}

// ParsePublic reads public keys: one JSON object or several after each other,
// each with verifier keys (https://c2sp.org/signed-note) in "vkeys", "vkey" or
// "cosigner", and maybe a JWKS, in "jwks" or as the object itself. A verifier key
// says whose its key is, which a JWKS does not: the keys that are trusted are
// those of the verifier keys, and where an object has both, the log's must be
// in the JWKS. Other properties are ignored.
func ParsePublic(text []byte) (*Public, error) {
	if len(text) > MaxPublic {
		return nil, fmt.Errorf("public keys of %d bytes, more than %d", len(text), MaxPublic)
	}
	p := &Public{}
	d := json.NewDecoder(bytes.NewReader(text))
	for n := 1; ; n++ {
		var f publicForm
		err := d.Decode(&f)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.add(&f)
		}
		if err != nil {
			return nil, fmt.Errorf("public keys, object %d: %w", n, err)
		}
	}
	if len(p.logs)+len(p.cosigners) == 0 {
		return nil, errors.New("public keys: there is no verifier key (vkey) among them")
	}
	return p, nil
}

func (p *Public) add(f *publicForm) error {
	set := f.Keys
	if f.JWKS != nil {
		set = append(set, f.JWKS.Keys...)
	}
	var ids []string
	for i, raw := range set {
		k, err := ParseJWK(raw)
		if err != nil {
			return fmt.Errorf("key %d of the JWKS: %w", i+1, err)
		}
		ids = append(ids, k.KeyID)
	}
	vkeys := f.VKeys
	for _, v := range []string{f.VKey, f.Cosigner} {
		if v != "" {
			vkeys = append(vkeys, v)
		}
	}
	for _, v := range vkeys {
		if c, err := ParseCosigner(v); err == nil {
			p.cosigners = append(p.cosigners, c)
			continue
		}
		name, k, err := ParseVKey(v)
		if err != nil {
			return err
		}
		if len(ids) > 0 && !slices.Contains(ids, k.KeyID) {
			return fmt.Errorf("the key of %q is not in the JWKS beside it", name)
		}
		p.logs = append(p.logs, namedKey{name, k})
	}
	return nil
}

// Join adds the keys of another.
func (p *Public) Join(other *Public) {
	p.logs = append(p.logs, other.logs...)
	p.cosigners = append(p.cosigners, other.cosigners...)
}

// Logs are the verifiers of the logs whose names begin so, one for each key.
// The keys of a controller sign the logs of all its epochs, so that any of its
// names stands for them: prefix is what they have in common.
func (p *Public) Logs(prefix string) ([]*Verifier, error) {
	var out []*Verifier
	var ids []string
	for _, l := range p.logs {
		if l.name != prefix && !strings.HasPrefix(l.name, prefix+"/") || slices.Contains(ids, l.jwk.KeyID) {
			continue
		}
		v, err := NewVerifier(l.jwk, TypeRecord)
		if err != nil {
			return nil, err
		}
		ids, out = append(ids, l.jwk.KeyID), append(out, v)
	}
	return out, nil
}

// Cosigners are the keys that countersign.
func (p *Public) Cosigners() []*CosignerKey { return p.cosigners }

// ParseVKey reads the verifier key of a log, of type 1 (Ed25519) or 2 (ECDSA).
// Only the one canonical form is accepted.
func ParseVKey(vkey string) (name string, k jose.JSONWebKey, err error) {
	if len(vkey) > maxVKey {
		return "", k, fmt.Errorf("verifier key has %d bytes, more than %d", len(vkey), maxVKey)
	}
	name, rest, _ := strings.Cut(vkey, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) == 0 {
		return "", k, fmt.Errorf("%q is not a verifier key: want name+hash+base64", vkey)
	}
	switch pub := raw[1:]; {
	case raw[0] == noteEd25519 && len(pub) == ed25519.PublicKeySize:
		k, err = PublicJWK(ed25519.PublicKey(pub))
	case raw[0] == noteECDSA:
		var any any
		if any, err = x509.ParsePKIXPublicKey(pub); err == nil {
			k, err = PublicJWK(any)
		}
	default:
		err = fmt.Errorf("type %d is not that of a log", raw[0])
	}
	if err != nil {
		return "", jose.JSONWebKey{}, fmt.Errorf("verifier key %q: %w", vkey, err)
	}
	if want, err := VKey(name, k); err != nil || want != vkey {
		return "", jose.JSONWebKey{}, fmt.Errorf("verifier key %q is damaged: its hash or encoding is not that of its key", vkey)
	}
	return name, k, nil
}
