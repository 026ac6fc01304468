package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
)

const (
	defaultData = "/var/lib/gatehouse-crm"
	daysValid   = 365
)

func newPKICmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make the CRM's keys and certificates, renew and show them",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newPKIInitCmd(), newPKIShowCmd(), newPKIRenewCmd())
	return cmd
}

func dataFlag(cmd *cobra.Command, data *string) {
	cmd.Flags().StringVar(data, "data", defaultData, "the CRM's `folder`")
}

func daysFlag(cmd *cobra.Command, days *int) {
	cmd.Flags().IntVar(days, "days", daysValid, "how many `days` the certificates are valid")
}

func validity(days int) (time.Duration, error) {
	if most := int(pki.CAValidity / (24 * time.Hour)); days < 1 || days > most {
		return 0, fmt.Errorf("--days is %d, want 1 to %d", days, most)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

func newPKIInitCmd() *cobra.Command {
	var data, broker, zone, policy string
	var hosts []string
	var days int
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the keys and certificates of a new CRM",
		Long: `Make the keys of a new CRM in DATA/keys and its certificates in DATA/tls: a
certificate authority, the broker's and the CRM's own certificate, the
cosigner's key that signs receipts, the root key of allowlists and the key that
it certifies to sign them, and the keys that seal and index the registry of
people.

Nothing is overwritten: where a CRM stands already, init is refused. Run it as
the user that the daemon runs as.`,
		Example: `  sudo -u gatehouse-crm gatehouse-crm pki init --host crm.example.org
  gatehouse-crm pki init --data crm --host localhost --host 127.0.0.1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			valid, err := validity(days)
			if err != nil {
				return err
			}
			if zone == "" {
				zone = machineZone()
			}
			s, err := pki.InitSite(data, pki.SiteOptions{Hosts: hosts, Broker: broker, Timezone: zone, Validity: valid, PolicyAuthority: pki.PolicyAuthority(policy), Now: time.Now()})
			if err != nil {
				return err
			}
			return printInit(cmd.OutOrStdout(), data, s)
		},
	}
	dataFlag(cmd, &data)
	daysFlag(cmd, &days)
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "`name` or IP address by which controllers reach the broker (may be repeated)")
	cmd.Flags().StringVar(&broker, "broker", "", "the broker's `URL` (default tls://HOST:8883 with the first host)")
	cmd.Flags().StringVar(&zone, "timezone", "", "the site's time `zone`, such as Europe/Amsterdam (default this machine's)")
	cmd.Flags().StringVar(&policy, "policy", string(pki.PolicyFromSite), "`who` governs the allowlists of controllers that join: crm (they come from here) or site (they are imported there)")
	cobra.CheckErr(cmd.MarkFlagRequired("host"))
	return cmd
}

func printInit(w io.Writer, data string, s *pki.Site) error {
	_, err := fmt.Fprintf(w, `The CRM is set up in %s.
Its fingerprint, which whoever installs a controller compares, is

    %s

Controllers reach it at %s, in the time zone %s.

%s

The root key of allowlists, %s,
is not needed in daily work. Move it to a medium that you keep offline, and a
copy of it elsewhere: whoever has it can one day decide who gets in.
`, data, s.Cosigner.Fingerprint(), s.Broker, s.Timezone,
		cli.Wrap(keys.File(data).Describe()), filepath.Join(pki.KeysDir(data), keys.NamePolicyRoot))
	return err
}

// machineZone is the IANA name of this machine's time zone, as far as it can be
// told.
func machineZone() string {
	if tz := strings.TrimPrefix(os.Getenv("TZ"), ":"); tz != "" && tz != "Local" {
		if _, err := time.LoadLocation(tz); err == nil {
			return tz
		}
	}
	if target, err := filepath.EvalSymlinks("/etc/localtime"); err == nil {
		if _, name, ok := strings.Cut(target, "/zoneinfo/"); ok {
			if _, err := time.LoadLocation(name); err == nil {
				return name
			}
		}
	}
	return "UTC"
}

// shownSite is what may be known of a CRM's keys and certificates.
type shownSite struct {
	Fingerprint  string               `json:"fingerprint"` // of the cosigner's key
	Cosigner     string               `json:"cosigner"`    // vkey
	JWKS         jose.JSONWebKeySet   `json:"jwks"`        // the cosigner's key and the policy root
	Broker       string               `json:"broker"`
	Timezone     string               `json:"timezone"`
	Certificates map[string]time.Time `json:"certificates"` // when they end
	PolicyRoot   string               `json:"policy_root"`  // here or offline
	Protection   string               `json:"protection"`
}

func newPKIShowCmd() *cobra.Command {
	var data string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the CRM's fingerprint, its public keys, and when certificates end",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := showSite(data)
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func showSite(data string) (*shownSite, error) {
	site, k, err := openSite(data)
	if err != nil {
		return nil, err
	}
	certs, err := pki.ReadCertificates(data)
	if err != nil {
		return nil, err
	}
	s := &shownSite{
		Fingerprint:  site.Cosigner.Fingerprint(),
		Cosigner:     site.Cosigner.VKey(),
		JWKS:         jose.JSONWebKeySet{Keys: []jose.JSONWebKey{site.Cosigner.JWK(), site.PolicyRoot}},
		Broker:       site.Broker,
		Timezone:     site.Timezone,
		Certificates: map[string]time.Time{"ca": certs.CA.NotAfter, "broker": certs.Broker.NotAfter, "crm": certs.CRM.NotAfter},
		PolicyRoot:   "offline",
		Protection:   keys.File(pki.KeysDir(data)).Describe(),
	}
	if k.PolicyRoot != nil {
		s.PolicyRoot = "here"
	}
	return s, nil
}

func (s *shownSite) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "fingerprint\t%s\n", s.Fingerprint)
	fmt.Fprintf(t, "vkey\t%s\n", s.Cosigner)
	fmt.Fprintf(t, "broker\t%s\n", s.Broker)
	fmt.Fprintf(t, "time zone\t%s\n", s.Timezone)
	for _, c := range []string{"ca", "broker", "crm"} {
		fmt.Fprintf(t, "%s.crt\tuntil %s\n", c, s.Certificates[c].Format(time.DateOnly))
	}
	if s.PolicyRoot == "here" {
		fmt.Fprintf(t, "policy root\t%s is still here: move it offline\n", keys.NamePolicyRoot)
	} else {
		fmt.Fprintf(t, "policy root\toffline\n")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", cli.Wrap(s.Protection))
	return err
}

func newPKIRenewCmd() *cobra.Command {
	var data string
	var days int
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Make new certificates of the broker and the CRM itself",
		Long: `Make new certificates of the broker and the CRM itself, with the same keys.
Controllers notice nothing. Restart the daemon, and the broker if it is another
program. A controller's certificate is renewed by approving its request again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			valid, err := validity(days)
			if err != nil {
				return err
			}
			site, k, err := openSite(data)
			if err != nil {
				return err
			}
			if err := site.Renew(data, k, time.Now(), valid); err != nil {
				return err
			}
			certs, err := pki.ReadCertificates(data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "broker.crt is valid until %s, crm.crt until %s.\n",
				certs.Broker.NotAfter.Format(time.DateOnly), certs.CRM.NotAfter.Format(time.DateOnly))
			return err
		},
	}
	dataFlag(cmd, &data)
	daysFlag(cmd, &days)
	return cmd
}

// openSite reads what the CRM of data says of itself, and its keys.
func openSite(data string) (*pki.Site, *keys.CRMKeys, error) {
	site, err := pki.ReadSite(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s holds no CRM: run gatehouse-crm pki init first", data)
	}
	if err != nil {
		return nil, nil, err
	}
	k, err := keys.LoadCRM(keys.File(pki.KeysDir(data)), site.Cosigner.Name())
	if err != nil {
		return nil, nil, err
	}
	return site, k, nil
}
