package keys

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// MaxJWS is the longest JWS that a Verifier looks at, in bytes.
const MaxJWS = 1 << 20

var (
	p256Order     = elliptic.P256().Params().N
	p256HalfOrder = new(big.Int).Rsh(p256Order, 1)
)

// Signer signs with one key, as one sort of JWS. It may be used from several
// goroutines.
type Signer struct {
	mask
	key    crypto.Signer
	jwk    jose.JSONWebKey
	header string // the protected header, encoded
}

// NewSigner returns a Signer for an ECDSA P-256 or Ed25519 key, which may live
// in hardware. Its JWS have the headers alg, kid and typ.
func NewSigner(key crypto.Signer, typ string) (*Signer, error) {
	jwk, err := PublicJWK(key.Public())
	if err != nil {
		return nil, err
	}
	h, err := encodeHeader(jwk, typ)
	if err != nil {
		return nil, fmt.Errorf("JWS signer: %w", err)
	}
	return &Signer{mask: "signing key", key: key, jwk: jwk, header: h}, nil
}

// As returns a Signer that uses the same key for another sort of JWS.
func (s *Signer) As(typ string) (*Signer, error) { return NewSigner(s.key, typ) }

// Sign returns the compact JWS of payload. ECDSA signatures are randomised:
// keep what Sign returns, a second call returns something else.
func (s *Signer) Sign(payload []byte) (string, error) {
	enc := base64.RawURLEncoding
	jws := make([]byte, 0, len(s.header)+len(".")+enc.EncodedLen(len(payload))+len(".")+enc.EncodedLen(64))
	jws = append(jws, s.header...)
	jws = append(jws, '.')
	jws = enc.AppendEncode(jws, payload)
	sig, err := s.signature(jws)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	jws = append(jws, '.')
	return string(enc.AppendEncode(jws, sig)), nil
}

// Verifier returns the Verifier of this key for JWS of the sort typ.
func (s *Signer) Verifier(typ string) (*Verifier, error) { return NewVerifier(s.jwk, typ) }

// JWK is the public key.
func (s *Signer) JWK() jose.JSONWebKey { return s.jwk }

// KeyID is the key's thumbprint (RFC 7638), base64url.
func (s *Signer) KeyID() string { return s.jwk.KeyID }

// Algorithm is the key's algorithm.
func (s *Signer) Algorithm() Algorithm { return Algorithm(s.jwk.Algorithm) }

// signature signs the first two parts of a JWS. ECDSA signatures are made
// canonical.
func (s *Signer) signature(input []byte) ([]byte, error) {
	if s.jwk.Algorithm == string(EdDSA) {
		return s.key.Sign(rand.Reader, input, crypto.Hash(0))
	}
	digest := sha256.Sum256(input)
	der, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) != 0 {
		return nil, errors.New("key returned a signature that is not DER")
	}
	// (r, n-s) is as valid as (r, s). Only the lower s is used, so that
	// nobody without the key can make a second valid JWS of a record.
	if sig.S.Cmp(p256HalfOrder) > 0 {
		sig.S.Sub(p256Order, sig.S)
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// Verifier verifies JWS of one sort, signed with one key. It may be used from
// several goroutines.
type Verifier struct {
	jwk    jose.JSONWebKey
	typ    string
	header string // the one protected header that such a JWS has, encoded
}

// NewVerifier returns the Verifier of a public key that PublicJWK or ParseJWK
// returned, for JWS of the sort typ.
func NewVerifier(k jose.JSONWebKey, typ string) (*Verifier, error) {
	k, err := checkJWK(k)
	if err != nil {
		return nil, err
	}
	h, err := encodeHeader(k, typ)
	if err != nil {
		return nil, err
	}
	return &Verifier{jwk: k, typ: typ, header: h}, nil
}

// header is the protected header, in the order in which it is written.
type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
}

// encodeHeader is the one protected header that a JWS of that key and sort has.
func encodeHeader(k jose.JSONWebKey, typ string) (string, error) {
	h, err := json.Marshal(header{k.Algorithm, k.KeyID, typ})
	return base64.RawURLEncoding.EncodeToString(h), err
}

// JWK is the public key.
func (v *Verifier) JWK() jose.JSONWebKey { return v.jwk }

// KeyID is the key's thumbprint (RFC 7638), base64url.
func (v *Verifier) KeyID() string { return v.jwk.KeyID }

// Verify returns the payload of a compact JWS. The algorithm is the key's:
// what the header says is only compared with it. Of one payload and signature
// exactly one string is accepted, since a record's leaf hash is over the
// string: no other header, no other base64, no second form of the signature.
func (v *Verifier) Verify(jws string) ([]byte, error) {
	if len(jws) > MaxJWS {
		return nil, fmt.Errorf("JWS has %d bytes, more than %d", len(jws), MaxJWS)
	}
	parts := strings.SplitN(jws, ".", 4)
	if len(parts) != 3 {
		return nil, errors.New("JWS does not have three parts")
	}
	if parts[0] != v.header {
		return nil, v.headerFault(parts[0])
	}
	if _, err := decodeBase64("payload", parts[1]); err != nil {
		return nil, err
	}
	sig, err := decodeBase64("signature", parts[2])
	if err != nil {
		return nil, err
	}
	if v.jwk.Algorithm == string(ES256) {
		if len(sig) != 64 {
			return nil, fmt.Errorf("JWS signature has %d bytes, want 64", len(sig))
		}
		if new(big.Int).SetBytes(sig[32:]).Cmp(p256HalfOrder) > 0 {
			return nil, errors.New("JWS signature is not the canonical one of its two forms")
		}
	}
	o, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(v.jwk.Algorithm)})
	if err != nil {
		return nil, fmt.Errorf("JWS: %w", err)
	}
	payload, err := o.Verify(v.jwk.Key)
	if err != nil {
		return nil, errors.New("JWS signature does not verify")
	}
	return payload, nil
}

// headerFault says what is wrong with a header that is not the expected one.
func (v *Verifier) headerFault(encoded string) error {
	raw, err := decodeBase64("header", encoded)
	if err != nil {
		return err
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return fmt.Errorf("JWS header: %w", err)
	}
	switch {
	case h.Alg != v.jwk.Algorithm:
		return fmt.Errorf("JWS names the algorithm %q, but its key is for %q", h.Alg, v.jwk.Algorithm)
	case h.Kid != v.jwk.KeyID:
		return fmt.Errorf("JWS is signed by the key %q, want %q", h.Kid, v.jwk.KeyID)
	case h.Typ != v.typ:
		return fmt.Errorf("JWS is a %q, want a %q", h.Typ, v.typ)
	}
	return fmt.Errorf("JWS header %q has more than alg, kid and typ, or has them in another form", raw)
}

// decodeBase64 accepts only what encoding gives back. Strict decoding is not
// enough: it passes over newlines.
func decodeBase64(what, s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("JWS %s: %w", what, err)
	}
	if base64.RawURLEncoding.EncodeToString(b) != s {
		return nil, fmt.Errorf("JWS %s is not canonical base64url", what)
	}
	return b, nil
}
