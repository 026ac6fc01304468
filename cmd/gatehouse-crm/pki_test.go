package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
)

func TestNoCommandOfTheCRMShowsASecret(t *testing.T) {
	root := t.TempDir()
	dir, door := filepath.Join(root, "crm"), filepath.Join(root, "door")
	if _, err := keys.InitController(pki.KeysDir(door), keys.ES256); err != nil {
		t.Fatal(err)
	}
	k, err := keys.LoadController(keys.File(pki.KeysDir(door)))
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.WriteRequest(door, "north-1", k)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(root, "north-1.bundle")

	var seen bytes.Buffer
	for _, args := range [][]string{
		{"pki", "init", "--data", dir, "--host", "localhost"},
		{"pki", "show", "--data", dir},
		{"pki", "show", "--data", dir, "--json"},
		{"pki", "renew", "--data", dir},
		{"controllers", "approve", request, "--data", dir, "--yes", "--out", bundle},
		{"controllers", "list", "--data", dir},
		{"controllers", "list", "--data", dir, "--json"},
		{"controllers", "revoke", "north-1", "--data", dir},
		{"people", "add", "p-1", "--data", dir, "--by", "me", "--why", "test"},
		{"registry", "audit", "--data", dir, "--json"},
		{"registry", "audit", "--data", dir, "--verify"},
	} {
		if status := cli.Run(context.Background(), newRoot(), args, &seen, &seen); status != 0 {
			t.Fatalf("gatehouse-crm %s: exit status %d: %s", strings.Join(args, " "), status, seen.String())
		}
	}
	site, err := os.ReadFile(filepath.Join(dir, "site.json"))
	if err != nil {
		t.Fatal(err)
	}
	seen.Write(site)
	b, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(string(b), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	seen.Write(payload)

	files, err := filepath.Glob(filepath.Join(pki.KeysDir(dir), "*.key"))
	if err != nil {
		t.Fatal(err)
	}
	peppers, err := filepath.Glob(filepath.Join(pki.KeysDir(dir), "peppers", "*.key"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 8 || len(peppers) != 1 {
		t.Fatalf("keys are %q and %q", files, peppers)
	}
	for _, f := range append(files, peppers...) {
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(content)
		secrets := [][]byte{bytes.TrimSpace(content), block.Bytes}
		switch k, _ := x509.ParsePKCS8PrivateKey(block.Bytes); k := k.(type) {
		case interface{ Seed() []byte }:
			secrets = append(secrets, k.Seed())
		case interface{ Bytes() ([]byte, error) }:
			d, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, d)
		}
		for _, s := range secrets {
			for _, form := range []string{string(s), hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s), base64.RawURLEncoding.EncodeToString(s)} {
				if strings.Contains(seen.String(), form) {
					t.Errorf("%s is shown", filepath.Base(f))
				}
			}
		}
	}
}
