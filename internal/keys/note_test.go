package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cosig "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

const (
	origin     = "gatehouse/north-1/5f0c7b1d9e3a4f6280a1b2c3d4e5f607"
	checkpoint = origin + "\n3\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n"
)

func signNote(t testing.TB, text string, signers ...note.Signer) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newCosigner(t testing.TB, name string) *Cosigner {
	t.Helper()
	c, err := ParseCosignerKey(must[[]byte](t)(GenerateKey(EdDSA)), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckpointsVerifyHereAndWithOtherLibraries(t *testing.T) {
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		signed := signNote(t, checkpoint, must[note.Signer](t)(s.NoteSigner(origin)))
		vkey := must[string](t)(s.VKey(origin))
		ours := mustVerifier(t, s.JWK(), TypeRecord)

		verifiers := map[string]note.Verifier{
			"signer's own":           must[note.Verifier](t)(s.NoteVerifier(origin)),
			"of the JWK":             must[note.Verifier](t)(ours.NoteVerifier(origin)),
			"transparency-dev's own": must[note.Verifier](t)(cosig.NewVerifier(vkey)),
		}
		if alg == EdDSA {
			verifiers["x/mod's own"] = must[note.Verifier](t)(note.NewVerifier(vkey))
		}
		if again := must[string](t)(ours.VKey(origin)); again != vkey {
			t.Errorf("%s: vkey of the JWK is %s, of the signer %s", alg, again, vkey)
		}
		for name, v := range verifiers {
			n, err := note.Open(signed, note.VerifierList(v))
			if err != nil || len(n.Sigs) != 1 || n.Text != checkpoint {
				t.Errorf("%s: the verifier %s: %v", alg, name, err)
			}
			changed := strings.Replace(string(signed), "\n3\n", "\n4\n", 1)
			if _, err := note.Open([]byte(changed), note.VerifierList(v)); err == nil {
				t.Errorf("%s: the verifier %s takes a changed checkpoint", alg, name)
			}
		}
	}
}

func TestNotesOfOtherLibrariesVerify(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	theirs := must[note.Signer](t)(note.NewSigner(skey))
	raw := must[[]byte](t)(base64.StdEncoding.DecodeString(strings.SplitN(vkey, "+", 3)[2]))
	k, err := PublicJWK(ed25519.PublicKey(raw[1:]))
	if err != nil {
		t.Fatal(err)
	}
	v := mustVerifier(t, k, TypeRecord)
	ours := must[note.Verifier](t)(v.NoteVerifier(origin))
	if _, err := note.Open(signNote(t, checkpoint, theirs), note.VerifierList(ours)); err != nil {
		t.Error(err)
	}
	if got := must[string](t)(v.VKey(origin)); got != vkey {
		t.Errorf("vkey is %s, want %s", got, vkey)
	}
}

func TestCheckpointOfAnotherLogOrKeyIsNotTaken(t *testing.T) {
	for _, alg := range algorithms {
		s, other := newSigner(t, alg, TypeRecord), newSigner(t, alg, TypeRecord)
		signed := signNote(t, checkpoint, must[note.Signer](t)(s.NoteSigner(origin)))
		for name, v := range map[string]note.Verifier{
			"another name": must[note.Verifier](t)(s.NoteVerifier(origin + "0")),
			"another key":  must[note.Verifier](t)(other.NoteVerifier(origin)),
		} {
			if _, err := note.Open(signed, note.VerifierList(v)); err == nil {
				t.Errorf("%s: %s: the checkpoint was taken", alg, name)
			}
		}
	}
}

func TestNamesThatANoteCannotHoldAreRefused(t *testing.T) {
	s := newSigner(t, ES256, TypeRecord)
	for _, name := range []string{"", "a b", "a+b", "a\nb", "a\tb", "a\u00a0b", "a\x00b", "\xff"} {
		if _, err := s.NoteSigner(name); err == nil {
			t.Errorf("%q was taken as the name of a signer", name)
		}
		if _, err := s.NoteVerifier(name); err == nil {
			t.Errorf("%q was taken as the name of a verifier", name)
		}
		if _, err := s.VKey(name); err == nil {
			t.Errorf("%q was taken as the name of a vkey", name)
		}
	}
}

func TestCosignaturesVerifyBothWays(t *testing.T) {
	log := newSigner(t, ES256, TypeRecord)
	c := newCosigner(t, "crm.example.org")
	logSigner := must[note.Signer](t)(log.NoteSigner(origin))
	signed := signNote(t, checkpoint, logSigner, c.Note())

	parsed, err := ParseCosigner(c.Public().VKey())
	if err != nil {
		t.Fatal(err)
	}
	logVerifier := must[note.Verifier](t)(log.NoteVerifier(origin))
	for name, v := range map[string]note.Verifier{
		"ours":                   parsed.Note(),
		"transparency-dev's own": must[note.Verifier](t)(cosig.NewVerifier(parsed.VKey())),
	} {
		n, err := note.Open(signed, note.VerifierList(logVerifier, v))
		if err != nil || len(n.Sigs) != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}

	// The other way: a cosigner that the library made, from a key of its own.
	skey, vkey, err := note.GenerateKey(rand.Reader, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := cosig.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	if vkey, err = cosig.VKeyToCosignatureV1(vkey); err != nil {
		t.Fatal(err)
	}
	k, err := ParseCosigner(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(signNote(t, checkpoint, theirs), note.VerifierList(k.Note())); err != nil {
		t.Error(err)
	}
}

func TestCosignatureCarriesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCosigner(t, "crm.example.org")
		time.Sleep(90 * time.Minute)
		signed := signNote(t, checkpoint, c.Note())
		n, err := note.Open(signed, note.VerifierList(c.Public().Note()))
		if err != nil {
			t.Fatal(err)
		}
		at, err := cosig.CoSigV1Timestamp(n.Sigs[0])
		if err != nil || !at.Equal(time.Now().Truncate(time.Second)) {
			t.Errorf("cosigned at %v, want %v: %v", at, time.Now(), err)
		}
	})
}

func TestOnlyTheOneFormOfACosignersKeyIsTaken(t *testing.T) {
	c := newCosigner(t, "crm.example.org")
	good := c.Public().VKey()
	hash := strings.Split(good, "+")[1]
	signer := newSigner(t, EdDSA, TypeReceipt)
	for name, vkey := range map[string]string{
		"empty":           "",
		"plain Ed25519":   must[string](t)(signer.VKey("crm.example.org")),
		"ECDSA":           must[string](t)(newSigner(t, ES256, TypeReceipt).VKey("crm.example.org")),
		"another name":    "x" + good,
		"another hash":    strings.Replace(good, hash, "00000000", 1),
		"hash in capital": strings.Replace(good, hash, strings.ToUpper(hash)+"X", 1),
		"trailing bytes":  good + "\n",
		"newline inside":  good[:len(good)-4] + "\n" + good[len(good)-4:],
		"no name":         good[strings.Index(good, "+"):],
		"too long":        strings.Repeat("x", maxVKey) + good,
	} {
		if _, err := ParseCosigner(vkey); err == nil {
			t.Errorf("%s: %q was taken", name, vkey)
		}
	}
	if _, err := ParseCosigner(good); err != nil {
		t.Error(err)
	}
}

func TestReceiptIsNotABundle(t *testing.T) {
	c := newCosigner(t, "crm.example.org")
	receipts, err := c.Public().Receipts()
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := c.Public().Bundles()
	if err != nil {
		t.Fatal(err)
	}
	receipt, bundle := mustSign(t, c.Receipts(), "{}"), mustSign(t, c.Bundles(), "{}")
	if _, err := receipts.Verify(receipt); err != nil {
		t.Error(err)
	}
	if _, err := bundles.Verify(bundle); err != nil {
		t.Error(err)
	}
	if _, err := bundles.Verify(receipt); err == nil {
		t.Error("a receipt was taken for a bundle")
	}
	if _, err := receipts.Verify(bundle); err == nil {
		t.Error("a bundle was taken for a receipt")
	}
}

func FuzzParseCosigner(f *testing.F) {
	f.Add(newCosigner(f, "crm.example.org").Public().VKey())
	f.Add("a+b+c")
	f.Fuzz(func(t *testing.T, vkey string) {
		k, err := ParseCosigner(vkey)
		if err == nil && (k.VKey() != vkey || !strings.HasPrefix(vkey, k.Name()+"+")) {
			t.Fatalf("%q was read as %q", vkey, k.VKey())
		}
	})
}
