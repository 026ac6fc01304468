package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// reload reads the CRM's keys and its site again, as another process would.
func (c *crm) reload(t testing.TB) {
	t.Helper()
	c.site = must[*Site](t)(ReadSite(c.dir))
	c.keys = must[*keys.CRMKeys](t)(keys.LoadCRM(keys.File(KeysDir(c.dir)), c.site.Cosigner.Name()))
}

func TestANewCRMCanPublishForAsLongAsItsCertificatesHold(t *testing.T) {
	c := newCRM(t)
	p := must[*Policy](t)(OpenPolicy(c.dir, now))
	if p.Root.KeyID != c.site.PolicyRoot.KeyID || p.Signer.KeyID() != c.keys.Policy.KeyID() || !p.Until.Equal(now.Add(DefaultValidity)) {
		t.Errorf("opened %+v", p.PolicyKey)
	}
	if p.Ends(now) || !p.Ends(p.Until.Add(-PolicyKeyWarning+time.Second)) {
		t.Error("the warning comes too early or too late")
	}
	if _, err := OpenPolicy(c.dir, p.Until.Add(time.Second)); !errors.Is(err, ErrNotCertified) || !strings.Contains(err.Error(), "gatehouse-crm policy certify") {
		t.Errorf("after its end: %v", err)
	}
}

func TestNothingIsSignedWithAKeyThatIsNotCertified(t *testing.T) {
	path := func(c *crm, name string) string { return filepath.Join(KeysDir(c.dir), name) }
	for name, spoil := range map[string]func(t *testing.T, c *crm) error{
		"no key":         func(_ *testing.T, c *crm) error { return os.Remove(path(c, keys.NamePolicy)) },
		"no certificate": func(_ *testing.T, c *crm) error { return os.Remove(path(c, authorityFile)) },
		"another key": func(t *testing.T, c *crm) error {
			return keys.Replace(path(c, keys.NamePolicy), must[[]byte](t)(keys.GenerateKey(keys.ES256)))
		},
		"another CRM's certificate": func(t *testing.T, c *crm) error {
			return writeAuthority(c.dir, must[[]string](t)(readAuthority(newCRM(t).dir)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCRM(t)
			if err := spoil(t, c); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenPolicy(c.dir, now); !errors.Is(err, ErrNotCertified) {
				t.Errorf("%v, want ErrNotCertified", err)
			}
			c.reload(t)
			if _, err := c.site.CertifyPolicy(c.dir, c.keys, now, time.Hour); name == "another CRM's certificate" {
				if err == nil {
					t.Error("a root goes on from another CRM's certificate")
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			if _, err := OpenPolicy(c.dir, now); err != nil {
				t.Errorf("certified again: %v", err)
			}
		})
	}
}

func TestTheRootMayBeOnAnotherMachine(t *testing.T) {
	c := newCRM(t)
	before := must[*Policy](t)(OpenPolicy(c.dir, now))
	root := c.keys.PolicyRoot
	if err := os.Remove(filepath.Join(KeysDir(c.dir), keys.NamePolicyRoot)); err != nil {
		t.Fatal(err)
	}
	c.reload(t)
	if _, err := c.site.CertifyPolicy(c.dir, c.keys, now, time.Hour); err == nil || !strings.Contains(err.Error(), "policy request") {
		t.Errorf("without the root: %v", err)
	}
	r := must[*PolicyRequest](t)(ParsePolicyRequest(must[[]byte](t)(NewPolicyRequest(c.dir, c.site, c.keys))))
	if r.Fingerprint() != keys.Fingerprint(c.keys.Policy.JWK()) {
		t.Errorf("fingerprint %s", r.Fingerprint())
	}
	later := now.Add(time.Hour)
	answer := must[[]byte](t)(r.Certify(root, nil, later, 48*time.Hour))
	p := must[*Policy](t)(c.site.AcceptPolicy(c.dir, c.keys, answer))
	if p.Serial <= before.Serial || !p.Until.Equal(later.Add(48*time.Hour)) {
		t.Errorf("serial %d after %d, until %s", p.Serial, before.Serial, p.Until)
	}
	if _, err := c.site.AcceptPolicy(c.dir, c.keys, answer); err == nil {
		t.Error("an old answer is accepted again")
	}
	other := newCRM(t)
	if _, err := other.site.AcceptPolicy(other.dir, other.keys, answer); err == nil {
		t.Error("another CRM's answer is accepted")
	}
	if _, err := r.Certify(other.keys.PolicyRoot, nil, later, time.Hour); err == nil {
		t.Error("another CRM's root certifies the key")
	}
}

func TestControllersFollowFromAnyRootToTheLast(t *testing.T) {
	c := newCRM(t)
	first := c.site.PolicyRoot
	for i := range 2 * keys.MaxAuthority {
		at := now.Add(time.Duration(i+1) * time.Hour)
		former := c.site.PolicyRoot
		p, file, err := c.site.RotatePolicyRoot(c.dir, c.keys, at, DefaultValidity)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the former key: %v", err)
		}
		c.reload(t)
		if c.site.PolicyRoot.KeyID == former.KeyID || c.keys.PolicyRoot.KeyID() != c.site.PolicyRoot.KeyID {
			t.Fatalf("rotation %d: the root is as before", i)
		}
		if _, err := keys.OpenPolicyKey(former, p.Authority); err != nil {
			t.Errorf("rotation %d, from the former root: %v", i, err)
		}
		if _, err := keys.OpenPolicyKey(first, p.Authority); i < 7 && err != nil {
			t.Errorf("rotation %d, from the first root: %v", i, err)
		}
		if _, err := OpenPolicy(c.dir, at); err != nil {
			t.Fatalf("rotation %d: %v", i, err)
		}
	}
}

func TestARotationThatWasStoppedGoesOn(t *testing.T) {
	for name, stop := range map[string]func(t *testing.T, c *crm){
		"when the new key was made": func(t *testing.T, c *crm) {
			must[*keys.Signer](t)(nextRoot(KeysDir(c.dir)))
		},
		"when it was certified": func(t *testing.T, c *crm) {
			next := must[*keys.Signer](t)(nextRoot(KeysDir(c.dir)))
			r := must[*PolicyRequest](t)(ParsePolicyRequest(must[[]byte](t)(NewPolicyRequest(c.dir, c.site, c.keys))))
			site := must[[]byte](t)(os.ReadFile(filepath.Join(c.dir, siteFile)))
			must[*Policy](t)(c.site.AcceptPolicy(c.dir, c.keys, must[[]byte](t)(r.Certify(c.keys.PolicyRoot, next, now.Add(time.Hour), time.Hour))))
			if err := keys.Replace(filepath.Join(c.dir, siteFile), site); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCRM(t)
			former := c.site.PolicyRoot
			stop(t, c)
			c.reload(t)
			p, _, err := c.site.RotatePolicyRoot(c.dir, c.keys, now.Add(2*time.Hour), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			c.reload(t)
			if p.Root.KeyID == former.KeyID || c.site.PolicyRoot.KeyID != p.Root.KeyID || c.keys.PolicyRoot.KeyID() != p.Root.KeyID {
				t.Error("the roots of the site, of the key and of the authority are different ones")
			}
			if _, err := os.Stat(filepath.Join(KeysDir(c.dir), nextRootFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the new key is there still: %v", err)
			}
		})
	}
}

func TestARotationThatFailsChangesNothing(t *testing.T) {
	c, other := newCRM(t), newCRM(t)
	before := must[[]string](t)(readAuthority(c.dir))
	if _, _, err := c.site.RotatePolicyRoot(c.dir, other.keys, now.Add(time.Hour), time.Hour); err == nil {
		t.Error("another CRM's root is succeeded here")
	}
	if !slices.Equal(must[[]string](t)(readAuthority(c.dir)), before) {
		t.Error("the authority is another one")
	}
	c.reload(t)
	if c.keys.PolicyRoot.KeyID() != c.site.PolicyRoot.KeyID {
		t.Error("the root's key is another one")
	}
}

func TestASucceededRootCertifiesNothing(t *testing.T) {
	c := newCRM(t)
	former := c.keys.PolicyRoot
	if _, _, err := c.site.RotatePolicyRoot(c.dir, c.keys, now.Add(time.Hour), time.Hour); err != nil {
		t.Fatal(err)
	}
	r := must[*PolicyRequest](t)(ParsePolicyRequest(must[[]byte](t)(NewPolicyRequest(c.dir, c.site, c.keys))))
	if _, err := r.Certify(former, nil, now.Add(2*time.Hour), time.Hour); err == nil || !strings.Contains(err.Error(), "succeeded") {
		t.Errorf("%v", err)
	}
}

func TestThePepperIsTheOneThatTheControllerHas(t *testing.T) {
	c, door := newCRM(t), newController(t, "north-1")
	if _, err := ReadPepper(c.dir, "north-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is approved: %v", err)
	}
	b := c.approve(t, door.request(t), ApproveOptions{PolicyAuthority: PolicyFromCRM})
	if b.PolicyAuthority != PolicyFromCRM {
		t.Errorf("the policy's authority is %q", b.PolicyAuthority)
	}
	if governed, err := Governed(c.dir, "north-1"); err != nil || !governed {
		t.Errorf("governed by the CRM: %v, %v", governed, err)
	}
	c.approve(t, newController(t, "south-1").request(t), ApproveOptions{})
	for _, name := range []string{"south-1", "west-1"} {
		if governed, err := Governed(c.dir, name); err != nil || governed {
			t.Errorf("%s is governed by the CRM: %v, %v", name, governed, err)
		}
	}
	own := must[*keys.ControllerKeys](t)(keys.LoadController(keys.File(KeysDir(door.dir))))
	sealed := must[[]byte](t)(own.Identity.Open(b.SealedPepper))
	if p := must[*keys.Pepper](t)(ReadPepper(c.dir, "north-1")); !p.Equal(must[*keys.Pepper](t)(keys.ParsePepper(sealed))) {
		t.Error("another pepper")
	}
	for _, name := range []string{"../../x", "", "North"} {
		if _, err := ReadPepper(c.dir, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParsePolicyRequest(f *testing.F) {
	c := newCRM(f)
	f.Add(must[[]byte](f)(NewPolicyRequest(c.dir, c.site, c.keys)))
	f.Add([]byte(`{"policy_request":".eyJ2IjoxfQ."}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParsePolicyRequest(b); err == nil && !r.Key.IsPublic() {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzPolicyAnswer(f *testing.F) {
	c := newCRM(f)
	before := must[[]string](f)(readAuthority(c.dir))
	r := must[*PolicyRequest](f)(ParsePolicyRequest(must[[]byte](f)(NewPolicyRequest(c.dir, c.site, c.keys))))
	good := must[[]byte](f)(r.Certify(c.keys.PolicyRoot, nil, now, time.Hour))
	f.Add(good[:len(good)-10])
	f.Add([]byte(`{"policy_answer":["x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := c.site.AcceptPolicy(c.dir, c.keys, b); err == nil {
			t.Fatalf("accepted %q", b)
		}
		if !slices.Equal(must[[]string](t)(readAuthority(c.dir)), before) {
			t.Fatal("an answer that was refused changed something")
		}
	})
}
