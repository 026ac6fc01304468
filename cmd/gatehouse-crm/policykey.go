package main

import (
	"fmt"
	"os"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/spf13/cobra"
)

// offlineRoot are the flags of a machine that has nothing of the CRM but its root
// key.
type offlineRoot struct {
	request, root, answer, fingerprint string
	yes                                bool
}

func (o *offlineRoot) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.request, "request", "", "answer the request in this `file`, on the machine with the root key")
	cmd.Flags().StringVar(&o.root, "root", keys.NamePolicyRoot, "the root key's `file`, with --request")
	cmd.Flags().StringVar(&o.answer, "answer", "policy-answer.json", "write the answer to this `file`, with --request")
	cmd.Flags().StringVar(&o.fingerprint, "fingerprint", "", "the request's `fingerprint`, instead of being asked for it")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "ask nothing: for scripts that brought the request themselves")
	cmd.MarkFlagsMutuallyExclusive("yes", "fingerprint")
	for _, name := range []string{"request", "root", "answer"} {
		cobra.CheckErr(cmd.MarkFlagFilename(name))
	}
}

// certify answers the request. With next, that becomes the root.
func (o *offlineRoot) certify(cmd *cobra.Command, next func() (*keys.Signer, error), valid time.Duration) error {
	b, err := readBounded(o.request, pki.MaxPolicyFile)
	if err != nil {
		return err
	}
	r, err := pki.ParsePolicyRequest(b)
	if err != nil {
		return fmt.Errorf("%s: %w", o.request, err)
	}
	root, err := readPolicyRoot(o.root)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Request of a CRM for its policy key, whose fingerprint is\n\n    %s\n\n", r.Fingerprint())
	if err := o.confirm(cmd, r); err != nil {
		return err
	}
	var following *keys.Signer
	if next != nil {
		if following, err = next(); err != nil {
			return err
		}
	}
	answer, err := r.Certify(root, following, time.Now(), valid)
	if err != nil {
		return err
	}
	if err := keys.Replace(o.answer, answer); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Certified. Take %s to the CRM and run there\n\n    gatehouse-crm policy accept %s\n", o.answer, o.answer)
	return err
}

func readPolicyRoot(file string) (*keys.Signer, error) {
	b, err := readBounded(file, pki.MaxPolicyFile)
	if err != nil {
		return nil, fmt.Errorf("the policy root's key: %w", err)
	}
	s, err := keys.ParseSigner(b, keys.TypePolicy)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func (o *offlineRoot) confirm(cmd *cobra.Command, r *pki.PolicyRequest) error {
	return confirmRequest(cmd, o.yes, o.fingerprint, r.Key, "certify", "certified", "Is that what \"policy request\" said at the CRM?")
}

func newPolicyCertifyCmd() *cobra.Command {
	var data string
	var days int
	var o offlineRoot
	cmd := &cobra.Command{
		Use:   "certify",
		Short: "Certify the key that signs what the doors are told, with the policy root",
		Long: `Certify the CRM's policy key with its policy root, for a year unless told. Without
--request both are in DATA/keys; a policy key is made if there is none.

Where the root key is kept on another machine, "policy request" at the CRM writes
a request; this command answers it there with --request, and "policy accept" at
the CRM takes the answer.`,
		Example: `  gatehouse-crm policy certify --data crm
  gatehouse-crm policy certify --request policy-request.json --root /media/key/policy-root.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			valid, err := validity(days)
			if err != nil {
				return err
			}
			if o.request != "" {
				return o.certify(cmd, nil, valid)
			}
			site, k, err := openSite(data)
			if err != nil {
				return err
			}
			p, err := site.CertifyPolicy(data, k, time.Now(), valid)
			if err != nil {
				return err
			}
			return printPolicyKey(cmd, p)
		},
	}
	dataFlag(cmd, &data)
	daysFlag(cmd, &days)
	o.register(cmd)
	return cmd
}

func printPolicyKey(cmd *cobra.Command, p *pki.Policy) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "The policy key is certified until %s by the root %s.\n", p.Until.Format(time.DateOnly), keys.Fingerprint(p.Root))
	return err
}

func newPolicyRequestCmd() *cobra.Command {
	var data, out string
	cmd := &cobra.Command{
		Use:     "request",
		Short:   "Write the request with which the policy key is certified elsewhere",
		Example: "  gatehouse-crm policy request --out policy-request.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			site, k, err := openSite(data)
			if err != nil {
				return err
			}
			b, err := pki.NewPolicyRequest(data, site, k)
			if err != nil {
				return err
			}
			if err := keys.Replace(out, b); err != nil {
				return fmt.Errorf("write the request: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `Take %s to the machine that has %s and run there

    gatehouse-crm policy certify --request %s --root %s

It asks for the policy key's fingerprint, which is

    %s
`, out, keys.NamePolicyRoot, out, keys.NamePolicyRoot, keys.Fingerprint(k.Policy.JWK()))
			return err
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().StringVar(&out, "out", "policy-request.json", "write to this `file`")
	return cmd
}

func newPolicyAcceptCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "accept ANSWER",
		Short: "Take the certificate of the policy key that was made elsewhere",
		Long: `Take the answer that "policy certify" or "policy rotate-root" wrote on the machine
with the root key. The running daemon notices, and signs with it at once.`,
		Example: "  gatehouse-crm policy accept policy-answer.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			site, k, err := openSite(data)
			if err != nil {
				return err
			}
			b, err := readBounded(args[0], pki.MaxPolicyFile)
			if err != nil {
				return err
			}
			p, err := site.AcceptPolicy(data, k, b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return printPolicyKey(cmd, p)
		},
	}
	dataFlag(cmd, &data)
	return cmd
}

func newPolicyRotateCmd() *cobra.Command {
	var data, next string
	var days int
	var o offlineRoot
	cmd := &cobra.Command{
		Use:   "rotate-root",
		Short: "Put a new policy root in the place of the one before",
		Long: `Make a new policy root. The one before certifies it, it signs that itself, and it
certifies the policy key. Each controller that hears of it pins the new root, and
from then on takes nothing that the one before certifies. Controllers that are
away hear of it when they are back.

Without --request the root is in DATA/keys. On another machine, the new key is
written to the file --new-root.`,
		Example: `  gatehouse-crm policy rotate-root --data crm
  gatehouse-crm policy rotate-root --request policy-request.json --root policy-root.key --new-root policy-root-2.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			valid, err := validity(days)
			if err != nil {
				return err
			}
			if o.request != "" {
				return o.certify(cmd, func() (*keys.Signer, error) { return makeRoot(next) }, valid)
			}
			site, k, err := openSite(data)
			if err != nil {
				return err
			}
			p, former, err := site.RotatePolicyRoot(data, k, time.Now(), valid)
			if err != nil {
				return err
			}
			if err := printPolicyKey(cmd, p); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The key of the root before is in %s: nothing needs it any more. Delete it when all controllers have heard of the new one.\n", former)
			return err
		},
	}
	dataFlag(cmd, &data)
	daysFlag(cmd, &days)
	o.register(cmd)
	cmd.Flags().StringVar(&next, "new-root", "policy-root-next.key", "write the new root's key to this new `file`, with --request")
	return cmd
}

// makeRoot makes the key of a new root in a file, or takes the one that is there:
// the answer before may have been lost.
func makeRoot(file string) (*keys.Signer, error) {
	if _, err := os.Lstat(file); err == nil {
		return readPolicyRoot(file)
	}
	content, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		return nil, err
	}
	if err := keys.Create(file, content); err != nil {
		return nil, fmt.Errorf("write the new root's key: %w", err)
	}
	return keys.ParseSigner(content, keys.TypePolicy)
}
