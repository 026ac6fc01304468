package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/badgeview"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/decisionview"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/spf13/cobra"
)

// explainFlags are what an explanation is asked about.
type explainFlags struct {
	badge, person        string
	door, at, factors    string
	direction            string
	code                 bool
	clockUnset, lockdown bool
	situation            situationFlags
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
that its number stands in no list of processes and no shell history. --person is
somebody who was identified by a finger or an eye, without a badge, and --code one
who typed a one-time code: its digits are read from standard input.

--factors is what the person has given so far. With --config, the door's readers
say what it can take, and the configuration what it asks for where the allowlist
has no rules for it; otherwise it can take every factor, and then asks for the
badge. Whether fingers and eyes of the person were enrolled is not looked at, nor
whether somebody is locked out.

What the daemon keeps is asked for: the level of threat, where the person is, how
many are in, who waits to pass together. Without these flags nothing of that stands
in the way, and nobody else is there.`,
		Example: `  gatehouse allowlist explain --badge H10301:123:4567 --door server-room-a
  gatehouse allowlist explain --door server-room-a --factors badge+fingerprint <badge.txt
  gatehouse allowlist explain --door server-room-a --direction out --where vault <badge.txt
  gatehouse allowlist explain --door server-room-a --company p-1001 --threat 2 <badge.txt
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
	f.StringVar(&ask.person, "person", "", "instead of a badge: the `id` of somebody who was identified by a finger or an eye")
	f.StringVar(&ask.factors, "factors", "", "the `factors` that were given, joined by + (default: badge)")
	f.StringVar(&ask.door, "door", "", "the `door`")
	f.StringVar(&ask.direction, "direction", string(access.In), "the way through the door: in or out")
	f.StringVar(&ask.at, "at", "", "the `time`: RFC 3339, or the site's own such as 2026-03-01T08:00 (default: now)")
	f.BoolVar(&ask.code, "code", false, "instead of a badge: a one-time code, read from standard input")
	f.BoolVar(&ask.clockUnset, "clock-unset", false, "as if the controller's clock had not been set since it started")
	f.BoolVar(&ask.lockdown, "lockdown", false, "as if the door were in lockdown")
	f.BoolVar(&ask.asJSON, "json", false, "one JSON object")
	ask.situation.register(cmd)
	if err := cmd.MarkFlagRequired("door"); err != nil {
		panic(err) // the flag is defined above
	}
	cmd.MarkFlagsMutuallyExclusive("badge", "person", "code")
	return cmd
}

func (s *allowlistSite) explain(ctx context.Context, ask explainFlags, stdin io.Reader, stdout, stderr io.Writer) error {
	at := time.Now()
	if ask.at != "" {
		var err error
		if at, err = fields.ParseMoment(ask.at, s.zone, false); err != nil {
			return fmt.Errorf("--at: %w", err)
		}
	}
	side := access.Direction(ask.direction)
	if side != access.In && side != access.Out {
		return fmt.Errorf("--direction: %q is neither %q nor %q", ask.direction, access.In, access.Out)
	}
	q := access.Query{Door: ask.door, Direction: side, At: at, Zone: s.zone, Clock: access.ClockSynchronised, Lockdown: ask.lockdown, Given: access.Badge}
	if ask.clockUnset {
		q.Clock = access.ClockUnset
	}
	if ask.code {
		q.Given = access.OneTimeCode
	}
	if err := ask.situation.fill(&q); err != nil {
		return err
	}
	if ask.factors != "" {
		var err error
		if q.Given, err = access.ParseFactors(ask.factors); err != nil {
			return fmt.Errorf("--factors: %w", err)
		}
	}
	if ask.person != "" && q.Given&(access.Fingerprint|access.Iris) == 0 {
		return fmt.Errorf("--person is somebody who was identified by a finger or an eye: say with --factors what was given, such as fingerprint")
	}
	find, err := ask.finder(s, stdin)
	if err != nil {
		return err
	}
	found, err := s.lookup(ctx, find, &q, &ask.situation, stderr)
	if err != nil {
		return err
	}
	e := decisionview.Explain(&q)
	if found != nil {
		e.Credential = shownCredential(found)
		if found.Name != "" {
			e.Who = found.Person + " is " + found.Name
		}
	}
	return e.Print(stdout, ask.asJSON)
}

// finder is how the person is found on an allowlist.
func (ask explainFlags) finder(s *allowlistSite, stdin io.Reader) (func(*allowlist.List) (*allowlist.Listed, error), error) {
	if ask.person != "" {
		return func(l *allowlist.List) (*allowlist.Listed, error) { return l.FindPerson(ask.person) }, nil
	}
	if ask.code {
		return typedCode(stdin)
	}
	text := ask.badge
	if text == "-" {
		var err error
		if text, err = firstLine(stdin); err != nil {
			return nil, err
		}
	}
	c, err := badgeview.ParseCard(s.formats, text)
	if err != nil {
		return nil, err
	}
	return func(l *allowlist.List) (*allowlist.Listed, error) { return l.Find(c) }, nil
}

// firstLine is the first line of what comes from outside, without blanks around it.
func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 1024)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// asks fills in what the door asks for, and what it can take of this person.
func (s *allowlistSite) asks(q *access.Query, rules []access.Rule) {
	q.Rules, q.Possible = rules, access.Badge|access.Fingerprint|access.Iris|keypad
	if n := slices.IndexFunc(s.doors, func(d config.Door) bool { return d.Name == q.Door }); n >= 0 {
		door := &s.doors[n]
		q.Possible, q.Weak = takes(door, q.Direction)
		if rules == nil {
			q.Rules = ownRules(door)[q.Direction]
		}
	}
	if q.Entry == nil || q.Entry.PIN == nil {
		q.Possible &^= access.PIN
	}
	if q.Entry == nil || q.Entry.TOTP == nil || q.Clock == access.ClockUnset {
		q.Possible &^= access.TOTP
	}
}

// keypad are the factors that somebody types.
const keypad = access.PIN | access.OneTimeCode | access.TOTP

// takes are the factors that a side of a door can take, and of them those that
// may not open it alone.
func takes(door *config.Door, side access.Direction) (possible, weak access.Factor) {
	for i := range door.Readers {
		r := &door.Readers[i]
		if r.Direction != side {
			continue
		}
		possible |= r.Proves()
		if !r.Alone() {
			weak |= r.Proves()
		}
		if encoding, _ := r.Device.Keys(); encoding != "" {
			possible |= keypad
		}
	}
	for i := range door.Scanners {
		s := &door.Scanners[i]
		if s.Direction != side {
			continue
		}
		possible |= access.Factor(s.Factor)
		if !s.Alone() {
			weak |= access.Factor(s.Factor)
		}
	}
	return possible, weak
}

// lookup fills in what the allowlist says. That it cannot be trusted is part
// of the explanation.
func (s *allowlistSite) lookup(ctx context.Context, find func(*allowlist.List) (*allowlist.Listed, error), q *access.Query,
	situation *situationFlags, stderr io.Writer) (_ *allowlist.Listed, err error) {
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
	found, err := find(l)
	if err != nil {
		return untrusted(err)
	}
	// Its age is today's, also where another day is asked about: whether it will
	// have been renewed by then is not known.
	q.Site = l.Site(q.Door)
	ladder := s.ladder
	if q.Site != nil && q.Site.Age != nil {
		ladder = allowlist.Ladder(*q.Site.Age)
	}
	q.Policy = ladder.Policy(l.Version(), time.Since(l.Current()))
	if found != nil {
		q.Entry = &found.Entry
	}
	s.asks(q, l.Rules(q.Door, q.Direction))
	return found, situation.find(ctx, l, q)
}
