package keys

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	cosig "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// maxVKey is the longest verifier key that is read, in bytes.
const maxVKey = 512

// Cosigner is the key with which a CRM vouches for what it has stored. It
// countersigns checkpoints (https://c2sp.org/tlog-cosignature) and signs
// receipts and bundles.
type Cosigner struct {
	mask
	public  *CosignerKey
	note    note.Signer
	receipt *Signer
	bundle  *Signer
}

// NewCosigner returns the Cosigner of an Ed25519 key. Its name stands before
// its signatures; a host name or a URL without a scheme is usual.
func NewCosigner(key ed25519.PrivateKey, name string) (*Cosigner, error) {
	jwk, err := PublicJWK(key.Public())
	if err != nil {
		return nil, err
	}
	v, err := VKey(name, jwk)
	if err != nil {
		return nil, err
	}
	v, err = cosig.VKeyToCosignatureV1(v)
	if err != nil {
		return nil, fmt.Errorf("cosigner %q: %w", name, err)
	}
	c := &Cosigner{mask: "cosigner's key"}
	if c.public, err = ParseCosigner(v); err != nil {
		return nil, err
	}
	// The library takes a key only in this text form; it works out the hash
	// itself.
	skey := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, c.public.note.KeyHash(),
		base64.StdEncoding.EncodeToString(append([]byte{noteEd25519}, key.Seed()...)))
	if c.note, err = cosig.NewSignerForCosignatureV1(skey); err != nil {
		return nil, fmt.Errorf("cosigner %q: %w", name, err)
	}
	if c.receipt, err = NewSigner(key, TypeReceipt); err != nil {
		return nil, err
	}
	if c.bundle, err = NewSigner(key, TypeBundle); err != nil {
		return nil, err
	}
	return c, nil
}

// Note makes cosignatures, with the time at which they are made.
func (c *Cosigner) Note() note.Signer { return c.note }

// Receipts signs receipts.
func (c *Cosigner) Receipts() *Signer { return c.receipt }

// Bundles signs bundles.
func (c *Cosigner) Bundles() *Signer { return c.bundle }

// Public is what others need to verify with.
func (c *Cosigner) Public() *CosignerKey { return c.public }

// CosignerKey is the public part of a Cosigner.
type CosignerKey struct {
	vkey string
	note note.Verifier
	jwk  jose.JSONWebKey
}

// ParseCosigner reads a cosigner's verifier key, of type 4 (Ed25519
// cosignature/v1). Only the one canonical form is accepted.
func ParseCosigner(vkey string) (*CosignerKey, error) {
	if len(vkey) > maxVKey {
		return nil, fmt.Errorf("cosigner's key has %d bytes, more than %d", len(vkey), maxVKey)
	}
	name, rest, _ := strings.Cut(vkey, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != noteCosignatureV1 {
		return nil, fmt.Errorf("%q is not the key of a cosigner: want name+hash+base64 of type 4 (cosignature/v1)", vkey)
	}
	pub := ed25519.PublicKey(raw[1:])
	if _, err := newNoteKey(name, pub); err != nil {
		return nil, err
	}
	// The library leaves the hash unchecked.
	if k := (noteKey{name, noteHash(name, raw), raw}); k.String() != vkey {
		return nil, fmt.Errorf("cosigner's key %q is damaged: its hash and encoding should be %q", vkey, k)
	}
	k := &CosignerKey{vkey: vkey}
	if k.note, err = cosig.NewVerifierForCosignatureV1(vkey); err != nil {
		return nil, fmt.Errorf("cosigner's key %q: %w", vkey, err)
	}
	if k.jwk, err = PublicJWK(pub); err != nil {
		return nil, err
	}
	return k, nil
}

// Name is the name before the cosigner's signatures.
func (k *CosignerKey) Name() string { return k.note.Name() }

// VKey is the verifier key in the text form of https://c2sp.org/signed-note.
func (k *CosignerKey) VKey() string { return k.vkey }

// JWK is the key as receipts and bundles are verified with.
func (k *CosignerKey) JWK() jose.JSONWebKey { return k.jwk }

// Fingerprint is what people compare to know the key.
func (k *CosignerKey) Fingerprint() string { return Fingerprint(k.jwk) }

// Note verifies cosignatures.
func (k *CosignerKey) Note() note.Verifier { return k.note }

// Receipts verifies receipts.
func (k *CosignerKey) Receipts() (*Verifier, error) { return NewVerifier(k.jwk, TypeReceipt) }

// Bundles verifies bundles.
func (k *CosignerKey) Bundles() (*Verifier, error) { return NewVerifier(k.jwk, TypeBundle) }

// Countersigned verifies the cosignature under a signed note, and returns when
// it was made, by the cosigner's clock.
func (k *CosignerKey) Countersigned(signed string) (time.Time, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(k.note))
	if err != nil {
		return time.Time{}, fmt.Errorf("not countersigned by %q: %w", k.Name(), err)
	}
	return cosig.CoSigV1Timestamp(n.Sigs[0])
}
