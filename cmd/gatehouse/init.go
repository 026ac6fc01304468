package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/spf13/cobra"
)

func newInitCmd() *cobra.Command {
	var data, name, alg string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Set up a controller: make its keys and its request to a CRM",
		Long: `Set up a controller: make its keys in DATA/keys and its request to a CRM,
DATA/request.json. The controller works alone from now on; joining a CRM is
for later, or never.

A key that exists is never overwritten: run again, init makes what is missing
and writes the request anew. Run it as the user that the daemon runs as.`,
		Example: "  sudo -u gatehouse gatehouse init --controller north-1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runInit(cmd, data, name, alg)
		},
	}
	dataFlag(cmd, &data)
	algFlag(cmd, &alg)
	cmd.Flags().StringVar(&name, "controller", "", "the controller's `name`: lower-case letters, digits and hyphens; unique over all sites")
	cobra.CheckErr(cmd.MarkFlagRequired("controller"))
	return cmd
}

func runInit(cmd *cobra.Command, data, name, alg string) error {
	if err := pki.CheckName(name); err != nil {
		return err
	}
	switch was, err := pki.ReadRequest(data); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case was.Controller != name:
		return fmt.Errorf("%s is the controller %q already: its records bear that name. Use another folder for %q", data, was.Controller, name)
	}
	w := cmd.OutOrStdout()
	if err := makeKeys(w, data, alg); err != nil {
		return err
	}
	p := keys.File(pki.KeysDir(data))
	k, err := keys.LoadController(p)
	if err != nil {
		return err
	}
	request, err := pki.WriteRequest(data, name, k)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, `
Controller %s is set up, and can work alone.
Its fingerprint is

    %s

%s

To join a CRM, take %s there and run

    gatehouse-crm controllers approve request.json

The fingerprint that it shows must be the one above. Take the bundle that it
writes back here and run

    gatehouse join %s.bundle --data %s
`, name, keys.Fingerprint(k.Log.JWK()), cli.Wrap(p.Describe()), request, name, data)
	return nil
}

func newJoinCmd() *cobra.Command {
	var data, fingerprint string
	var replacePepper, replaceCRM bool
	cmd := &cobra.Command{
		Use:   "join BUNDLE",
		Short: "Join the CRM that approved this controller's request",
		Long: `Join a CRM with the bundle that "gatehouse-crm controllers approve" wrote.
From now on the controller takes this CRM's word for what it has received.

So be sure that the bundle is from your CRM: its fingerprint is shown there by
"gatehouse-crm pki show". Have it from the people who run the CRM, by another
way than the bundle. It is asked for, or given with --fingerprint.

Joining replaces the pepper, the key of the index of badges. An allowlist that
was imported before has to be imported again.`,
		Example: `  gatehouse join north-1.bundle
  gatehouse join north-1.bundle --fingerprint 3f2a-9c01-77de-0b1e-a4c2-55d0-91fa-6e3c`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runJoin(cmd, args[0], data, pki.Options{Fingerprint: fingerprint, ReplacePepper: replacePepper, ReplaceCRM: replaceCRM})
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "the CRM's `fingerprint`, instead of being asked for it")
	cmd.Flags().BoolVar(&replacePepper, "replace-pepper", false, "join though the allowlist has to be imported again")
	cmd.Flags().BoolVar(&replaceCRM, "replace-crm", false, "leave the CRM that was joined before")
	return cmd
}

func runJoin(cmd *cobra.Command, file, data string, o pki.Options) error {
	b, err := pki.ReadBundle(file)
	if err != nil {
		return err
	}
	j, err := pki.Prepare(data, b, time.Now())
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if o.Fingerprint == "" {
		fmt.Fprintf(w, "The bundle is from the CRM %s, whose fingerprint is\n\n    %s\n\n", b.Cosigner.Name(), b.Fingerprint())
		yes, asked, err := cli.Confirm(cmd.InOrStdin(), w, "Is that what \"gatehouse-crm pki show\" says there?")
		switch {
		case err != nil:
			return err
		case !asked:
			return errors.New("nobody is here to confirm the fingerprint: give it with --fingerprint")
		case !yes:
			return errors.New("not joined: nothing was changed")
		}
		o.Fingerprint = b.Fingerprint()
	}
	t, err := j.Join(o)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Controller %s has joined the CRM %s.\n\n", t.Controller, t.Cosigner.Name())
	fmt.Fprintf(w, "  broker       %s\n", t.Broker)
	fmt.Fprintf(w, "  time zone    %s\n", t.Timezone)
	fmt.Fprintf(w, "  certificate  until %s\n", b.Certificate.NotAfter.Format(time.DateOnly))
	fmt.Fprintf(w, "  allowlist    %s\n", map[pki.PolicyAuthority]string{
		pki.PolicyFromSite: "imported here, signed with this site's own policy key",
		pki.PolicyFromCRM:  "comes from the CRM",
	}[t.PolicyAuthority])
	if j.ReplacesPepper {
		fmt.Fprintln(w, "\nThe pepper was replaced: import the allowlist again. Until then every badge is\nunknown and denied.")
	}
	fmt.Fprintf(w, "\nPut into the configuration\n\n    [crm]\n    broker = %q\n\nand restart the daemon.\n", t.Broker)
	return nil
}
