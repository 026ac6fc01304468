package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
)

// Rule 10: a local import is refused once a CRM's key is pinned, and what the
// site's own key signed before is not trusted any more.
func TestLocalImportIsRefusedOnceTheCRMGovernsThePolicy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "door")
	load := func(dir string) *keys.ControllerKeys {
		t.Helper()
		if err := keys.MakeDir(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.InitController(pki.KeysDir(dir), keys.ES256); err != nil {
			t.Fatal(err)
		}
		k, err := keys.LoadController(keys.File(pki.KeysDir(dir)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	own, crm := load(dir), load(filepath.Join(t.TempDir(), "crm"))
	file := filepath.Join(dir, "people.csv")
	if err := os.WriteFile(file, []byte("person,kind,format,facility,number,doors,schedule\np-1,staff,H10301,9,1,lab,always\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	site, err := (&allowlistFlags{data: dir, timezone: "UTC"}).open()
	if err != nil {
		t.Fatal(err)
	}
	if err := site.importFile(t.Context(), file, importOptions{}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	for authority, refused := range map[pki.PolicyAuthority]bool{pki.PolicyFromSite: false, pki.PolicyFromCRM: true} {
		site.signer = nil
		if err := site.trust(own, &pki.Trust{PolicyAuthority: authority, PolicyRoot: crm.Policy.JWK()}); err != nil {
			t.Fatal(err)
		}
		err := site.importFile(t.Context(), file, importOptions{}, io.Discard, io.Discard)
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "the CRM governs") {
			t.Errorf("authority %q: import gave %v", authority, err)
		}
		l, err := allowlist.Open(site.path, site.keys)
		if (err != nil) != refused {
			t.Errorf("authority %q: opening what the site signed gave %v", authority, err)
		}
		if err == nil {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// What a person is told of an allowlist's age is what the daemon decides by.
func TestAnExplanationHasTheDaemonsLadderOfAge(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "door")
	if err := keys.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.InitController(pki.KeysDir(dir), keys.ES256); err != nil {
		t.Fatal(err)
	}
	site, err := (&allowlistFlags{data: dir, timezone: "UTC"}).open()
	if err != nil {
		t.Fatal(err)
	}
	if site.ladder.StaleAfter != 0 || site.ladder.ExpiredAfter != 0 {
		t.Errorf("an allowlist that the site makes itself ages: %+v", site.ladder)
	}
}
