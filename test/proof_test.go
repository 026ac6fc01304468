package test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// python finds an interpreter that has the package cryptography: where
// several are installed, not all need to.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if _, _, err := output(t, name, "-c", "import cryptography"); err == nil {
			return name
		}
	}
	t.Fatal("no python3 with the package cryptography: apt-get install python3 python3-cryptography")
	return ""
}

// proofsHold proves records of a site, from both sides, and checks the proofs
// as three others would: with gatehouse-crm and nothing but public keys, with
// the script for a CRM's developers, and with another implementation of RFC
// 6962. Then it changes them.
func proofsHold(t *testing.T, bin, data string) {
	dir := t.TempDir()
	gatehouse, crm, interpreter := filepath.Join(bin, "gatehouse"), filepath.Join(bin, "gatehouse-crm"), python(t)
	run := func(name string, args ...string) string {
		t.Helper()
		stdout, stderr, err := output(t, name, args...)
		if err != nil {
			t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, stdout, stderr)
		}
		return stdout
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	door, central := filepath.Join(data, "door"), filepath.Join(data, "crm")
	ofDoor, ofCRM := run(gatehouse, "keys", "show", "--json", "--data", door), run(crm, "pki", "show", "--json", "--data", central)
	keys := write("keys.json", ofDoor+ofCRM)
	registered := write("registered.json", run(crm, "controllers", "list", "--json", "--data", central)+ofCRM)
	var shown struct{ Controller string }
	if err := json.Unmarshal([]byte(ofDoor), &shown); err != nil {
		t.Fatal(err)
	}
	verify := func(file, keys string) (string, error) {
		stdout, stderr, err := output(t, crm, "verify", file, "--keys", keys)
		return stdout + stderr, err
	}
	script := func(file, keys string) (string, error) {
		stdout, stderr, err := output(t, interpreter, filepath.Join("..", "docs", "verify", "proof.py"), file, keys)
		return stdout + stderr, err
	}

	var good string
	for _, seq := range []string{"0", "7", "25"} {
		for _, text := range []string{
			run(gatehouse, "log", "proof", seq, "--data", door),
			run(crm, "log", "proof", shown.Controller, seq, "--data", central),
		} {
			good = text
			included(t, text)
			file := write("good.json", text)
			for _, k := range []string{keys, registered} {
				if said, err := verify(file, k); err != nil || !strings.Contains(said, "ok: record "+seq+" of ") || !strings.Contains(said, "countersigned by localhost") {
					t.Errorf("gatehouse-crm verify of record %s: %v\n%s", seq, err, said)
				}
				if said, err := script(file, k); err != nil || !strings.HasPrefix(said, "ok: record "+seq+" of ") || !strings.Contains(said, "countersigned by localhost") {
					t.Errorf("proof.py of record %s: %v\n%s", seq, err, said)
				}
			}
		}
	}

	for name, text := range tampered(t, good) {
		file := write("bad.json", text)
		if said, err := verify(file, keys); err == nil || !strings.Contains(said, "BAD") {
			t.Errorf("%s: gatehouse-crm verify: %v\n%s", name, err, said)
		}
		if said, err := script(file, keys); err == nil || strings.Contains(said, "ok:") {
			t.Errorf("%s: proof.py: %v\n%s", name, err, said)
		}
	}
	file := write("good.json", good)
	for name, text := range map[string]string{"the CRM's": ofDoor[:strings.LastIndex(ofDoor, `,"cosigner"`)] + "}", "the controller's": ofCRM} {
		k := write("fewer.json", text)
		if said, err := verify(file, k); err == nil {
			t.Errorf("verified without %s keys: %s", name, said)
		}
		if said, err := script(file, k); err == nil || !strings.Contains(said, "BAD: the checkpoint is not") {
			t.Errorf("proof.py verified without %s keys: %v, %s", name, err, said)
		}
	}
}

// included holds a proof to an independent implementation of RFC 6962.
func included(t *testing.T, text string) {
	t.Helper()
	p, err := visitorlog.ParseProof([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := visitorlog.ParseCheckpoint(p.Checkpoint[:strings.Index(p.Checkpoint, "\n\n")+1])
	if err != nil {
		t.Fatal(err)
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	leaf := rfc6962.DefaultHasher.HashLeaf([]byte(p.JWS))
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, p.Size, leaf, hashes, c.Root[:]); err != nil {
		t.Errorf("record %d: %v", p.Index, err)
	}
}

// tampered are forgeries of a proof.
func tampered(t *testing.T, good string) map[string]string {
	t.Helper()
	forge := func(change func(p map[string]any)) string {
		var p map[string]any
		d := json.NewDecoder(strings.NewReader(good))
		d.UseNumber()
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		before := maps.Clone(p)
		change(p)
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := json.Marshal(before); err != nil || bytes.Equal(text, same) {
			t.Fatal("nothing was changed")
		}
		return string(text)
	}
	jws := func(part int, change func(string) string) func(map[string]any) {
		return func(p map[string]any) {
			parts := strings.Split(p["jws"].(string), ".")
			parts[part] = change(parts[part])
			p["jws"] = strings.Join(parts, ".")
		}
	}
	payload := func(old, with string) func(string) string {
		return func(s string) string {
			b, err := base64.RawURLEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return base64.RawURLEncoding.EncodeToString(bytes.Replace(b, []byte(old), []byte(with), 1))
		}
	}
	flip := func(s string) string {
		b := []byte(s)
		b[len(b)/2] ^= 3
		return string(b)
	}
	note := func(change func(string) string) func(map[string]any) {
		return func(p map[string]any) { p["checkpoint"] = change(p["checkpoint"].(string)) }
	}
	line := func(n int) func(string) string { // without that signature
		return func(s string) string {
			lines := strings.SplitAfter(s, "\n")
			return strings.Join(append(lines[:4+n:4+n], lines[5+n:]...), "")
		}
	}
	out := map[string]string{
		"another record":          forge(jws(1, payload("gatehouse.", "gatehouse:"))),
		"another time":            forge(jws(1, payload(`"time":"2`, `"time":"3`))),
		"another signature":       forge(jws(2, flip)),
		"no algorithm":            forge(jws(0, func(string) string { return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) })),
		"another index":           forge(func(p map[string]any) { p["index"] = 3 }),
		"another size":            forge(func(p map[string]any) { p["size"] = 26 }),
		"another controller":      forge(func(p map[string]any) { p["controller"] = "south-1" }),
		"another epoch":           forge(func(p map[string]any) { p["epoch"] = strings.Repeat("0", 32) }),
		"no hashes":               forge(func(p map[string]any) { p["hashes"] = []any{} }),
		"a hash too many":         forge(func(p map[string]any) { h := p["hashes"].([]any); p["hashes"] = append(h[:len(h):len(h)], h[0]) }),
		"the checkpoint's root":   forge(note(func(s string) string { l := strings.SplitAfter(s, "\n"); l[2] = flip(l[2]); return strings.Join(l, "") })),
		"the checkpoint's origin": forge(note(func(s string) string { return strings.Replace(s, "gatehouse/", "gatehouse/x", 1) })),
		"no signature of the log": forge(note(line(0))),
		"no countersignature":     forge(note(line(1))),
		"another countersignature": forge(note(func(s string) string {
			at := len(s) - 40
			return s[:at] + string(flip(s[at:at+3])) + s[at+3:]
		})),
	}
	h := forge(func(p map[string]any) {
		list := p["hashes"].([]any)
		p["hashes"] = append([]any{flip(list[0].(string))}, list[1:]...)
	})
	out["another hash"] = h
	if len(out) != 16 {
		t.Fatal(fmt.Sprint(len(out), " forgeries"))
	}
	return out
}

// TestAProofNeedsEverySignatureHoweverTheTreeIs makes proofs whose tree is
// right and something else is not, as a controller or a CRM could that lies.
// Both kinds of key are used.
func TestAProofNeedsEverySignatureHoweverTheTreeIs(t *testing.T) {
	t.Parallel()
	crm, interpreter := filepath.Join(rig.Programs(t), "gatehouse-crm"), python(t)
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := keys.NewCosigner(private, "crm.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA} {
		log, stranger := newLogKey(t, alg), newLogKey(t, alg)
		request, err := log.As(keys.TypeRequest)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			record, checkpoint *keys.Signer
			change             func(*visitorlog.Record)
			good               bool
		}{
			"as it should be":                 {log, log, nil, true},
			"record signed by a stranger":     {stranger, log, nil, false},
			"record signed as something else": {request, log, nil, false},
			"checkpoint signed by a stranger": {log, stranger, nil, false},
			"record of another controller": {log, log, func(r *visitorlog.Record) {
				r.Source, r.Data.Controller = "/controllers/south-1", "south-1"
			}, false},
			"record of another epoch": {log, log, func(r *visitorlog.Record) {
				r.Data.Epoch = strings.Repeat("1", 32)
				r.ID = r.Data.Epoch + "-0"
			}, false},
			"record of another place": {log, log, func(r *visitorlog.Record) {
				r.Type, r.ID, r.Data.Sequence, r.Data.Previous = visitorlog.Tamper, r.Data.Epoch+"-1", 1, tlog.Hash{}.String()
				r.Data.Active = new(bool)
			}, false},
		} {
			dir := t.TempDir()
			file, known := filepath.Join(dir, "proof.json"), filepath.Join(dir, "keys.json")
			if err := os.WriteFile(file, lonelyProof(t, c.record, c.checkpoint, cosigner, c.change), 0o600); err != nil {
				t.Fatal(err)
			}
			vkey, err := log.VKey("gatehouse/north-1")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(known, fmt.Appendf(nil, `{"vkeys":[%q],"cosigner":%q}`, vkey, cosigner.Public().VKey()), 0o600); err != nil {
				t.Fatal(err)
			}
			for tool, args := range map[string][]string{
				"gatehouse-crm verify": {crm, "verify", file, "--keys", known},
				"proof.py":             {interpreter, filepath.Join("..", "docs", "verify", "proof.py"), file, known},
			} {
				stdout, stderr, err := output(t, args[0], args[1:]...)
				if (err == nil) != c.good || strings.Contains(stdout, "ok: ") != c.good || !c.good && !strings.Contains(stderr, "BAD: ") {
					t.Errorf("%s, %s: %s says %v\n%s%s", alg, name, tool, err, stdout, stderr)
				}
			}
		}
	}
}

func newLogKey(t *testing.T, alg keys.Algorithm) *keys.Signer {
	t.Helper()
	pem, err := keys.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.ParseSigner(pem, keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lonelyProof is the proof of the only record of a log, its tree always right.
func lonelyProof(t *testing.T, record, checkpoint *keys.Signer, cosigner *keys.Cosigner, change func(*visitorlog.Record)) []byte {
	t.Helper()
	epoch := strings.Repeat("0", 32)
	r := visitorlog.Record{
		SpecVersion: "1.0", ID: epoch + "-0", Source: "/controllers/north-1", Type: visitorlog.EpochStarted,
		Time: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), DataContentType: "application/json",
		Data: visitorlog.Data{Controller: "north-1", Epoch: epoch, Clock: visitorlog.Clock{State: "unset"}, Salt: "AAECAwQFBgcICQoLDA0ODw=="},
	}
	if change != nil {
		change(&r)
	}
	payload, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := record.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	origin := visitorlog.Origin("north-1", epoch)
	own, err := checkpoint.NoteSigner(origin)
	if err != nil {
		t.Fatal(err)
	}
	c := visitorlog.Checkpoint{Origin: origin, Size: 1, Root: tlog.RecordHash([]byte(jws))}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, own, cosigner.Note())
	if err != nil {
		t.Fatal(err)
	}
	p := visitorlog.Proof{Version: visitorlog.ProofVersion, Controller: "north-1", Epoch: epoch, Size: 1, JWS: jws, Hashes: []tlog.Hash{}, Checkpoint: string(signed)}
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
