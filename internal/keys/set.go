package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// The purposes of sealers.
const (
	sealRegistry  = "registry" // a CRM's; the others are a controller's
	sealRecords   = "records"
	sealAllowlist = "allowlist"
	sealTemplates = "templates"
	sealReaders   = "readers"
	sealBlobs     = "blobs" // between a CRM and a controller
)

// ControllerKeys is what a controller keeps secret.
type ControllerKeys struct {
	Log       *Signer // signs records; NoteSigner signs checkpoints
	Policy    *Signer // signs the site's own allowlist
	Records   *Sealer // seals the bodies of records.db
	Allowlist *Sealer // seals the fields of allowlist.db
	Templates *Sealer // seals the fingers and eyes of enrolled.db
	Readers   *Sealer // seals the keys of readers
	Pepper    *Pepper
	TLS       *PrivateKey // nil: there is none, so no connection to a CRM
	Identity  *Identity   // nil: there is none, so no joining of a CRM
}

// LoadController reads the keys of a controller. Every fault is reported, one
// a line.
func LoadController(p Provider) (*ControllerKeys, error) {
	k := new(ControllerKeys)
	err := faults(
		load(p, NameLog, func(b []byte) (err error) { k.Log, err = ParseSigner(b, TypeRecord); return }),
		load(p, NamePolicy, func(b []byte) (err error) { k.Policy, err = ParseSigner(b, TypePolicy); return }),
		load(p, NameSeal, func(b []byte) (err error) {
			for _, s := range []struct {
				sealer  **Sealer
				purpose string
			}{
				{&k.Records, sealRecords}, {&k.Allowlist, sealAllowlist}, {&k.Templates, sealTemplates}, {&k.Readers, sealReaders},
			} {
				if *s.sealer, err = ParseSeal(b, s.purpose); err != nil {
					return err
				}
			}
			return nil
		}),
		load(p, NamePepper, func(b []byte) (err error) { k.Pepper, err = ParsePepper(b); return }),
		optional(load(p, NameTLS, func(b []byte) (err error) { k.TLS, err = ParsePrivateKey(b); return })),
		optional(load(p, NameIdentity, func(b []byte) (err error) { k.Identity, err = ParseIdentity(b); return })),
	)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// CRMKeys is what a CRM keeps secret.
type CRMKeys struct {
	CRM        *PrivateKey // TLS towards the broker
	Cosigner   *Cosigner
	Broker     *PrivateKey // nil: the broker runs elsewhere
	CA         *PrivateKey // nil: kept elsewhere, so nothing can be certified
	PolicyRoot *Signer     // nil: kept offline
	Policy     *Signer     // signs manifests; nil: there is none yet
	Registry   *Sealer     // seals registry.db; nil: InitRegistry makes it
	Pepper     *Pepper     // keys the index of registry.db; nil as Registry
}

// LoadCRM reads the keys of a CRM, whose cosigner has the given name. Every
// fault is reported, one a line.
func LoadCRM(p Provider, cosigner string) (*CRMKeys, error) {
	k := new(CRMKeys)
	err := faults(
		load(p, NameCRM, func(b []byte) (err error) { k.CRM, err = ParsePrivateKey(b); return }),
		load(p, NameCosigner, func(b []byte) (err error) { k.Cosigner, err = ParseCosignerKey(b, cosigner); return }),
		optional(load(p, NameBroker, func(b []byte) (err error) { k.Broker, err = ParsePrivateKey(b); return })),
		optional(load(p, NameCA, func(b []byte) (err error) { k.CA, err = ParsePrivateKey(b); return })),
		optional(load(p, NamePolicyRoot, func(b []byte) (err error) { k.PolicyRoot, err = ParseSigner(b, TypePolicy); return })),
		optional(load(p, NamePolicy, func(b []byte) (err error) { k.Policy, err = ParseSigner(b, TypeManifest); return })),
		optional(load(p, NameSeal, func(b []byte) (err error) { k.Registry, err = ParseSeal(b, sealRegistry); return })),
		optional(load(p, NamePepper, func(b []byte) (err error) { k.Pepper, err = ParsePepper(b); return })),
	)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func load(p Provider, name string, parse func([]byte) error) error {
	b, err := p.Read(name)
	if err != nil {
		return err
	}
	if err := parse(b); err != nil {
		return fmt.Errorf("key %q: %w", name, err)
	}
	return nil
}

// faults joins errors. What is wrong with the folder is wrong for every key,
// and is said once.
func faults(errs ...error) error {
	var different []error
	for _, err := range errs {
		if err != nil && !slices.ContainsFunc(different, func(e error) bool { return e.Error() == err.Error() }) {
			different = append(different, err)
		}
	}
	return errors.Join(different...)
}

func optional(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// InitController makes the keys of a controller that dir does not hold yet,
// and returns their names. The algorithm is that of the log's and the site
// policy's key.
func InitController(dir string, alg Algorithm) (made []string, err error) {
	return initKeys(dir, []newKey{
		{NameLog, func() ([]byte, error) { return GenerateKey(alg) }},
		{NamePolicy, func() ([]byte, error) { return GenerateKey(alg) }},
		{NameSeal, func() ([]byte, error) { return GenerateSeal(), nil }},
		{NamePepper, func() ([]byte, error) { return GeneratePepper(), nil }},
		{NameTLS, func() ([]byte, error) { return GenerateKey(ES256) }},
		{NameIdentity, GenerateIdentity},
	})
}

// InitCRM makes the keys of a CRM that dir does not hold yet, and returns
// their names.
func InitCRM(dir string) (made []string, err error) {
	es256 := func() ([]byte, error) { return GenerateKey(ES256) }
	return initKeys(dir, append([]newKey{
		{NameCA, es256},
		{NameBroker, es256},
		{NameCRM, es256},
		{NameCosigner, func() ([]byte, error) { return GenerateKey(EdDSA) }},
		{NamePolicyRoot, es256},
		{NamePolicy, es256},
	}, registryKeys...))
}

// InitRegistry makes the keys of the registry for a CRM that has none yet, as it
// was set up before there was one, and returns their names.
func InitRegistry(dir string) (made []string, err error) { return initKeys(dir, registryKeys) }

var registryKeys = []newKey{
	{NameSeal, func() ([]byte, error) { return GenerateSeal(), nil }},
	{NamePepper, func() ([]byte, error) { return GeneratePepper(), nil }},
}

type newKey struct {
	name     string
	generate func() ([]byte, error)
}

func initKeys(dir string, want []newKey) (made []string, err error) {
	if err := MakeDir(dir); err != nil {
		return nil, fmt.Errorf("folder of keys: %w", err)
	}
	for _, k := range want {
		b, err := k.generate()
		if err != nil {
			return made, fmt.Errorf("key %q: %w", k.name, err)
		}
		switch err := Create(filepath.Join(dir, k.name), b); {
		case err == nil:
			made = append(made, k.name)
		case errors.Is(err, fs.ErrExist):
		default:
			return made, fmt.Errorf("key %q: %w", k.name, err)
		}
	}
	return made, nil
}
