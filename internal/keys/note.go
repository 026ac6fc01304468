package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/mod/sumdb/note"
)

// The signature types of https://c2sp.org/signed-note.
const (
	noteEd25519       = 0x01
	noteECDSA         = 0x02
	noteCosignatureV1 = 0x04
)

// NoteSigner signs checkpoints as the log that origin names. An Ed25519 key
// makes signatures of type 1, a P-256 key of type 2.
func (s *Signer) NoteSigner(origin string) (note.Signer, error) {
	k, err := newNoteKey(origin, s.key.Public())
	if err != nil {
		return nil, err
	}
	return &noteSigner{noteKey: k, key: &PrivateKey{"private key", s.key}}, nil
}

// NoteVerifier verifies checkpoints of the log that origin names.
func (s *Signer) NoteVerifier(origin string) (note.Verifier, error) {
	return newNoteVerifier(origin, s.jwk.Key)
}

// VKey is the verifier key of the log that origin names, in the text form of
// https://c2sp.org/signed-note.
func (s *Signer) VKey(origin string) (string, error) { return VKey(origin, s.jwk) }

// NoteVerifier verifies checkpoints of the log that origin names.
func (v *Verifier) NoteVerifier(origin string) (note.Verifier, error) {
	return newNoteVerifier(origin, v.jwk.Key)
}

// VKey is the verifier key of the log that origin names.
func (v *Verifier) VKey(origin string) (string, error) { return VKey(origin, v.jwk) }

// noteKey is a public key under a name.
type noteKey struct {
	name    string
	hash    uint32
	encoded []byte // signature type and public key
}

func newNoteKey(name string, pub crypto.PublicKey) (noteKey, error) {
	if name == "" || !utf8.ValidString(name) || strings.Contains(name, "+") ||
		strings.ContainsFunc(name, unicode.IsSpace) || strings.ContainsFunc(name, unicode.IsControl) {
		return noteKey{}, fmt.Errorf("%q cannot name a note's key: a name has no spaces, control characters or plus signs", name)
	}
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		enc := append([]byte{noteEd25519}, pub...)
		return noteKey{name, noteHash(name, enc), enc}, nil
	case *ecdsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return noteKey{}, fmt.Errorf("encode public key: %w", err)
		}
		// For this type alone the specification leaves the name out.
		sum := sha256.Sum256(der)
		return noteKey{name, binary.BigEndian.Uint32(sum[:]), append([]byte{noteECDSA}, der...)}, nil
	}
	return noteKey{}, fmt.Errorf("no note signature type for a %T", pub)
}

func noteHash(name string, encoded []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), encoded...))
	return binary.BigEndian.Uint32(sum[:])
}

// VKey is the verifier key of a public key under a name.
func VKey(name string, jwk jose.JSONWebKey) (string, error) {
	k, err := newNoteKey(name, jwk.Key)
	if err != nil {
		return "", err
	}
	return k.String(), nil
}

// String is the key in the text form of a verifier key.
func (k noteKey) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.name, k.hash, base64.StdEncoding.EncodeToString(k.encoded))
}

func (k noteKey) Name() string    { return k.name }
func (k noteKey) KeyHash() uint32 { return k.hash }

type noteSigner struct {
	noteKey
	key *PrivateKey
}

// Format writes only the public key, whatever the verb is.
func (s *noteSigner) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

func (s *noteSigner) Sign(msg []byte) ([]byte, error) {
	if s.encoded[0] == noteEd25519 {
		return s.key.key.Sign(rand.Reader, msg, crypto.Hash(0))
	}
	digest := sha256.Sum256(msg)
	return s.key.key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

type noteVerifier struct {
	noteKey
	pub crypto.PublicKey
}

func newNoteVerifier(name string, pub crypto.PublicKey) (note.Verifier, error) {
	k, err := newNoteKey(name, pub)
	if err != nil {
		return nil, err
	}
	return &noteVerifier{k, pub}, nil
}

func (v *noteVerifier) Verify(msg, sig []byte) bool {
	switch pub := v.pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(pub, msg, sig)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(pub, digest[:], sig)
	}
	return false
}
