package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/go-jose/go-jose/v4"
)

const (
	trustFile     = "trust.json"
	keysDir       = "keys"
	allowlistFile = "allowlist.db"
)

// KeysDir is the folder of key files in a controller's or a CRM's folder.
func KeysDir(dir string) string { return filepath.Join(dir, keysDir) }

// Trust is what a controller pinned when it joined a CRM.
type Trust struct {
	Controller      string
	Cosigner        *keys.CosignerKey
	PolicyAuthority PolicyAuthority
	PolicyRoot      jose.JSONWebKey
	Timezone        string    // IANA name of the site's
	Broker          string    // URL
	Issued          time.Time // by the CRM's clock: no true time is earlier
}

type trustForm struct {
	V               int             `json:"v"`
	Controller      string          `json:"controller"`
	Cosigner        string          `json:"cosigner"`
	PolicyAuthority PolicyAuthority `json:"policy_authority"`
	PolicyRoot      json.RawMessage `json:"policy_root"`
	Timezone        string          `json:"timezone"`
	Broker          string          `json:"broker"`
	Issued          time.Time       `json:"issued"`
}

// ReadTrust reads what the controller of dir pinned. The error is an
// fs.ErrNotExist when it has not joined a CRM. It refuses a file that others
// could have written or read.
func ReadTrust(dir string) (*Trust, error) { return readOwn(dir, trustFile, parseTrust) }

func parseTrust(b []byte) (*Trust, error) {
	var f trustForm
	if err := decode(b, &f); err != nil {
		return nil, err
	}
	if err := checkVersion(f.V); err != nil {
		return nil, err
	}
	t := &Trust{Controller: f.Controller, PolicyAuthority: f.PolicyAuthority, Timezone: f.Timezone, Broker: f.Broker, Issued: f.Issued}
	var err error
	if t.Cosigner, t.PolicyRoot, err = parseAnchors(f.Cosigner, f.PolicyRoot, f.PolicyAuthority, f.Timezone, f.Broker); err != nil {
		return nil, err
	}
	if err := CheckName(t.Controller); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Trust) marshal() ([]byte, error) {
	root, err := json.Marshal(t.PolicyRoot)
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(trustForm{
		version, t.Controller, t.Cosigner.VKey(), t.PolicyAuthority, root, t.Timezone, t.Broker, t.Issued,
	}, "", "  ")
	return append(b, '\n'), err
}

// Joining is a bundle that fits a controller and has changed nothing yet.
type Joining struct {
	dir    string
	bundle *Bundle
	pepper []byte // the content of its file

	// Former is what the controller pinned before; nil if it worked alone.
	Former *Trust
	// ReplacesPepper says that the pepper will change though an allowlist
	// stands: its index was made with the old pepper, and no badge will be
	// found in it.
	ReplacesPepper bool
}

// Prepare checks a bundle against the controller of dir. The certificate's end
// is compared with now; its beginning is not, since the clock may never have
// been set.
func Prepare(dir string, b *Bundle, now time.Time) (*Joining, error) {
	own, err := ReadRequest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no controller: run gatehouse init first", dir)
	}
	if err != nil {
		return nil, err
	}
	k, err := keys.LoadController(keys.File(KeysDir(dir)))
	if err != nil {
		return nil, err
	}
	switch {
	case own.Controller != b.Controller:
		return nil, fmt.Errorf("bundle is for the controller %q, this is %q", b.Controller, own.Controller)
	case k.Log.KeyID() != b.LogKeyID:
		return nil, fmt.Errorf("bundle is for a controller %q with another log key: have the present %s approved", b.Controller, requestFile)
	case k.TLS == nil || k.Identity == nil:
		return nil, fmt.Errorf("joining needs the keys %q and %q", keys.NameTLS, keys.NameIdentity)
	case !samePublic(b.Certificate.PublicKey, k.TLS.Public()):
		return nil, fmt.Errorf("bundle certifies another TLS key than this controller's: have the present %s approved", requestFile)
	case now.After(b.Certificate.NotAfter):
		return nil, fmt.Errorf("bundle's certificate ended on %s: have %s approved again", b.Certificate.NotAfter.Format(time.DateOnly), requestFile)
	}
	j := &Joining{dir: dir, bundle: b}
	if j.pepper, err = k.Identity.Open(b.SealedPepper); err != nil {
		return nil, fmt.Errorf("bundle's pepper: %w", err)
	}
	pepper, err := keys.ParsePepper(j.pepper)
	if err != nil {
		return nil, fmt.Errorf("bundle's pepper: %w", err)
	}
	if !pepper.Equal(k.Pepper) {
		switch _, err := os.Lstat(filepath.Join(dir, allowlistFile)); {
		case err == nil:
			j.ReplacesPepper = true
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	switch j.Former, err = ReadTrust(dir); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case b.Issued.Before(j.Former.Issued):
		return nil, fmt.Errorf("bundle was issued on %s, before the one that was joined last (%s)",
			b.Issued.Format(time.RFC3339), j.Former.Issued.Format(time.RFC3339))
	}
	return j, nil
}

// Options are what a person confirmed of a Joining.
type Options struct {
	// Fingerprint is that of the bundle, from the people who run the CRM.
	Fingerprint string
	// ReplacePepper accepts that the allowlist has to be imported again.
	ReplacePepper bool
	// ReplaceCRM accepts another CRM than the one joined before.
	ReplaceCRM bool
}

// Join pins what the bundle says. Stopped halfway it has pinned nothing, and
// is to be done again: whether the old or the new pepper is in place by then,
// either lets nobody in whom the allowlist does not name.
func (j *Joining) Join(o Options) (*Trust, error) {
	b := j.bundle
	if !keys.IsFingerprint(o.Fingerprint, b.Cosigner.JWK()) {
		return nil, fmt.Errorf("bundle is signed by the key %s, not by %q: do not use it, and find out where it came from", b.Fingerprint(), o.Fingerprint)
	}
	if j.Former != nil && j.Former.Cosigner.VKey() != b.Cosigner.VKey() && !o.ReplaceCRM {
		return nil, fmt.Errorf("this controller has joined the CRM %s (%s); to leave it for %s (%s), use --replace-crm",
			j.Former.Cosigner.Name(), j.Former.Cosigner.Fingerprint(), b.Cosigner.Name(), b.Fingerprint())
	}
	if j.ReplacesPepper && !o.ReplacePepper {
		return nil, fmt.Errorf("joining replaces the pepper, and %s was made with the old one: no badge will be found in it until it is imported again. If you can import it now, use --replace-pepper",
			filepath.Join(j.dir, allowlistFile))
	}
	t := &Trust{b.Controller, b.Cosigner, b.PolicyAuthority, b.PolicyRoot, b.Timezone, b.Broker, b.Issued}
	trust, err := t.marshal()
	if err != nil {
		return nil, err
	}
	// What is pinned comes last. Were it there without the pepper, the daemon
	// would run as one that has joined, and the CRM's allowlist, made with the
	// new pepper, would turn everybody away with nothing to say why.
	if err := writeCertificate(j.dir, caFile, b.CA); err != nil {
		return nil, err
	}
	if err := writeCertificate(j.dir, clientFile, b.Certificate); err != nil {
		return nil, err
	}
	if err := keys.Replace(filepath.Join(KeysDir(j.dir), keys.NamePepper), j.pepper); err != nil {
		return nil, err
	}
	if err := keys.Replace(filepath.Join(j.dir, trustFile), trust); err != nil {
		return nil, err
	}
	return t, nil
}
