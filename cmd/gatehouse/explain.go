package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

// explainFlags are what an explanation is asked about.
type explainFlags struct {
	badge, door, at      string
	clockUnset, lockdown bool
	asJSON               bool
}

func newAllowlistExplainCmd() *cobra.Command {
	var flags allowlistFlags
	var ask explainFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say step by step what would happen at a door, and why",
		Long: `Say step by step what would happen if a badge were presented at a door, and why.
Nothing is opened and nothing recorded.

Without --badge, or with --badge -, the badge is read from standard input, so
that its number stands in no list of processes and no shell history.`,
		Example: `  gatehouse allowlist explain --badge H10301:123:4567 --door server-room-a
  gatehouse allowlist explain --door server-room-a --at "2026-12-25 08:00" <badge.txt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			site, err := flags.open()
			if err != nil {
				return err
			}
			return site.explain(cmd.Context(), ask, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&ask.badge, "badge", "-", "the badge as `FORMAT:facility:number[:issue[:oem]]`, or FORMAT:number where the format has no facility")
	f.StringVar(&ask.door, "door", "", "the `door`")
	f.StringVar(&ask.at, "at", "", "the `time`: RFC 3339, or the site's own such as 2026-03-01T08:00 (default: now)")
	f.BoolVar(&ask.clockUnset, "clock-unset", false, "as if the controller's clock had not been set since it started")
	f.BoolVar(&ask.lockdown, "lockdown", false, "as if the door were in lockdown")
	f.BoolVar(&ask.asJSON, "json", false, "one JSON object")
	if err := cmd.MarkFlagRequired("door"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

type explanation struct {
	Door       string          `json:"door"`
	At         time.Time       `json:"at"`
	Decision   string          `json:"decision"`
	Reason     access.Reason   `json:"reason"`
	Meaning    string          `json:"meaning"`
	Action     string          `json:"action"`
	Policy     uint64          `json:"policy_version"`
	Credential *credentialJSON `json:"credential,omitempty"`
	Steps      []access.Step   `json:"steps"`
}

func (s *allowlistSite) explain(ctx context.Context, ask explainFlags, stdin io.Reader, stdout, stderr io.Writer) error {
	at := time.Now()
	if ask.at != "" {
		var err error
		if at, err = allowlist.ParseMoment(ask.at, s.zone); err != nil {
			return fmt.Errorf("--at: %w", err)
		}
	}
	text := ask.badge
	if text == "-" {
		line, err := bufio.NewReader(io.LimitReader(stdin, 1024)).ReadString('\n')
		if err != nil && err != io.EOF {
			return err
		}
		text = strings.TrimSpace(line)
	}
	c, err := parseBadge(s.formats, text)
	if err != nil {
		return err
	}
	q := access.Query{Door: ask.door, Direction: access.In, At: at, Zone: s.zone, Clock: access.ClockSynchronised, Lockdown: ask.lockdown}
	if ask.clockUnset {
		q.Clock = access.ClockUnset
	}
	found, err := s.lookup(ctx, c, &q, stderr)
	if err != nil {
		return err
	}
	steps, d := access.Explain(&q)
	told, _ := d.Reason.Text()
	e := explanation{Door: ask.door, At: at.In(s.zone), Decision: "denied", Reason: d.Reason, Meaning: told.Meaning, Action: told.Action,
		Policy: q.Policy.Version, Steps: steps}
	if d.Granted {
		e.Decision = "granted"
	}
	if found != nil {
		e.Credential = shownCredential(found)
	}
	if ask.asJSON {
		return cli.PrintJSON(stdout, e)
	}
	return e.print(stdout)
}

// lookup fills in what the allowlist says. That it cannot be trusted is part
// of the explanation.
func (s *allowlistSite) lookup(ctx context.Context, c badge.Credential, q *access.Query, stderr io.Writer) (_ *allowlist.Listed, err error) {
	q.Policy.Freshness = access.Absent
	untrusted := func(err error) (*allowlist.Listed, error) {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, allowlist.ErrNotTrusted) {
			fmt.Fprintln(stderr, err)
			return nil, nil
		}
		return nil, err
	}
	l, err := allowlist.Open(s.path, s.keys)
	if err != nil {
		return untrusted(err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	progress := cli.NewProgress(stderr, "checking", int64(l.Size()))
	err = l.Check(ctx, progress.Add)
	progress.Done()
	if err != nil {
		return untrusted(err)
	}
	found, err := l.Find(c)
	if err != nil {
		return untrusted(err)
	}
	// Its age is today's, also where another day is asked about: whether it will
	// have been renewed by then is not known.
	q.Policy = s.ladder.Policy(l.Version(), time.Since(l.Applied()))
	if found != nil {
		q.Entry = &found.Entry
	}
	return found, nil
}

func (e explanation) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "At door %s on %s:\n", e.Door, e.At.Format("Mon 2006-01-02 15:04 MST"))
	for _, s := range e.Steps {
		mark := "ok"
		if !s.OK {
			mark = "NO"
		}
		fmt.Fprintf(&b, "  %s  %s\n", mark, s.Text)
	}
	if e.Credential != nil && e.Credential.Name != "" {
		fmt.Fprintf(&b, "%s is %s.\n", e.Credential.Person, e.Credential.Name)
	}
	verdict := "Denied: " + string(e.Reason)
	switch e.Reason {
	case access.ReasonGranted:
		verdict = "Granted"
	case access.ReasonGrantedBreakGlass:
		verdict = "Granted: " + string(e.Reason)
	}
	fmt.Fprintf(&b, "%s. %s\n", verdict, e.Meaning)
	if e.Decision == "denied" || e.Reason == access.ReasonGrantedBreakGlass {
		fmt.Fprintf(&b, "What to do: %s\n", e.Action)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// parseBadge reads FORMAT:facility:number[:issue[:oem]], or FORMAT:number. No
// error holds a number.
func parseBadge(formats *badge.Table, s string) (badge.Credential, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok {
		return badge.Credential{}, fmt.Errorf("no badge: write FORMAT:facility:number")
	}
	f, err := formats.Find(name)
	if err != nil {
		return badge.Credential{}, err
	}
	c := f.New()
	fields := []*uint64{&c.Facility, &c.Number, &c.Issue, &c.OEM}
	numbers := strings.Split(rest, ":")
	if len(numbers) == 1 {
		fields = fields[1:2]
	}
	if len(numbers) > len(fields) {
		return badge.Credential{}, fmt.Errorf("the badge has %d numbers, at most %d are there", len(numbers), len(fields))
	}
	for i, n := range numbers {
		v, err := strconv.ParseUint(n, 10, 64)
		if err != nil {
			return badge.Credential{}, fmt.Errorf("the badge's number %d is not a whole number in decimal digits: write FORMAT:facility:number", i+1)
		}
		*fields[i] = v
	}
	if len(numbers) == 1 && needsFacility(f) {
		return badge.Credential{}, fmt.Errorf("a badge of format %s has a facility: write %s:facility:number", f.Name(), f.Name())
	}
	if _, err := f.Encode(c); err != nil {
		return badge.Credential{}, err
	}
	return c, nil
}

func needsFacility(f *badge.Format) bool {
	for _, field := range f.Fields() {
		if field.Name == "facility" && !field.Fixed {
			return true
		}
	}
	return false
}
