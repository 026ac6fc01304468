package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/decisionview"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/spf13/cobra"
)

func newAccessCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Say who would be let in where, and why",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newAccessExplainCmd())
	return cmd
}

// explainFlags are what an explanation is asked about.
type explainFlags struct {
	person, door, direction string
	at, factors             string
	in                      string
	ago                     time.Duration
	company                 []string
	occupants, threat       int
	begun                   bool
	clockUnset              bool
}

func newAccessExplainCmd() *cobra.Command {
	var f registryFlags
	var ask explainFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say step by step what would happen at a door, and why",
		Long: `Say step by step what would happen if a person came to a door, and why, factor by
factor: by what the registry says now, published or not. Nothing is opened, and
nothing recorded.

--factors is what the person has given so far. What the door's readers can take
is not known here: each factor counts as possible. Where the registry has no rules
for the door, the controller's configuration says what it asks for; here it then
asks for the badge.

How things stand at the door is as the flags say: where the person was last seen
to go (--in) and how long ago (--ago), who waits to pass together with them
(--with), how many others are in the area (--occupants), the level of threat, and
whether a supervisor has come in that day (--begun).`,
		Example: `  gatehouse-crm access explain --person p-1001 --door server-room-a
  gatehouse-crm access explain --person p-1001 --door server-room-a --at "2026-12-25 08:00" --factors badge+pin
  gatehouse-crm access explain --person v-17 --door server-room-a --with p-1001`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(s *registrySession) error { return s.explain(ask) })
		},
	}
	f.register(cmd)
	p := cmd.Flags()
	p.StringVar(&ask.person, "person", "", "the `id` of the person")
	p.StringVar(&ask.door, "door", "", "the `door`")
	p.StringVar(&ask.direction, "direction", string(access.In), "the way through the door: in or out")
	p.StringVar(&ask.at, "at", "", "the `time`: RFC 3339, or the site's own such as 2026-03-01T08:00 (default: now)")
	p.StringVar(&ask.factors, "factors", access.Badge.String(), "the `factors` that were given, joined by +")
	p.StringVar(&ask.in, "in", "", "the `area` that the person is in, by the records; outside: none (default: not known)")
	p.DurationVar(&ask.ago, "ago", time.Hour, "how `long` ago they went there")
	p.StringSliceVar(&ask.company, "with", nil, "a `person` who waits to pass together with this one; may be repeated")
	p.IntVar(&ask.occupants, "occupants", 0, "how many others are in the area")
	p.IntVar(&ask.threat, "threat", 0, fmt.Sprintf("the level of threat, 0 to %d; %[1]d is a lockdown", access.MaxThreat))
	p.BoolVar(&ask.begun, "begun", false, "a supervisor has come in that day")
	p.BoolVar(&ask.clockUnset, "clock-unset", false, "as if the controller did not know the time")
	cobra.CheckErr(cmd.MarkFlagRequired("person"))
	cobra.CheckErr(cmd.MarkFlagRequired("door"))
	return cmd
}

// outside is what --in says of somebody who is in no area.
const outside = "outside"

func (ask *explainFlags) query(zone *time.Location) (q access.Query, err error) {
	q = access.Query{
		Door: ask.door, Direction: access.Direction(ask.direction), At: time.Now(), Zone: zone, Clock: access.ClockSynchronised,
		Policy: access.Policy{Freshness: access.Fresh}, Possible: everyFactor,
	}
	var errs []error
	if q.Direction != access.In && q.Direction != access.Out {
		errs = append(errs, fmt.Errorf("--direction: %q is neither %q nor %q", ask.direction, access.In, access.Out))
	}
	if ask.at != "" {
		if q.At, err = fields.ParseMoment(ask.at, zone, false); err != nil {
			errs = append(errs, fmt.Errorf("--at: %w", err))
		}
	}
	if q.Given, err = access.ParseFactors(ask.factors); err != nil {
		errs = append(errs, fmt.Errorf("--factors: %w", err))
	}
	if ask.threat < 0 || ask.threat > int(access.MaxThreat) {
		errs = append(errs, fmt.Errorf("--threat: %d is not between 0 and %d", ask.threat, access.MaxThreat))
	}
	if ask.occupants < 0 {
		errs = append(errs, fmt.Errorf("--occupants: %d is less than none", ask.occupants))
	}
	if ask.clockUnset {
		q.Clock = access.ClockUnset
	}
	q.Situation = access.Situation{
		Threat: access.Threat(ask.threat), Occupants: ask.occupants, Begun: ask.begun,
	}
	if ask.in != "" {
		q.Where = access.Whereabouts{Known: true, Area: ask.in, Ago: ask.ago}
	}
	if ask.in == outside {
		q.Where.Area = ""
	}
	return q, errors.Join(errs...)
}

func (s *registrySession) explain(ask explainFlags) error {
	q, err := ask.query(s.zone)
	if err != nil {
		return err
	}
	person, err := s.People.Get(s.ctx, ask.person)
	if err != nil {
		return err
	}
	door, err := s.Doors.Get(s.ctx, ask.door)
	if err != nil {
		return err
	}
	book, err := s.book(s.ctx, door.Value.Controller, append([]string{ask.person}, ask.company...))
	if err != nil {
		return err
	}
	q.Rules, q.Site = book.Rules(ask.door, q.Direction), book.Site(ask.door)
	if q.Company, err = company(&q, book, ask.company); err != nil {
		return err
	}
	var shown decisionview.Explanation
	for i, e := range append(book.Entries(ask.person, q.Given), nil) {
		if e == nil && i > 0 {
			break
		}
		q.Entry = e
		if each := decisionview.Explain(&q); i == 0 || each.Decision > shown.Decision { // granted is above denied
			shown = each
		}
	}
	shown.Who = s.who(&person.Value, len(book.Entries(ask.person, everyFactor)))
	return shown.Print(s.out, s.json)
}

const everyFactor = ^access.Factor(0)

// company are the entries of people who wait at the door.
func company(q *access.Query, book *allowlist.Book, people []string) ([]*access.Entry, error) {
	var company []*access.Entry
	for _, id := range people {
		entries := book.Entries(id, everyFactor)
		n := slices.IndexFunc(entries, func(e *access.Entry) bool { return decisionview.Waits(q, e) })
		if n < 0 {
			return nil, fmt.Errorf("--with: %s has no credential that lets them pass here now: `access explain --person %[1]s` says why", id)
		}
		company = append(company, entries[n])
	}
	return company, nil
}

// who is the person in words, with what the doors do not know.
func (s *registrySession) who(p *registry.Person, credentials int) string {
	text := fmt.Sprintf("%s is %s", p.ID, spelling.Printable(p.Name))
	if p.Name == "" {
		text = p.ID + " has no name"
	}
	switch {
	case !p.Left.IsZero():
		text += ", who left on " + p.Left.In(s.zone).Format(time.DateOnly)
	case p.Kind == access.Visitor:
		text += ", a visitor: a badge or a code counts from check-in to the visit's end"
	case len(p.Groups) == 0:
		text += ", and is in no group"
	default:
		text += ", in " + strings.Join(p.Groups, ", ")
	}
	switch credentials {
	case 0:
		return text + "; this door's controller is told of no credential of theirs"
	case 1:
		return text
	}
	return fmt.Sprintf("%s; of %d credentials, the one that opens if any does", text, credentials)
}

// book is what the doors of a controller would be told of some people.
func (s *registrySession) book(ctx context.Context, controller string, people []string) (*allowlist.Book, error) {
	book := allowlist.NewBook(s.pepper)
	words, err := s.Look(ctx, controller, people, book.Add)
	if err != nil {
		return nil, err
	}
	return book, book.Close(words)
}
