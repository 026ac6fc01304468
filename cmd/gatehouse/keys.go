package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
)

const defaultData = "/var/lib/gatehouse"

func newKeysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make the controller's keys and show their public parts",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newKeysInitCmd(), newKeysShowCmd())
	return cmd
}

func newKeysInitCmd() *cobra.Command {
	var data, alg string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the keys that are missing",
		Long: `Make the keys that are missing in DATA/keys. A key that exists is never
overwritten. To set a controller up, use "gatehouse init", which does this too.`,
		Example: "  gatehouse keys init --data /var/lib/gatehouse",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return makeKeys(cmd.OutOrStdout(), data, alg)
		},
	}
	dataFlag(cmd, &data)
	algFlag(cmd, &alg)
	return cmd
}

func dataFlag(cmd *cobra.Command, data *string) {
	cmd.Flags().StringVar(data, "data", defaultData, "the controller's `folder`")
}

func algFlag(cmd *cobra.Command, alg *string) {
	cmd.Flags().StringVar(alg, "alg", string(keys.ES256), "`algorithm` of the signing keys: ES256, which a TPM can hold, or EdDSA")
}

// makeKeys makes the keys that are missing and says which.
func makeKeys(w io.Writer, data, alg string) error {
	if a := keys.Algorithm(alg); a != keys.ES256 && a != keys.EdDSA {
		return fmt.Errorf("--alg is %q, want %s or %s", alg, keys.ES256, keys.EdDSA)
	}
	if err := keys.MakeDir(data); err != nil {
		return err
	}
	dir := pki.KeysDir(data)
	made, err := keys.InitController(dir, keys.Algorithm(alg))
	if err != nil {
		return err
	}
	if len(made) == 0 {
		fmt.Fprintf(w, "All keys exist in %s: none was made.\n", dir)
		return nil
	}
	fmt.Fprintf(w, "Made in %s: %s\n", dir, strings.Join(made, ", "))
	return nil
}

// shownKeys is what may be known of a controller's keys.
type shownKeys struct {
	Controller   string             `json:"controller,omitempty"`
	Provider     string             `json:"provider"`
	Protection   string             `json:"protection"`
	JWKS         jose.JSONWebKeySet `json:"jwks"`
	Fingerprints map[string]string  `json:"fingerprints"`        // by the key's file
	VKeys        []string           `json:"vkeys,omitempty"`     // of the log, one for each epoch
	LogFault     string             `json:"log_fault,omitempty"` // why the present epoch is not known
	Recipient    string             `json:"recipient,omitempty"`
	Cosigner     string             `json:"cosigner,omitempty"` // vkey of the CRM that was joined
}

func newKeysShowCmd() *cobra.Command {
	var data, provider string
	var epochs []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the public parts of the keys: JWKS and vkeys",
		Long: `Show the public parts of the controller's keys, never a secret.

With --json the answer has, among others:
  jwks    a JSON Web Key Set (RFC 7517), to verify records with any JOSE library
  vkeys   verifier keys (c2sp.org/signed-note), to verify checkpoints; each
          epoch of the log has its own`,
		Example: `  gatehouse keys show
  gatehouse keys show --json | jq .jwks >jwks.json
  gatehouse keys show --epoch 5f0c7b1d9e3a4f6280a1b2c3d4e5f607`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := keyProvider(provider, data)
			if err != nil {
				return err
			}
			s, err := showKeys(cmd.Context(), p, data, epochs)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), s)
			}
			return s.print(cmd.OutOrStdout())
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().StringVar(&provider, "keys", "file", "`where` the keys are kept: file, or credential (systemd)")
	cmd.Flags().StringSliceVar(&epochs, "epoch", nil, "show the vkey of the log of this `epoch`, 32 hexadecimal digits, instead of the present one's (may be repeated)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func keyProvider(name, data string) (keys.Provider, error) {
	providers := []keys.Provider{keys.File(pki.KeysDir(data)), keys.Credential()}
	i := slices.IndexFunc(providers, func(p keys.Provider) bool { return p.Name() == name })
	if i < 0 {
		return nil, fmt.Errorf("--keys is %q, want file or credential", name)
	}
	return providers[i], nil
}

func showKeys(ctx context.Context, p keys.Provider, data string, epochs []string) (*shownKeys, error) {
	k, err := keys.LoadController(p)
	if err != nil {
		return nil, err
	}
	s := &shownKeys{
		Provider:   p.Name(),
		Protection: p.Describe(),
		JWKS:       jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k.Log.JWK(), k.Policy.JWK()}},
		Fingerprints: map[string]string{
			keys.NameLog:    keys.Fingerprint(k.Log.JWK()),
			keys.NamePolicy: keys.Fingerprint(k.Policy.JWK()),
		},
	}
	if k.Identity != nil {
		s.Recipient = k.Identity.Recipient()
	}
	switch r, err := pki.ReadRequest(data); {
	case err == nil:
		s.Controller = r.Controller
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case len(epochs) != 0:
		return nil, fmt.Errorf("%s does not say which controller this is: run gatehouse init first", data)
	}
	if len(epochs) == 0 && s.Controller != "" {
		// The keys are shown though the log is damaged: that is when they
		// are needed.
		switch epoch, err := presentEpoch(ctx, k, data); {
		case err == nil:
			epochs = []string{epoch}
		case !errors.Is(err, fs.ErrNotExist):
			s.LogFault = err.Error()
		}
	}
	for _, e := range epochs {
		origin := visitorlog.Origin(s.Controller, e)
		if _, _, err := visitorlog.SplitOrigin(origin); err != nil {
			return nil, fmt.Errorf("--epoch %q: %w", e, err)
		}
		v, err := k.Log.VKey(origin)
		if err != nil {
			return nil, err
		}
		s.VKeys = append(s.VKeys, v)
	}
	switch t, err := pki.ReadTrust(data); {
	case err == nil:
		s.Cosigner = t.Cosigner.VKey()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return s, nil
}

// presentEpoch is the epoch of the controller's log. The error is an
// fs.ErrNotExist when there is no log yet.
func presentEpoch(ctx context.Context, k *keys.ControllerKeys, data string) (string, error) {
	path := filepath.Join(data, "records.db")
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	r, err := visitorlog.OpenReader(ctx, path, k.Records)
	if err != nil {
		return "", err
	}
	return r.Epoch(), r.Close()
}

func (s *shownKeys) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if s.Controller != "" {
		fmt.Fprintf(t, "controller\t%s\n", s.Controller)
	}
	for i, name := range []string{keys.NameLog, keys.NamePolicy} {
		k := s.JWKS.Keys[i]
		fmt.Fprintf(t, "%s\t%s, fingerprint %s\n\tkey id %s\n", name, k.Algorithm, s.Fingerprints[name], k.KeyID)
	}
	for _, v := range s.VKeys {
		fmt.Fprintf(t, "vkey\t%s\n", v)
	}
	if s.LogFault != "" {
		fmt.Fprintf(t, "vkey\tnot known: %s\n", s.LogFault)
	}
	if s.Cosigner != "" {
		fmt.Fprintf(t, "CRM's vkey\t%s\n", s.Cosigner)
	}
	fmt.Fprintf(t, "kept in\t%s\n", s.Provider)
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", cli.Wrap(s.Protection))
	return err
}
