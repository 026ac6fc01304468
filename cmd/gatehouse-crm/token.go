package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
	"github.com/spf13/cobra"
)

func newTokenCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Let programs call the API, and stop them",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newTokenAddCmd(), newTokenListCmd(), newTokenRevokeCmd())
	return cmd
}

// tokenSession is the API's clients, and the registry, in whose audit stands who
// let them in.
type tokenSession struct {
	*registrySession
	clients *clients.Store
	keys    *keys.CRMKeys
}

// withClients runs do on the API's clients of the CRM in the folder.
func (f *registryFlags) withClients(cmd *cobra.Command, do func(*tokenSession) error) error {
	return f.with(cmd, func(r *registrySession) (err error) {
		_, k, err := openRegistryKeys(f.data)
		if err != nil {
			return err
		}
		s, err := openClients(cmd.Context(), f.data, k)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		return do(&tokenSession{r, s, k})
	})
}

func newTokenAddCmd() *cobra.Command {
	var f changeFlags
	var scopes []string
	var days int
	var out, csr string
	cmd := &cobra.Command{
		Use:   "add NAME --scope SCOPE",
		Short: "Let a program call the API",
		Long: `Let a program call the API by a bearer token, or (--csr) by a client certificate.
The name stands in the audit of what it changes, and is not used twice.

The token is shown this once, on a terminal or in a file that only its owner can
read (--out); the CRM keeps its hash. With --csr the file of a certificate
request (openssl req -new) is certified by the site's authority instead: its key
must be ECDSA P-256, and nothing else is taken from it.

The scopes: ` + strings.ReplaceAll(cli.Wrap(scopeNames()), "\n", "\n  ") + `.
Writing does not include reading.`,
		Example: `  gatehouse-crm token add crm --scope people:read,people:write,credentials:write --out crm.token --by m.jansen --why CHG-1042
  gatehouse-crm token add front-desk --scope visits:read,visits:write --csr desk.csr --out desk.crt --by m.jansen --why CHG-1043`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case csr != "" && out == "":
				return errors.New("--csr needs --out, for the certificate")
			case out == "" && !isTerminal(cmd.OutOrStdout()):
				return errors.New("the token is shown on a terminal or written to a file: say which with --out")
			}
			valid, err := validity(days)
			if err != nil {
				return err
			}
			parsed, err := clients.ParseScopes(scopes)
			if err != nil {
				return err
			}
			n := clients.New{Name: args[0], Scopes: parsed, Until: time.Now().Add(valid), By: f.change.By, Why: f.change.Why}
			return f.withClients(cmd, func(s *tokenSession) error {
				var c clients.Client
				if csr != "" {
					c, err = s.addCertificate(f.data, n, csr, out)
				} else {
					c, err = s.addToken(n, out)
				}
				if err != nil {
					return err
				}
				if f.json {
					return cli.PrintJSON(s.out, c)
				}
				_, err := fmt.Fprintf(s.out, "Client %s is let in by %s until %s.\n", c.Name, c.Kind, c.Until.Format(time.DateOnly))
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what it may do (may be repeated)")
	cmd.Flags().IntVar(&days, "days", daysValid, "how many `days` it is let in")
	cmd.Flags().StringVar(&out, "out", "", "write the token, or the certificate, to this `file`")
	cmd.Flags().StringVar(&csr, "csr", "", "certify the certificate request in this `file`, and make no token")
	cobra.CheckErr(cmd.MarkFlagRequired("scope"))
	return cmd
}

func scopeNames() string {
	names := make([]string, len(clients.Scopes))
	for i, s := range clients.Scopes {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

func (s *tokenSession) addToken(n clients.New, out string) (clients.Client, error) {
	if out != "" {
		// Before the client is there: a token that cannot be written is lost.
		if _, err := os.Lstat(out); err == nil {
			return clients.Client{}, fmt.Errorf("%q is there already: choose another file", out)
		}
	}
	c, token, err := s.clients.AddToken(s.ctx, n)
	if err != nil {
		return c, err
	}
	return c, s.handOver(c, n, func() error {
		if out == "" {
			_, err := fmt.Fprintf(s.out, "The token, which is not shown again:\n\n    %s\n\n", token.Reveal())
			return err
		}
		return keys.Create(out, []byte(token.Reveal()+"\n"))
	})
}

func (s *tokenSession) addCertificate(data string, n clients.New, csr, out string) (clients.Client, error) {
	file, err := readBounded(csr, pki.MaxRequest)
	if err != nil {
		return clients.Client{}, err
	}
	request, err := pki.ParseCSR(file)
	if err != nil {
		return clients.Client{}, fmt.Errorf("%s: %w", csr, err)
	}
	now := time.Now()
	cert, text, err := pki.CertifyAPIClient(data, s.keys, n.Name, request, now, n.Until.Sub(now))
	if err != nil {
		return clients.Client{}, err
	}
	c, err := s.clients.AddCertificate(s.ctx, n, cert)
	if err != nil {
		return c, err
	}
	return c, s.handOver(c, n, func() error { return keys.Replace(out, text) })
}

// handOver notes in the audit who let a client in, and hands over what it shows.
// Where either fails it is let in no more.
func (s *tokenSession) handOver(c clients.Client, n clients.New, give func() error) error {
	err := s.LetIn(s.ctx, registry.Change{By: n.By, Why: n.Why}, c.Name, shownScopes(c))
	if err == nil {
		err = give()
	}
	if err == nil {
		return nil
	}
	_, undone := s.clients.Revoke(s.ctx, c.Name, n.By, "it was not handed over")
	return errors.Join(fmt.Errorf("client %s is let in no more: what it shows was not handed over: %w", c.Name, err), undone)
}

func newTokenListCmd() *cobra.Command {
	var f registryFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the programs that may call the API, and those that might once",
		Example: "  gatehouse-crm token list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withClients(cmd, (*tokenSession).list)
		},
	}
	f.register(cmd)
	return cmd
}

func (s *tokenSession) list() error {
	list, err := s.clients.List(s.ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if !s.json {
		fmt.Fprintln(w, "CLIENT\tBY\tSCOPES\tUNTIL\tLAST USED\tSTATE\tMADE BY\tWHY")
	}
	now := time.Now()
	for _, c := range list {
		if s.json {
			if err := cli.PrintJSON(s.out, c); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Kind, shownScopes(c), s.shown(c.Until), cmp.Or(s.shown(c.Used), "never"), clientState(c, now), c.By, spelling.Printable(c.Why))
	}
	return w.Flush()
}

func shownScopes(c clients.Client) string {
	words := make([]string, len(c.Scopes))
	for i, s := range c.Scopes {
		words[i] = string(s)
	}
	return strings.Join(words, ",")
}

func clientState(c clients.Client, now time.Time) string {
	switch {
	case !c.Revoked.IsZero():
		return "revoked by " + c.RevokedBy
	case !c.Valid(now):
		return "ended"
	}
	return "valid"
}

func newTokenRevokeCmd() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:     "revoke NAME",
		Short:   "Let a program call the API no more, from its next request on",
		Example: "  gatehouse-crm token revoke crm --by m.jansen --why INC-12",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.withClients(cmd, func(s *tokenSession) error {
				c, err := s.clients.Revoke(s.ctx, args[0], f.change.By, f.change.Why)
				if err != nil {
					return err
				}
				if err := s.ShutOut(s.ctx, f.change, c.Name); err != nil {
					return err
				}
				if f.json {
					return cli.PrintJSON(s.out, c)
				}
				_, err = fmt.Fprintf(s.out, "Client %s is let in no more.\n", c.Name)
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}
