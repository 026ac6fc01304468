package keys

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var policyDay = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

func newPolicySigner(t testing.TB) *Signer {
	t.Helper()
	pem, err := GenerateKey(ES256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigner(pem, TypePolicy)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func certify(t testing.TB, root, key *Signer, serial uint64) string {
	t.Helper()
	jws, err := CertifyPolicyKey(root, key.JWK(), serial, policyDay, policyDay.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return jws
}

func rotate(t testing.TB, former, root *Signer) []string {
	t.Helper()
	pair, err := RotatePolicyRoot(former, root, policyDay)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestThePolicyKeyIsTheOneThatThePinnedRootCertified(t *testing.T) {
	root, key := newPolicySigner(t), newPolicySigner(t)
	k, err := OpenPolicyKey(root.JWK(), []string{certify(t, root, key, 3)})
	if err != nil {
		t.Fatal(err)
	}
	if k.JWK.KeyID != key.KeyID() || k.Root.KeyID != root.KeyID() || k.Serial != 3 || !k.From.Equal(policyDay) || !k.Until.Equal(policyDay.Add(time.Hour)) {
		t.Errorf("opened %+v", k)
	}
	v, err := k.Verifier(TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := key.As(TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := manifests.Sign([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(jws); err != nil {
		t.Errorf("what the key signed: %v", err)
	}
}

func TestANewRootCountsOnceTheFormerOneAndItselfHaveSignedIt(t *testing.T) {
	a, b, c, key := newPolicySigner(t), newPolicySigner(t), newPolicySigner(t), newPolicySigner(t)
	chain := slices.Concat(rotate(t, a, b), rotate(t, b, c), []string{certify(t, c, key, 5)})
	for name, pinned := range map[string]*Signer{"the first": a, "the second": b, "the last": c} {
		k, err := OpenPolicyKey(pinned.JWK(), chain)
		if err != nil || k.Root.KeyID != c.KeyID() || k.JWK.KeyID != key.KeyID() {
			t.Errorf("pinned is %s: %+v, %v", name, k, err)
		}
	}
	stolen := []string{certify(t, a, key, 9)}
	if _, err := OpenPolicyKey(c.JWK(), stolen); err == nil {
		t.Error("a former root still certifies where the new one is pinned")
	}
}

func TestAnAuthorityThatIsNotWholeIsRefused(t *testing.T) {
	root, next, key, stranger := newPolicySigner(t), newPolicySigner(t), newPolicySigner(t), newPolicySigner(t)
	pair, cert := rotate(t, root, next), certify(t, next, key, 2)
	asManifest, err := signAs(root, TypeManifest, policyKeyForm{1, 1, mustJWK(t, key), policyDay, policyDay.Add(1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, authority := range map[string][]string{
		"nothing":                  nil,
		"an even number":           pair,
		"too many":                 slices.Repeat([]string{cert}, MaxAuthority+2),
		"too long":                 {strings.Repeat("x", MaxAuthorityJWS+1)},
		"a stranger's certificate": {certify(t, stranger, key, 1)},
		"only the former signed":   {pair[0], pair[0], cert},
		"only the new one signed":  {pair[1], pair[1], cert},
		"another succession":       {pair[0], rotate(t, stranger, next)[1], cert},
		"out of order":             {pair[1], pair[0], cert},
		"changed":                  {pair[0], pair[1], cert[:len(cert)-4] + "AAAA"},
		"not a JWS":                {"x", "y", cert},
		"another sort of JWS":      {asManifest},
		"a rotation at the end":    {pair[0]},
	} {
		if k, err := OpenPolicyKey(root.JWK(), authority); err == nil {
			t.Errorf("%s: opened %+v", name, k)
		}
	}
}

func mustJWK(t testing.TB, s *Signer) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(s.JWK())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestACertificateOfTheRootsOwnKeyOrOfNoTimeIsNotMade(t *testing.T) {
	root, key := newPolicySigner(t), newPolicySigner(t)
	for name, err := range map[string]error{
		"its own key": errOf(CertifyPolicyKey(root, root.JWK(), 1, policyDay, policyDay.Add(time.Hour))),
		"no key":      errOf(CertifyPolicyKey(root, jose.JSONWebKey{}, 1, policyDay, policyDay.Add(time.Hour))),
		"serial 0":    errOf(CertifyPolicyKey(root, key.JWK(), 0, policyDay, policyDay.Add(time.Hour))),
		"no time":     errOf(CertifyPolicyKey(root, key.JWK(), 1, policyDay, policyDay.Add(time.Millisecond))),
	} {
		if err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if _, err := RotatePolicyRoot(root, root, policyDay); err == nil {
		t.Error("a root succeeds itself")
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestACertificateHoldsUntilItsEndAndAboveTheHighestSerial(t *testing.T) {
	root, key := newPolicySigner(t), newPolicySigner(t)
	k, err := OpenPolicyKey(root.JWK(), []string{certify(t, root, key, 3)})
	if err != nil {
		t.Fatal(err)
	}
	end := policyDay.Add(time.Hour)
	if err := k.Check(end, 3); err != nil {
		t.Error(err)
	}
	if err := k.Check(time.Time{}, 0); err != nil {
		t.Errorf("a clock that was never set: %v", err)
	}
	if err := k.Check(policyDay.AddDate(-1, 0, 0), 0); err != nil {
		t.Errorf("a clock that is behind: %v", err)
	}
	if err := k.Check(end.Add(time.Second), 0); !errors.Is(err, ErrPolicyKeyEnded) {
		t.Errorf("after its end: %v, want ErrPolicyKeyEnded", err)
	}
	if err := k.Check(end, 4); err == nil {
		t.Error("a serial below the highest holds")
	}
}

func TestWhatIsSealedForOneControllerOpensForNoOther(t *testing.T) {
	one, err := ParsePepper(GeneratePepper())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParsePepper(GeneratePepper())
	if err != nil {
		t.Fatal(err)
	}
	if one.Generation() == other.Generation() || len(one.Generation()) != 32 {
		t.Errorf("generations %s and %s", one.Generation(), other.Generation())
	}
	a, err := one.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	sealed := a.Seal([]byte("x"), nil)
	if plain, err := a.Open(sealed, nil); err != nil || string(plain) != "x" {
		t.Errorf("%q, %v", plain, err)
	}
	if _, err := b.Open(sealed, nil); err == nil {
		t.Error("another pepper opens it")
	}
}

func FuzzOpenPolicyKey(f *testing.F) {
	root, next, key := newPolicySigner(f), newPolicySigner(f), newPolicySigner(f)
	pair := rotate(f, root, next)
	f.Add(pair[0], pair[1], certify(f, next, key, 2))
	f.Add(pair[0], pair[1], certify(f, root, key, 2))
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, authority := range [][]string{{a}, {a, b, c}} {
			k, err := OpenPolicyKey(root.JWK(), authority)
			if err == nil && k.JWK.KeyID != key.KeyID() {
				t.Errorf("%q certifies another key, %q", authority, k.JWK.KeyID)
			}
		}
	})
}
