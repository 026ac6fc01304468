package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const maxJWK = 2 << 10 // bytes of JSON

// PublicJWK is the JWK (RFC 7517) of a P-256 or Ed25519 public key. Its key id
// is the key's thumbprint (RFC 7638), so the same key has the same id
// everywhere.
func PublicJWK(pub crypto.PublicKey) (jose.JSONWebKey, error) {
	alg, err := algorithmOf(pub)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	k := jose.JSONWebKey{Key: pub, Algorithm: string(alg), Use: "sig"}
	t, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("thumbprint: %w", err)
	}
	k.KeyID = base64.RawURLEncoding.EncodeToString(t)
	return k, nil
}

// ParseJWK reads the JSON of a public JWK from outside. It refuses private
// keys, other kinds of key than PublicJWK makes, and a key id or algorithm
// that does not fit the key.
func ParseJWK(data []byte) (jose.JSONWebKey, error) {
	if len(data) > maxJWK {
		return jose.JSONWebKey{}, fmt.Errorf("JWK has %d bytes, more than %d", len(data), maxJWK)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(bytes.TrimSpace(data)); err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("JWK: %w", err)
	}
	return checkJWK(k)
}

// checkJWK returns the JWK that PublicJWK makes of k's key, after comparing
// what k says of itself.
func checkJWK(k jose.JSONWebKey) (jose.JSONWebKey, error) {
	if !k.IsPublic() {
		return jose.JSONWebKey{}, errors.New("JWK is not a public key")
	}
	want, err := PublicJWK(k.Key)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	switch {
	case k.KeyID != "" && k.KeyID != want.KeyID:
		return jose.JSONWebKey{}, fmt.Errorf("JWK has key id %q, but its thumbprint is %q", k.KeyID, want.KeyID)
	case k.Algorithm != "" && k.Algorithm != want.Algorithm:
		return jose.JSONWebKey{}, fmt.Errorf("JWK has algorithm %q, but its key is for %q", k.Algorithm, want.Algorithm)
	case k.Use != "" && k.Use != want.Use:
		return jose.JSONWebKey{}, fmt.Errorf("JWK has use %q, want %q", k.Use, want.Use)
	}
	return want, nil
}

func algorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return "", fmt.Errorf("key is on the curve %s, want P-256", pub.Curve.Params().Name)
		}
		if _, err := pub.ECDH(); err != nil {
			return "", fmt.Errorf("P-256 key: %w", err)
		}
		return ES256, nil
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return "", fmt.Errorf("Ed25519 key has %d bytes, want %d", len(pub), ed25519.PublicKeySize)
		}
		return EdDSA, nil
	}
	return "", fmt.Errorf("key is a %T, want ECDSA P-256 or Ed25519", pub)
}

// fingerprintBytes is enough that nobody can make a key for a given
// fingerprint, and short enough to be read out over a telephone.
const fingerprintBytes = 16

// Fingerprint is what people compare to know a key: the first 128 bits of its
// thumbprint (RFC 7638) as hexadecimal digits in groups of four.
func Fingerprint(k jose.JSONWebKey) string {
	t, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "unknown kind of key"
	}
	h := hex.EncodeToString(t[:fingerprintBytes])
	var groups []string
	for i := 0; i < len(h); i += 4 {
		groups = append(groups, h[i:i+4])
	}
	return strings.Join(groups, "-")
}

// IsFingerprint reports whether s, as a person typed it, is the fingerprint or
// the whole key id of k. Case, spaces, hyphens and colons do not matter in a
// fingerprint.
func IsFingerprint(s string, k jose.JSONWebKey) bool {
	plain := strings.NewReplacer(" ", "", "-", "", ":", "")
	s = strings.TrimSpace(s)
	return s != "" && (s == k.KeyID || strings.ToLower(plain.Replace(s)) == plain.Replace(Fingerprint(k)))
}
