package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What a CRM tells the doors is signed with its policy key, which is at hand.
// That key is certified by the policy root, which may be kept offline and which
// the controllers have pinned; a new root is certified by the one before it.
// Both are one list of JWS, the authority, that goes out with each manifest: a
// pair of JWS for each new root, the oldest first, and then the key's certificate.

const (
	// MaxAuthority is how many JWS an authority has at most.
	MaxAuthority = 17
	// MaxAuthorityJWS is the longest of them, in bytes.
	MaxAuthorityJWS = 2 << 10
	// maxSerial is kept exact by every JSON reader.
	maxSerial = 1 << 53
)

// PolicyKey is what a policy root says of the key that signs manifests and
// commands.
type PolicyKey struct {
	JWK    jose.JSONWebKey
	Serial uint64 // one more with each certificate: none is below an earlier one
	From   time.Time
	Until  time.Time
	Root   jose.JSONWebKey // the last one: to be pinned in the place of the one before
}

type policyKeyForm struct {
	V      int             `json:"v"`
	Serial uint64          `json:"serial"`
	Key    json.RawMessage `json:"key"`
	From   time.Time       `json:"from"`
	Until  time.Time       `json:"until"`
}

type policyRootForm struct {
	V      int             `json:"v"`
	Former string          `json:"former"` // key id of the root before
	Root   json.RawMessage `json:"root"`
	From   time.Time       `json:"from"`
}

// CertifyPolicyKey certifies a key with the root. Times are cut to seconds.
func CertifyPolicyKey(root *Signer, key jose.JSONWebKey, serial uint64, from, until time.Time) (jws string, err error) {
	key, err = checkJWK(key)
	if err != nil {
		return "", fmt.Errorf("policy key: %w", err)
	}
	from, until = seconds(from), seconds(until)
	switch {
	case key.KeyID == root.KeyID():
		return "", errors.New("policy key: it is the root's own key, which is to be kept offline")
	case serial == 0 || serial > maxSerial:
		return "", fmt.Errorf("policy key: serial %d is out of range", serial)
	case !until.After(from):
		return "", fmt.Errorf("policy key: its certificate would end on %s, before it begins", until.Format(time.RFC3339))
	}
	jwk, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	return signAs(root, TypePolicyKey, policyKeyForm{1, serial, jwk, from, until})
}

// RotatePolicyRoot certifies a new root: the former one signs it, and it signs
// the same itself. An authority has both, in this order, before the certificate
// that the new root makes.
func RotatePolicyRoot(former, root *Signer, at time.Time) ([]string, error) {
	if former.KeyID() == root.KeyID() {
		return nil, errors.New("policy root: the new one is the former one")
	}
	jwk, err := json.Marshal(root.JWK())
	if err != nil {
		return nil, err
	}
	form := policyRootForm{1, former.KeyID(), jwk, seconds(at)}
	byFormer, err := signAs(former, TypePolicyRoot, form)
	if err != nil {
		return nil, err
	}
	byItself, err := signAs(root, TypePolicyRoot, form)
	return []string{byFormer, byItself}, err
}

func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func signAs(key *Signer, typ string, form any) (string, error) {
	s, err := key.As(typ)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(form)
	if err != nil {
		return "", err
	}
	return s.Sign(payload)
}

// OpenPolicyKey verifies an authority from the root that is pinned on, and
// returns the key that it certifies. Roots before the pinned one do not count:
// who has stolen one of them certifies nothing any more where Root was pinned.
// Whether the certificate holds at a time, Check says.
func OpenPolicyKey(pinned jose.JSONWebKey, authority []string) (*PolicyKey, error) {
	if n := len(authority); n == 0 || n > MaxAuthority || n%2 == 0 {
		return nil, fmt.Errorf("authority of the policy has %d parts, want an odd number up to %d", n, MaxAuthority)
	}
	for _, jws := range authority {
		if len(jws) > MaxAuthorityJWS {
			return nil, fmt.Errorf("authority of the policy has a part of %d bytes, more than %d", len(jws), MaxAuthorityJWS)
		}
	}
	root, err := checkJWK(pinned)
	if err != nil {
		return nil, fmt.Errorf("policy root: %w", err)
	}
	rotations, certificate := authority[:len(authority)-1], authority[len(authority)-1]
	for ; len(rotations) > 0; rotations = rotations[2:] {
		next, err := openRotation(root, rotations[0], rotations[1])
		if errors.Is(err, errFormer) {
			continue // it leads to the pinned root, or to one before that
		}
		if err != nil {
			return nil, fmt.Errorf("new policy root: %w", err)
		}
		root = next
	}
	k, err := openCertificate(root, certificate)
	if err != nil {
		return nil, fmt.Errorf("policy key: %w", err)
	}
	k.Root = root
	return k, nil
}

// errFormer is that a rotation is of another root than the one that is held.
var errFormer = errors.New("not signed by the policy root that is pinned")

func openRotation(root jose.JSONWebKey, byFormer, byItself string) (next jose.JSONWebKey, err error) {
	v, err := NewVerifier(root, TypePolicyRoot)
	if err != nil {
		return next, err
	}
	if head, err := readHeader(byFormer); err != nil {
		return next, err
	} else if head.Kid != root.KeyID {
		return next, errFormer
	}
	payload, err := v.Verify(byFormer)
	if err != nil {
		return next, err
	}
	var form policyRootForm
	if err := strictly(payload, &form); err != nil {
		return next, err
	}
	if form.V != 1 || form.Former != root.KeyID {
		return next, fmt.Errorf("version %d, former root %q: not the succession of the root %q", form.V, form.Former, root.KeyID)
	}
	if next, err = ParseJWK(form.Root); err != nil {
		return next, err
	}
	if v, err = NewVerifier(next, TypePolicyRoot); err != nil {
		return next, err
	}
	same, err := v.Verify(byItself)
	if err != nil {
		return next, fmt.Errorf("its own signature: %w", err)
	}
	if !bytes.Equal(same, payload) {
		return next, errors.New("the former root and the new one have signed different things")
	}
	return next, nil
}

func openCertificate(root jose.JSONWebKey, jws string) (*PolicyKey, error) {
	v, err := NewVerifier(root, TypePolicyKey)
	if err != nil {
		return nil, err
	}
	payload, err := v.Verify(jws)
	if err != nil {
		return nil, err
	}
	var form policyKeyForm
	if err := strictly(payload, &form); err != nil {
		return nil, err
	}
	if form.V != 1 || form.Serial == 0 || form.Serial > maxSerial || !form.Until.After(form.From) {
		return nil, fmt.Errorf("certificate of version %d, serial %d, from %s until %s: not one that is made here",
			form.V, form.Serial, form.From.Format(time.RFC3339), form.Until.Format(time.RFC3339))
	}
	k := &PolicyKey{Serial: form.Serial, From: form.From.UTC(), Until: form.Until.UTC()}
	k.JWK, err = ParseJWK(form.Key)
	return k, err
}

// ErrPolicyKeyEnded is that the certificate of a policy key has ended.
var ErrPolicyKeyEnded = errors.New("certificate of the policy key has ended")

// Check says whether the certificate holds: its serial is not below the highest
// that was seen, and it has not ended by now. When it began is not compared, since
// a controller's clock may be behind. A now of zero compares no times.
func (k *PolicyKey) Check(now time.Time, highest uint64) error {
	if k.Serial < highest {
		return fmt.Errorf("policy key: its certificate has the serial %d, and %d was seen already", k.Serial, highest)
	}
	if !now.IsZero() && now.After(k.Until) {
		return fmt.Errorf("%w: on %s", ErrPolicyKeyEnded, k.Until.Format(time.RFC3339))
	}
	return nil
}

// Verifier verifies what the key has signed as one sort of JWS, such as
// TypeManifest.
func (k *PolicyKey) Verifier(typ string) (*Verifier, error) { return NewVerifier(k.JWK, typ) }

// readHeader reads a header that is not verified yet.
func readHeader(jws string) (h header, err error) {
	first, _, _ := bytes.Cut([]byte(jws), []byte("."))
	raw, err := decodeBase64("header", string(first))
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("JWS header: %w", err)
	}
	return h, nil
}

// strictly reads one JSON object that is written in the one way in which it is
// written here.
func strictly[T any](payload []byte, form *T) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(form); err != nil {
		return err
	}
	again, err := json.Marshal(form)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, payload) {
		return errors.New("not written in the one accepted way (order, case, spaces, repeated names)")
	}
	return nil
}
