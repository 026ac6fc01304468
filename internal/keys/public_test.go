package keys

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

const aLog = "gatehouse/north-1"

// shownKeys is what the programs print of a log's key and of a cosigner's.
func shownKeys(tb testing.TB, s *Signer, c *Cosigner) (log, crm string) {
	tb.Helper()
	vkey, err := s.VKey(aLog + "/0f0e0d0c0b0a09080706050403020100")
	if err != nil {
		tb.Fatal(err)
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		return string(b) + "\n"
	}
	log = text(map[string]any{"controller": "north-1", "jwks": jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.JWK()}}, "vkeys": []string{vkey}})
	return log, text(map[string]any{"cosigner": c.Public().VKey(), "jwks": jose.JSONWebKeySet{Keys: []jose.JSONWebKey{c.Public().JWK()}}, "broker": "tls://x"})
}

func TestPublicKeysAreThoseOfTheVerifierKeys(t *testing.T) {
	for _, alg := range algorithms {
		s, c := newSigner(t, alg, TypeRecord), newCosigner(t, "crm.example")
		log, crm := shownKeys(t, s, c)
		p, err := ParsePublic([]byte(log + crm + log))
		if err != nil {
			t.Fatal(err)
		}
		logs, err := p.Logs(aLog)
		if err != nil || len(logs) != 1 || logs[0].KeyID() != s.KeyID() {
			t.Errorf("%s: logs %v, %v", alg, logs, err)
		}
		for _, other := range []string{"gatehouse/north", "gatehouse/north-11", "gatehouse/south-1", "crm.example"} {
			if logs, err := p.Logs(other); err != nil || len(logs) != 0 {
				t.Errorf("%s has the keys %v, %v", other, logs, err)
			}
		}
		if cs := p.Cosigners(); len(cs) != 1 || cs[0].VKey() != c.Public().VKey() {
			t.Errorf("cosigners %v", cs)
		}

		// A controller whose machine was replaced has two keys.
		log2, _ := shownKeys(t, newSigner(t, alg, TypeRecord), c)
		q, err := ParsePublic([]byte(log2))
		if err != nil {
			t.Fatal(err)
		}
		p.Join(q)
		if logs, err := p.Logs(aLog); err != nil || len(logs) != 2 {
			t.Errorf("%d keys, %v", len(logs), err)
		}
	}
}

func TestPublicKeysThatContradictThemselvesAreRefused(t *testing.T) {
	s, c := newSigner(t, ES256, TypeRecord), newCosigner(t, "crm.example")
	log, crm := shownKeys(t, s, c)
	other, _ := shownKeys(t, newSigner(t, ES256, TypeRecord), c)
	jwks := func(text string) string { return text[strings.Index(text, `"jwks"`):strings.Index(text, `,"vkeys"`)] }
	for name, bad := range map[string]struct{ text, want string }{
		"nothing":           {"", "no verifier key"},
		"a JWKS alone":      {"{" + jwks(log) + "}", "no verifier key"},
		"a JWKS by itself":  {strings.TrimPrefix(jwks(log), `"jwks":`), "no verifier key"},
		"no JSON":           {log + "x", "object 2"},
		"another JWKS":      {strings.Replace(log, jwks(log), jwks(other), 1), "not in the JWKS"},
		"a private key":     {`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"A","d":"A"}]}`, "key 1 of the JWKS"},
		"a damaged vkey":    {log + `{"vkeys":["gatehouse/north-1+00000000+AAAA"]}`, "object 2"},
		"a vkey's hash":     {strings.Replace(log, "+", "+0", 1), "damaged"},
		"a damaged CRM":     {strings.Replace(crm, `"cosigner":"`, `"cosigner":"x`, 1), "verifier key"},
		"too much":          {strings.Repeat(" ", MaxPublic) + log, "more than"},
		"a number for keys": {`{"vkeys":7}`, "object 1"},
	} {
		if _, err := ParsePublic([]byte(bad.text)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, bad.want)
		}
	}
}

func TestAVerifierKeyReadsBack(t *testing.T) {
	for _, alg := range algorithms {
		s := newSigner(t, alg, TypeRecord)
		v, err := s.VKey(aLog)
		if err != nil {
			t.Fatal(err)
		}
		name, k, err := ParseVKey(v)
		if err != nil || name != aLog || k.KeyID != s.KeyID() {
			t.Errorf("%s: %q, %v, %v", v, name, k.KeyID, err)
		}
		// An ECDSA key's hash leaves its name out: that is the specification's.
		for i := len(aLog); i < len(v); i++ {
			if name, k, err := ParseVKey(v[:i] + string(v[i]^1) + v[i+1:]); err == nil {
				t.Errorf("byte %d changed: read as %q %s", i, name, k.KeyID)
			}
		}
	}
}

func FuzzParsePublic(f *testing.F) {
	for _, alg := range algorithms {
		log, crm := shownKeys(f, newSigner(f, alg, TypeRecord), newCosigner(f, "crm.example"))
		f.Add([]byte(log + crm))
		f.Add([]byte(log))
	}
	f.Add([]byte(`{"keys":[],"vkey":"","vkeys":["a+b+c"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePublic(text)
		if err != nil {
			return
		}
		for _, l := range p.logs {
			v, err := VKey(l.name, l.jwk)
			if err != nil {
				t.Fatal(err)
			}
			// Whatever is trusted stands in the text as it is.
			if !slices.Contains(vkeysIn(t, text), v) {
				t.Fatalf("%q is trusted and stands nowhere in %s", v, text)
			}
		}
		if len(p.logs)+len(p.cosigners) == 0 {
			t.Fatal("no key, and no error")
		}
	})
}

// vkeysIn are the verifier keys that stand in JSON objects.
func vkeysIn(t *testing.T, text []byte) (all []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(text)))
	for d.More() {
		var f publicForm
		if err := d.Decode(&f); err != nil {
			t.Fatal(err)
		}
		all = append(append(all, f.VKeys...), f.VKey, f.Cosigner)
	}
	return all
}
