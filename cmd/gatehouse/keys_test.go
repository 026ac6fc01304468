package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func gatehouse(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if status := cli.Run(context.Background(), newRoot(), args, &out, &errs); status != 0 {
		t.Fatalf("gatehouse %s: exit status %d: %s", strings.Join(args, " "), status, errs.String())
	}
	return out.String(), errs.String()
}

func TestKeysShowNamesThePresentLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "door")
	gatehouse(t, "init", "--data", dir, "--controller", "north-1")
	k, err := keys.LoadController(keys.File(pki.KeysDir(dir)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := k.Log.Verifier(keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	l, err := visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: v, Note: k.Log.NoteSigner, NoteVerifier: k.Log.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised, Boot: "00000000-0000-0000-0000-000000000000"}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := k.Log.VKey(visitorlog.Origin("north-1", head.Epoch))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := gatehouse(t, "keys", "show", "--data", dir, "--json")
	var shown shownKeys
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown.VKeys) != 1 || shown.VKeys[0] != want || shown.LogFault != "" {
		t.Errorf("vkeys are %q (%s), want %q", shown.VKeys, shown.LogFault, want)
	}

	// The keys are shown though the log is damaged, and the fault is named.
	if err := os.WriteFile(filepath.Join(dir, "records.db"), bytes.Repeat([]byte("x"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = gatehouse(t, "keys", "show", "--data", dir)
	if !strings.Contains(out, k.Log.KeyID()) || !strings.Contains(out, "not known: ") {
		t.Errorf("with a damaged log:\n%s", out)
	}
}

func TestNoCommandShowsASecret(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		root := t.TempDir()
		dir, crm := filepath.Join(root, "door"), filepath.Join(root, "crm")
		var seen strings.Builder
		say := func(args ...string) {
			out, errs := gatehouse(t, args...)
			seen.WriteString(out + errs)
		}
		say("init", "--data", dir, "--controller", "north-1", "--alg", alg)
		hidden := secretsOf(t, pki.KeysDir(dir))

		site, err := pki.InitSite(crm, pki.SiteOptions{Hosts: []string{"localhost"}, Timezone: "UTC", Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		k, err := keys.LoadCRM(keys.File(pki.KeysDir(crm)), "localhost")
		if err != nil {
			t.Fatal(err)
		}
		r, err := pki.ReadRequest(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := site.Approve(crm, k, r, pki.ApproveOptions{Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		bundle := filepath.Join(root, "north-1.bundle")
		if err := os.WriteFile(bundle, b, 0o600); err != nil {
			t.Fatal(err)
		}
		say("join", bundle, "--data", dir, "--fingerprint", site.Cosigner.Fingerprint())
		say("init", "--data", dir, "--controller", "north-1")
		say("keys", "init", "--data", dir)
		say("keys", "show", "--data", dir)
		say("keys", "show", "--data", dir, "--json", "--epoch", strings.Repeat("0", 32))
		hidden = append(hidden, secretsOf(t, pki.KeysDir(dir))...) // with the CRM's pepper
		hidden = append(hidden, secretsOf(t, pki.KeysDir(crm))...)

		for _, name := range []string{"request.json", "trust.json", "tls/client.crt", "tls/ca.crt"} {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			seen.WriteString(readable(t, content))
		}
		seen.WriteString(readable(t, b))
		for _, s := range hidden {
			for _, form := range []string{string(s), hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s), base64.RawURLEncoding.EncodeToString(s)} {
				if strings.Contains(seen.String(), form) {
					t.Errorf("%s: a secret of %d bytes is shown", alg, len(s))
				}
			}
		}
	}
}

// readable is a file as it stands, with the payloads of the JWS in it.
func readable(t *testing.T, content []byte) string {
	t.Helper()
	text := string(content)
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '"' || r == '\n' }) {
		if part := strings.Split(word, "."); len(part) == 3 {
			if payload, err := base64.RawURLEncoding.DecodeString(part[1]); err == nil {
				text += string(payload)
			}
		}
	}
	return text
}

// secretsOf are the secrets in a folder of keys: the files, what they encode,
// and the private numbers in that.
func secretsOf(t *testing.T, dir string) (secrets [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%s holds %q: %v", dir, files, err)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, bytes.TrimSpace(content))
		block, _ := pem.Decode(content)
		if block == nil {
			continue
		}
		secrets = append(secrets, block.Bytes)
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			continue // a symmetric secret
		}
		switch k := k.(type) {
		case interface{ Seed() []byte }:
			secrets = append(secrets, k.Seed())
		case interface{ Bytes() ([]byte, error) }:
			d, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, d)
		default:
			t.Fatalf("%s holds a %T", f, k)
		}
	}
	return secrets
}
