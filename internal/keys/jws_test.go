package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

var algorithms = []Algorithm{ES256, EdDSA}

func newSigner(t testing.TB, alg Algorithm, typ string) *Signer {
	t.Helper()
	b, err := GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigner(b, typ)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustVerifier(t testing.TB, k jose.JSONWebKey, typ string) *Verifier {
	t.Helper()
	v, err := NewVerifier(k, typ)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustSign(t testing.TB, s *Signer, payload string) string {
	t.Helper()
	jws, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return jws
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestWhatIsSignedVerifies(t *testing.T) {
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		v := mustVerifier(t, s.JWK(), TypeRecord)
		rapid.Check(t, func(t *rapid.T) {
			payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
			jws, err := s.Sign(payload)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Verify(jws)
			if err != nil || string(got) != string(payload) {
				t.Fatalf("%s: got %q, %v", alg, got, err)
			}
		})
	}
}

func TestStockLibraryVerifiesAndHeaderHasOnlyAlgKidTyp(t *testing.T) {
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		jws := mustSign(t, s, `{"a":1}`)
		o, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
		if err != nil {
			t.Fatal(err)
		}
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{newSigner(t, alg, "x").JWK(), s.JWK()}}
		if got, err := o.Verify(set); err != nil || string(got) != `{"a":1}` {
			t.Fatalf("%s: got %q, %v", alg, got, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(strings.Split(jws, ".")[0])
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"alg":"` + string(alg) + `","kid":"` + s.KeyID() + `","typ":"gatehouse-record+jwt"}`; string(raw) != want {
			t.Errorf("header is %s, want %s", raw, want)
		}
	}
}

func TestKeyIDIsTheThumbprintOfRFC7638(t *testing.T) {
	// RFC 8037, appendix A.3.
	k, err := ParseJWK([]byte(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; k.KeyID != want {
		t.Errorf("key id is %s, want %s", k.KeyID, want)
	}
	if want := "90fa-cafe-a9b1-5566-9854-0f70-c011-7a22"; Fingerprint(k) != want {
		t.Errorf("fingerprint is %s, want %s", Fingerprint(k), want)
	}
}

// raw signs whatever header it is given, as a forger with the key could.
func raw(t testing.TB, s *Signer, header, payload string) string {
	t.Helper()
	input := b64(header) + "." + b64(payload)
	sig, err := s.signature([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestForgedJWSAreRefused(t *testing.T) {
	const payload = `{"seq":7}`
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		other := newSigner(t, alg, TypeRecord)
		swapped := newSigner(t, map[Algorithm]Algorithm{ES256: EdDSA, EdDSA: ES256}[alg], TypeRecord)
		v := mustVerifier(t, s.JWK(), TypeRecord)
		good := mustSign(t, s, payload)
		part := strings.Split(good, ".")
		a, kid := string(alg), s.KeyID()
		header := func(alg string) string { return `{"alg":"` + alg + `","kid":"` + kid + `","typ":"` + TypeRecord + `"}` }
		der, err := x509.MarshalPKIXPublicKey(s.JWK().Key)
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := json.Marshal(s.JWK())
		if err != nil {
			t.Fatal(err)
		}
		hs256 := func(secret []byte) string {
			m := hmac.New(sha256.New, secret)
			m.Write([]byte(b64(header("HS256")) + "." + b64(payload)))
			return b64(header("HS256")) + "." + b64(payload) + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
		}
		asAnother, err := s.As(TypeReceipt)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct{ jws, want string }{
			"empty":                        {"", "three parts"},
			"two parts":                    {part[0] + "." + part[1], "three parts"},
			"four parts":                   {good + ".", "three parts"},
			"JSON serialisation":           {`{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`, "three parts"},
			"alg none":                     {b64(header("none")) + "." + part[1] + ".", `algorithm "none"`},
			"alg none with signature":      {b64(header("none")) + "." + part[1] + "." + part[2], `algorithm "none"`},
			"alg missing":                  {raw(t, s, `{"kid":"`+kid+`","typ":"`+TypeRecord+`"}`, payload), `algorithm ""`},
			"HS256 with the DER key":       {hs256(der), `algorithm "HS256"`},
			"HS256 with the PEM key":       {hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), `algorithm "HS256"`},
			"HS256 with the JWK":           {hs256(jwk), `algorithm "HS256"`},
			"the other algorithm's key":    {raw(t, swapped, header(string(swapped.Algorithm())), payload), "algorithm"},
			"the other algorithm, as ours": {raw(t, swapped, header(a), payload), "JWS signature"},
			"another key":                  {mustSign(t, other, payload), "signed by the key"},
			"another key, under this kid":  {raw(t, other, header(a), payload), "does not verify"},
			"another typ":                  {mustSign(t, asAnother, payload), `is a "gatehouse-receipt+jwt"`},
			"unknown crit":                 {raw(t, s, `{"alg":"`+a+`","crit":["x"],"kid":"`+kid+`","typ":"`+TypeRecord+`","x":1}`, payload), "more than alg"},
			"crit b64":                     {raw(t, s, `{"alg":"`+a+`","b64":false,"crit":["b64"],"kid":"`+kid+`","typ":"`+TypeRecord+`"}`, payload), "more than alg"},
			"crit twice":                   {raw(t, s, `{"alg":"`+a+`","crit":["b64"],"crit":["b64"],"kid":"`+kid+`","typ":"`+TypeRecord+`"}`, payload), "more than alg"},
			"embedded JWK":                 {raw(t, s, `{"alg":"`+a+`","jwk":`+string(jwk)+`,"kid":"`+kid+`","typ":"`+TypeRecord+`"}`, payload), "more than alg"},
			"alg twice":                    {raw(t, s, `{"alg":"none","alg":"`+a+`","kid":"`+kid+`","typ":"`+TypeRecord+`"}`, payload), "more than alg"},
			"other case":                   {raw(t, s, `{"ALG":"`+a+`","kid":"`+kid+`","typ":"`+TypeRecord+`"}`, payload), "more than alg"},
			"other order":                  {raw(t, s, `{"kid":"`+kid+`","alg":"`+a+`","typ":"`+TypeRecord+`"}`, payload), "another form"},
			"space in the header":          {raw(t, s, header(a)+" ", payload), "another form"},
			"header not JSON":              {raw(t, s, "alg", payload), "JWS header"},
			"trailing newline":             {good + "\n", "base64"},
			"trailing space":               {good + " ", "base64"},
			"leading space":                {" " + good, "base64"},
			"newline in the payload":       {part[0] + "." + part[1][:4] + "\n" + part[1][4:] + "." + part[2], "canonical"},
			"newline in the signature":     {part[0] + "." + part[1] + "." + part[2][:4] + "\r\n" + part[2][4:], "canonical"},
			"padded signature":             {good + "==", "base64"},
			"padded payload":               {part[0] + "." + part[1] + "=." + part[2], "base64"},
			"other payload":                {part[0] + "." + b64(`{"seq":8}`) + "." + part[2], "does not verify"},
			"no payload":                   {part[0] + ".." + part[2], "does not verify"},
			"no signature":                 {part[0] + "." + part[1] + ".", "JWS signature"},
			"short signature":              {good[:len(good)-4], "JWS signature"},
			"long signature":               {good + "AAAA", "JWS signature"},
			"too long":                     {strings.Repeat("A", MaxJWS+1), "more than"},
		} {
			t.Run(a+"/"+name, func(t *testing.T) {
				got, err := v.Verify(c.jws)
				if err == nil {
					t.Fatalf("verified as %q", got)
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("error is %q, want one with %q", err, c.want)
				}
			})
		}
		if _, err := v.Verify(good); err != nil {
			t.Errorf("%s: the original does not verify: %v", alg, err)
		}
	}
}

// A signature has 64 bytes, so the last of its 86 digits has four bits that
// stand for nothing; a payload may have two or four.
func TestUnusedBitsOfBase64MustBeZero(t *testing.T) {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		v := mustVerifier(t, s.JWK(), TypeRecord)
		for _, payload := range []string{"a", "ab"} {
			good := mustSign(t, s, payload)
			part := strings.Split(good, ".")
			for i := range part {
				for _, d := range digits {
					p := append([]string(nil), part...)
					p[i] = p[i][:len(p[i])-1] + string(d)
					if jws := strings.Join(p, "."); jws != good {
						if _, err := v.Verify(jws); err == nil {
							t.Fatalf("%s: a second form of the same JWS verified: part %d ends in %c instead of %c", alg, i, d, part[i][len(part[i])-1])
						}
					}
				}
			}
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		v := mustVerifier(t, s.JWK(), TypeRecord)
		good := mustSign(t, s, "x")
		for i := range len(good) {
			for bit := range 8 {
				b := []byte(good)
				b[i] ^= 1 << bit
				if _, err := v.Verify(string(b)); err == nil {
					t.Fatalf("%s: byte %d, bit %d changed, and it verified", alg, i, bit)
				}
			}
		}
	}
}

// Of (r, s) and (r, n-s), both of which ECDSA takes, a record has one.
func TestSecondFormOfAnECDSASignatureIsRefused(t *testing.T) {
	s := newSigner(t, ES256, TypeRecord)
	v := mustVerifier(t, s.JWK(), TypeRecord)
	for range 20 {
		part := strings.Split(mustSign(t, s, "x"), ".")
		sig, err := base64.RawURLEncoding.DecodeString(part[2])
		if err != nil {
			t.Fatal(err)
		}
		second := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(sig[32:]))
		second.FillBytes(sig[32:])
		jws := part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString(sig)
		o, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Verify(s.JWK().Key); err != nil {
			t.Fatalf("the second form should be valid to others: %v", err)
		}
		if _, err := v.Verify(jws); err == nil || !strings.Contains(err.Error(), "canonical") {
			t.Fatalf("second form: %v", err)
		}
	}
}

// hardware is a key that is only reachable through crypto.Signer, like a TPM's.
type hardware struct{ key *ecdsa.PrivateKey }

func (h hardware) Public() crypto.PublicKey { return h.key.Public() }
func (h hardware) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return h.key.Sign(r, digest, o)
}

func TestAKeyInHardwareSigns(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(hardware{key}, TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mustVerifier(t, s.JWK(), TypeRecord).Verify(mustSign(t, s, "x")); err != nil {
		t.Error(err)
	}
}

func TestOnlyPublicKeysOfOurKindsAreTaken(t *testing.T) {
	s := newSigner(t, ES256, "x")
	private, err := json.Marshal(jose.JSONWebKey{Key: s.key, KeyID: s.KeyID()})
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(s.JWK())
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	privateEd, err := json.Marshal(jose.JSONWebKey{Key: ed})
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big384, err := json.Marshal(jose.JSONWebKey{Key: p384.Public()})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ jwk, want string }{
		"private EC key":      {string(private), "not a public key"},
		"private Ed25519 key": {string(privateEd), "not a public key"},
		"symmetric key":       {`{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, "not a public key"},
		"P-384":               {string(big384), "P-384"},
		"not on the curve":    {`{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`, "JWK"},
		"other kid":           {strings.Replace(string(public), s.KeyID(), "other", 1), "thumbprint"},
		"other alg":           {strings.Replace(string(public), "ES256", "EdDSA", 1), "algorithm"},
		"other use":           {strings.Replace(string(public), `"sig"`, `"enc"`, 1), "use"},
		"not JSON":            {"x", "JWK"},
		"trailing bytes":      {string(public) + "{}", "JWK"},
		"too long":            {string(public) + strings.Repeat(" ", maxJWK), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParseJWK([]byte(c.jwk))
			if err == nil {
				t.Fatalf("taken as %v", k.KeyID)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %q, want one with %q", err, c.want)
			}
		})
	}
	if k, err := ParseJWK(public); err != nil || k.KeyID != s.KeyID() {
		t.Errorf("public key: %v", err)
	}
}

func TestFingerprintIsRecognisedHoweverItIsTyped(t *testing.T) {
	k := newSigner(t, EdDSA, "x").JWK()
	f := Fingerprint(k)
	for _, s := range []string{f, strings.ToUpper(f), strings.ReplaceAll(f, "-", ""), strings.ReplaceAll(f, "-", " "), strings.ReplaceAll(f, "-", ":"), " " + f + "\n", k.KeyID} {
		if !IsFingerprint(s, k) {
			t.Errorf("%q is not recognised", s)
		}
	}
	for _, s := range []string{"", " ", "-", f[:len(f)-1], f + "0", strings.ToUpper(k.KeyID) + "x", Fingerprint(newSigner(t, EdDSA, "x").JWK())} {
		if IsFingerprint(s, k) {
			t.Errorf("%q is taken for the fingerprint %s", s, f)
		}
	}
}

func FuzzVerify(f *testing.F) {
	var verifiers []*Verifier
	for _, alg := range algorithms {
		s := newSigner(f, alg, TypeRecord)
		verifiers = append(verifiers, mustVerifier(f, s.JWK(), TypeRecord))
		f.Add(mustSign(f, s, "{}"))
		f.Add(raw(f, s, `{"alg":"none"}`, "{}"))
	}
	f.Add("..")
	f.Fuzz(func(t *testing.T, jws string) {
		for _, v := range verifiers {
			payload, err := v.Verify(jws)
			if err != nil {
				continue
			}
			part := strings.Split(jws, ".")
			if len(part) != 3 || part[1] != base64.RawURLEncoding.EncodeToString(payload) {
				t.Fatalf("accepted %q, which is not the canonical form of its payload", jws)
			}
		}
	})
}

func FuzzParseJWK(f *testing.F) {
	for _, alg := range algorithms {
		b, err := json.Marshal(newSigner(f, alg, "x").JWK())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"kty":"oct","k":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseJWK(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := ParseJWK(again); err != nil || l.KeyID != k.KeyID || !l.IsPublic() {
			t.Fatalf("%s does not read back: %v", again, err)
		}
	})
}
