package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
)

func newControllersCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Approve, list and revoke door controllers",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newApproveCmd(), newListCmd(), newRevokeCmd())
	return cmd
}

// approvals is where controllers are registered.
type approvals interface {
	Approve(context.Context, central.Controller) error
	Revoke(ctx context.Context, name string) error
	Controllers(context.Context) ([]central.Controller, error)
	Close() error
}

// openApprovals opens the approvals of the CRM of data, which may be running.
func openApprovals(ctx context.Context, data string) (approvals, error) {
	return openExisting(ctx, data)
}

// openExisting opens the store of a CRM that was set up in data, and makes
// none anywhere else.
func openExisting(ctx context.Context, data string) (*central.Store, error) {
	switch _, err := pki.ReadSite(data); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s holds no CRM: run gatehouse-crm pki init first", data)
	case err != nil:
		return nil, err
	}
	return openCentral(ctx, data, central.Options{})
}

// openCentral opens the store of the CRM of data.
func openCentral(ctx context.Context, data string, o central.Options) (*central.Store, error) {
	o.ParseKey = recordKey
	return central.Open(ctx, filepath.Join(data, "central.db"), o)
}

func registered(ctx context.Context, r approvals, name string) (central.Controller, bool, error) {
	all, err := r.Controllers(ctx)
	if err != nil {
		return central.Controller{}, false, err
	}
	i := slices.IndexFunc(all, func(c central.Controller) bool { return c.Name == name })
	if i < 0 {
		return central.Controller{}, false, nil
	}
	return all[i], true, nil
}

type approval struct {
	data, out, fingerprint string
	days                   int
	yes, replace           bool
	pki.ApproveOptions
}

func newApproveCmd() *cobra.Command {
	var a approval
	cmd := &cobra.Command{
		Use:   "approve REQUEST",
		Short: "Approve a controller's request and write its bundle",
		Long: `Approve the request that "gatehouse init" wrote on a controller, register the
controller, and write the bundle with which it joins: NAME.bundle.

Be sure that the request is the controller's: its fingerprint is the one that
"gatehouse init" and "gatehouse keys show" say there. It is asked for on a
terminal, or given with --fingerprint. Only a script that brought the request
itself should use --yes.

A controller that is approved again (--replace) gets a new certificate. It
keeps its pepper, and so its allowlist, unless its log key is another one: then
it is taken for a new machine, and the broker inside gatehouse-crm does not let
the old one in again.`,
		Example: `  gatehouse-crm controllers approve request.json
  gatehouse-crm controllers approve request.json --fingerprint 4ab0-52c9-118e-77d0-9c3e-e1f2-0a6b-d845
  gatehouse-crm controllers approve request.json --replace`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, args[0]) },
	}
	dataFlag(cmd, &a.data)
	daysFlag(cmd, &a.days)
	cmd.Flags().StringVar(&a.out, "out", "", "write the bundle to this `file` (default NAME.bundle)")
	cmd.Flags().StringVar(&a.fingerprint, "fingerprint", "", "the request's `fingerprint`, instead of being asked for it")
	cmd.Flags().BoolVar(&a.yes, "yes", false, "ask nothing: for scripts that brought the request themselves")
	cmd.Flags().BoolVar(&a.replace, "replace", false, "approve a name again that is approved already")
	cmd.Flags().BoolVar(&a.NewPepper, "new-pepper", false, "give the controller a new pepper: its allowlist has to be imported again")
	cmd.Flags().StringVar(&a.Timezone, "timezone", "", "the controller's time `zone` (default the CRM's)")
	cmd.Flags().StringVar(&a.Broker, "broker", "", "the `URL` by which it reaches the broker (default the CRM's)")
	cmd.Flags().StringVar((*string)(&a.PolicyAuthority), "policy", "", "`who` governs its allowlist: crm or site (default as \"pki init\" was told)")
	cmd.MarkFlagsMutuallyExclusive("yes", "fingerprint")
	return cmd
}

func (a *approval) run(cmd *cobra.Command, file string) (err error) {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	if a.Validity, err = validity(a.days); err != nil {
		return err
	}
	request, err := readRequest(file)
	if err != nil {
		return err
	}
	site, k, err := openSite(a.data)
	if err != nil {
		return err
	}
	reg, err := openApprovals(ctx, a.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	before, exists, err := registered(ctx, reg, request.Controller)
	if err != nil {
		return err
	}
	if exists && !a.replace {
		return fmt.Errorf("%q is approved already, since %s: to approve it again, use --replace", request.Controller, before.Approved.Local().Format(time.DateTime))
	}
	jwk, err := json.Marshal(request.Log)
	if err != nil {
		return err
	}
	otherKey := exists && string(before.JWK) != string(jwk)

	fmt.Fprintf(w, "Request of the controller %s, whose fingerprint is\n\n    %s\n\n", request.Controller, request.Fingerprint())
	if otherKey {
		fmt.Fprintf(w, "It has another log key than the controller that is approved under this name: its\nmachine was replaced, or somebody poses as it. It gets a new pepper.\n\n")
		a.NewPepper = true
	}
	if err := a.confirm(cmd, request); err != nil {
		return err
	}

	a.Now = time.Now()
	bundle, c, err := site.Approve(a.data, k, request, a.ApproveOptions)
	if err != nil {
		return err
	}
	vkey, err := keys.VKey("gatehouse/"+c.Name, c.Log)
	if err != nil {
		return err
	}
	if a.out == "" {
		a.out = c.Name + ".bundle"
	}
	// The bundle is sealed and signed: registering comes after it, so that a
	// registered controller always has one.
	if err := keys.Replace(a.out, bundle); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	err = reg.Approve(ctx, central.Controller{Name: c.Name, JWK: jwk, VKey: vkey, Fingerprint: c.Certificate, Approved: c.Approved})
	if err != nil {
		return errors.Join(err, os.Remove(a.out))
	}
	fmt.Fprintf(w, `Approved %s: its certificate is valid until %s.
Take %s to the controller and run there

    gatehouse join %s

It asks for this CRM's fingerprint, which is

    %s
`, c.Name, c.NotAfter.Format(time.DateOnly), a.out, filepath.Base(a.out), site.Cosigner.Fingerprint())
	return nil
}

func (a *approval) confirm(cmd *cobra.Command, r *pki.Request) error {
	return confirmRequest(cmd, a.yes, a.fingerprint, r.Log, "approve", "approved", "Is that what \"gatehouse init\" said on the controller?")
}

// confirmRequest has somebody compare the fingerprint of a request, unless they
// gave it, or vouch for where the request came from. Verb and done are what becomes
// of it, such as approve and approved.
func confirmRequest(cmd *cobra.Command, yes bool, fingerprint string, key jose.JSONWebKey, verb, done, question string) error {
	switch {
	case yes:
		return nil
	case fingerprint != "":
		if !keys.IsFingerprint(fingerprint, key) {
			return fmt.Errorf("the request's fingerprint is not %q: do not %s it, and find out where it came from", fingerprint, verb)
		}
		return nil
	}
	confirmed, asked, err := cli.Confirm(cmd.InOrStdin(), cmd.OutOrStdout(), question)
	switch {
	case err != nil:
		return err
	case !asked:
		return errors.New("nobody is here to confirm the fingerprint: give it with --fingerprint, or use --yes in a script that brought the request itself")
	case !confirmed:
		return fmt.Errorf("not %s: nothing was changed", done)
	}
	return nil
}

func readRequest(path string) (*pki.Request, error) {
	b, err := readBounded(path, pki.MaxRequest)
	if err != nil {
		return nil, err
	}
	r, err := pki.ParseRequest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// shownController is one line of "controllers list".
type shownController struct {
	Name        string     `json:"name"`
	Fingerprint string     `json:"fingerprint"` // of the log key
	KeyID       string     `json:"kid"`
	VKey        string     `json:"vkey"`
	Approved    time.Time  `json:"approved"`
	Revoked     *time.Time `json:"revoked,omitempty"`
	Certificate *time.Time `json:"certificate_until,omitempty"`
	Online      bool       `json:"online"`
	Seen        *time.Time `json:"seen,omitempty"`
}

func newListCmd() *cobra.Command {
	var data string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the controllers, and when their certificates end",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			reg, err := openApprovals(cmd.Context(), data)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, reg.Close()) }()
			all, err := reg.Controllers(cmd.Context())
			if err != nil {
				return err
			}
			list := make([]shownController, 0, len(all))
			for _, c := range all {
				s, err := showController(data, c)
				if err != nil {
					return err
				}
				list = append(list, s)
			}
			if asJSON {
				for _, s := range list {
					if err := cli.PrintJSON(cmd.OutOrStdout(), s); err != nil {
						return err
					}
				}
				return nil
			}
			return printControllers(cmd.OutOrStdout(), list)
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func showController(data string, c central.Controller) (shownController, error) {
	k, err := keys.ParseJWK(c.JWK)
	if err != nil {
		return shownController{}, fmt.Errorf("controller %q: %w", c.Name, err)
	}
	s := shownController{Name: c.Name, Fingerprint: keys.Fingerprint(k), KeyID: k.KeyID, VKey: c.VKey, Approved: c.Approved, Online: c.Online}
	if !c.Revoked.IsZero() {
		s.Revoked = &c.Revoked
	}
	if !c.Seen.IsZero() {
		s.Seen = &c.Seen
	}
	switch cert, err := pki.ReadIssued(data, c.Name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return shownController{}, err
	case pki.Fingerprint(cert) == c.Fingerprint:
		s.Certificate = &cert.NotAfter
	}
	return s, nil
}

func printControllers(w io.Writer, list []shownController) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "No controller is approved yet: run \"gatehouse init\" on one, and approve its request here.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tSEEN\tAPPROVED\tCERTIFICATE UNTIL\tFINGERPRINT")
	for _, c := range list {
		state, seen, until := "offline", "never", "unknown"
		switch {
		case c.Revoked != nil:
			state = "revoked"
		case c.Online:
			state = "online"
		}
		if c.Seen != nil {
			seen = c.Seen.Local().Format(time.DateTime)
		}
		if c.Certificate != nil {
			until = c.Certificate.Format(time.DateOnly)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, state, seen, c.Approved.Local().Format(time.DateOnly), until, c.Fingerprint)
	}
	return t.Flush()
}

func newRevokeCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Take nothing more from a controller",
		Long: `Take nothing more from a controller, such as a stolen one, and tell it nothing
more: no allowlist, no command, no new certificate. What it has sent stays. The
broker inside gatehouse-crm ends its connection within seconds and refuses it
from then on; another broker knows nothing of this, and goes on letting it
connect until its certificate ends, though the CRM drops what it sends.

Its pepper is replaced, so that what is on the lost one says nothing of what its
successor will have. Approving the name again (--replace) undoes the revocation;
joining then takes --replace-pepper.`,
		Example: "  gatehouse-crm controllers revoke north-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			reg, err := openApprovals(cmd.Context(), data)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, reg.Close()) }()
			if err := reg.Revoke(cmd.Context(), args[0]); err != nil {
				return err
			}
			if err := pki.ReplacePepper(data, args[0]); err != nil {
				return fmt.Errorf("%s is revoked, but still has its pepper: approve its successor with --new-pepper: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Revoked %s.\n", args[0])
			return nil
		},
	}
	dataFlag(cmd, &data)
	return cmd
}
